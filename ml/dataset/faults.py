"""Every kind of fault a dataset can have, how grave it is, and what would be right.

An *error* means that training or evaluation would silently lose or misread the file; the share of files with errors
decides whether a run stops. A *warning* is worth a look and never stops a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]

KINDS: dict[str, tuple[Severity, str]] = {
    # the dataset as a whole: one of these errors stops a run whatever the share of faulty files is
    "dataset-yaml": ("error", "write `path: .`, `train: images/train` (val, test alike) and the classes as `names`"),
    "dataset-classes": ("error", "give the same class names in the same order in both places"),
    "split-empty": ("error", "training, validation and test each need images of their own"),
    "class-missing": ("warning", "add images that show the class, or it can be neither learned nor judged there"),
    # images
    "image-empty": ("error", "copy the file again or remove it with its label"),
    "image-unreadable": ("error", "copy the file again or remove it with its label"),
    "image-truncated": ("error", "copy the file again or remove it with its label"),
    "image-content": ("error", "convert it to JPEG, PNG, BMP or WebP"),
    "image-extension": ("error", "convert it to .jpg, .png, .bmp or .webp: training skips other files silently"),
    "image-small": ("error", "remove it or give a larger one: training skips images below 10 pixels a side"),
    "image-misnamed": ("warning", "rename it to the extension of its content"),
    "file-foreign": ("warning", "keep only images here"),
    "name-collision": ("warning", "rename one: on macOS, Windows or a Samba share one replaces the other"),
    "label-shared": ("warning", "rename one: images that differ only in the extension share one label file"),
    "leak-exact": ("error", "keep it in one split: a model is not to be judged on what it has seen"),
    "leak-near": ("error", "keep it in one split: a model is not to be judged on what it has seen"),
    "duplicate-exact": ("warning", "keep one of the two"),
    "duplicate-near": ("warning", "keep one of the two"),
    # labels
    "label-missing": ("error", "add the label file; an empty one says that the image shows none of the classes"),
    "label-orphan": ("error", "add the image, or remove the label file"),
    "label-encoding": ("error", "save it as plain UTF-8 text without a byte order mark"),
    "label-columns": ("error", "a line is `class cx cy width height`"),
    "label-polygon": ("error", "import the dataset, which turns polygons into boxes (python -m ml.importing)"),
    "label-number": ("error", "give plain decimal numbers"),
    "label-class": ("error", "give the number of a known class, from 0"),
    "label-range": ("error", "give shares of the image's width and height, from 0 to 1"),
    "box-zero": ("error", "give a box with a width and a height, or remove the line"),
    "box-outside": ("error", "clip the box to the image; the first two numbers are its centre, not its corner"),
    "box-edge": ("warning", "clip the box to the image"),
    "box-subpixel": ("warning", "remove the line: nothing can be seen in less than a pixel"),
    "box-duplicate": ("warning", "keep one of the two lines"),
}


@dataclass(frozen=True, order=True)
class Fault:
    """One fault.

    Attributes:
        file: path from the dataset's folder, with forward slashes; a folder for a fault of a whole split, ``.`` or
            ``dataset.yaml`` for one of the dataset.
        line: line in a label file, from 1; 0 when the whole file is meant.
        kind: a key of ``KINDS``.
        reason: what is wrong, with the offending value.
    """

    file: str
    line: int
    kind: str
    reason: str

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind][0]

    @property
    def remedy(self) -> str:
        return KINDS[self.kind][1]

    @property
    def of_dataset(self) -> bool:
        """True for a fault of the dataset or a split as a whole, which no share of faulty files excuses."""
        return self.kind.startswith(("dataset-", "split-", "class-"))

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file
