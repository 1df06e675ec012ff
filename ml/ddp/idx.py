"""Reads IDX files, the format of MNIST and Fashion-MNIST, plain or compressed with gzip.

The format: two zero bytes, a byte for the type (8: unsigned bytes), a byte for the number of dimensions, the sizes of
the dimensions as big-endian 32-bit numbers, the values. See http://yann.lecun.com/exdb/mnist/.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from configs.problems import Problem, UserError

UNSIGNED_BYTES = 8
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"


def read_images(folder: Path, split: str) -> np.ndarray:
    """Return the images of split ``train`` or ``t10k``: shape (images, rows, columns), unsigned bytes.

    Raises:
        UserError: the file is missing or no whole IDX file of images.
    """
    return read_idx(_find(folder, f"{split}-{IMAGES}"), dimensions=3)


def read_labels(folder: Path, split: str) -> np.ndarray:
    """Return the labels of a split: shape (images,), unsigned bytes.

    Raises:
        UserError: the file is missing or no whole IDX file of labels.
    """
    return read_idx(_find(folder, f"{split}-{LABELS}"), dimensions=1)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Return the unsigned bytes of an IDX file of so many dimensions.

    Raises:
        UserError: it is none, or not whole.
    """
    remedy = "fetch the dataset again (dvc pull)"
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(Problem(str(path), f"cannot be read: {error}", remedy)) from None
    head = 4 + 4 * dimensions
    expected = bytes((0, 0, UNSIGNED_BYTES, dimensions))
    if content[:4] != expected:
        said = f"begins with {content[:4].hex(' ') or 'nothing'}, an IDX file of this kind with {expected.hex(' ')}"
        raise UserError(Problem(str(path), said, remedy))
    if len(content) < head:
        raise UserError(Problem(str(path), f"ends after {len(content)} bytes, within its sizes", remedy))
    shape = struct.unpack(f">{dimensions}I", content[4:head])
    size = int(np.prod(shape, dtype=np.int64))
    if len(content) - head != size:
        said = f"holds {len(content) - head} bytes of values, its sizes {' x '.join(map(str, shape))} make {size}"
        raise UserError(Problem(str(path), said, remedy))
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write unsigned bytes of any shape as an IDX file, compressed where the name ends in ``.gz``."""
    head = bytes((0, 0, UNSIGNED_BYTES, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    content = head + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    found = ", ".join(sorted(path.name for path in folder.glob("*"))[:8]) if folder.is_dir() else "no such folder"
    raise UserError(Problem(str(folder), f"holds no {name}[.gz]", f"there is: {found or 'nothing'}"))
