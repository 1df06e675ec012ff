"""Image files in, network inputs out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ml.boxes.drawing import Image
from ml.boxes.geometry import Letterbox

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
GREY = 114  # around the image in the network's input, as in training


def read_image(path: Path) -> Image | None:
    """An image file as RGB of shape (h, w, 3), turned as its camera says; None where it cannot be read."""
    try:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, OSError):
        return None
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def resize(image: Image, height: int, width: int) -> Image:
    """The image at another size, bilinear without smoothing before, as networks saw it in training."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def place(scaled: Image, fit: Letterbox) -> Image:
    """The network's input: the image, already scaled, where the letterbox puts it, grey around it."""
    canvas = np.full((*fit.network, 3), GREY, np.uint8)
    height, width = fit.scaled
    canvas[fit.top : fit.top + height, fit.left : fit.left + width] = scaled
    return canvas
