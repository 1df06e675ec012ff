"""What of the lock gets into an image: found from what the lock says of who needs what."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from infra.image import lock as lock_module
from infra.image.lock import CUDA, build_tools, read_lock, runtime, without_cuda

ROOT = Path(__file__).parents[2]
LOCK, PROJECT = ROOT / "requirements.lock", ROOT / "pyproject.toml"
SMALL = """\
# made by hand
app==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via project (pyproject.toml)
both==2.0 ; sys_platform == 'linux' \\
    --hash=sha256:cc
    # via
    #   app
    #   pytest
nvidia-cublas==13.0 \\
    --hash=sha256:dd
    # via torch
nvidia-ml-py==13.0 \\
    --hash=sha256:ee
    # via app
only-tests==3.0 \\
    --hash=sha256:ff
    # via pytest
pytest==9.0 \\
    --hash=sha256:11
    # via project (pyproject.toml)
ring-a==1.0 \\
    --hash=sha256:22
    # via
    #   app
    #   ring-b
ring-b==1.0 \\
    --hash=sha256:33
    # via ring-a
torch==2.15.0 \\
    --hash=sha256:44
    # via
    #   app
    #   project (pyproject.toml)
workspace-needs==1.0 \\
    --hash=sha256:55
    # via own-package
"""
SMALL_PROJECT = {
    "project": {
        "name": "Project",
        "dependencies": ["app>=1", "torch"],
        "optional-dependencies": {"dev": ["pytest", "torch"], "more": []},
    }
}


def names(torch: str) -> set[str]:
    return {entry.name for entry in runtime(read_lock(SMALL), SMALL_PROJECT, torch)}


def test_what_only_tests_need_is_left_out() -> None:
    assert names("cuda") == {entry.name for entry in read_lock(SMALL)} - {"pytest", "only-tests"}


def test_without_cuda_only_what_torch_alone_needs_goes() -> None:
    assert names("cuda") - names("cpu") == {"nvidia-cublas", "torch"}, "nvidia-ml-py is needed by app"
    assert without_cuda(read_lock(SMALL)) == ["torch==2.15.0+cpu"]


def test_entries_keep_marker_and_hashes() -> None:
    text = {entry.name: entry.text for entry in read_lock(SMALL)}
    assert text["app"] == "app==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb"
    assert text["both"] == "both==2.0 ; sys_platform == 'linux' \\\n    --hash=sha256:cc"


def test_an_entry_that_is_not_pinned_is_refused() -> None:
    with pytest.raises(SystemExit, match="app>=1: is no pinned requirement"):
        read_lock("app>=1\n")


def test_the_locked_tools_of_tests_and_checks_are_not_in_the_image() -> None:
    lock = read_lock(LOCK.read_text())
    project = tomllib.loads(PROJECT.read_text())
    kept = {entry.name for entry in runtime(lock, project, "cuda")}
    dev = {re.split(r"[<>=]", item)[0].lower() for item in project["project"]["optional-dependencies"]["dev"]}
    assert not kept & dev
    direct = {re.split(r"[\[<>=]", item)[0].lower() for item in project["project"]["dependencies"]} - {"dvc-smb"}
    assert direct | {"lightning", "pyspnego"} <= kept, "what we ask for ourselves is there, extras included"
    small = {entry.name for entry in runtime(lock, project, "cpu")}
    assert not [name for name in small if name.startswith(CUDA) and name != "nvidia-ml-py"]
    assert {entry.name for entry in build_tools(lock)} >= {"hatchling", "packaging"}


def test_it_runs_with_nothing_installed() -> None:
    command = [sys.executable, "-I", "-S", lock_module.__file__, str(LOCK), str(PROJECT)]
    parts = {
        part: subprocess.run([*command, part, "cpu"], capture_output=True, text=True, check=True).stdout
        for part in ("tools", "runtime", "torch")
    }
    assert parts["torch"].splitlines() == [line for line in parts["torch"].splitlines() if line.endswith("+cpu")] != []
    assert "hatchling==" in parts["tools"]
    assert "--hash=sha256:" in parts["runtime"]
    empty = subprocess.run([*command, "torch", "cuda"], capture_output=True, text=True, check=True)
    assert empty.stdout == ""
