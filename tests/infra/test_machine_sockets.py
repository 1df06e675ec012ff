"""Sockets of connections: nobody else's, gone with their process however it ends; and a key that is not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.problems import UserError
from infra.machines.commands import Command
from infra.machines.sockets import LONGEST, SocketFolder
from infra.machines.ssh import Machine
from infra.machines.trouble import Login, MachineError

HOLD = """\
import time
from infra.machines.sockets import SocketFolder
folder = SocketFolder()
print(folder.path, flush=True)
time.sleep(60)
"""


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:  # pytest makes its own folder first
    """Where sockets go: a temporary folder, shorter than pytest's."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder, f"mlops-ssh-{os.geteuid()}")


def test_a_killed_process_folder_is_removed_by_the_next_and_a_living_ones_is_not(parent: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        assert theirs.parent == parent
        assert {path.stat().st_mode & 0o777 for path in (parent, theirs)} == {0o700}
        first = SocketFolder()
        assert theirs.is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait()
    second = SocketFolder()
    assert not theirs.exists()
    assert first.path.is_dir()
    for ours in (first, second, second):
        ours.remove()
    assert list(parent.iterdir()) == []


def test_the_users_own_runtime_folder_comes_first_unless_its_name_is_too_long(
    parent: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # pytest's folders are long themselves: the limit is set to what the short one needs.
    short, long = tmp_path / "run", tmp_path / ("x" * LONGEST)
    monkeypatch.setattr("infra.machines.sockets.LONGEST", len(f"{short}/mlops-ssh"))
    for runtime, expected in ((short, short / "mlops-ssh"), (long, parent)):
        runtime.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        folder = SocketFolder()
        assert folder.path.parent == expected
        folder.remove()


def test_a_temporary_folder_deep_down_is_not_used(
    parent: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = tmp_path / ("x" * LONGEST)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    folder = SocketFolder()
    assert folder.path.parent == Path("/tmp", parent.name)
    folder.remove()


def test_a_folder_that_leads_elsewhere_is_not_used(parent: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is not ours"):
        SocketFolder()


def test_a_key_that_is_not_there_is_told_before_anything_is_sent(parent: Path, tmp_path: Path) -> None:
    login = Login("desk", "192.0.2.1", "admin", 22, tmp_path / "no/key")  # an address where nobody ever answers
    with Machine(login, tmp_path) as machine, pytest.raises(MachineError) as caught:
        machine.run(Command(("true",)))
    assert caught.value.problems[0].what == f"our key {tmp_path}/no/key is not there"
    assert "ssh-keygen" in caught.value.problems[0].remedy
