"""Requests and answers of [MS-SMB2] section 2.2, as bytes. Numbers are little-endian, names UTF-16-LE.

Builders return a :class:`Request` without its header, which the connection adds. Parsers take a whole message, header
included, trust no offset or length in it and raise :class:`ProtocolError`. Paths are relative to the share and have
``/`` between their parts; ``""`` is the share's root. Times are seconds since 1970, sizes and offsets bytes.
"""

from __future__ import annotations

import errno
import re
from struct import Struct
from typing import NamedTuple

from dvc_smb.smb2.errors import ProtocolError

HEADER_SIZE = 64
#: What one credit pays for ([MS-SMB2] 3.2.4.1.5).
CREDIT_SIZE = 65536

# Commands, 2.2.1.2.
NEGOTIATE, SESSION_SETUP, LOGOFF, TREE_CONNECT, CREATE, CLOSE, FLUSH, READ, WRITE = 0, 1, 2, 3, 5, 6, 7, 8, 9
IOCTL, CANCEL, ECHO, QUERY_DIRECTORY, QUERY_INFO, SET_INFO, OPLOCK_BREAK = 11, 12, 13, 14, 16, 17, 18

#: In a compound: the file that the request before it has opened (3.2.4.1.4).
RELATED_FILE = b"\xff" * 16

# Access masks, 2.2.13.1.1.
READ_ATTRIBUTES, DELETE = 0x80, 0x10000
READ_DATA = 0x120089  # FILE_GENERIC_READ
WRITE_DATA = 0x120116  # FILE_GENERIC_WRITE
LIST_DIRECTORY = 0x100081  # FILE_LIST_DIRECTORY, READ_ATTRIBUTES, SYNCHRONIZE

# Dispositions, 2.2.13: what happens if the file exists or not.
OPEN, CREATE_NEW, OPEN_OR_CREATE, OVERWRITE, OVERWRITE_OR_CREATE = 1, 2, 3, 4, 5

# Options, 2.2.13.
DIRECTORY, SEQUENTIAL, NOT_DIRECTORY, DELETE_ON_CLOSE, OPEN_LINK = 0x1, 0x4, 0x40, 0x1000, 0x200000

# Attributes, [MS-FSCC] 2.6.
ATTRIBUTE_DIRECTORY, ATTRIBUTE_NORMAL, ATTRIBUTE_REPARSE_POINT = 0x10, 0x80, 0x400

# What others may do with an open file meanwhile, 2.2.13.
SHARE_ALL, SHARE_READ_WRITE = 7, 3

_IMPERSONATION = 2
_EPOCH = 11_644_473_600  # seconds from 1601, where FILETIME starts, to 1970
_FORBIDDEN = re.compile(r'[\\:*?"<>|\x00-\x1f]')  # [MS-FSCC] 2.1.5: "a:b" would open a stream of a

_CREATE = Struct("<HBBIQQIIIIIHHII")
_READ = Struct("<HBBIQ16sIIIHHB")
_WRITE = Struct("<HHIQ16sIIHHI")
_CLOSE = Struct("<HHI16s")
_QUERY_DIRECTORY = Struct("<HBBI16sHHI")
_QUERY_INFO = Struct("<HBBIHHIII16s")
_SET_INFO = Struct("<HBBIHHI16s")
_RENAME = Struct("<B7xQI")
_BASIC = Struct("<QQQQII")

_OPENED = Struct("<HBBIQ8xQ16xQI4x16s")
_READ_ANSWER = Struct("<HBBI")
_WRITE_ANSWER = Struct("<HHI")
_CLOSED = Struct("<HHI8x8xQ8x8xQI")
_OUTPUT = Struct("<HHI")
_ENTRY = Struct("<IIQQQQQQII")
_SPACE = Struct("<QQQII")


class Request(NamedTuple):
    """One request without its header.

    Attributes:
        command: as in the header.
        charge: credits that it costs (3.2.4.1.5).
        body: what follows the header.
        data: what follows the body, kept apart so that it is copied once.
    """

    command: int
    charge: int
    body: bytes
    data: bytes | bytearray | memoryview = b""


class Opened(NamedTuple):
    """A file or directory that a server has opened (2.2.14)."""

    file_id: bytes
    size: int
    attributes: int
    modified: float
    created: float

    @property
    def is_directory(self) -> bool:
        return bool(self.attributes & ATTRIBUTE_DIRECTORY)


class Closed(NamedTuple):
    """What a file was when it was closed (2.2.16); zeros unless asked for."""

    size: int
    attributes: int
    modified: float


class Entry(NamedTuple):
    """One name in a directory ([MS-FSCC] 2.4.10)."""

    name: str
    size: int
    attributes: int
    modified: float
    created: float

    @property
    def is_directory(self) -> bool:
        return bool(self.attributes & ATTRIBUTE_DIRECTORY)


