"""A counterbalanced forklift truck: tail, cabin, mast, forks and load, with or without a driver.

Local x points along the forks, the origin lies on the floor below the middle of the truck.
"""

from __future__ import annotations

from dataclasses import dataclass

from ml.drawing.camera import Camera, Frame, Placement
from ml.drawing.canvas import OTHER, Canvas, Colour
from ml.drawing.exact import Dice
from ml.drawing.person import DRIVING, Person
from ml.drawing.props import Prop
from ml.drawing.solids import Block, Panel, Prism, Solid, bar, far_to_near, paint_all, round_outline, shaded

PAINTS: tuple[Colour, ...] = (
    (30, 178, 236), (28, 112, 232), (40, 40, 190), (58, 132, 44), (160, 84, 30), (150, 152, 150), (40, 196, 214),
)  # fmt: skip
STEEL: Colour = (72, 68, 66)
DARK: Colour = (46, 44, 44)
RUBBER: Colour = (38, 36, 36)

SEAT = 0.92
CABIN_FRONT = 0.62
CABIN_REAR = -0.5
MAST = (0.72, 0.92)
CARRIAGE = 1.0
FORK_LENGTH = 1.12


@dataclass(frozen=True)
class Forklift:
    """What one truck looks like. Lengths in metres."""

    paint_colour: Colour
    trim: Colour
    rim: Colour
    width: float
    tail: float
    guard: float
    mast: float
    cylinder: bool
    beacon: bool
    load: Prop | None
    driver: Person | None

    @classmethod
    def any(cls, dice: Dice, load: Prop | None, driver: Person | None) -> Forklift:
        """A truck as chance will have it, with this load and driver."""
        colour = dice.pick(PAINTS)
        return cls(
            paint_colour=shaded(colour, dice.between(0.85, 1.1)),
            trim=dice.pick((DARK, (62, 58, 56), shaded(colour, 0.6))),
            rim=dice.pick((colour, (206, 208, 208), (90, 90, 92))),
            width=dice.between(1.06, 1.28),
            tail=dice.between(1.0, 1.28),
            guard=dice.between(2.02, 2.2),
            mast=dice.between(2.0, 2.4),
            cylinder=dice.chance(0.4),
            beacon=dice.chance(0.5),
            load=load,
            driver=driver,
        )

    def paint(
        self, canvas: Canvas, camera: Camera, place: Placement, lift: float, owner: int, driver_owner: int
    ) -> None:
        """Paint the truck with its forks ``lift`` metres above the floor."""
        frame = Frame(camera, place)
        slabs = far_to_near(
            frame.eye[0],
            (
                (-self.tail, CABIN_REAR, "tail"),
                (CABIN_REAR, CABIN_FRONT, "cabin"),
                (*MAST, "mast"),
                (MAST[1], CARRIAGE, "carriage"),
                (CARRIAGE, CARRIAGE + FORK_LENGTH, "forks"),
            ),
        )
        for slab in slabs:
            if slab == "tail":
                paint_all(self._tail(frame), canvas, frame, owner)
            elif slab == "cabin":
                self._paint_cabin(canvas, camera, frame, owner, driver_owner)
            elif slab == "mast":
                paint_all(self._mast(lift), canvas, frame, owner)
            elif slab == "carriage":
                paint_all(self._carriage(lift), canvas, frame, owner)
            else:
                paint_all(self._forks(lift), canvas, frame, owner)
                if self.load is not None:
                    on_forks = (CARRIAGE + 0.56, 0.0, lift + 0.05)
                    self.load.paint(canvas, camera, moved(place, on_forks), OTHER)

    def _tail(self, frame: Frame) -> list[Solid]:
        half, t = self.width / 2, self.tail
        weight = Prism(
            ((CABIN_REAR, 0.2), (CABIN_REAR, 1.02), (0.16 - t, 1.0), (0.03 - t, 0.9),
             (-t, 0.6), (-t, 0.34), (0.12 - t, 0.2)),
            1, 0.04 - half, half - 0.04, self.paint_colour,
        )  # fmt: skip
        skirt = Block((0.08 - t, 0.03 - half, 0.2), (CABIN_REAR, half - 0.03, 0.36), self.trim)
        lamps = [
            Panel(_rectangle_x(-t - 0.004, y, 0.5, 0.07, 0.1), colour)
            for y, colour in ((half - 0.2, (40, 40, 220)), (0.2 - half, (40, 40, 220)))
        ]
        grille = Panel(_rectangle_x(-t - 0.004, 0.0, 0.47, 0.42, 0.14), shaded(self.paint_colour, 0.5))
        left, right = self._wheel(0.42 - t, 0.25, 1.0), self._wheel(0.42 - t, 0.25, -1.0)
        body: list[Solid] = [weight, skirt]
        slabs = ((half - 0.06, half, [left]), (0.06 - half, half - 0.06, body), (-half, 0.06 - half, [right]))
        solids = [solid for slab in far_to_near(frame.eye[1], slabs) for solid in slab]
        if frame.eye[0] < -t:
            solids += [grille, *lamps]
        if self.cylinder:
            solids.append(Prism(round_outline(-t + 0.36, 1.16, 0.15), 1, -0.4, 0.4, (196, 198, 196)))
        return solids

    def _paint_cabin(self, canvas: Canvas, camera: Camera, frame: Frame, owner: int, driver_owner: int) -> None:
        levels = far_to_near(
            frame.eye[2], ((0.0, 0.66, "chassis"), (0.66, self.guard, "cab"), (self.guard, 2.5, "roof"))
        )
        for level in levels:
            if level == "chassis":
                paint_all(self._chassis(frame), canvas, frame, owner)
            elif level == "roof":
                paint_all(self._roof(), canvas, frame, owner)
            else:
                self._paint_cab(canvas, camera, frame, owner, driver_owner)

    def _chassis(self, frame: Frame) -> list[Solid]:
        half = self.width / 2
        hull = Prism(
            ((CABIN_REAR, 0.2), (0.7, 0.2), (0.7, 0.6), (0.5, 0.66), (CABIN_REAR, 0.66)),
            1,
            0.1 - half,
            half - 0.1,
            self.paint_colour,
        )
        wheels = [(side, self._wheel(0.5, 0.33, side)) for side in (1.0, -1.0)]
        sides: list[tuple[float, float, list[Solid]]] = [(0.1 - half, half - 0.1, [hull])]
        for side, wheel in wheels:
            low, high = sorted((side * (half - 0.1), side * half))
            step = Block((CABIN_REAR + 0.1, low, 0.22), (0.08, high, 0.4), self.trim)
            sill = Block((CABIN_REAR, low, 0.4), (0.1, high, 0.66), self.paint_colour)
            sides.append((low, high, [step, sill, wheel]))
        return [solid for group in far_to_near(frame.eye[1], sides) for solid in group]

    def _wheel(self, x: float, radius: float, side: float) -> Solid:
        inner, outer = side * (self.width / 2 - 0.22), side * (self.width / 2 + 0.01)
        return _Wheel(x, radius, min(inner, outer), max(inner, outer), side, self.rim)

    def _roof(self) -> list[Solid]:
        half, top = self.width / 2 - 0.06, self.guard
        solids: list[Solid] = [Block((CABIN_REAR + 0.02, -half, top), (0.5, half, top + 0.07), self.trim)]
        solids += [
            Panel(
                (
                    (x, 0.08 - half, top + 0.071),
                    (x + 0.1, 0.08 - half, top + 0.071),
                    (x + 0.1, half - 0.08, top + 0.071),
                    (x, half - 0.08, top + 0.071),
                ),
                shaded(self.trim, 1.5),
            )
            for x in (-0.36, -0.16, 0.04, 0.24)
        ]
        if self.beacon:
            solids.append(
                Prism(round_outline(CABIN_REAR + 0.12, 0.25, 0.06, 8), 2, top + 0.07, top + 0.2, (20, 150, 255))
            )
        return solids

    def _paint_cab(self, canvas: Canvas, camera: Camera, frame: Frame, owner: int, driver_owner: int) -> None:
        half, top = self.width / 2 - 0.1, self.guard
        for side in far_to_near(
            frame.eye[1], ((-half - 0.1, -half, -1.0), (-half, half, 0.0), (half, half + 0.1, 1.0))
        ):
            if side:
                y = side * half
                rear = bar((CABIN_REAR + 0.04, y, 0.66), (CABIN_REAR + 0.08, y, top), 0.04, self.trim)
                front = bar((CABIN_FRONT, y, 0.66), (0.42, y, top), 0.035, self.trim)
                posts = (rear, front) if frame.eye[0] > 0 else (front, rear)
                paint_all(posts, canvas, frame, owner)
                continue
            for part in far_to_near(
                frame.eye[0], ((CABIN_REAR, -0.3, "seat"), (-0.3, 0.3, "driver"), (0.3, 0.62, "dash"))
            ):
                if part == "seat":
                    back = Block((-0.46, -0.24, SEAT - 0.05), (-0.34, 0.24, SEAT + 0.5), (52, 48, 46))
                    paint_all(
                        [Block((-0.5, -0.4, 0.66), (-0.3, 0.4, 0.86), self.paint_colour), back], canvas, frame, owner
                    )
                elif part == "driver":
                    paint_all(
                        [Block((-0.34, -0.25, 0.66), (0.1, 0.25, SEAT - 0.06), (52, 48, 46))], canvas, frame, owner
                    )
                    if self.driver is not None:
                        sits = moved(frame.place, (-0.16, 0.0, SEAT))
                        self.driver.paint(canvas, camera, sits, DRIVING, driver_owner)
                else:
                    dash = Prism(
                        ((0.42, 0.6), (0.62, 0.6), (0.6, 0.98), (0.5, 1.02)), 1, -half, half, self.paint_colour
                    )
                    wheel = bar((0.3, -0.14, 1.16), (0.3, 0.14, 1.16), 0.03, RUBBER)
                    paint_all([dash, bar((0.5, 0.0, 0.98), (0.32, 0.0, 1.14), 0.02, DARK), wheel], canvas, frame, owner)

    def _mast(self, lift: float) -> list[Solid]:
        top = max(self.mast, lift + 0.85)
        inner = [Block((MAST[0] + 0.05, y, 0.15), (MAST[1], y + 0.07, top), shaded(STEEL, 1.25)) for y in (-0.29, 0.22)]
        outer = [Block((MAST[0], y, 0.06), (MAST[1] - 0.02, y + 0.08, self.mast), STEEL) for y in (-0.38, 0.3)]
        bridges = [
            Block((MAST[0] + 0.02, -0.38, z), (MAST[1] - 0.04, 0.38, z + 0.09), STEEL) for z in (0.5, self.mast - 0.12)
        ]
        chains = [
            Panel(((MAST[1], y, lift), (MAST[1], y + 0.03, lift), (MAST[1], y + 0.03, top), (MAST[1], y, top)), DARK)
            for y in (-0.1, 0.07)
        ]
        head = Block((MAST[0] + 0.05, -0.29, top - 0.08), (MAST[1], 0.29, top), shaded(STEEL, 1.25))
        return [*bridges, *outer, *inner, head, *chains]

    def _carriage(self, lift: float) -> list[Solid]:
        x = CARRIAGE - 0.03
        rails: list[Solid] = [
            Block((MAST[1], -0.46, lift + z), (CARRIAGE, 0.46, lift + z + 0.1), DARK) for z in (0.08, 0.42)
        ]
        rest = [bar((x, y, lift + 0.4), (x, y, lift + 1.05), 0.016, DARK) for y in (-0.44, -0.22, 0.0, 0.22, 0.44)]
        return [*rails, *rest, bar((x, -0.44, lift + 1.05), (x, 0.44, lift + 1.05), 0.02, DARK)]

    def _forks(self, lift: float) -> list[Solid]:
        tines: list[Solid] = []
        for y in (-0.32, 0.2):
            tines.append(Block((CARRIAGE, y, lift), (CARRIAGE + 0.05, y + 0.12, lift + 0.5), STEEL))
            tines.append(
                Block((CARRIAGE, y, lift), (CARRIAGE + FORK_LENGTH, y + 0.12, lift + 0.045), shaded(STEEL, 1.2))
            )
        return tines


