"""``dvc`` as a process of its own, without the second and a half that importing DVC takes.

A server imports DVC once; every command is a fork of it, with its own folder, environment, output and exit status.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PRELOADED = [
    "dvc_smb._hook",
    "dvc.cli",
    "dvc.cli.parser",
    "dvc.repo",
    "dvc.fs",
    "dvc.info",
    "dvc.api",
    "dvc_data.index",
]


@dataclass(frozen=True)
class Done:
    """What a command did.

    Attributes:
        status: its exit status.
        out, err: what it printed.
        seconds: how long it took.
    """

    status: int
    out: str
    err: str
    seconds: float

    @property
    def printed(self) -> str:
        return self.out + self.err

    @property
    def errors(self) -> list[str]:
        """The lines on stderr that say ``ERROR``."""
        return [line for line in self.err.splitlines() if line.startswith("ERROR")]


def run_forked(
    function: Callable[..., int | None],
    *arguments: Any,
    folder: Path,
    environment: Mapping[str, str],
    scratch: Path,
    timeout: float = 60,
) -> Done:
    """Run a module's function in a fork of the server; its return value is the exit status."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    scratch.mkdir(parents=True, exist_ok=True)
    out, err = scratch / "out", scratch / "err"
    process = context.Process(
        target=_child, args=(function, arguments, str(folder), dict(environment), str(out), str(err))
    )
    begin = time.monotonic()
    process.start()
    process.join(timeout)
    seconds = time.monotonic() - begin
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError(f"{arguments} took longer than {timeout} s; it printed:\n{out.read_text()}{err.read_text()}")
    assert process.exitcode is not None
    return Done(process.exitcode, out.read_text(), err.read_text(), seconds)


def _child(
    function: Callable[..., int | None],
    arguments: Sequence[Any],
    folder: str,
    environment: Mapping[str, str],
    out: str,
    err: str,
) -> None:
    for path, number in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    status = 70
    try:
        status = function(*arguments) or 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        sys.exit(status)


def dvc_main(arguments: list[str]) -> int:
    """Run one ``dvc`` command in this process."""
    from dvc.cli import main

    return int(main(arguments) or 0)


@dataclass(frozen=True)
class Repository:
    """A git and DVC repository of a user who has no configuration, cache or credentials beside it.

    Attributes:
        path: its folder.
        home: where DVC keeps what it keeps for a user.
        environment: what its commands see, on top of the home.
    """

    path: Path
    home: Path
    environment: Mapping[str, str]

    @property
    def variables(self) -> dict[str, str]:
        """The whole environment of a command here."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
        folders = {
            name: str(self.home / name.lower())
            for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR")
        }
        return {**kept, **folders, "DVC_NO_ANALYTICS": "1", "HOME": str(self.home), **self.environment}

    def dvc(self, *arguments: str, environment: Mapping[str, str] | None = None, timeout: float = 60) -> Done:
        """Run a command, whatever its exit status."""
        return run_forked(
            dvc_main,
            list(arguments),
            folder=self.path,
            environment={**self.variables, **(environment or {})},
            scratch=self.home / "output",
            timeout=timeout,
        )

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """Run a command that has to succeed, and return what it printed on stdout."""
        done = self.dvc(*arguments, environment=environment)
        assert done.status == 0, f"dvc {' '.join(arguments)} ended with {done.status}:\n{done.printed}"
        return done.out

    def config(self) -> dict[str, Any]:
        """Return the remotes as DVC reads them."""
        lines = self.run("config", "--list").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def json(self, *arguments: str) -> Any:
        """Run a command with ``--json`` and return what it says."""
        return json.loads(self.run(*arguments, "--json"))
