"""Pictures in, pictures with boxes out, in order, while others are decoded and inferred."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from queue import Empty, Full, Queue
from typing import Protocol, TypeVar

from ml.boxes.drawing import Image
from ml.boxes.geometry import Boxes, Letterbox, network_shape
from ml.detection.network import Network
from ml.detection.yuv import ColourSpace

AHEAD = 16  # pictures between reader and writer: a photo of a phone is 36 MB
PATIENCE_S = 0.1


class Picture(Protocol):
    """What the pipeline must know of a frame or an image."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""

    def small(self, height: int, width: int) -> Image:
        """The picture as an RGB image of shape (height, width, 3)."""

    def network_input(self, fit: Letterbox) -> tuple[Image, ColourSpace | None]:
        """The picture where the letterbox puts it, planes of shape (3, height, width), and their space if not RGB."""


AnyPicture = TypeVar("AnyPicture", bound=Picture)


def find_boxes(
    pictures: Iterable[AnyPicture], network: Network, imgsz: int, ahead: int = AHEAD
) -> Generator[tuple[AnyPicture, Boxes]]:
    """Yield every picture with its boxes, in pixels of the picture, in the order they came.

    A thread reads the pictures and feeds the network; what it raises is raised here.
    Closing the iterator ends the thread.

    Args:
        pictures: read from another thread.
        network: runs on them.
        imgsz: the longer side of the network's input, pixels.
        ahead: pictures that are read before the caller takes them, at most.
    """
    waiting: Queue[tuple[AnyPicture, Letterbox, Future[Boxes]] | BaseException | None] = Queue(ahead)
    stop = threading.Event()

    def put(item: tuple[AnyPicture, Letterbox, Future[Boxes]] | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return waiting.put(item, timeout=PATIENCE_S)
            except Full:
                continue
        return None

    def feed() -> None:
        try:
            try:
                for picture in pictures:
                    if stop.is_set():
                        return
                    fit = Letterbox.fit(picture.size, network_shape(picture.size, imgsz, network.model.stride))
                    put((picture, fit, network.submit(*picture.network_input(fit))))
            finally:
                network.flush()  # also where reading ended early: what came before is waited for
            put(None)
        except BaseException as error:  # the caller's thread is the one that reports
            put(error)

    feeder = threading.Thread(target=feed, name="feed", daemon=True)
    feeder.start()
    try:
        while True:
            item = _get(waiting, feeder)
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            picture, fit, future = item
            found = future.result()
            yield picture, Boxes(fit.restore(found.xyxy), found.confidence, found.classes)
    finally:
        stop.set()
        feeder.join()
        network.close()


Item = TypeVar("Item")


def _get(waiting: Queue[Item], feeder: threading.Thread) -> Item:
    """The next item; waits in short steps, for Ctrl-C to be heard on every system."""
    while True:
        try:
            return waiting.get(timeout=PATIENCE_S)
        except Empty:
            if not feeder.is_alive() and waiting.empty():
                raise RuntimeError("the thread that feeds the network ended without a word") from None
