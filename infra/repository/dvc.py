"""DVC, through its command line: the versioned data, the stages of the graph, the share.

Commands run in processes of their own, so that a stage's output can be read line by line and its whole process group
be stopped. What DVC says is turned into :class:`~configs.problems.UserError`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

import yaml

from configs.problems import Problem, UserError, printed_error
from infra.process import Child, pump
from infra.repository.dvc_process import END, PASSING, REFUSED

if TYPE_CHECKING:
    from infra.repository.share import Share


class Outcome(StrEnum):
    """What reproducing a stage came to."""

    RAN = "ran"
    FETCHED = "fetched"  # run earlier, here or elsewhere, from the same inputs: outputs come from the run cache
    UNCHANGED = "unchanged"


class StageError(UserError):
    """A stage's own command failed: what it said on its last lines is the error."""

    def __init__(self, stage: str, status: int, said: Sequence[str]) -> None:
        self.stage = stage
        self.status = status
        words = _last_words(said, most=200)
        error = "\n".join(printed_error(words.splitlines())) or _last_words(said)
        super().__init__(Problem(f"stage {stage}", error or f"ended with status {status}", ""))


class ShareError(UserError):
    """The share did not answer: worth another try."""


class MissingDataError(UserError):
    """The share answers, but what was asked for is not in it."""


class Dvc:
    """DVC in one checkout. Start it early: it warms up beside whatever else is done, see :mod:`dvc_process`.

    A context manager: leaving it, also by an exception, ends the command at work.
    """

    def __init__(self, root: Path, env: Mapping[str, str] | None = None, python: Path = Path(sys.executable)) -> None:
        """Start DVC in the checkout ``root``.

        Args:
            env: the environment of commands and stages, this process's when None.
            python: the interpreter that stages find as ``python``.
        """
        self.root = root
        self._env = _environment(env, python)
        self._share: Share | None = None
        self._process = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.close()

    def connect(self, share: Share) -> None:
        """Use ``share`` from now on: commands that reach it are given its credentials, and stop when it is not there.

        Raises:
            UserError: DVC's configuration cannot be written.
        """
        share.configure(self)
        self._share = share

    def run(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] = lambda line: None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> tuple[int, list[str]]:
        """Run a dvc command and return its exit status and output lines.

        Args:
            env: variables for this command, besides those of the checkout.

        Raises:
            UserError, ShareError: the command needs the share, which is not there.
        """
        lines: list[str] = []
        status = 255

        def keep(line: str) -> None:
            nonlocal status
            text, end, number = line.partition(END)
            if end:
                status = int(number)
            if text or not end:
                lines.append(text)
                on_line(text)

        variables = self._env | dict(env or {})
        if self._share is not None and _reaches_share(arguments):
            self._share.check()
            variables |= self._share.environment
        request = json.dumps({"argv": arguments, "env": variables})
        try:
            self._process.write_line(request)
            pump(self._process, lambda line: END in line, keep, on_tick)
        except BaseException:
            self._process.close()
            self._process = self._start()
            raise
        return status, lines

    def reproduce(
        self,
        stage: str,
        *,
        force: bool = False,
        keep_cache: bool = False,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] = lambda line: None,
        on_tick: Callable[[], None] = lambda: None,
    ) -> Outcome:
        """Bring one stage up to date: leave it, fetch its outputs from the run cache or the share, or run it.

        Args:
            force: run it although nothing changed.
            keep_cache: leave cache and run cache as they are; outputs stay in the workspace only.

        Raises:
            StageError: the stage's command failed.
            UserError: DVC could not run it (bad dvc.yaml, missing inputs, another dvc at work).
        """
        options = ["--force"] if force else ["--pull"]
        if keep_cache:
            options.append("--no-commit")
        status, lines = self.run("repro", "--single-item", *options, stage, env=env, on_line=on_line, on_tick=on_tick)
        running = next((index for index, line in enumerate(lines) if line == f"Running stage '{stage}':"), None)
        if status:
            if running is not None:
                raise StageError(stage, status, [line for line in lines[running + 2 :] if not _is_dvc_noise(line)])
            raise _error(f"dvc repro {stage}", status, lines)
        if running is not None:
            return Outcome.RAN
        if any(line.startswith(f"Stage '{stage}' is cached") for line in lines):
            return Outcome.FETCHED
        return Outcome.UNCHANGED

    def pull(self, *targets: str) -> int:
        """Fetch ``targets`` (``data.dvc``) from the share and check them out.

        Returns:
            How many files came from the share; 0 where the cache had them all.

        Raises:
            MissingDataError: the share answers but does not hold them.
            ShareError: the share does not answer.
        """
        said = "\n".join(self._checked("pull", *targets))
        fetched = re.search(r"(\d+) files? fetched", said)
        return int(fetched[1]) if fetched else 0

    def push(self, *targets: str, run_cache: bool = False) -> None:
        """Send ``targets`` (all of the workspace when none), and the run cache if asked, to the share.

        Raises:
            ShareError: the share does not answer.
        """
        self._checked("push", *(["--run-cache"] if run_cache else []), *targets)

    def add(self, path: str) -> None:
        """Track ``path`` (``data``) as it is now: writes ``data.dvc`` and fills the cache."""
        self._checked("add", "--quiet", path)

    def is_present(self, target: str) -> bool:
        """Whether the workspace holds ``target`` (``data.dvc``) exactly as its ``.dvc`` file says."""
        lines = self._checked("status", "--json", target)
        return not json.loads(lines[-1] if lines else "{}")

    def _checked(self, command: str, *arguments: str) -> list[str]:
        status, lines = self.run(command, *arguments)
        if status:
            raise _error(f"dvc {command}", status, lines)
        return lines

    def _start(self) -> Child:
        # The checkout may be of another commit, with an infra of its own: ours comes from where this module lies.
        code = str(Path(__file__).parents[2])
        serve = "import sys; sys.path.insert(0, sys.argv[1]); from infra.repository.dvc_process import serve; serve()"
        return Child([sys.executable, "-c", serve, code], cwd=self.root, env=self._env)


