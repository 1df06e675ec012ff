"""The geometry below the pictures: masks, boxes, occlusion, angles, routes."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from ml.drawing import scene as scenes
from ml.drawing.camera import Camera, Frame, Placement
from ml.drawing.canvas import OTHER, Box, Canvas
from ml.drawing.exact import Dice, circle
from ml.drawing.film import DRIVES, WALKS, Film, Route
from ml.drawing.solids import Block, far_to_near
from ml.warehouse import FILM

CAMERA = Camera.looking((200, 100), 100.0, (0.0, 0.0, 1.0), (10.0, 0.0, 1.0))


def _slab(x: float, y: float, low: float, high: float) -> Block:
    """A board of half a metre's width standing across the view at x."""
    return Block((x, y - 0.25, low), (x + 0.01, y + 0.25, high), (80, 80, 80))


def _boxes(*boards: tuple[Block, int]) -> list[Box]:
    canvas, frame = Canvas(CAMERA), Frame(CAMERA, Placement(0.0, 0.0))
    for board, owner in boards:
        board.paint(canvas, frame, owner)
    return canvas.boxes()


def test_box_of_a_board_is_where_a_pinhole_camera_sees_it() -> None:
    # 2 m away: a metre is 50 pixels; half a metre wide, from 0.6 to 1.4 m high, around the middle (100, 50).
    (box,) = _boxes((_slab(2.0, 0.0, 0.6, 1.4), 1))
    # Pixels that an edge touches are filled, so a box is up to one pixel wider.
    expected = (87.5, 30.0, 112.5, 70.0)
    assert [box.x0, box.y0, box.x1, box.y1] == [pytest.approx(value, abs=1.1) for value in expected]


def test_boxes_shrink_to_what_is_visible_and_vanish_when_hidden() -> None:
    far = (_slab(4.0, 0.0, 0.0, 2.0), 1)
    (whole,) = _boxes(far)
    (half,) = _boxes(far, (_slab(2.0, 0.0, 0.0, 1.0), OTHER))
    assert half.y0 == whole.y0
    assert half.y1 == pytest.approx(50, abs=1.1)
    assert _boxes(far, (_slab(2.0, 0.0, 0.0, 1.45), OTHER)) == []


def test_things_mostly_outside_the_picture_get_no_box() -> None:
    inside = 4.0  # the right edge, 4 m away, lies 4 m to the right
    assert len(_boxes((_slab(4.0, -(inside - 0.05), 0.2, 1.8), 1))) == 1
    assert _boxes((_slab(4.0, -(inside + 0.17), 0.2, 1.8), 1)) == []


@pytest.mark.parametrize("index", range(6))
def test_labels_of_a_scene_enclose_its_masks(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Canvas] = []

    class Watched(Canvas):
        def __init__(self, *given: object) -> None:
            super().__init__(*given)  # type: ignore[arg-type]
            drawn.append(self)

    monkeypatch.setattr(scenes, "Canvas", Watched)
    picture, labels = scenes.draw_scene(1, 0, index)
    (canvas,) = drawn
    assert picture.shape == (416, 416, 3)
    visible = set(np.unique(canvas.owners)) - {OTHER}
    assert {label.track for label in labels} <= visible
    for label in labels:
        rows, columns = np.nonzero(canvas.owners == label.track)
        assert label.xyxy == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_scenes_hold_both_classes_in_sizes_that_can_be_learnt() -> None:
    labels = [label for index in range(40) for label in scenes.draw_scene(2, 1, index)[1]]
    sides = [max(x1 - x0, y1 - y0) * 224 / 416 for x0, y0, x1, y1 in (label.xyxy for label in labels)]
    kinds = [label.kind for label in labels]
    assert kinds.count(0) > 30
    assert kinds.count(1) > 60
    assert sum(side < 20 for side in sides) < 0.15 * len(sides)


def test_tracks_of_the_film_keep_their_class_and_move_smoothly() -> None:
    film = Film.of(0, FILM)
    frames = [{label.track: label for label in film.frame(number)[1]} for number in (100, 101, 102)]
    kept = set.intersection(*(set(frame) for frame in frames))
    assert len(kept) >= 10
    moved = 0
    for track in kept:
        middles = []
        for frame in frames:
            x0, y0, x1, y1 = frame[track].xyxy
            middles.append(((x0 + x1) / 2, (y0 + y1) / 2))
        assert len({frame[track].kind for frame in frames}) == 1
        assert all(math.dist(a, b) < 45 for a, b in pairwise(middles))
        moved += math.dist(middles[0], middles[2]) > 1
    assert moved >= 5


def test_routes_are_travelled_at_the_given_pace() -> None:
    for waypoints, speed in (*DRIVES, *WALKS):
        route = Route(waypoints)
        places = [route.at(1.0 + speed * second / 5) for second in range(40)]
        for a, b in pairwise(places):
            assert math.dist((a.x, a.y), (b.x, b.y)) == pytest.approx(speed / 5, rel=0.05)
            assert math.hypot(*a.heading) == pytest.approx(1)


def test_circle_is_cosine_and_sine() -> None:
    for step in range(-60, 61):
        turn = step / 37
        assert circle(turn) == pytest.approx((math.cos(turn * math.tau), math.sin(turn * math.tau)), abs=1e-8)


def test_dice_follow_their_key() -> None:
    def first(*key: int) -> list[float]:
        dice = Dice(*key)
        return [dice.between(0, 1) for _ in range(3)]

    assert first(0, 1, 2) == first(0, 1, 2)
    assert len({first(*key)[0] for key in ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1), (0,))}) == 5


def test_parts_are_painted_from_far_to_near() -> None:
    parts = ((0.0, 1.0, "a"), (1.0, 2.0, "b"), (2.0, 3.0, "c"))
    assert far_to_near(5.0, parts) == ["a", "b", "c"]
    assert far_to_near(-5.0, parts) == ["c", "b", "a"]
    assert far_to_near(1.5, parts)[-1] == "b"