def charge(payload: int) -> int:
    """Return the credits that a request of ``payload`` bytes, sent or asked for, costs (3.2.4.1.5)."""
    return max(1, -(-payload // CREDIT_SIZE))


def encode_path(path: str) -> bytes:
    """Return a path as SMB writes it.

    Raises:
        OSError: EINVAL, SMB cannot express a character of it; ENAMETOOLONG.
    """
    if bad := _FORBIDDEN.search(path):
        raise OSError(errno.EINVAL, f"SMB allows no {bad.group()!r} in names: rename the file", path)
    encoded = path.strip("/").replace("/", "\\").encode("utf-16-le", "surrogatepass")
    if len(encoded) > 0xFFFE:
        raise OSError(errno.ENAMETOOLONG, "the path is longer than the 32,767 characters that SMB allows", path)
    return encoded


def create(path: str, access: int, disposition: int = OPEN, options: int = 0, *, sharing: int = SHARE_ALL) -> Request:
    """Open, or make, a file or directory; ``sharing`` is what others may do with it meanwhile (2.2.13)."""
    name = encode_path(path)
    body = _CREATE.pack(
        57, 0, 0, _IMPERSONATION, 0, 0, access, ATTRIBUTE_NORMAL, sharing, disposition, options, 120, len(name), 0, 0
    )
    return Request(CREATE, 1, body + (name or b"\0\0"))


def read(file_id: bytes, offset: int, length: int) -> Request:
    """Read up to ``length`` bytes (2.2.19); at the file's end the answer is STATUS_END_OF_FILE."""
    return Request(READ, charge(length), _READ.pack(49, 0x50, 0, length, offset, file_id, 0, 0, 0, 0, 0, 0))


def write(file_id: bytes, offset: int, data: bytes | bytearray | memoryview) -> Request:
    """Write all of ``data``, a buffer of single bytes (2.2.21)."""
    length = len(data)
    return Request(WRITE, charge(length), _WRITE.pack(49, 112, length, offset, file_id, 0, 0, 0, 0, 0), data)


def close(file_id: bytes, *, query: bool = False) -> Request:
    """Close a file (2.2.15); with ``query`` the answer tells its size and time."""
    return Request(CLOSE, 1, _CLOSE.pack(24, query, 0, file_id))


def flush(file_id: bytes) -> Request:
    """Have the server write a file to its disk (2.2.17)."""
    return Request(FLUSH, 1, _CLOSE.pack(24, 0, 0, file_id))


def rename(file_id: bytes, path: str, *, replace: bool) -> Request:
    """Move an open file, opened with ``DELETE`` access, to ``path`` ([MS-FSCC] 2.4.42.2)."""
    name = encode_path(path)
    return _set_info(file_id, 10, (_RENAME.pack(replace, 0, len(name)) + name).ljust(24, b"\0"))


def delete(file_id: bytes, *, on: bool = True) -> Request:
    """Delete an open file, opened with ``DELETE`` access, when it is closed, or no longer ([MS-FSCC] 2.4.11)."""
    return _set_info(file_id, 13, bytes((on,)))


def set_size(file_id: bytes, size: int) -> Request:
    """Cut or extend an open file ([MS-FSCC] 2.4.13)."""
    return _set_info(file_id, 20, size.to_bytes(8, "little"))


def set_modified(file_id: bytes, modified: float) -> Request:
    """Set when a file was last written; needs FILE_WRITE_ATTRIBUTES, as ``WRITE_DATA`` has ([MS-FSCC] 2.4.7)."""
    return _set_info(file_id, 4, _BASIC.pack(0, 0, int((modified + _EPOCH) * 10_000_000), 0, 0, 0))


def listing(file_id: bytes, length: int, *, pattern: str = "*", restart: bool = False) -> Request:
    """Read the next names of a directory, up to ``length`` bytes (2.2.33); then comes STATUS_NO_MORE_FILES."""
    name = pattern.encode("utf-16-le", "surrogatepass")
    body = _QUERY_DIRECTORY.pack(33, 1, restart, 0, file_id, 96, len(name), length)
    return Request(QUERY_DIRECTORY, charge(length), body + name)


def space(file_id: bytes) -> Request:
    """Ask for the space of the file system below an open file or directory (2.2.37, [MS-FSCC] 2.5.4)."""
    return Request(QUERY_INFO, 1, _QUERY_INFO.pack(41, 2, 7, _SPACE.size, 0, 0, 0, 0, 0, file_id))


def index_number(file_id: bytes) -> Request:
    """Ask for the number that tells an open file or directory from all others of its disk ([MS-FSCC] 2.4.27)."""
    return Request(QUERY_INFO, 1, _QUERY_INFO.pack(41, 1, 6, 8, 0, 0, 0, 0, 0, file_id))


def echo() -> Request:
    """Ask the server for a sign of life (2.2.28)."""
    return Request(ECHO, 1, b"\4\0\0\0")


def _set_info(file_id: bytes, kind: int, value: bytes) -> Request:
    return Request(SET_INFO, 1, _SET_INFO.pack(33, 1, kind, len(value), 96, 0, 0, file_id) + value)


def parse_create(message: memoryview) -> Opened:
    """Return what a CREATE has opened."""
    if len(message) < HEADER_SIZE + 88:
        raise _cut("CREATE", message)
    kind, _, _, _, created, modified, size, attributes, file_id = _OPENED.unpack_from(message, HEADER_SIZE)
    if kind != 89 or size >> 63:
        raise ProtocolError("the server's answer to CREATE is malformed")
    return Opened(file_id, size, attributes, modified / 1e7 - _EPOCH, created / 1e7 - _EPOCH)


def parse_read(message: memoryview) -> memoryview:
    """Return the bytes that a READ has brought: a view, valid as long as the caller likes."""
    if len(message) < HEADER_SIZE + 16:
        raise _cut("READ", message)
    kind, offset, _, length = _READ_ANSWER.unpack_from(message, HEADER_SIZE)
    if kind != 17 or offset < HEADER_SIZE + 16 or offset + length > len(message):
        raise ProtocolError("the server's answer to READ is malformed")
    return message[offset : offset + length]


def parse_write(message: memoryview) -> int:
    """Return how many bytes a WRITE has written."""
    if len(message) < HEADER_SIZE + 16:
        raise _cut("WRITE", message)
    kind, _, count = _WRITE_ANSWER.unpack_from(message, HEADER_SIZE)
    if kind != 17:
        raise ProtocolError("the server's answer to WRITE is malformed")
    return int(count)


def parse_close(message: memoryview) -> Closed:
    """Return what a file was when it was closed with ``query``."""
    if len(message) < HEADER_SIZE + 60:
        raise _cut("CLOSE", message)
    kind, _, _, modified, size, attributes = _CLOSED.unpack_from(message, HEADER_SIZE)
    if kind != 60 or size >> 63:
        raise ProtocolError("the server's answer to CLOSE is malformed")
    return Closed(size, attributes, modified / 1e7 - _EPOCH)


def parse_listing(message: memoryview) -> list[Entry]:
    """Return the names in a QUERY_DIRECTORY answer, without ``.`` and ``..``.

    Raises:
        ProtocolError: also for a name that would lead out of the directory.
    """
    rest = _output("QUERY_DIRECTORY", message)
    entries = []
    while True:
        if len(rest) < _ENTRY.size:
            raise _cut("QUERY_DIRECTORY", message)
        following, _, created, _, modified, _, size, _, attributes, length = _ENTRY.unpack_from(rest)
        end = _ENTRY.size + length
        if end > len(rest) or length % 2 or size >> 63:
            raise ProtocolError("the server's answer to QUERY_DIRECTORY is malformed")
        name = str(rest[_ENTRY.size : end], "utf-16-le", "surrogatepass")
        if name not in (".", ".."):
            if not name or "/" in name or "\\" in name or "\0" in name:
                raise ProtocolError(f"the server lists the impossible name {name!r}")
            entries.append(Entry(name, size, attributes, modified / 1e7 - _EPOCH, created / 1e7 - _EPOCH))
        if not following:
            return entries
        if following < end:
            raise ProtocolError("the server's answer to QUERY_DIRECTORY is malformed")
        rest = rest[following:]


def parse_space(message: memoryview) -> tuple[int, int]:
    """Return the bytes of a file system: all, and those that this user may still fill (quotas count)."""
    output = _output("QUERY_INFO", message)
    if len(output) < _SPACE.size:
        raise _cut("QUERY_INFO", message)
    total, free, _, sectors, size = _SPACE.unpack_from(output)
    return total * sectors * size, free * sectors * size


def parse_index_number(message: memoryview) -> int:
    """Return the number that :func:`index_number` has asked for; 0 where the server knows none."""
    output = _output("QUERY_INFO", message)
    if len(output) < 8:
        raise _cut("QUERY_INFO", message)
    return int.from_bytes(output[:8], "little")


def _output(command: str, message: memoryview) -> memoryview:
    """Return the buffer of an answer that says where it is (2.2.34, 2.2.38)."""
    if len(message) < HEADER_SIZE + 8:
        raise _cut(command, message)
    kind, offset, length = _OUTPUT.unpack_from(message, HEADER_SIZE)
    if kind != 9 or offset < HEADER_SIZE + 8 or offset + length > len(message):
        raise ProtocolError(f"the server's answer to {command} is malformed")
    return message[offset : offset + length]


def _cut(command: str, message: memoryview) -> ProtocolError:
    return ProtocolError(f"the server's answer to {command} is cut short, {len(message)} bytes")
