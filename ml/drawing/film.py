"""A fixed camera's film of a busy hall: trucks drive, people walk and work, and hide each other."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2

from ml.drawing.camera import Camera, Placement
from ml.drawing.canvas import Canvas, Pixels
from ml.drawing.exact import Dice, circle
from ml.drawing.forklift import Forklift
from ml.drawing.hall import Hall
from ml.drawing.light import Light, grained, illuminated
from ml.drawing.person import Arm, Person, Pose, walking, working
from ml.drawing.props import CLUTTER, Prop, carton, empty_pallets, pallet_load
from ml.drawing.scene import Actor, Label, Thing, Truck, Walker, paint_actors

RATE = 25
SIZE = (1920, 1080)
STEP_LENGTH = 1.45
"""Metres that a person walks in a cycle of two steps."""

# Waypoints on the floor (x into the picture, y left) in metres, and metres a second.
DRIVES = (
    (((5.6, 7.6), (6.6, 3.0), (8.2, -1.6), (12.0, -3.6), (18.5, -3.4), (21.0, -3.2)), 1.55),
    (((20.0, 3.6), (16.0, 3.4), (12.4, 2.0), (10.6, 3.6), (10.8, 7.4), (11.0, 9.5)), 1.2),
    (((15.4, -7.2), (15.8, -2.0), (15.8, 3.0), (15.2, 8.0)), 0.9),
)
WALKS = (
    (((4.2, -5.6), (4.6, -1.0), (4.3, 2.6), (4.4, 6.4), (4.4, 11.0)), 1.15),
    (((10.2, 7.8), (9.4, 4.4), (9.2, 1.4), (13.5, -0.5), (18.6, 0.0)), 1.2),
    (((15.0, 1.2), (13.6, 0.6), (11.8, -0.8), (8.0, -0.6), (6.0, 0.6)), 0.7),
    (((20.2, 6.8), (20.2, 0.0), (20.2, -6.6)), 0.95),
)
WORKERS = ((8.4, 5.0, 0.62), (12.6, 6.2, 0.3), (9.6, -6.4, 0.2))
"""Persons who stay: x, y and the direction they face, in turns."""
LIFTING = (12.2, -6.6, 0.75)
"""The truck that stacks goods at its place."""
THINGS = (
    (6.4, -4.6), (8.4, 7.2), (12.9, 4.9), (19.2, -5.9), (7.8, -6.9), (19.0, 7.2), (17.8, -7.0), (6.0, -2.8),
    (14.2, 7.2),
)  # fmt: skip


class Route:
    """A smooth way through waypoints (Catmull and Rom), measured along its length."""

    def __init__(self, waypoints: tuple[tuple[float, float], ...]) -> None:
        first, second, last, before = waypoints[0], waypoints[1], waypoints[-1], waypoints[-2]
        path = (
            (2 * first[0] - second[0], 2 * first[1] - second[1]),
            *waypoints,
            (2 * last[0] - before[0], 2 * last[1] - before[1]),
        )
        steps = 40
        self._points = [
            _catmull_rom(path[leg : leg + 4], step / steps)
            for leg in range(len(waypoints) - 1)
            for step in range(steps)
        ]
        self._points.append(waypoints[-1])
        self._distances = [0.0]
        for (x0, y0), (x1, y1) in zip(self._points, self._points[1:], strict=False):
            self._distances.append(self._distances[-1] + math.sqrt((x1 - x0) * (x1 - x0) + (y1 - y0) * (y1 - y0)))

    def at(self, distance: float) -> Placement:
        """Where one is after ``distance`` metres, heading along the way. Beyond the ends one stays there."""
        before, after = self._where(distance - 0.3), self._where(distance + 0.3)
        dx, dy = after[0] - before[0], after[1] - before[1]
        length = math.sqrt(dx * dx + dy * dy)
        return Placement(*self._where(distance), 0.0, (dx / length, dy / length))

    def _where(self, distance: float) -> tuple[float, float]:
        distance = min(max(distance, 0.0), self._distances[-1])
        end = max(1, bisect_left(self._distances, distance))
        share = (distance - self._distances[end - 1]) / (self._distances[end] - self._distances[end - 1])
        (x0, y0), (x1, y1) = self._points[end - 1], self._points[end]
        return x0 + share * (x1 - x0), y0 + share * (y1 - y0)


@dataclass(frozen=True)
class Film:
    """The still background and, for a time in seconds, the actors before it."""

    camera: Camera
    background: Pixels
    light: Pixels
    actors: Callable[[float], list[Actor]]

    @classmethod
    def of(cls, seed: int, split: int) -> Film:
        """The film of a seed; ``split`` names its stream of chance, as for pictures."""
        dice = Dice(seed, split)
        hall = Hall(length=22.5, left=8.2, right=-8.2, height=7.5, racks=(True, True, True))
        camera = Camera.looking(SIZE, SIZE[1] * 0.95, (-1.4, 0.4, 3.3), (8.0, 0.0, 0.9))
        canvas = Canvas(camera)
        hall.paint(canvas, camera, dice)
        light = replace(Light.any(dice), level=1.02, slope=(-0.12, 0.08), pool=(-0.3, 0.3, 0.5, 0.2))
        background = grained(canvas.image, deviation=2.0, dice=dice)
        return cls(camera, background, light.tinted(light.map(SIZE[1], SIZE[0])), _cast(dice))

    def frame(self, number: int) -> tuple[Pixels, list[Label]]:
        """Frame ``number`` (1080 x 1920, BGR) and its labels."""
        canvas = Canvas(self.camera, self.background.copy())
        labels = paint_actors(canvas, self.camera, self.actors(number / RATE))
        return illuminated(canvas.image, self.light), labels


def draw_film(video: Path, truth: Path, names: tuple[str, ...], seed: int, split: int, frames: int) -> Iterator[int]:
    """Write the film as H.264 and its truth as JSON lines; yields the number of frames written after each."""
    film = Film.of(seed, split)
    with av.open(str(video), "w", options={"fflags": "+bitexact", "movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=RATE, options={
            "preset": "veryfast", "crf": "24", "threads": "1", "flags": "+bitexact",
            # Without this, x264 picks algorithms (and so bytes) by the CPU's abilities.
            "x264-params": "cpu-independent=1:lookahead-threads=1:sliced-threads=0",
        })  # fmt: skip
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        # OpenCV's conversion is BT.601; players would otherwise guess BT.709 from the height.
        stream.codec_context.colorspace = 5
        with truth.open("w", encoding="utf-8", newline="\n") as lines:
            for number in range(frames):
                image, labels = film.frame(number)
                planes = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
                frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, RATE)
                for packet in stream.encode(frame):
                    container.mux(packet)
                boxes = [
                    {"track": label.track, "class": label.kind, "name": names[label.kind], "xyxy": list(label.xyxy)}
                    for label in labels
                ]
                lines.write(json.dumps({"frame": number, "boxes": boxes}) + "\n")
                yield number + 1
        for packet in stream.encode():
            container.mux(packet)


def _cast(dice: Dice) -> Callable[[float], list[Actor]]:
    """Choose the looks of all who take part; returns who is where at a time in seconds."""
    makers: list[Callable[[float], Actor]] = []
    track = 1
    for drive, speed in DRIVES:
        load: Prop | None = pallet_load(dice) if track != 3 else None
        makers.append(_driving(Forklift.any(dice, load, Person.any(dice)), Route(drive), speed, track))
        track += 2
    makers.append(_lifting(Forklift.any(dice, pallet_load(dice), Person.any(dice)), track))
    track += 2
    for number, (waypoints, speed) in enumerate(WALKS):
        makers.append(_walking(Person.any(dice), Route(waypoints), speed, dice.between(0, 1), number == 2, track))
        track += 1
    for x, y, direction in WORKERS:
        makers.append(_working(Person.any(dice), Placement(x, y, 0.0, circle(direction)), working(dice), track))
        track += 1
    props = [pallet_load, empty_pallets, carton, *CLUTTER]
    things: list[Actor] = [
        Thing(dice.pick(props)(dice), Placement(x, y, 0.0, circle(dice.between(0, 1)))) for x, y in THINGS
    ]
    return lambda time: [make(time) for make in makers] + things


def _driving(forklift: Forklift, route: Route, speed: float, track: int) -> Callable[[float], Actor]:
    return lambda time: Truck(forklift, route.at(1.0 + speed * time), 0.16, track, track + 1)


def _lifting(forklift: Forklift, track: int) -> Callable[[float], Actor]:
    place = Placement(LIFTING[0], LIFTING[1], 0.0, circle(LIFTING[2]))
    return lambda time: Truck(forklift, place, 0.9 - 0.75 * circle(time / 9)[0], track, track + 1)


def _walking(
    person: Person, route: Route, speed: float, phase: float, carries: bool, track: int
) -> Callable[[float], Actor]:
    def make(time: float) -> Actor:
        way = speed * time
        return Walker(person, route.at(way), walking(phase + way / STEP_LENGTH, carries), track)

    return make


def _working(person: Person, place: Placement, pose: Pose, track: int) -> Callable[[float], Actor]:
    def make(time: float) -> Actor:
        sway = circle(time / 2.6 + track * 0.3)[1]
        arm = Arm(0.1 + 0.05 * sway, 0.1 + 0.04 * sway, 0.04)
        return Walker(person, place, replace(pose, right_arm=arm, lean=pose.lean + 0.006 * sway), track)

    return make


def _catmull_rom(points: tuple[tuple[float, float], ...], t: float) -> tuple[float, float]:
    a, b, c, d = points
    x, y = (
        0.5 * (2 * q + (r - p) * t + (2 * p - 5 * q + 4 * r - s) * t * t + (3 * q - p - 3 * r + s) * t * t * t)
        for p, q, r, s in zip(a, b, c, d, strict=True)
    )
    return x, y
