"""Requests as smbprotocol decodes them, and answers as it packs them: another reading of the same specification."""

from __future__ import annotations

import errno
import struct
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smbprotocol.file_info import FileDirectoryInformation
from smbprotocol.header import SMB2HeaderRequest
from smbprotocol.open import (
    SMB2CloseRequest,
    SMB2CloseResponse,
    SMB2CreateRequest,
    SMB2CreateResponse,
    SMB2FlushRequest,
    SMB2QueryDirectoryRequest,
    SMB2QueryInfoRequest,
    SMB2ReadRequest,
    SMB2ReadResponse,
    SMB2SetInfoRequest,
    SMB2WriteRequest,
    SMB2WriteResponse,
)
from smbprotocol.structure import Structure

from dvc_smb.smb2 import messages, status
from dvc_smb.smb2.errors import Busy, Disconnected, ProtocolError
from dvc_smb.smb2.messages import Request

FILE = bytes(range(16))
unhurried = settings(deadline=None, max_examples=50)
WHEN = datetime(2024, 2, 29, 12, 30, 15, 250_000, tzinfo=UTC)

file_ids = st.binary(min_size=16, max_size=16)
offsets = st.integers(0, 2**63 - 1)
lengths = st.integers(0, 8 << 20)
names = st.text(
    st.characters(codec="utf-16", exclude_characters='\\/:*?"<>|', min_codepoint=32), min_size=1, max_size=60
)


def decoded(kind: type[Structure], request: Request) -> dict[str, object]:
    """Return the fields of a request as smbprotocol reads them; nothing may be left over."""
    structure = kind()
    assert request.command == kind.COMMAND
    assert structure.unpack(request.body + bytes(request.data)) == b""
    return {name: field.get_value() for name, field in structure.fields.items()}


def answer(structure: Structure | bytes) -> memoryview:
    """Return a message with an empty header before what a server says."""
    return memoryview(bytes(64) + (structure if isinstance(structure, bytes) else structure.pack()))


@unhurried
@given(path=st.lists(names, max_size=4), access=st.integers(0, 2**28), options=st.sampled_from([0, 1, 4, 0x40, 0x1000]))
def test_create_is_what_smbprotocol_reads(path: list[str], access: int, options: int) -> None:
    fields = decoded(SMB2CreateRequest, messages.create("/".join(path), access, messages.OVERWRITE, options))

    assert fields["buffer_path"] == ("\\".join(path).encode("utf-16-le") or b"\0\0")
    assert (fields["desired_access"], fields["create_options"]) == (access, options)
    assert (fields["create_disposition"], fields["impersonation_level"]) == (4, 2)
    assert fields["share_access"] == 7
    assert fields["name_offset"] == 120


@unhurried
@given(file_id=file_ids, offset=offsets, length=lengths)
def test_read_is_what_smbprotocol_reads(file_id: bytes, offset: int, length: int) -> None:
    request = messages.read(file_id, offset, length)
    fields = decoded(SMB2ReadRequest, request)

    assert (fields["file_id"], fields["offset"], fields["length"]) == (file_id, offset, length)
    assert (request.charge - 1) * 65536 < max(1, length) <= request.charge * 65536


@unhurried
@given(file_id=file_ids, offset=offsets, data=st.binary(max_size=300))
def test_write_is_what_smbprotocol_reads(file_id: bytes, offset: int, data: bytes) -> None:
    fields = decoded(SMB2WriteRequest, messages.write(file_id, offset, data))

    assert (fields["file_id"], fields["offset"], fields["buffer"]) == (file_id, offset, data)
    assert fields["data_offset"] == 112


def test_small_requests_are_what_smbprotocol_reads() -> None:
    assert decoded(SMB2CloseRequest, messages.close(FILE, query=True))["flags"] == 1
    assert decoded(SMB2CloseRequest, messages.close(FILE))["file_id"] == FILE
    assert decoded(SMB2FlushRequest, messages.flush(FILE))["file_id"] == FILE
    listing = decoded(SMB2QueryDirectoryRequest, messages.listing(FILE, 70000, pattern="a*", restart=True))
    assert (listing["file_information_class"], listing["flags"], listing["output_buffer_length"]) == (1, 1, 70000)
    assert listing["buffer"] == "a*".encode("utf-16-le")
    space = decoded(SMB2QueryInfoRequest, messages.space(FILE))
    assert (space["info_type"], space["file_info_class"], space["output_buffer_length"]) == (2, 7, 32)


