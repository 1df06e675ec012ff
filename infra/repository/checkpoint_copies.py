"""Copies a training's newest checkpoint to the share beside the training, which it neither slows down nor fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from configs.problems import UserError
from infra.repository.checkpoint_store import CheckpointStore, epochs_of

T = TypeVar("T")
EVERY_S = 20.0
"""Seconds between the begins of two copies, at least."""
SHARE_OF_TIME = 0.1
"""A copy that takes long is followed by a pause, so that copying takes no more than this part of the time."""
LAST_S = 20.0
"""Seconds that the last copy has when the run is stopped: with the training's own end it fits into a pod's grace."""


class CheckpointCopies:
    """One thread that copies whatever is newest below ``trainings/KEY/``. Use it in a ``with``.

    On leaving, what is not in the share yet is copied at once, and is waited for :data:`LAST_S` seconds.
    """

    def __init__(
        self, store: CheckpointStore, trainings: Path, say: Callable[[str], None], every_s: float = EVERY_S
    ) -> None:
        """Copy from ``trainings``.

        Args:
            say: is given a sentence when copying begins to fail, once, and when it works again.
        """
        self._store = store
        self._trainings = trainings
        self._say = say
        self._every_s = every_s
        self._sent: dict[str, int] = {}
        self._failing = False
        self._finished = False
        self._news, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)

    def __enter__(self) -> CheckpointCopies:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._news.set()
        self._thread.join(LAST_S)

    @property
    def sent(self) -> dict[str, int]:
        """Whole epochs in the share, by training, as far as this run copied or fetched them."""
        return dict(self._sent)

    def fetch(self, key: str) -> int | None:
        """Bring a training's checkpoint here if it is further than what is here; returns its epochs, or None."""
        fetched = self._tried(lambda: self._store.fetch(key, self._trainings / key))
        if fetched is not None:
            self._sent[key] = fetched
        return fetched

    def kept(self) -> set[str]:
        """Return the trainings that the share holds a checkpoint of; none where it cannot be asked."""
        return self._tried(self._store.keys) or set()

    def epoch(self) -> None:
        """Tell that there is a new checkpoint."""
        self._news.set()

    def finished(self) -> None:
        """Tell that the training is done: its checkpoints are removed, and those that nobody wants any more."""
        self._finished = True

    def _work(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            began = time.monotonic()
            if not self._finished:
                self._copy()
            if self._closing.is_set():
                break
            took = time.monotonic() - began
            self._closing.wait(max(self._every_s, took / SHARE_OF_TIME) - took)
        if self._finished:
            self._tried(self._clear)

    def _copy(self) -> None:
        for folder in sorted(self._trainings.glob("*/")):
            newest = max(folder.glob("epoch-*.ckpt"), key=lambda path: epochs_of(path.name) or 0, default=None)
            epochs = epochs_of(newest.name) if newest is not None else None
            if newest is None or epochs is None or epochs <= self._sent.get(folder.name, 0):
                continue
            if self._tried(lambda path=newest, key=folder.name: self._put(key, path)):  # type: ignore[misc]
                self._sent[folder.name] = epochs

    def _put(self, key: str, path: Path) -> bool:
        try:
            self._store.put(key, path)
        except FileNotFoundError:
            if path.exists():
                raise
            return False  # the training has dropped it for a newer one
        return True

    def _clear(self) -> None:
        for key in self._sent:
            self._store.clear(key)
        self._store.prune()

    def _tried(self, call: Callable[[], T]) -> T | None:
        """Return what ``call`` returns; None when the share cannot be used, which is said once."""
        try:
            result = call()
        except (OSError, UserError, ValueError) as error:
            if not self._failing:
                self._say(f"checkpoints cannot be kept in the share, the training goes on without: {error}")
            self._failing = True
            return None
        if self._failing:
            self._say("checkpoints are kept in the share again")
        self._failing = False
        return result
