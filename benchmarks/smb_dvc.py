"""``dvc push``, ``dvc pull`` and ``dvc status -c`` on a share by ``smb://``, against a remote in a local directory.

Whole commands, started anew each time; the directory and the share lie on the same disk. Before each push the remote is
empty, before each pull the cache and the workspace; what DVC remembers of a remote is forgotten each time. Prints
Markdown tables.

    python -m benchmarks.smb_dvc --pairs 5 --work images large
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.commands import Cost, run
from benchmarks.smb_measure import (
    PACKAGE,
    SETTINGS,
    WORKS,
    Work,
    arguments,
    make_files,
    print_table,
    scratch,
    take_turns,
    total,
)
from smb_servers.smbd import Smbd

OURS = "smb://"
LOCAL = "local directory"
# Plain `dvc` where dvc-smb is installed; the same here, from a checkout, for both remotes.
DVC = [sys.executable, "-c", "import sys, dvc_smb._hook; from dvc.cli import main; sys.exit(main(sys.argv[1:]))"]


class Repository:
    """A DVC repository with one dataset and two remotes."""

    def __init__(self, folder: Path, server: Smbd, work: Work) -> None:
        self.path = folder / "repository"
        self.path.mkdir()
        self.memory = folder / "site-cache"
        self.remotes = {OURS: server.path() / "dvc", LOCAL: folder / "remote"}
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(PACKAGE),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.memory),
            "DVC_GLOBAL_CONFIG_DIR": str(folder / "none"),
            "DVC_SYSTEM_CONFIG_DIR": str(folder / "none"),
        }
        self.dvc("init", "--quiet", "--no-scm")
        self.dvc("config", "core.check_update", "false")
        self.dvc("remote", "add", "smb", server.url("dvc"))
        # In the file that is not committed, and not on a command line.
        (self.path / ".dvc/config.local").write_text(f"['remote \"smb\"']\n    password = {server.password}\n")
        self.dvc("remote", "add", "local", str(self.remotes[LOCAL]))
        make_files(self.path / "data", work)
        self.dvc("add", "--quiet", "data")
        self.objects = total(self.path / ".dvc/cache/files/md5")
        self.files = total(self.path / "data")

    def dvc(self, *words: str) -> Cost:
        """Run one command of DVC."""
        return run([*DVC, *words], self.environment, self.path)

    def _forget(self) -> None:
        shutil.rmtree(self.memory, ignore_errors=True)
        shutil.rmtree(self.path / ".dvc/tmp", ignore_errors=True)

    def push(self, remote: str) -> Cost:
        """Push to an empty remote."""
        shutil.rmtree(self.remotes[remote], ignore_errors=True)
        self.remotes[remote].mkdir()
        self._forget()
        cost = self.dvc("push", "--quiet", "--remote", "smb" if remote == OURS else "local")
        self._expect(total(self.remotes[remote] / "files/md5"), self.objects, f"push to {remote}")
        return cost

    def pull(self, remote: str) -> Cost:
        """Pull into an empty cache and workspace."""
        for folder in (".dvc/cache", "data"):
            shutil.rmtree(self.path / folder, ignore_errors=True)
        self._forget()
        cost = self.dvc("pull", "--quiet", "--remote", "smb" if remote == OURS else "local")
        self._expect(total(self.path / ".dvc/cache/files/md5"), self.objects, f"pull from {remote}")
        self._expect(total(self.path / "data"), self.files, f"pull from {remote}")
        return cost

    def status(self, remote: str) -> Cost:
        """Compare the cache with a complete remote."""
        self._forget()
        return self.dvc("status", "--quiet", "--cloud", "--remote", "smb" if remote == OURS else "local")

    @staticmethod
    def _expect(found: tuple[int, int], expected: tuple[int, int], what: str) -> None:
        if found != expected:
            raise RuntimeError(f"{what}: {found} files and bytes instead of {expected}")


def main() -> None:
    """Run the pairs and print the tables."""
    parser = arguments(__doc__ or "", list(WORKS))
    actions = ["push", "pull", "status"]
    parser.add_argument("--action", nargs="+", choices=actions, default=actions)
    options = parser.parse_args()
    for name in options.work:
        work = WORKS[name].scaled(options.scale)
        with scratch(options.folder) as folder, Smbd(folder / "share", globals=SETTINGS) as server:
            repository = Repository(folder, server, work)
            if "push" not in options.action:
                for remote in (OURS, LOCAL):
                    repository.push(remote)
            for action in options.action:
                # The cost of `status` is in the number of objects.
                if action == "status" and work.count == 1:
                    continue
                method: Callable[[str], Cost] = getattr(repository, action)
                turns = {remote: partial(method, remote) for remote in (OURS, LOCAL)}
                title = "dvc status -c" if action == "status" else f"dvc {action}"
                print_table(f"`{title}`, {work}", take_turns(turns, options.pairs, f"{title} {work}"), OURS)


if __name__ == "__main__":
    main()
