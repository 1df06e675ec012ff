"""Captions stay below their own picture."""

from __future__ import annotations

import pytest

from ml.boxes.sheet import shorten


@pytest.mark.parametrize(
    ("width", "expected"),
    [(20, "warehouse.jpg: 1 box"), (12, "wareho…1 box"), (2, "w…"), (1, ""), (0, "")],
)
def test_a_caption_is_cut_in_its_middle(width: int, expected: str) -> None:
    shortened = shorten("warehouse.jpg: 1 box", width, len)
    assert len(shortened) <= width
    assert shortened == expected