@pytest.mark.parametrize("replace", [False, True])
@unhurried
@given(path=names)
def test_rename_is_what_smbprotocol_reads(replace: bool, path: str) -> None:
    fields = decoded(SMB2SetInfoRequest, messages.rename(FILE, f"dir/{path}", replace=replace))
    value = fields["buffer"]
    assert isinstance(value, bytes)
    (length,) = struct.unpack_from("<I", value, 16)

    assert (fields["info_type"], fields["file_info_class"], value[0]) == (1, 10, replace)
    assert value[20 : 20 + length].decode("utf-16-le") == f"dir\\{path}"
    assert len(value) >= 24


@pytest.mark.parametrize("bad", ["a\\b", "a:stream", "what?", "a*", 'a"b', "<", ">", "|", "line\nfeed", "nul\0"])
def test_names_that_smb_forbids_are_refused_before_they_mean_something_else(bad: str) -> None:
    with pytest.raises(OSError, match="SMB allows no") as caught:
        messages.create(f"dir/{bad}", messages.READ_DATA)
    assert caught.value.errno == errno.EINVAL


def test_path_longer_than_smb_allows_is_refused() -> None:
    with pytest.raises(OSError, match="32,767") as caught:
        messages.create("x" * 40000, messages.READ_DATA)
    assert caught.value.errno == errno.ENAMETOOLONG


@unhurried
@given(size=offsets, attributes=st.sampled_from([0x10, 0x20, 0x80]))
def test_opened_file_is_what_smbprotocol_packed(size: int, attributes: int) -> None:
    structure = SMB2CreateResponse()
    structure["end_of_file"] = size
    structure["file_attributes"] = attributes
    structure["file_id"] = FILE
    structure["last_write_time"] = WHEN
    structure["creation_time"] = WHEN

    opened = messages.parse_create(answer(structure))

    assert (opened.file_id, opened.size, opened.is_directory) == (FILE, size, attributes == 0x10)
    assert opened.modified == pytest.approx(WHEN.timestamp(), abs=1e-5)
    assert opened.created == pytest.approx(WHEN.timestamp(), abs=1e-5)


@unhurried
@given(data=st.binary(max_size=500))
def test_read_bytes_are_what_smbprotocol_packed(data: bytes) -> None:
    structure = SMB2ReadResponse()
    structure["data_offset"] = 80
    structure["buffer"] = data
    assert bytes(messages.parse_read(answer(structure))) == data


def test_written_and_closed_are_what_smbprotocol_packed() -> None:
    written = SMB2WriteResponse()
    written["count"] = 4711
    assert messages.parse_write(answer(written)) == 4711
    closed = SMB2CloseResponse()
    closed["end_of_file"] = 12345
    closed["file_attributes"] = 0x20
    closed["last_write_time"] = WHEN
    assert messages.parse_close(answer(closed))[:2] == (12345, 0x20)


def listing_of(entries: list[tuple[str, int]]) -> bytes:
    """Return the buffer of a QUERY_DIRECTORY answer, packed by smbprotocol."""
    packed = []
    for name, size in entries:
        entry = FileDirectoryInformation()
        entry["end_of_file"] = size
        entry["file_name"] = name.encode("utf-16-le")
        packed.append(entry.pack())
    for number, data in enumerate(packed[:-1]):
        padded = data + bytes(-len(data) % 8)
        packed[number] = struct.pack("<I", len(padded)) + padded[4:]
    return b"".join(packed)


def listing_answer(buffer: bytes) -> memoryview:
    return answer(struct.pack("<HHI", 9, 72, len(buffer)) + buffer)


@unhurried
@given(entries=st.lists(st.tuples(names, offsets), min_size=1, max_size=8))
def test_listing_is_what_smbprotocol_packed(entries: list[tuple[str, int]]) -> None:
    expected = [entry for entry in entries if entry[0] not in (".", "..")]

    found = messages.parse_listing(listing_answer(listing_of([(".", 0), *entries, ("..", 0)])))

    assert [(entry.name, entry.size) for entry in found] == expected


