"""The images and labels of a split, read without ever writing beside them.

Ultralytics keeps a label cache and image caches in the dataset's folders and rewrites damaged JPEG files. The dataset
is tracked by DVC and belongs to the user, so the labels are read here and caches live elsewhere.
"""

from __future__ import annotations

import hashlib
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ultralytics.data.dataset import YOLODataset

from ml.yolov5.settings import available_cores

_ORIENTATION = 0x0112
_TURNED = {5, 6, 7, 8}


class Split(YOLODataset):  # type: ignore[misc]
    """One split of a dataset in YOLO layout: ``<root>/images/<split>``, ``<root>/labels/<split>``.

    Args:
        root: the dataset's folder.
        split: ``train`` or ``val``.
        disk_cache: existing folder for decoded images where the recipe asks for a cache on disk.
        kwargs: as for ``YOLODataset``.

    Attributes:
        dropped: image path to the reason why it is not used.
    """

    im_files: list[str]
    ims: Any

    def __init__(self, root: Path, split: str, disk_cache: Path, **kwargs: Any) -> None:
        self.images = root / "images" / split
        self.annotations = root / "labels" / split
        self.disk_cache = disk_cache
        self.dropped: dict[str, str] = {}
        super().__init__(img_path=str(self.images), **kwargs)

    def get_labels(self) -> list[dict[str, Any]]:
        """Read every image's size and boxes; faulty images are noted in ``dropped`` and left out.

        Returns:
            One dictionary an image as Ultralytics wants it; ``bboxes`` is (n, 4) as x, y, width, height in 0..1.
        """
        labels: list[dict[str, Any]] = []
        for name in self.im_files:
            image = Path(name)
            annotation = self.annotations / image.relative_to(self.images).with_suffix(".txt")
            try:
                height, width = image_size(image)
                rows = read_rows(annotation, len(self.data["names"]))
            except (OSError, ValueError, SyntaxError) as error:
                self.dropped[name] = str(error)
                continue
            labels.append(
                {
                    "im_file": name,
                    "shape": (height, width),
                    "cls": rows[:, :1],
                    "bboxes": rows[:, 1:],
                    "segments": [],
                    "keypoints": None,
                    "normalized": True,
                    "bbox_format": "xywh",
                }
            )
        self.im_files = [label["im_file"] for label in labels]
        return labels

    def cache_images(self) -> None:
        """Decode every image once, into memory or into ``disk_cache``."""
        with ThreadPool(available_cores()) as pool:
            if self.cache == "disk":
                list(pool.imap(self.cache_images_to_disk, range(self.ni)))
                return
            for index, loaded in enumerate(pool.imap(self.load_image, range(self.ni))):
                self.ims[index], self.im_hw0[index], self.im_hw[index] = loaded
        self.ims = self._ImageCache(self.ims)

    @property
    def npy_files(self) -> list[Path]:
        """Where decoded images are cached on disk."""
        return self._npy_files

    @npy_files.setter
    def npy_files(self, beside_images: list[Path]) -> None:
        names = (hashlib.sha256(str(path).encode()).hexdigest()[:32] for path in beside_images)
        self._npy_files = [self.disk_cache / f"{name}.npy" for name in names]


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image as it is shown.

    Raises:
        OSError, SyntaxError: it cannot be read to its end.
    """
    with Image.open(path) as image:
        width, height = image.size
        if not (image.format == "JPEG" and _ends_as_jpeg(path)):
            image.load()
        turned = image.getexif().get(_ORIENTATION) in _TURNED
    if min(width, height) < 10:
        raise ValueError(f"is {width}x{height} pixels, too small")
    return (width, height) if turned else (height, width)


def _ends_as_jpeg(path: Path) -> bool:
    """A whole JPEG file ends with its end-of-image marker: then decoding it here just to see is not needed."""
    with path.open("rb") as file:
        file.seek(-2, 2)
        return file.read() == b"\xff\xd9"


def read_rows(path: Path, classes: int) -> np.ndarray:
    """The label file's rows (n, 5): class, x, y, width, height in 0..1. A polygon becomes the box around it.

    No file means no objects: a background image.

    Raises:
        ValueError: a row is no box or polygon, out of range, or of an unknown class.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return np.zeros((0, 5), np.float32)
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        values = [float(value) for value in line.split()]
        if not values:
            continue
        if len(values) >= 7 and len(values) % 2:
            xs, ys = values[1::2], values[2::2]
            left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
            values = [values[0], (left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
        if len(values) != 5 or not all(0 <= value <= 1 for value in values[1:]) or values[0] not in range(classes):
            raise ValueError(f"{path.name}:{number} is no box of a known class in 0..1")
        if values not in rows:
            rows.append(values)
    return np.array(rows, np.float32).reshape(-1, 5)
