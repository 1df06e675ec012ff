"""Images: decoded whole, since a header says nothing about a file whose rest is missing."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
THUMBNAIL = 64
SMALLEST_SIDE = 10
_ORIENTATION = 0x0112
_SUFFIX_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".webp": "WEBP"}
_STEPS = np.arange(32)
_COSINES: NDArray[np.float64] = np.cos(np.pi / 32 * (_STEPS[None, :] + 0.5) * np.arange(8)[:, None])


@dataclass(frozen=True, eq=False)
class Picture:
    """What is kept of a decoded image.

    Attributes:
        width, height: pixels, upright (EXIF orientation applied, as training does).
        format: the format of its content (``JPEG``).
        digest: hash of the file's bytes.
        phash: 64-bit perceptual hash: signs of the lowest 8 x 8 cosine frequencies against their median.
        thumbnail: shape (64, 64), uint8, grey, scaled with a smooth filter (with a box filter scaled copies differ).
    """

    width: int
    height: int
    format: str
    digest: str
    phash: int
    thumbnail: NDArray[np.uint8]


class PictureError(Exception):
    """An image that cannot be used: a key of ``ml.dataset.faults.KINDS`` and the reason."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


def read_picture(path: Path) -> Picture:
    """Decode ``path`` to its last pixel. The decoder works without Python's lock: threads read side by side.

    Raises:
        PictureError: the file is empty, truncated, unreadable, of another format, or too small.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PictureError("image-unreadable", f"cannot be read: {error.strerror}") from None
    if not data:
        raise PictureError("image-empty", "has no bytes")
    image = decode(data)
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    upright = image if image.getexif().get(_ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    width, height = upright.size
    if min(width, height) < SMALLEST_SIDE:
        raise PictureError("image-small", f"is {width} x {height} pixels")
    thumbnail = np.asarray(upright.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BICUBIC))
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return Picture(width, height, kind, digest, _phash(thumbnail), thumbnail)


def decode(data: bytes) -> Image.Image:
    """The image whose file holds ``data``, all pixels decoded.

    Raises:
        PictureError: see ``read_picture``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError:
            raise PictureError(*_foreign(data)) from None
        except (Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
            raise PictureError("image-unreadable", f"cannot be decoded: {error}") from None
        try:
            image.load()
        except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
            if "truncated" in str(error):
                raise PictureError("image-truncated", "breaks off: its last part is missing") from None
            raise PictureError("image-unreadable", f"cannot be decoded to its end: {error}") from None
    if image.format in ("JPEG", "MPO") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        # A copy that broke off may have its full length with a tail of zeros, which decodes as grey without a word.
        raise PictureError("image-truncated", "breaks off: its last part is missing, it has no end-of-image marker")
    return image


def misnamed(path: Path, picture: Picture) -> str | None:
    """The reason when the extension names another format than the content has."""
    if _SUFFIX_FORMATS[path.suffix.lower()] == picture.format:
        return None
    return f"holds a {picture.format} image"


def _foreign(data: bytes) -> tuple[str, str]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return "image-content", f"holds a {image.format} image, which training does not read"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return "image-unreadable", f"holds no image (its first bytes are {data[:8]!r})"


def _phash(thumbnail: NDArray[np.uint8]) -> int:
    half = thumbnail.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    frequencies = (_COSINES @ half @ _COSINES.T).ravel()
    bits = frequencies > np.median(frequencies[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
