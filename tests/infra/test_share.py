"""Which share a checkout uses, and that DVC is told of it: real checkouts, real DVC, real mounts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from stack_fixtures import client_variables

from cli.sharing import use_share
from configs.problems import UserError
from configs.storage import DirectoryStorage, MountStorage, SmbStorage
from infra.repository import dvc_config, git, share_check
from infra.repository.dvc import Dvc
from infra.repository.share import Origin, open_share
from infra.repository.share_choice import kept_password, parse_choice, password_file, remember
from infra.samba.sentinel import write_sentinel
from infra.stack.state import Stack

SMB = "storage:\n  kind: smb\n  url: smb://alice@storage:1445/sambashare/dvc\n"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git and DVC repository with data and a site file, as the project's own: the share is in the checkout."""
    root = tmp_path_factory.mktemp("template") / "checkout"
    (root / "configs").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "data" / "a.txt").write_text("one\n")
    git.git(root.parent, "init", "--quiet", "--initial-branch=main", str(root))
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text(
        "[core]\n    remote = share\n['remote \"share\"']\n    url = ../.mlops/share\n"
    )
    (root / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    set_site(root, "storage:\n  kind: directory\n  path: .mlops/share\n")
    subprocess.run(["dvc", "add", "--quiet", "data"], cwd=root, check=True, capture_output=True)
    return root


@pytest.fixture
def checkout(template: Path, tmp_path: Path) -> Path:
    """A checkout of the test's own."""
    return Path(shutil.copytree(template, tmp_path / "checkout", symlinks=True))


@pytest.fixture
def dvc(checkout: Path) -> Iterator[Dvc]:
    with Dvc(checkout) as running:
        yield running


def set_site(root: Path, text: str) -> None:
    (root / "configs" / "site.yaml").write_text(text)


def local(root: Path) -> str:
    path = root / ".dvc" / "config.local"
    return path.read_text() if path.exists() else ""


def push(dvc: Dvc) -> None:
    """What a job does: find the share out, tell DVC of it, push."""
    dvc.connect(open_share(dvc.root, dvc.root / ".mlops"))
    dvc.push("data.dvc")


def objects(folder: Path) -> int:
    return len([path for path in folder.rglob("*") if path.is_file() and "md5" in path.parts])


def test_the_shipped_site_needs_no_settings_of_its_own(dvc: Dvc, checkout: Path) -> None:
    push(dvc)
    assert objects(checkout / ".mlops" / "share") == 2
    assert local(checkout) == ""
    assert open_share(checkout, checkout / ".mlops").address == ".mlops/share"


def test_a_chosen_folder_is_kept_and_given_up_again(dvc: Dvc, checkout: Path, tmp_path: Path) -> None:
    home, team = checkout / ".mlops", tmp_path / "team"
    team.mkdir()
    remember(checkout, home, parse_choice(str(team), checkout, home))
    push(dvc)
    assert objects(team) == 2
    assert open_share(checkout, home).origin is Origin.CHOSEN
    assert "team" in dvc_config.remote(checkout, "share")["url"], "plain dvc commands use it too"

    remember(checkout, home, None)
    share = open_share(checkout, home)
    assert (share.origin, share.storage) == (Origin.SITE, DirectoryStorage(path=Path(".mlops/share")))
    push(dvc)
    assert objects(home / "share") == 2


def test_a_choice_holds_for_plain_dvc_commands_at_once(checkout: Path, tmp_path: Path) -> None:
    home, team = checkout / ".mlops", tmp_path / "team"
    team.mkdir()
    for choice, folder in ((str(team), team), ("site", home / "share")):
        use_share(choice, checkout, home, Console(quiet=True))
        subprocess.run(["dvc", "push", "--quiet", "data.dvc"], cwd=checkout, check=True, capture_output=True)
        assert objects(folder) == 2


def test_the_site_decides_for_everybody_who_chose_nothing(dvc: Dvc, checkout: Path, tmp_path: Path) -> None:
    team = tmp_path / "team"
    set_site(checkout, f"storage:\n  kind: directory\n  path: {team}\n")
    push(dvc)
    assert objects(team) == 2
    other = tmp_path / "other"
    set_site(checkout, f"storage:\n  kind: directory\n  path: {other}\n")
    push(dvc)
    assert objects(other) == 2


def test_what_was_set_by_hand_stays_until_another_is_chosen(dvc: Dvc, checkout: Path, tmp_path: Path) -> None:
    hand, home = tmp_path / "hand", checkout / ".mlops"
    by_hand = ("dvc", "remote", "modify", "--local", "share")
    subprocess.run([*by_hand, "url", str(hand)], cwd=checkout, check=True, capture_output=True)
    push(dvc)
    assert objects(hand) == 2
    assert open_share(checkout, home).origin is Origin.DVC

    remember(checkout, home, parse_choice(".mlops/share", checkout, home))
    push(dvc)
    assert objects(home / "share") == 2


def test_options_of_ones_own_stay(dvc: Dvc, checkout: Path, tmp_path: Path) -> None:
    home = checkout / ".mlops"
    remember(checkout, home, DirectoryStorage(path=tmp_path / "team"))
    push(dvc)
    by_hand = ("dvc", "remote", "modify", "--local", "share", "jobs", "3")
    subprocess.run(by_hand, cwd=checkout, check=True, capture_output=True)
    push(dvc)
    assert open_share(checkout, home).origin is Origin.CHOSEN
    assert dvc_config.remote(checkout, "share")["jobs"] == "3"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A mount point with the share sambashare on it (a tmpfs: the kernel of a build machine has no cifs)."""
    point = tmp_path / "mnt"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(point)], check=True, capture_output=True)
    write_sentinel(point, "sambashare")
    yield point
    subprocess.run(["umount", "--lazy", str(point)], check=False, capture_output=True)


def test_doctor_tells_a_mounted_share_from_an_empty_mount_point(checkout: Path, mounted: Path) -> None:
    home = checkout / ".mlops"
    remember(checkout, home, MountStorage(path=mounted, source="//storage/sambashare", sentinel="sambashare"))
    found = {result.name: result for result in share_check.check(checkout, home)}
    assert (found["DVC remote"].level, found["share clock"].level) == ("good", "good")
    assert found["share space"].level == "broken", "4 MiB is no space"
    subprocess.run(["umount", str(mounted)], check=True)
    (result,) = share_check.check(checkout, home)
    assert result.level == "broken"
    assert "//storage/sambashare is not mounted" in result.detail
    assert result.remedy == "mount //storage/sambashare there"
    assert list(mounted.iterdir()) == []


@pytest.mark.parametrize("how", ["site", "chosen"])
def test_a_share_that_is_not_mounted_stops_before_anything_is_written(
    dvc: Dvc, checkout: Path, mounted: Path, how: str
) -> None:
    home = checkout / ".mlops"
    if how == "site":
        mount = f"storage:\n  kind: mount\n  path: {mounted}\n  source: //storage/sambashare\n  sentinel: sambashare\n"
        set_site(checkout, mount)
    else:
        (mounted / "dvc").mkdir()
        remember(checkout, home, parse_choice(str(mounted / "dvc"), checkout, home))
        assert isinstance(open_share(checkout, home).storage, MountStorage), "its sentinel was found"
    push(dvc)
    assert objects(mounted / "dvc") == 2
    subprocess.run(["umount", str(mounted)], check=True)
    for reaching in (lambda: dvc.push("data.dvc"), lambda: dvc.pull("data.dvc")):
        with pytest.raises(UserError, match="is not mounted"):
            reaching()
    assert list(mounted.iterdir()) == []


def test_credentials_reach_dvc_by_its_environment_alone(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_site(checkout, f"{SMB}  encrypt: true\n  domain: PLANT\n  password: {{environment: SHARE_PASSWORD}}\n")
    monkeypatch.setenv("SHARE_PASSWORD", "swordfish")
    monkeypatch.setenv("DVC_SMB_USER", "mallory")
    share = open_share(checkout, checkout / ".mlops")
    assert share.address == "smb://storage:1445/sambashare/dvc"
    assert share.settings == {
        "url": "smb://storage:1445/sambashare/dvc",
        "user": "alice",
        "domain": "PLANT",
        "encrypt": "true",
    }
    assert share.environment == {
        "DVC_SMB_USER": "alice",
        "DVC_SMB_PASSWORD": "swordfish",
        "DVC_SMB_PASSWORD_FILE": "",
    }
    assert "swordfish" not in repr(share)


def test_every_place_of_a_password_says_what_is_wrong_there(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = checkout / ".mlops"
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    file = checkout / "password"

    def said(reference: str) -> str:
        set_site(checkout, f"{SMB}  password: {{{reference}}}\n")
        with pytest.raises(UserError) as caught:
            open_share(checkout, home)
        return str(caught.value)

    assert "the variable NOT_SET is not set" in said("environment: NOT_SET")
    assert "No such file" in said("file: password")
    file.write_text("")
    assert "is empty" in said("file: password")
    file.write_text("swordfish\n")
    file.chmod(0o640)
    assert "chmod 600" in said("file: password")
    assert "swordfish" not in said("file: password")
    assert "Prefect does not run" in said("prefect_secret: share-password")
    file.chmod(0o600)
    set_site(checkout, f"{SMB}  password: {{file: password}}\n")
    assert open_share(checkout, home).environment["DVC_SMB_PASSWORD_FILE"] == str(file)


def test_a_password_comes_from_a_secret_of_a_real_prefect(
    checkout: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = "from prefect.blocks.system import Secret; Secret(value='swordfish').save('share-password', overwrite=True)"
    subprocess.run([sys.executable, "-c", made], env=client_variables(stack), check=True, capture_output=True)
    set_site(checkout, f"{SMB}  password: {{prefect_secret: share-password}}\n")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert open_share(checkout, stack.home).environment["DVC_SMB_PASSWORD"] == "swordfish"
    monkeypatch.setenv("PREFECT_API_URL", stack.prefect_api_url)
    assert open_share(checkout, checkout / ".mlops").environment["DVC_SMB_PASSWORD"] == "swordfish"
    set_site(checkout, f"{SMB}  password: {{prefect_secret: no-such-secret}}\n")
    with pytest.raises(UserError, match="make a Secret block named no-such-secret"):
        open_share(checkout, stack.home)


def test_a_kept_password_is_private_and_for_one_account_on_one_server(checkout: Path) -> None:
    home = checkout / ".mlops"
    chosen = parse_choice("smb://alice@storage/sambashare/dvc", checkout, home)
    remember(checkout, home, chosen, "swordfish")
    assert password_file(home).stat().st_mode & 0o777 == 0o600
    assert password_file(home).parent.stat().st_mode & 0o777 == 0o700
    assert "swordfish" not in (home / "share.json").read_text()
    assert open_share(checkout, home).environment["DVC_SMB_PASSWORD_FILE"] == str(password_file(home))

    for url, kept in (
        ("smb://alice@storage/sambashare/other", "swordfish"),
        ("smb://bob@storage/sambashare/dvc", None),
        ("smb://alice@elsewhere/sambashare/dvc", None),
        ("smb://alice@storage:1445/sambashare/dvc", None),
    ):
        storage = parse_choice(url, checkout, home)
        assert isinstance(storage, SmbStorage)
        assert kept_password(storage, home) == kept, url

    remember(checkout, home, None)
    assert not password_file(home).exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("smb://storage/sambashare", "names no user"),
        ("smb://alice@storage", "names no share"),
        ("nfs://storage/data", "is no address of a share"),
        ("/no/such/folder", "is no folder"),
        ("smb://alice:swordfish@storage/a", "leave the password out"),
    ],
)
def test_bad_choices_are_refused_at_once(checkout: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        parse_choice(text, checkout, checkout / ".mlops")
    assert "swordfish" not in str(caught.value)


def test_a_record_that_cannot_be_read_is_told(checkout: Path) -> None:
    home = checkout / ".mlops"
    home.mkdir()
    (home / "share.json").write_text("[]")
    with pytest.raises(UserError, match="choose the share again"):
        open_share(checkout, home)
