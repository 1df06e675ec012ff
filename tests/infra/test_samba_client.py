"""The rendered mount: whole texts, and what systemd itself says of them."""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePosixPath

import pytest

from configs.problems import UserError
from infra.samba.client import Mount, escape_path, mount_options, render_files

MOUNT = Mount("//storage/sambashare", PurePosixPath("/mnt/sambashare"), "alice", "swordfish, 1")

UNIT = """\
[Unit]
Description=Share //storage/sambashare at /mnt/sambashare
Wants=network-online.target
After=network-online.target
# Tried again at every access, for as long as the server is away.
StartLimitIntervalSec=0

[Mount]
What=//storage/sambashare
Where=/mnt/sambashare
Type=cifs
Options=credentials=/etc/mlops/mnt-sambashare.credentials,vers=3.1.1,sign,uid=root,gid=root,forceuid,forcegid,\
file_mode=0660,dir_mode=02770,nodev,nosuid,noexec,iocharset=utf8,cache=strict,serverino,soft,echo_interval=15,_netdev,\
nofail
TimeoutSec=30
# While nothing is mounted, nobody but root can write to the machine's own disk there.
DirectoryMode=0000
"""

AUTOMOUNT = """\
[Unit]
Description=Share //storage/sambashare at /mnt/sambashare, mounted at the first access

[Automount]
Where=/mnt/sambashare
DirectoryMode=0000

[Install]
WantedBy=remote-fs.target
"""


def test_the_whole_texts() -> None:
    files = {str(file.path): (file.mode, file.text) for file in render_files(MOUNT)}
    assert files == {
        "/etc/mlops/mnt-sambashare.credentials": (0o600, "username=alice\npassword=swordfish, 1\n"),
        "/etc/systemd/system/mnt-sambashare.mount": (0o644, UNIT),
        "/etc/systemd/system/mnt-sambashare.automount": (0o644, AUTOMOUNT),
    }


def test_options_of_a_site_that_wants_more() -> None:
    mount = Mount(
        *("//storage/data", PurePosixPath("/mnt/data"), "alice", "p"),
        **{"domain": "PLANT", "uid": "10001", "gid": "mlops", "encrypt": True, "port": 1445},
    )
    assert {"seal", "port=1445", "uid=10001", "gid=mlops"} <= set(mount_options(mount))
    assert render_files(mount)[0].text == "username=alice\npassword=p\ndomain=PLANT\n"


def test_the_password_is_in_the_credentials_file_alone() -> None:
    credentials, *units = render_files(MOUNT)
    assert credentials.secret
    assert not any("swordfish" in unit.text for unit in units)
    assert "swordfish" not in repr(MOUNT) + repr(render_files(MOUNT))


@pytest.mark.parametrize(
    "path", ["/mnt/sambashare", "/mnt/my share", "/mnt/a-b", "/.hidden/x", "/mnt/.x", "/daten/ü_ñ:1"]
)
def test_units_are_named_as_systemd_names_them(path: str) -> None:
    named = subprocess.run(["systemd-escape", "--path", path], capture_output=True, text=True, check=True)
    assert escape_path(PurePosixPath(path)) == named.stdout.strip()


@pytest.mark.parametrize("where", ["/mnt/sambashare", "/mnt/my share"])
def test_systemd_finds_nothing_wrong(where: str, tmp_path: Path) -> None:
    mount = Mount("//storage/sambashare", PurePosixPath(where), "alice", "p", encrypt=True)
    _, *units = render_files(mount)
    for unit in units:
        (tmp_path / unit.path.name).write_text(unit.text)
    names = [str(tmp_path / unit.path.name) for unit in units]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *names], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if str(tmp_path) in line or units[0].path.stem in line]


def test_everything_that_would_break_a_unit_is_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        Mount("storage/share", PurePosixPath("mnt"), "alice\nuid=0", "", uid="0,exec")
    assert [problem.where.split(" ")[0] for problem in caught.value.problems] == [
        *("source", "where", "user", "credentials", "uid")
    ]
