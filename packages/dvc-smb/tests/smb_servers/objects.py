"""Objects of DVC in a cache and in a share, moved as ``dvc push`` and ``dvc pull`` move them, and what must hold then.

A test moves them in its own process, or in one that it can kill.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import random
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dvc_smb

OBJECTS = "files/md5"
_OBJECT = re.compile(r"[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?")


def make_objects(cache: Path, sizes: Sequence[int], seed: int) -> list[str]:
    """Put objects of these sizes in bytes into a cache (``cache/files/md5/ab/cdef...``); return their md5."""
    generator = random.Random(seed)
    names = []
    for size in sizes:
        content = generator.randbytes(size)
        name = hashlib.md5(content, usedforsecurity=False).hexdigest()
        path = cache / OBJECTS / name[:2] / name[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(content)
            path.chmod(0o444)
            names.append(name)
    return names


def objects(folder: Path) -> dict[str, Path]:
    """Return what lies in a cache or remote under the name of an object, by that name."""
    root = folder / OBJECTS
    found = (path for path in root.glob("*/*") if _OBJECT.fullmatch(path.relative_to(root).as_posix()))
    return {path.parent.name + path.name: path for path in found}


def others(folder: Path) -> list[str]:
    """Return what else lies in a remote: temporaries."""
    known = set(objects(folder).values())
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path not in known)


def is_right(name: str, path: Path) -> bool:
    """Return whether an object's content is what its name says."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == name.removesuffix(".dir")


def wrong(folder: Path) -> list[str]:
    """Return the objects whose content is not what their name says. There must never be one."""
    return [name for name, path in objects(folder).items() if not is_right(name, path)]


def move(action: str, cache: Path, url: str, **options: Any) -> bool:
    """Push (or pull) all objects that the cache (or the remote) has; return whether all arrived.

    The steps of ``dvc push`` and ``dvc pull`` without the workspace. What fails is logged as DVC logs it.
    """
    from dvc.exceptions import DvcException
    from dvc_data.hashfile.db import get_odb
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.transfer import transfer
    from dvc_objects.fs import LocalFileSystem

    filesystem = dvc_smb.SMBFileSystem(**{**dvc_smb.SMBFileSystem._get_kwargs_from_urls(url), **options})
    here = get_odb(LocalFileSystem(), str(cache / OBJECTS), hash_name="md5")
    there = get_odb(filesystem, f"{filesystem._strip_protocol(url)}/{OBJECTS}", hash_name="md5")
    source, target = (here, there) if action == "push" else (there, here)
    try:
        names = list(source.all())
        moved = transfer(source, target, {HashInfo("md5", name) for name in names}, jobs=filesystem.jobs, shallow=False)
    except (DvcException, OSError) as error:
        print(f"{action}: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    return not moved.failed


class Mover:
    """A process that does :func:`move`, forked from a server that has imported DVC already."""

    def __init__(self, action: str, cache: Path, url: str, **options: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["dvc_smb._hook", "dvc.cli", "dvc.repo", "dvc.fs", "dvc.api", "dvc_data.index"])
        with tempfile.NamedTemporaryFile(prefix="mover-", delete=False) as file:
            self._output = Path(file.name)
        self.process = context.Process(target=_forked, args=(str(self._output), action, cache, url), kwargs=options)
        self.process.start()

    def kill(self) -> None:
        """Kill it as ``kill -9`` does."""
        self.process.kill()
        self.process.join(10)

    def finish(self, seconds: float = 60) -> tuple[bool, str]:
        """Wait for its end; return whether all arrived, and what it printed."""
        self.process.join(seconds)
        late = self.process.is_alive()
        self.kill()
        output = self._output.read_text()
        self._output.unlink()
        if late:
            raise TimeoutError(f"it took longer than {seconds} s, and printed:\n{output}")
        return self.process.exitcode == 0, output


def _forked(output: str, action: str, cache: Path, url: str, **options: Any) -> None:
    with Path(output).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    arrived = move(action, cache, url, **options)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(0 if arrived else 1)


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """Look at a remote all the time, as another client would; yields the objects that were ever seen incomplete."""
    seen_wrong: list[str] = []
    seen: set[tuple[str, int]] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            # A folder or file is gone again when the test empties the remote.
            with contextlib.suppress(FileNotFoundError):
                for name, path in objects(folder).items():
                    key = name, path.stat().st_ino
                    if key not in seen and not is_right(name, path):
                        seen_wrong.append(name)
                    seen.add(key)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen_wrong
    finally:
        stop.set()
        thread.join()
