"""Which paths go to a server, which are refused before anything is sent, and what a path says about its content."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import pytest

from dvc_smb.errors import InvalidName
from dvc_smb.filesystem import SMB
from dvc_smb.names import Location, is_temporary, locate, md5_in_name, remote_root
from smb_servers.fixtures import Place

MD5 = "0123456789abcdef0123456789abcdef"
OBJECT = f"/share/dvc/files/md5/{MD5[:2]}/{MD5[2:]}"


@pytest.fixture
def fs(place: Place) -> Iterator[SMB]:
    server = place.server
    made = SMB(server.host, port=server.port, user=server.user, password=server.password, skip_instance_cache=True)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        *((f"/share/folder/a{character}b", repr(character)) for character in '\\:*?"<>|\x01\n\0'),
        ("/share/a*/file", "'*'"),
        ("/share/folder/file.", "ends with a dot"),
        ("/share/folder /file", "ends with a space"),
        ("/share/folder/file ", "ends with a space"),
        ("/share/../secret", "'..'"),
        ("/share/folder/..", "'..'"),
        ("/share/./file", "'.'"),
        ("/share/" + "n" * 256, "256 bytes"),
        ("/share/" + "ü" * 128 + "/file", "256 bytes"),
        ("/share/" + "n/" * 17000, "34006 characters"),
        ("/share/bytes\udcff", "no UTF-8"),
        ("/", "names no share"),
    ],
)
def test_what_no_server_can_store_is_refused_with_path_and_reason(path: str, said: str) -> None:
    with pytest.raises(InvalidName) as caught:
        locate(path)
    assert said in str(caught.value)
    assert repr(path)[1:9].strip(chr(39)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_impossible_name_is_refused_before_anything_is_sent() -> None:
    nobody_listens = SMB("127.0.0.1", port=1, user="alice", password="secret", skip_instance_cache=True)
    for call in (nobody_listens.info, nobody_listens.cat, nobody_listens.rm_file, nobody_listens.mkdir):
        with pytest.raises(InvalidName, match="':'"):
            call("/share/a:b")
    with pytest.raises(InvalidName, match="':'"):
        nobody_listens.pipe_file("/share/a:b", b"")
    assert not nobody_listens.exists("/share/a:b")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/share/folder/file", Location("share", "folder/file")),
        ("/share", Location("share", "")),
        ("/share/.hidden", Location("share", ".hidden")),
        ("/share/..data/two..dots", Location("share", "..data/two..dots")),
        ("/share/ space/100%", Location("share", " space/100%")),
        ("/share/" + "n" * 255, Location("share", "n" * 255)),
    ],
)
def test_a_path_is_a_share_and_a_name(path: str, expected: Location) -> None:
    assert locate(path) == expected


def test_only_objects_of_a_dvc_remote_say_what_they_hold() -> None:
    assert md5_in_name(OBJECT) == MD5
    assert md5_in_name(f"{OBJECT}.dir") == MD5
    for other in (f"{OBJECT}0", OBJECT.upper(), f"{OBJECT}.txt", f"/share/dvc/{MD5[:2]}/{MD5[2:]}", "/share/readme"):
        assert md5_in_name(other) is None


def test_the_root_of_a_remote_is_known_where_dvc_lists_folders() -> None:
    key = "e" * 64
    for path in (OBJECT, f"{OBJECT}.dir", f"/share/dvc/runs/ee/{key}/{key}", f"/share/dvc/{MD5[:2]}/{MD5[2:]}"):
        assert remote_root(path) == "/share/dvc"
    assert remote_root("/share/dvc/readme") is None
    assert remote_root(f"/{MD5[:2]}/{MD5[2:]}") is None


def test_only_names_of_our_making_are_temporaries() -> None:
    assert is_temporary(".dvc-smb-tmp")
    assert is_temporary(".dvc-smb-0123456789ab-01234567-89")
    for name in (".dvc-smb-notes", "dvc-smb-tmp", ".dvc-smb-0123456789ab-01234567-89.txt", MD5[2:]):
        assert not is_temporary(name)


@pytest.mark.parametrize(
    "name",
    [
        "two words",
        " leading space",
        unicodedata.normalize("NFC", "Ärger.txt"),
        unicodedata.normalize("NFD", "Ärger.txt"),
        "日本語/ファイル.jpg",
        "emoji 🙂.png",
        "100% & 'quoted' #1;+,=[]{}()~!@^`$.txt",
        "/".join(f"level {number} " + "x" * 150 + "y" for number in range(12)),
        "n" * 200 + ".txt",
    ],
)
def test_names_arrive_as_they_are(fs: SMB, place: Place, name: str) -> None:
    fs.pipe_file(f"{place.smb_path}/{name}", b"content")
    assert (place.path / name).read_bytes() == b"content"
    assert fs.cat_file(f"{place.smb_path}/{name}") == b"content"
    assert fs.find(place.smb_path) == [f"{place.smb_path}/{name}"]


def test_both_normal_forms_of_a_name_are_two_files(fs: SMB, place: Place) -> None:
    names = [unicodedata.normalize(form, "Äpfel") for form in ("NFC", "NFD")]
    for name in names:
        fs.pipe_file(f"{place.smb_path}/{name}", name.encode())
    assert sorted(fs.ls(place.smb_path, detail=False)) == sorted(f"{place.smb_path}/{name}" for name in names)
    assert [fs.cat_file(f"{place.smb_path}/{name}") for name in names] == [name.encode() for name in names]


def test_a_listing_has_the_case_that_the_server_has(fs: SMB, place: Place) -> None:
    (place.path / "Folder").mkdir()
    (place.path / "Folder" / "File.TXT").write_bytes(b"content")
    assert fs.cat_file(f"{place.smb_path}/folder/file.txt") == b"content"
    assert fs.find(place.smb_path) == [f"{place.smb_path}/Folder/File.TXT"]