def tracked_digest(root: Path, data_file: str = "data.dvc") -> str:
    """Return the md5 that a ``.dvc`` file records for its one output (``.dir`` at the end for a folder).

    Raises:
        UserError: the file is missing or is not a .dvc file.
    """
    return _tracked(root, data_file)["md5"]


def tracked_path(root: Path, data_file: str) -> str:
    """Return what a ``.dvc`` file tracks, relative to ``root``.

    Raises:
        UserError: the file is missing or is not a .dvc file.
    """
    return str(PurePosixPath(data_file).parent / _tracked(root, data_file)["path"])


def _tracked(root: Path, data_file: str) -> dict[str, str]:
    path = root / data_file
    try:
        (output, *_) = yaml.safe_load(path.read_text(encoding="utf-8"))["outs"]
        return {key: str(output[key]) for key in ("md5", "path")}
    except FileNotFoundError:
        raise UserError(
            Problem(str(path), "is missing: no dataset is tracked", "run the flow publish-dataset, or `dvc add data`")
        ) from None
    except (yaml.YAMLError, KeyError, ValueError, TypeError):
        raise UserError(
            Problem(str(path), "is no .dvc file with an md5", f"git checkout {data_file}, or `dvc add` again")
        ) from None


def stage_key(root: Path, stage: str) -> str | None:
    """Return a hash of all that ``stage`` was made from (command, inputs, parameters) as dvc.lock records it.

    Two runs with the same key trained from the same code, data and parameters. None: the stage never ran.
    """
    entry = locked_stage(root, stage)
    if entry is None:
        return None
    inputs = {name: entry.get(name) for name in ("cmd", "deps", "params")}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def locked_stage(root: Path, stage: str) -> dict[str, Any] | None:
    """Return a stage's entry of dvc.lock, or None."""
    try:
        lock = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    entry = (lock or {}).get("stages", {}).get(stage)
    return entry if isinstance(entry, dict) else None


def _environment(env: Mapping[str, str] | None, python: Path) -> dict[str, str]:
    """The caller's environment with the interpreter first on PATH: stages are written `python -m ml.<stage>`."""
    result = dict(os.environ if env is None else env)
    result["PATH"] = f"{python.parent}{os.pathsep}{result.get('PATH', os.defpath)}"
    result |= {"DVC_NO_ANALYTICS": "true", "PYTHONUNBUFFERED": "1"}
    return result


_LOCKED = re.compile(r"Unable to acquire lock|is busy, it is being blocked")
_MISSING = re.compile(r"missing cache files|does not exist|failed to pull data|Checkout failed", re.IGNORECASE)


def _reaches_share(arguments: Sequence[str]) -> bool:
    return arguments[0] in ("pull", "push") or "--pull" in arguments


def _error(command: str, status: int, lines: Sequence[str]) -> UserError:
    said = _last_words([line.removeprefix("ERROR: ") for line in lines if not _is_dvc_noise(line)])
    text = "\n".join(lines)
    if _LOCKED.search(text):
        return UserError(
            Problem(command, "another dvc command is at work in this checkout", "wait for it to end, then run again")
        )
    if "No space left" in text:
        return UserError(Problem(command, said, "free disk space (dvc gc --workspace drops what no version uses)"))
    if status == PASSING:
        return ShareError(Problem(command, said, "check that the share is up (mlops doctor)"))
    if status == REFUSED:
        return UserError(Problem(command, said, "mlops doctor says what the share allows"))
    if command == "dvc pull" and _MISSING.search(text):
        return MissingDataError(Problem(command, said, "push it from where it was published, or publish it again"))
    return UserError(Problem(command, said or f"ended with status {status}", ""))


def _is_dvc_noise(line: str) -> bool:
    return not line.strip() or line.startswith(
        (
            "To track the changes",
            "To enable auto",
            "Use `dvc push`",
            "\tgit add",
            "\tdvc config",
            "Having any troubles?",
        )
    )


def _last_words(lines: Sequence[str], most: int = 12) -> str:
    kept = [line for line in lines if not line.startswith("ERROR: failed to reproduce")][-most:]
    return "\n".join(kept).strip()