@pytest.mark.parametrize("name", ["../escape", "a/b", "..\\escape", "/etc/passwd", "nul\0"])
def test_listed_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ProtocolError, match="impossible name"):
        messages.parse_listing(listing_answer(listing_of([("fine", 1), (name, 1)])))


def test_listing_whose_entries_point_back_or_beyond_is_refused() -> None:
    whole = bytearray(listing_of([("first", 1), ("second", 2)]))
    for following in (1, 4, 8, 63, 2**31, 2**32 - 1):
        struct.pack_into("<I", whole, 0, following)
        with pytest.raises(ProtocolError):
            messages.parse_listing(listing_answer(bytes(whole)))


PARSERS = [
    messages.parse_create,
    messages.parse_read,
    messages.parse_write,
    messages.parse_close,
    messages.parse_listing,
    messages.parse_space,
]


@pytest.mark.parametrize("parse", PARSERS)
@unhurried
@given(message=st.binary(max_size=400), kind=st.sampled_from([89, 17, 60, 9, None]))
def test_parsers_return_or_refuse_whatever_arrives(parse, message: bytes, kind: int | None) -> None:
    if kind is not None:  # past the first check
        message = bytes(64) + struct.pack("<H", kind) + message
    with suppress(ProtocolError):
        parse(memoryview(message))


@unhurried
@given(data=st.binary(min_size=1, max_size=200), cut=st.integers(0, 300))
def test_parsers_never_read_beyond_the_message(data: bytes, cut: int) -> None:
    structure = SMB2ReadResponse()
    structure["data_offset"] = 80
    structure["buffer"] = data
    message = answer(structure)[:cut]
    try:
        assert bytes(messages.parse_read(message)) == data
    except ProtocolError:
        assert cut < 80 + len(data)


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (0xC0000034, FileNotFoundError, errno.ENOENT),
        (0xC000003A, FileNotFoundError, errno.ENOENT),
        (0xC0000035, FileExistsError, errno.EEXIST),
        (0xC0000022, PermissionError, errno.EACCES),
        (0xC000007F, OSError, errno.ENOSPC),
        (0xC0000044, OSError, errno.EDQUOT),
        (0xC00000A2, OSError, errno.EROFS),
        (0xC0000043, OSError, errno.EBUSY),
        (0xC0000101, OSError, errno.ENOTEMPTY),
        (0xC00000BA, IsADirectoryError, errno.EISDIR),
        (0xC0000103, NotADirectoryError, errno.ENOTDIR),
        (0xC0000106, OSError, errno.ENAMETOOLONG),
        (0xC0000033, OSError, errno.EINVAL),
        (0xC0000203, Disconnected, errno.ECONNRESET),
        (0xC00000C9, Disconnected, errno.ECONNRESET),
        (0xC000009A, Busy, errno.EAGAIN),
        (0xC0000205, Busy, errno.EAGAIN),
    ],
)
def test_status_becomes_the_error_python_knows(number: int, kind: type[OSError], code: int) -> None:
    error = status.os_error(number, "dir/file")
    assert isinstance(error, kind)
    assert error.errno == code
    assert "dir/file" in str(error)


def test_unknown_status_is_told_by_its_number() -> None:
    error = status.os_error(0xC0DE0001, "x")
    assert error.errno == errno.EIO
    assert "0xc0de0001" in str(error)


def test_status_names_are_those_of_smbprotocol() -> None:
    from smbprotocol.header import NtStatus

    for name, number in vars(NtStatus).items():
        if name.startswith("STATUS_") and number in status.NAMES:
            assert status.NAMES[number] == name


def test_header_is_what_smbprotocol_reads() -> None:
    from dvc_smb.smb2.header import HEADER, MARK

    header = SMB2HeaderRequest()
    header.unpack(HEADER.pack(MARK, 64, 3, 0, 8, 17, 12, 256, 2**40, 0, 77, 2**50, b"s" * 16) + b"body")
    values = {name: field.get_value() for name, field in header.fields.items()}
    assert (values["credit_charge"], values["command"], values["credit_request"]) == (3, 8, 17)
    assert (values["next_command"], values["message_id"], values["tree_id"]) == (256, 2**40, 77)
    assert (values["session_id"], values["signature"]) == (2**50, b"s" * 16)
