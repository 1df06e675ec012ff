"""The site file: three kinds of storage, every mistake at once, and never a secret in it or in what is said of it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from site_files import SHIPPED, told

from configs.site import load_site
from configs.storage import DirectoryStorage, MountStorage, SmbStorage, parse_smb_url


def site(tmp_path: Path, storage: str) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(f"storage:\n{storage}")
    return path


def test_the_shipped_site_is_a_directory_of_the_checkout() -> None:
    assert load_site(SHIPPED).storage == DirectoryStorage(path=Path(".mlops/share"))


def test_the_examples_in_the_shipped_site_are_valid(tmp_path: Path) -> None:
    lines = [line.removeprefix("# ") for line in SHIPPED.read_text().splitlines() if line.startswith("# ")]
    starts = [number for number, line in enumerate(lines) if line == "storage:"]
    kinds = []
    for start in starts:
        body = []
        for line in lines[start + 1 :]:
            if not line.startswith(" "):
                break
            body.append(line)
        kinds.append(type(load_site(site(tmp_path, "\n".join(body) + "\n")).storage))
    assert kinds == [MountStorage, SmbStorage]


def test_all_mistakes_of_a_kind_come_with_their_lines(tmp_path: Path) -> None:
    path = site(
        tmp_path,
        "  kind: smb\n"
        "  url: smb://storage:port/sambashare\n"
        "  encript: true\n"
        "  password:\n"
        "    enviroment: SHARE_PASSWORD\n"
        "    file: /etc/share\n",
    )
    path.write_text(path.read_text() + "hosts: []\n")
    said = told(path)
    assert set(said) == {"3 storage.url", "4 storage.encript", "6 storage.password.enviroment", "8 hosts"}
    assert "host:445" in said["3 storage.url"]
    assert "did you mean `encrypt`?" in said["4 storage.encript"]
    assert "did you mean `environment`?" in said["6 storage.password.enviroment"]


def test_a_kind_that_is_none_names_those_there_are(tmp_path: Path) -> None:
    assert told(site(tmp_path, "  kind: nfs\n  path: /mnt\n")) == {
        "2 storage.kind": "is 'nfs' one of 'directory', 'mount', 'smb'"
    }
    assert told(site(tmp_path, "  path: /mnt\n")) == {"1 storage.kind": "is missing add `kind:`"}


@pytest.mark.parametrize(
    "literal", ["  password: hunter2\n", "  password: 271828\n", "  password: [hunter2, 271828]\n"]
)
def test_a_literal_password_is_refused_and_not_repeated(tmp_path: Path, literal: str) -> None:
    said = told(site(tmp_path, f"  kind: smb\n  url: smb://alice@storage/sambashare\n{literal}"))
    assert list(said) == ["4 storage.password"]
    assert "environment: NAME" in said["4 storage.password"]
    assert not any(secret in str(said) for secret in ("hunter2", "271828"))


def test_a_password_in_the_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    text = "  kind: smb\n  url: smb://alice:hunter2@storage/sambashare\n  password: {environment: P}\n"
    said = told(site(tmp_path, text))
    assert "leave the password out" in said["3 storage.url"]
    assert "hunter2" not in str(said)


@pytest.mark.parametrize("places", ["{}", "{environment: A, file: /b}"])
def test_a_password_has_exactly_one_place(tmp_path: Path, places: str) -> None:
    said = told(site(tmp_path, f"  kind: smb\n  url: smb://alice@storage/sambashare\n  password: {places}\n"))
    assert "name one place" in said["4 storage.password"]


@pytest.mark.parametrize(
    ("url", "user", "said"),
    [
        ("smb://storage/sambashare", "", "names no user"),
        ("smb://alice@storage/sambashare", "bob", "names two users"),
    ],
)
def test_there_is_one_user(tmp_path: Path, url: str, user: str, said: str) -> None:
    named = f"  user: {user}\n" if user else ""
    assert said in str(told(site(tmp_path, f"  kind: smb\n  url: {url}\n{named}  password: {{environment: P}}\n")))


@pytest.mark.parametrize(
    ("path", "said"), [("share", "an absolute path"), ("/mnt/share\n  folder: ../etc", "below the mount point")]
)
def test_a_mount_point_is_absolute_and_its_folder_below_it(tmp_path: Path, path: str, said: str) -> None:
    assert said in str(told(site(tmp_path, f"  kind: mount\n  path: {path}\n  sentinel: s\n")))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("smb://alice@storage/sambashare/dvc", "smb://storage/sambashare/dvc"),
        ("smb://alice@Storage:445/sambashare/", "smb://storage/sambashare"),
        ("smb://storage:1445/sambashare//dvc/main/", "smb://storage:1445/sambashare/dvc/main"),
        ("smb://bob@[fd00::1]:1445/data", "smb://[fd00::1]:1445/data"),
    ],
)
def test_addresses_are_told_without_their_user(url: str, address: str) -> None:
    assert str(parse_smb_url(url)) == address


@pytest.mark.parametrize(
    "url",
    [
        "storage/sambashare",
        "smb:/storage/sambashare",
        "smb://",
        "smb://storage",
        "smb://storage/",
        "smb://storage/a/../b",
        "smb://storage:99999/a",
        "smb://storage/a b",
        "smb://storage/a?b",
        "smb:\\\\storage\\a",
        "nfs://storage/a",
        "smb://[fd00::1/a",
    ],
)
def test_what_is_no_address_is_told_the_form(url: str) -> None:
    with pytest.raises(ValueError, match="smb://user@host/share/folder"):
        parse_smb_url(url)


def test_workers_of_the_site_mount_the_share_unless_pods_do(tmp_path: Path) -> None:
    text = (SHIPPED.with_name("site-thesis.yaml")).read_text()
    path = tmp_path / "site.yaml"

    def mounted(*changes: tuple[str, str]) -> MountStorage | None:
        changed = text
        for before, after in changes:
            assert before in changed
            changed = changed.replace(before, after)
        path.write_text(changed)
        return load_site(path).mounted_share

    found = mounted()
    assert found == MountStorage(
        path=Path("/mnt/sambashare"),
        folder=PurePosixPath("dvc"),
        source="//192.168.10.40/sambashare",
        sentinel="sambashare",
    )
    own = "share: {kind: mount, path: /data, sentinel: mine}"
    named = mounted(("cluster:  ", f"cluster:\n  {own}\n#"))
    assert named is not None
    assert named.path == Path("/data")
    assert mounted(("roles: [worker]", "roles: []")) is None
    csi = "csi_smb: {manifest: csi.yaml, sha256: " + "a" * 64 + "}"
    assert mounted(("kubernetes:\n", f"kubernetes:\n  {csi}\n")) is None
