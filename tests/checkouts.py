"""A small copy of this project as a user has it: a git checkout with data, recipe and stack of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = {"epochs": "4", "imgsz": "128", "batch": "4", "nominal_batch": "4"}


def copy_project(target: Path) -> Path:
    """Copy what git tracks (as it is in the working tree) into a new repository without data, with one commit."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        source = ROOT / name
        if source.is_file() and name not in ("data.dvc", "dvc.lock") and not name.startswith("tests/"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    git(target, "init", "--quiet", "--initial-branch=main")
    git(target, "config", "user.name", "Tester")
    git(target, "config", "user.email", "tester@example.org")
    return target


def small_checkout(target: Path, *, train: int = 80, val: int = 8, test: int = 8, frames: int = 8) -> Path:
    """Make a checkout whose main job takes seconds: few drawn images, four epochs at 128 pixels. All committed."""
    copy_project(target)
    recipe = target / "configs" / "forklift.yaml"
    text = recipe.read_text()
    for key, value in SMALL.items():
        text = re.sub(rf"(?m)^(  {key}:).*$", rf"\1 {value}", text)
    recipe.write_text(text.replace("evaluate:\n", "evaluate:\n  parity_images: 4\n"))
    sizes = [f"--train={train}", f"--val={val}", f"--test={test}", f"--frames={frames}"]
    check(target, sys.executable, "-m", "ml.warehouse", "data", *sizes)
    check(target, "dvc", "add", "--quiet", "data")
    git(target, "add", "--all")
    git(target, "commit", "--quiet", "-m", "A small warehouse")
    return target


def git(checkout: Path, *arguments: str) -> str:
    """Run git in the checkout and return what it prints."""
    return check(checkout, "git", *arguments).strip()


def run(checkout: Path, *command: str, timeout: float = 400, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user in the checkout would: no server or state folder is named in the environment."""
    return subprocess.run(
        command,
        cwd=checkout,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def check(checkout: Path, *command: str, timeout: float = 400, **variables: str) -> str:
    """Run a command that must succeed, and return its standard output."""
    done = run(checkout, *command, timeout=timeout, **variables)
    assert done.returncode == 0, f"{' '.join(command)} ended {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def environment(**variables: str) -> dict[str, str]:
    """The environment of :func:`run`: this one without any server's address, with the interpreter's commands first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "MLOPS_"))}
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
    return kept | {"DO_NOT_TRACK": "true", "DVC_NO_ANALYTICS": "true", "COLUMNS": "120"} | variables