@dataclass(frozen=True)
class _Wheel:
    """A tyre with a rim on its outer side."""

    x: float
    radius: float
    low: float
    high: float
    side: float
    rim: Colour

    def paint(self, canvas: Canvas, frame: Frame, owner: int) -> None:
        Prism(round_outline(self.x, self.radius, self.radius, 16), 1, self.low, self.high, RUBBER).paint(
            canvas, frame, owner
        )
        outer = self.high if self.side > 0 else self.low
        if (frame.eye[1] - outer) * self.side > 0:
            for share, colour in ((0.58, self.rim), (0.2, DARK)):
                ring = round_outline(self.x, self.radius, self.radius * share, 14)
                Panel(tuple((u, outer, w) for u, w in ring), colour).paint(canvas, frame, owner)


def moved(place: Placement, by: tuple[float, float, float]) -> Placement:
    """A placement ``by`` metres along the axes of another."""
    c, s = place.heading
    return Placement(place.x + c * by[0] - s * by[1], place.y + s * by[0] + c * by[1], place.z + by[2], place.heading)


def _rectangle_x(x: float, y: float, z: float, width: float, height: float) -> tuple[tuple[float, float, float], ...]:
    """A rectangle across the x axis around (y, z)."""
    return tuple((x, y + u * width / 2, z + v * height / 2) for u, v in ((-1, -1), (1, -1), (1, 1), (-1, 1)))
