"""The rendered Samba server: what Samba itself understands of it, and what a real smbd then does and refuses."""

from __future__ import annotations

import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from deployed_samba import DeployedSamba

from configs.problems import UserError
from infra.samba.sentinel import read_sentinel
from infra.samba.server import Encryption, Server, render_configuration, render_files, setup_commands

SERVER = Server(users=("alice", "bob"), networks=("192.168.10.0/24",))


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeployedSamba]:
    """The rendered server, set up and running."""
    server = DeployedSamba(tmp_path_factory.mktemp("samba"), SERVER)
    server.set_up()
    server.start()
    yield server
    server.stop()


def understood(text: str, folder: Path) -> dict[str, dict[str, str]]:
    """What differs from Samba's defaults, by section, as ``testparm`` says it."""
    path = folder / "smb.conf"
    path.write_text(text)
    done = subprocess.run(["testparm", "-s", str(path)], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"unknown|ignoring|deprecated|error", done.stderr, re.IGNORECASE), done.stderr
    sections: dict[str, dict[str, str]] = {}
    for line in done.stdout.splitlines():
        if match := re.fullmatch(r"\[(.+)]", line):
            section = sections.setdefault(match[1], {})
        elif " = " in line:
            key, value = line.strip().split(" = ", 1)
            section[key] = value
    return sections


def test_samba_understands_all_of_it_and_what_it_says_is_hard(tmp_path: Path) -> None:
    said = understood(render_configuration(SERVER), tmp_path)
    assert set(said) == {"global", "sambashare"}
    assert said["sambashare"] == {
        "comment": "data and results",
        "path": "/srv/samba/sambashare",
        "read only": "No",
        "valid users": "@sambashare",
        "force group": "sambashare",
        "inherit permissions": "Yes",
        "case sensitive": "Yes",
        "map archive": "No",
        "store dos attributes": "No",
        "ea support": "No",
    }
    hardened = {
        "server min protocol": "SMB3",  # testparm's word for SMB3_11
        "server signing": "required",
        "change notify": "No",
        "kernel change notify": "No",
        "server smb3 signing algorithms": "AES-128-GMAC, AES-128-CMAC",
        "server smb3 encryption algorithms": "AES-128-GCM, AES-256-GCM",
        "disable netbios": "Yes",
        "disable spoolss": "Yes",
        "load printers": "No",
        "restrict anonymous": "2",
        "usershare max shares": "0",
        "invalid users": "root",
        "hosts allow": "127.0.0.0/8 192.168.10.0/24",
        "interfaces": "127.0.0.0/8 192.168.10.0/24",
        "bind interfaces only": "Yes",
        "smb ports": "445",
        "max smbd processes": "512",
    }
    assert {key: said["global"].get(key) for key in hardened} == hardened
    assert "map to guest" not in said["global"], "never is Samba's default too"


@pytest.mark.parametrize(
    ("encryption", "word"), [("off", "No"), *((word, word) for word in ("if_required", "desired", "required"))]
)
def test_the_site_chooses_encryption(encryption: Encryption, word: str, tmp_path: Path) -> None:
    server = Server(users=("alice",), networks=("10.0.0.0/8",), encryption=encryption)
    said = understood(render_configuration(server), tmp_path)["global"]
    assert said["server smb encrypt"] == word


def test_a_user_writes_and_the_group_shares(deployed: DeployedSamba, tmp_path: Path) -> None:
    (tmp_path / "file.dir").write_text("content")
    said = deployed.client(f"mkdir dvc/new; put {tmp_path / 'file.dir'} dvc/new/file.dir; ls dvc/new/*")
    assert "file.dir" in said
    folder, file = deployed.share / "dvc" / "new", deployed.share / "dvc" / "new" / "file.dir"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2770
    assert stat.S_IMODE(file.stat().st_mode) == 0o660
    group = deployed.run("stat", "--format=%G %U", f"{deployed.server.path}/dvc/new/file.dir").stdout
    assert group.split() == ["sambashare", "alice"]
    other = deployed.client("rename dvc/new/file.dir dvc/new/renamed; del dvc/new/renamed; ls", user="bob")
    assert "NT_STATUS" not in other
    assert not list(folder.iterdir())


def test_the_sentinel_marks_the_root_and_folders_have_their_modes(deployed: DeployedSamba) -> None:
    assert read_sentinel(deployed.share) == "sambashare"
    assert stat.S_IMODE(deployed.share.stat().st_mode) == 0o2770
    assert stat.S_IMODE((deployed.share / "dvc").stat().st_mode) == 0o2770


@pytest.mark.parametrize(
    ("options", "who", "said"),
    [
        (("--option=client max protocol=SMB3_02",), {}, "NT_STATUS"),
        (("--option=client min protocol=NT1", "--option=client max protocol=NT1"), {}, "NT_STATUS"),
        ((), {"user": "alice", "password": "wrong"}, "NT_STATUS_LOGON_FAILURE"),
        ((), {"user": "nobody", "password": ""}, "NT_STATUS"),
        (("--no-pass", "--user=%"), {}, "NT_STATUS_ACCESS_DENIED"),
    ],
    ids=["SMB 3.0.2", "SMB 1", "wrong password", "guest", "anonymous"],
)
def test_what_is_not_hard_enough_is_refused(
    deployed: DeployedSamba, options: tuple[str, ...], who: dict[str, Any], said: str
) -> None:
    answer = deployed.client("ls", *options, **who)
    assert said in answer
    assert "blocks available" not in answer


def test_refused_logins_are_logged_and_those_that_work_are_not(deployed: DeployedSamba) -> None:
    before = deployed.log
    for _ in range(5):
        assert "blocks available" in deployed.client("ls")
    assert deployed.log == before
    deployed.client("ls", user="bob", password="guessed")
    added = deployed.log.removeprefix(before)
    assert "bob" in added
    assert "guessed" not in added


def test_setting_up_again_changes_nothing_but_the_password(deployed: DeployedSamba) -> None:
    deployed.passwords["bob"] = "another"
    deployed.set_up()
    assert "blocks available" in deployed.client("ls", user="bob")
    accounts = deployed.run("getent", "passwd", "alice").stdout
    assert accounts.strip().endswith(":/nonexistent:/usr/sbin/nologin")


def test_passwords_are_on_no_command_line_and_in_no_repr() -> None:
    commands = setup_commands(SERVER, {"alice": "swordfish", "bob": "swordfish"})
    assert any("swordfish" in command.stdin for command in commands)
    assert "swordfish" not in repr(commands)
    assert not any("swordfish" in word for command in commands for word in command.argv)
    assert [(str(file.path), file.mode) for file in render_files(SERVER)] == [
        ("/etc/samba/smb.conf", 0o644),
        ("/srv/samba/sambashare/.mlops-share", 0o640),
    ]


def test_everything_that_would_break_the_configuration_is_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        Server(
            users=("alice", "Bob\n[global]", "root"),
            networks=("192.168.10.0/24", "everywhere"),
            share="global",
            path=PurePosixPath("/srv/%u"),
            group="a b",
        )
    wheres = [problem.where.split(" ")[0] for problem in caught.value.problems]
    assert wheres == ["user", "user", "network", "group", "share", "path"]
    with pytest.raises(UserError, match="password of bob"):
        setup_commands(SERVER, {"alice": "a", "bob": "two\nlines"})
