"""Where the sockets of our ssh connections lie: for their owner only, and gone with the process that made them.

Each connection has a folder of its own: one that was opened by another process may have been to a machine whose host
key is pinned there and not here. What a killed process has left is removed by the next: the folder of a living one is
locked, and the kernel unlocks it whatever ends the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from configs.problems import Problem, UserError

LONGEST = 104 - len("/xxxxxxxx/") - 40 - len(".xxxxxxxxxxxxxxxx")
"""Characters of a parent folder: a socket's path has 104 at most, ours ends in a folder, ssh's ``%C`` and a suffix."""


class SocketFolder:
    """A folder for the sockets of one connection, mode 0700.

    Raises:
        UserError: the folder above it is somebody else's.
    """

    def __init__(self) -> None:
        parent = _parent()
        with _locked(parent, fcntl.LOCK_EX):  # a folder that is made and not yet locked would be taken for a left one
            for left in parent.iterdir():
                _remove_left(left)
            self.path = Path(tempfile.mkdtemp(dir=parent, prefix=""))
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove it, with all that is in it; again is no error."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _parent() -> Path:
    """Return the folder of this user's socket folders, which is the same for all processes; made when it is not there.

    Source for the first choice: https://specifications.freedesktop.org/basedir-spec/latest/.
    """
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nowhere", "mlops-ssh")
    fits = len(str(runtime)) <= LONGEST and runtime.parent.is_dir() and os.access(runtime.parent, os.W_OK)
    name = f"mlops-ssh-{os.geteuid()}"
    temporary = Path(tempfile.gettempdir(), name)
    if len(str(temporary)) > LONGEST:  # TMPDIR is a folder deep down
        temporary = Path("/tmp", name)  # noqa: S108 - ours only, see below
    parent = runtime if fits else temporary
    with contextlib.suppress(FileExistsError):
        parent.mkdir(mode=0o700)
    # Anybody can make that name in a temporary folder, also as a link to elsewhere.
    found = parent.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise UserError(Problem(str(parent), "is not ours", "remove it: who owns it could read our connections"))
    parent.chmod(0o700)
    return parent


def _remove_left(folder: Path) -> None:
    with contextlib.suppress(OSError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
