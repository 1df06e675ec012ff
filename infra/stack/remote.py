"""Is the default DVC remote there, and can it be written? Leaves nothing in it.

Asked in a process of its own: a share that hangs cannot be given up on from within.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Literal

LIMIT_S = 12
Level = Literal["good", "warning", "broken"]


def check(checkout: Path) -> tuple[Level, str, str]:
    """Level, detail and remedy, as in ``checks.Finding``."""
    if not (checkout / ".dvc").is_dir():
        return "broken", "this is no DVC repository", "run this in the root of the checkout"
    command = [sys.executable, str(Path(__file__)), str(checkout)]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=checkout)
        level, detail, remedy = json.loads(asked.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return "broken", f"no answer within {LIMIT_S} s", "is the share's machine on and reachable?"
    except (ValueError, IndexError):
        last = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        return "broken", f"cannot be asked: {last}", "`dvc remote list`, `dvc config core.remote NAME`"
    return level, detail, remedy


def _probe(checkout: Path) -> tuple[Level, str, str]:
    from dvc.config import Config, ConfigError
    from dvc.exceptions import DvcException
    from dvc.fs import get_cloud_fs

    config = Config(str(checkout / ".dvc"))
    name = config["core"].get("remote")
    if not name:
        return "broken", "none is set as the default", "`dvc remote add --default NAME URL`"
    try:
        maker, settings, root = get_cloud_fs(config, name=name)
        remote = maker(**settings)
    except (ConfigError, DvcException) as error:
        return "broken", f"{name}: {error}", "`dvc remote list`; a `smb://` remote needs the package dvc-smb"
    shown = f"{name} at {root}"
    if maker.protocol == "local" and not Path(root).exists():
        above = next(folder for folder in Path(root).parents if folder.exists())
        return _write(remote, above, f"{shown}, made at the first push")
    return _write(remote, root, shown)


def _write(remote: Any, root: object, shown: str) -> tuple[Level, str, str]:
    probe = remote.join(str(root), f".mlops-doctor-{uuid.uuid4().hex}")
    try:
        remote.pipe_file(probe, b"")
    except Exception as error:  # every kind of remote has its own
        remedy = "is it mounted, are the credentials right, may this user write there?"
        return "broken", f"{shown} cannot be written: {error}", remedy
    finally:
        if remote.exists(probe):
            remote.remove(probe)
    return "good", f"{shown}, writable", ""


if __name__ == "__main__":
    print(json.dumps(_probe(Path(sys.argv[1]))))
