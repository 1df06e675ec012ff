"""git, as far as a run needs it: which code this is, committing a dataset version, a worktree for a reproduction."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.problems import Problem, UserError

GENERATED = ("dvc.lock", "reports/latest.md")
"""Tracked files that a run itself writes: a change in them does not make the code another."""
CODE = ("configs", "ml", "tasks", "flows", "infra")
"""Folders in which a file unknown to git may be code that runs."""
DATA_TAG = re.compile(r"^data-v(\d+)$")


@dataclass(frozen=True)
class CodeVersion:
    """Which code a run executes.

    Attributes:
        commit: full hash of HEAD.
        branch: its branch, or "HEAD" when detached.
        diff: what the tracked files differ from the commit, as a patch for ``git apply``; empty when clean.
        subject: first line of the commit's message.
        date: when it was committed, ISO 8601.
        unknown: files in the code folders that git neither tracks nor ignores; named, never read.
    """

    commit: str
    branch: str
    subject: str
    date: str
    diff: str
    unknown: tuple[str, ...]

    @property
    def dirty(self) -> bool:
        """Whether the commit alone does not tell what ran."""
        return bool(self.diff or self.unknown)


def git(root: Path, *arguments: str, check: bool = True, given: str = "", env: Mapping[str, str] | None = None) -> str:
    """Run git in ``root`` and return its standard output, without the last newline.

    Args:
        given: its standard input. env: variables besides those of this process.

    Raises:
        UserError: git is missing, or failed (with its message) and ``check`` is true.
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", **(env or {})},
            input=given,
        )
    except FileNotFoundError:
        raise UserError(Problem("git", "is not installed", "install git (apt-get install git)")) from None
    if done.returncode and check:
        said = done.stderr.strip().removeprefix("fatal: ") or f"ended with status {done.returncode}"
        raise UserError(Problem(f"git {arguments[0]} in {root}", said, _remedy(said)))
    return done.stdout.removesuffix("\n")


def find_root(start: Path) -> Path:
    """Return the checkout's root folder, seen from any folder in it.

    Raises:
        UserError: ``start`` is not inside a git checkout.
    """
    return Path(git(start, "rev-parse", "--show-toplevel"))


def code_version(root: Path) -> CodeVersion:
    """Describe the code in ``root`` as it is now.

    Raises:
        UserError: not a checkout, or one without a commit.
    """
    exclude = [f":(exclude){name}" for name in GENERATED]
    unknown = git(root, "ls-files", "--others", "--exclude-standard", "--", *CODE)
    diff = git(root, "diff", "--binary", "HEAD", "--", ".", *exclude)
    commit, date, subject = git(root, "log", "-1", "--format=%H%n%cI%n%s").split("\n", 2)
    return CodeVersion(
        commit=commit,
        branch=git(root, "rev-parse", "--abbrev-ref", "HEAD"),
        subject=subject,
        date=date,
        diff=f"{diff}\n" if diff else "",
        unknown=tuple(unknown.splitlines()),
    )


def commit_files(root: Path, files: Sequence[str], message: str) -> str:
    """Commit exactly ``files``, whatever else is staged or changed, and return the commit's hash.

    Files unchanged since HEAD make no commit: HEAD's hash is returned.
    """
    git(root, "add", "--", *files)
    if git(root, "status", "--porcelain", "--", *files):
        git(root, "commit", "--quiet", "--only", "-m", message, "--", *files)
    return git(root, "rev-parse", "HEAD")


def next_data_tag(root: Path) -> str:
    """Return ``data-vN``, N one above the highest there is."""
    numbers = [int(match[1]) for tag in git(root, "tag", "--list", "data-v*").split() if (match := DATA_TAG.match(tag))]
    return f"data-v{max(numbers, default=0) + 1}"


def data_tag(root: Path, data_file: str, digest: str) -> str | None:
    """Return the newest ``data-vN`` tag whose ``data_file`` (``data.dvc``) holds ``digest``, if there is one."""
    tags = sorted(
        (tag for tag in git(root, "tag", "--list", "data-v*").split() if DATA_TAG.match(tag)),
        key=lambda tag: int(tag.removeprefix("data-v")),
        reverse=True,
    )
    return next((tag for tag in tags if digest in git(root, "show", f"{tag}:{data_file}", check=False)), None)


def add_worktree(root: Path, commit: str, target: Path) -> None:
    """Check ``commit`` out into the new folder ``target``, detached; the checkout in ``root`` stays as it is.

    Raises:
        UserError: the commit is not in this repository, or ``target`` exists.
    """
    git(root, "worktree", "add", "--quiet", "--detach", str(target), commit)


def remove_worktree(root: Path, target: Path) -> None:
    """Remove a worktree made by :func:`add_worktree`, with all that is in it."""
    git(root, "worktree", "remove", "--force", str(target), check=False)
    git(root, "worktree", "prune")


def apply_patch(root: Path, patch: str) -> None:
    """Apply a patch made by :func:`code_version` to a clean checkout.

    Raises:
        UserError: the patch does not fit.
    """
    done = subprocess.run(
        ["git", "-C", str(root), "apply", "--whitespace=nowarn", "-"], input=patch, text=True, capture_output=True
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise UserError(
            Problem(
                f"the uncommitted changes of the run, in {root}",
                f"do not apply: {said[0] if said else 'git apply failed'}",
                "the diff kept with the run was cut or masked: only a run from a clean commit can be made again",
            )
        )


def _remedy(said: str) -> str:
    if "not a git repository" in said:
        return "run this inside the checkout (git clone makes one)"
    if "user.email" in said or "user.name" in said or "tell me who you are" in said:
        return "git config user.name 'Your Name' && git config user.email you@example.org"
    if "HEAD" in said and ("ambiguous" in said or "unknown revision" in said or "bad revision" in said):
        return "make a first commit"
    return ""
