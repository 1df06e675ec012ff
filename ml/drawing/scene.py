"""One photograph's worth of warehouse: who and what stands where, painted, with the boxes of what can be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ml.drawing.camera import Camera, Frame, Placement
from ml.drawing.canvas import OTHER, Canvas, Pixels
from ml.drawing.exact import Dice, circle
from ml.drawing.forklift import Forklift
from ml.drawing.hall import Hall
from ml.drawing.light import Light
from ml.drawing.person import Person, Pose, any_pose
from ml.drawing.props import CLUTTER, Prop, empty_pallets, pallet_load
from ml.drawing.solids import round_outline

FORKLIFT, PERSON = 0, 1
SIZE = 416
TRUCK_RADIUS = 1.35


@dataclass(frozen=True)
class Label:
    """A visible thing: its class, its number in the scene, and its box in pixels (x0, y0, x1, y1; ends exclusive)."""

    kind: int
    track: int
    xyxy: tuple[int, int, int, int]


@dataclass(frozen=True)
class Truck:
    """A forklift at a place, with its forks ``lift`` metres up."""

    forklift: Forklift
    place: Placement
    lift: float
    track: int
    driver_track: int


@dataclass(frozen=True)
class Walker:
    """A person at a place in a pose."""

    person: Person
    place: Placement
    pose: Pose
    track: int


@dataclass(frozen=True)
class Thing:
    """A prop at a place."""

    prop: Prop
    place: Placement


Actor = Truck | Walker | Thing


def paint_actors(canvas: Canvas, camera: Camera, actors: list[Actor]) -> list[Label]:
    """Paint shadows, then actors from far to near; return what can be seen of forklifts and persons."""
    kinds: dict[int, int] = {}
    for actor in actors:
        canvas.darken(_shadow(camera, actor), 92)
    for actor in sorted(actors, key=lambda actor: -Frame(camera, actor.place).depth((0.0, 0.0, 0.0))):
        if isinstance(actor, Truck):
            kinds |= {actor.track: FORKLIFT, actor.driver_track: PERSON}
            actor.forklift.paint(canvas, camera, actor.place, actor.lift, actor.track, actor.driver_track)
        elif isinstance(actor, Walker):
            kinds[actor.track] = PERSON
            actor.person.paint(canvas, camera, actor.place, actor.pose, actor.track)
        else:
            actor.prop.paint(canvas, camera, actor.place, OTHER)
    return [Label(kinds[box.owner], box.owner, (box.x0, box.y0, box.x1, box.y1)) for box in canvas.boxes()]


def draw_scene(seed: int, split: int, index: int) -> tuple[Pixels, list[Label]]:
    """Picture ``index`` of a split (a number): 416 x 416 BGR, and its labels. Depends on nothing but the arguments."""
    dice = Dice(seed, split, index)
    hall = Hall.any(dice)
    middle = (hall.left + hall.right) / 2
    target = (dice.between(6.0, 9.5), middle + dice.between(-1.5, 1.5), dice.between(0.5, 1.3))
    eye = (dice.between(-1.0, 0.5), middle + dice.between(-1.6, 1.6), dice.between(1.5, 4.2))
    focal = SIZE * dice.between(0.92, 1.25)
    camera = Camera.looking((SIZE, SIZE), focal, eye, target, dice.between(-0.007, 0.007))
    canvas = Canvas(camera)
    hall.paint(canvas, camera, dice)
    labels = paint_actors(canvas, camera, _Cast(dice, camera, hall).actors())
    return Light.any(dice).take(canvas.image, dice), labels


@dataclass
class _Cast:
    """Chooses who takes part in a picture, and finds them places where nobody stands in another."""

    dice: Dice
    camera: Camera
    hall: Hall
    taken: list[_Taken] = field(default_factory=list)
    tracks: int = 0

    def actors(self) -> list[Actor]:
        dice = self.dice
        chosen: list[Actor | None] = [self._truck() for _ in range(dice.pick((0, 1, 1, 1, 2, 2, 2, 3)))]
        for _ in range(dice.pick((0, 1, 1, 2, 2, 3, 3, 4))):
            chosen.append(self._walker())
        for _ in range(dice.whole(2, 5)):
            chosen.append(self._thing())
        return [actor for actor in chosen if actor is not None]

    def _truck(self) -> Truck | None:
        dice = self.dice
        place = self._place(TRUCK_RADIUS, 4.6)
        if place is None:
            return None
        load: Prop | None = dice.pick((pallet_load, pallet_load, empty_pallets))(dice) if dice.chance(0.35) else None
        driver = Person.any(dice) if dice.chance(0.65) else None
        lift = dice.between(0.05, 0.3) if dice.chance(0.75) else dice.between(0.3, 1.9)
        self.tracks += 2
        return Truck(Forklift.any(dice, load, driver), place, lift, self.tracks - 1, self.tracks)

    def _walker(self) -> Walker | None:
        place = self._place(0.4, 3.6)
        if place is None:
            return None
        self.tracks += 1
        return Walker(Person.any(self.dice), place, any_pose(self.dice), self.tracks)

    def _thing(self) -> Thing | None:
        prop = self.dice.pick(CLUTTER)(self.dice)
        place = self._place(prop.radius, 3.4)
        return Thing(prop, place) if place else None

    def _place(self, radius: float, nearest: float) -> Placement | None:
        """A free place in view, rather near than far, facing anywhere; mostly one where nobody hides another."""
        dice, eye = self.dice, self.camera.position
        farthest = min(11.5, self.hall.length - 1.6)
        reach = 0.46 * self.camera.width / self.camera.focal
        apart = dice.chance(0.7)
        for _ in range(16):
            share = dice.between(0, 1)
            depth = nearest + (farthest - nearest) * share * (0.6 + 0.4 * share)
            slope = dice.between(-reach, reach)
            ahead, across = self.camera.forward, self.camera.right
            x = eye[0] + (ahead[0] + across[0] * slope) * depth
            y = eye[1] + (ahead[1] + across[1] * slope) * depth
            place = _Taken(x, y, radius, slope, radius / depth)
            in_hall = self.hall.right + radius < y < self.hall.left - radius and x < self.hall.length - 1 - radius
            if in_hall and not any(place.touches(other) or (apart and place.overlaps(other)) for other in self.taken):
                self.taken.append(place)
                return Placement(x, y, 0.0, circle(dice.between(0, 1)))
        return None


@dataclass(frozen=True)
class _Taken:
    """A place on the floor (metres), and where it lies in the picture: sideways over depth, and half its width."""

    x: float
    y: float
    radius: float
    slope: float
    half: float

    def touches(self, other: _Taken) -> bool:
        dx, dy = self.x - other.x, self.y - other.y
        return math.sqrt(dx * dx + dy * dy) < self.radius + other.radius

    def overlaps(self, other: _Taken) -> bool:
        return abs(self.slope - other.slope) < 0.8 * (self.half + other.half)


def _shadow(camera: Camera, actor: Actor) -> list[tuple[float, float, float]]:
    """The outline, in view space, of an actor's shadow on the floor."""
    frame = Frame(camera, Placement(actor.place.x + 0.1, actor.place.y - 0.08, 0.0, actor.place.heading))
    if isinstance(actor, Truck):
        corners = (
            (-1.3, -0.8),
            (1.1, -0.8),
            (1.3, -0.4),
            (1.3, 0.4),
            (1.1, 0.8),
            (-1.3, 0.8),
            (-1.45, 0.4),
            (-1.45, -0.4),
        )
        return [frame.view((x, y, 0.0)) for x, y in corners]
    radius = 0.42 if isinstance(actor, Walker) else actor.prop.radius * 1.1
    return [frame.view((x, y, 0.0)) for x, y in round_outline(0.0, 0.0, radius)]
