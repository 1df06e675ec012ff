"""Checkpoints of trainings in the share, for a training that goes on elsewhere: another node, or another machine.

They lie below ``checkpoints/KEY/epoch-NNNNN.ckpt`` in the share, beside DVC's own folders. ``KEY`` names a training by
all that it is made from (:func:`ml.yolov5.inputs.key`), so that two runs of the same training may well use the same
one. Only the one with the most epochs is kept, and none of a training that is finished.
"""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.repository.share import Share
from infra.repository.share_files import open_files

FOLDER = "checkpoints"
KEPT_DAYS = 14.0
"""Days after which the checkpoint of a training that nobody went on with is removed."""
_NAME = re.compile(r"epoch-(\d{5})\.ckpt")
_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint in the share: ``epochs`` whole epochs, at ``path`` there."""

    key: str
    epochs: int
    path: str


def epochs_of(name: str) -> int | None:
    """Return how many whole epochs the checkpoint of this file name holds; None where it is none."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


class CheckpointStore:
    """The checkpoints in one share. Its methods raise ``OSError`` or ``UserError`` where the share cannot be used."""

    def __init__(self, share: Share, filesystem: Any, root: str) -> None:
        """Use ``filesystem`` (of fsspec) and there the folder ``root``; see :func:`open_store`."""
        self._share = share
        self._files = filesystem
        self.root = root

    def keys(self) -> set[str]:
        """Return the trainings that a checkpoint is kept of."""
        return {checkpoint.key for checkpoint in self._all()}

    def newest(self, key: str) -> Checkpoint | None:
        """Return the checkpoint of a training with the most epochs."""
        self._share.check()
        return max(self._of(key), key=lambda checkpoint: checkpoint.epochs, default=None)

    def put(self, key: str, file: Path) -> None:
        """Copy the checkpoint ``file`` into the share under its own name; readers see it whole or not at all."""
        epochs = epochs_of(file.name)
        if epochs is None:
            raise ValueError(f"{file.name} is no name of a checkpoint")
        self._share.check()
        folder = f"{self.root}/{key}"
        part = f"{folder}/.{file.name}.{uuid.uuid4().hex[:8]}"
        self._files.makedirs(folder, exist_ok=True)
        try:
            self._files.put_file(str(file), part)
            self._files.mv(part, f"{folder}/{file.name}")
        except BaseException:
            self._remove(part)
            raise
        for older in self._of(key):
            if older.epochs < epochs:
                self._remove(older.path)

    def fetch(self, key: str, folder: Path) -> int | None:
        """Copy a training's checkpoint into the local ``folder`` if it is further than all that are there.

        Returns:
            The epochs of what was copied; None where there was nothing better.
        """
        found = self.newest(key)
        here = [epochs_of(path.name) or 0 for path in folder.glob("epoch-*.ckpt")]
        if found is None or found.epochs <= max(here, default=0):
            return None
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"epoch-{found.epochs:05d}.ckpt"
        part = folder / f".{target.name}.fetched"
        try:
            self._files.get_file(found.path, str(part))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return found.epochs

    def clear(self, key: str) -> None:
        """Remove what is kept of a training."""
        self._share.check()
        folder = f"{self.root}/{key}"
        for entry in self._entries(folder):
            self._remove(entry["name"])
        try:
            self._files.rmdir(folder)
        except OSError:
            return  # another run of the same training has put one there meanwhile, or there was none

    def prune(self, days: float = KEPT_DAYS) -> None:
        """Remove the checkpoints that nobody has changed for so long, by the share's clock as far as it is right."""
        self._share.check()
        for entry in self._entries(self.root):
            key = str(entry["name"]).rpartition("/")[2]
            if entry["type"] == "directory" and _KEY.fullmatch(key):
                held = [self._modified(item) for item in self._entries(entry["name"])]
                if max(held, default=self._modified(entry)) < time.time() - days * 86400:
                    self.clear(key)

    def _all(self) -> list[Checkpoint]:
        self._share.check()
        keys = [str(entry["name"]).rpartition("/")[2] for entry in self._entries(self.root)]
        return [checkpoint for key in keys if _KEY.fullmatch(key) for checkpoint in self._of(key)]

    def _of(self, key: str) -> list[Checkpoint]:
        found = []
        for entry in self._entries(f"{self.root}/{key}"):
            path = str(entry["name"])
            epochs = epochs_of(path.rpartition("/")[2])
            if epochs is not None:
                found.append(Checkpoint(key, epochs, path))
        return found

    def _entries(self, folder: str) -> list[dict[str, Any]]:
        try:
            return list(self._files.ls(folder, detail=True, refresh=True))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _modified(self, entry: dict[str, Any]) -> float:
        return float(entry.get("mtime") or time.time())

    def _remove(self, path: str) -> None:
        try:
            self._files.rm_file(path)
        except FileNotFoundError:
            return


def open_store(share: Share) -> CheckpointStore | None:
    """Return the checkpoints of a share that is a folder or Samba; None for other remotes of DVC, set by hand."""
    files = open_files(share)
    return None if files is None else CheckpointStore(share, files.filesystem, f"{files.root}/{FOLDER}")
