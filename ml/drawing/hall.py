"""The still part of a scene: floor with markings, walls with doors, racks with goods, ceiling with lamps."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ml.drawing.camera import Camera, Frame, Placement, Vector
from ml.drawing.canvas import BACKGROUND, Canvas, Colour
from ml.drawing.exact import Dice
from ml.drawing.props import BRIGHT, CARDBOARD, WRAPPED, Carton
from ml.drawing.solids import Block, Panel, Prism, Solid, far_to_near, paint_all, round_outline, shaded

WALLS: tuple[Colour, ...] = (
    (196, 200, 198),
    (176, 184, 188),
    (150, 162, 176),
    (186, 178, 160),
    (150, 140, 128),
    (204, 208, 214),
)
FLOORS: tuple[Colour, ...] = (
    (146, 150, 152),
    (120, 124, 128),
    (162, 164, 162),
    (104, 112, 120),
    (140, 134, 122),
    (128, 146, 138),
)
UPRIGHTS: tuple[Colour, ...] = ((150, 84, 30), (60, 104, 50), (120, 118, 114), (70, 60, 150))
BEAMS: tuple[Colour, ...] = ((24, 106, 232), (30, 176, 236), (150, 110, 60))
LINES: tuple[Colour, ...] = ((40, 196, 232), (224, 228, 228))

BACK = -4.0
"""Where floor and walls end behind the camera."""


@dataclass(frozen=True)
class Hall:
    """A hall along x. Lengths in metres.

    Attributes:
        length: where the back wall stands.
        left, right: y of the free floor's edges, where racks or walls begin.
        height: of the ceiling.
    """

    length: float
    left: float
    right: float
    height: float
    racks: tuple[bool, bool, bool]
    """On the left, on the right, at the back."""

    @classmethod
    def any(cls, dice: Dice, width: float = 1.0) -> Hall:
        """A hall as chance will have it; ``width`` scales the free floor."""
        return cls(
            length=dice.between(13, 24),
            left=dice.between(3.2, 8) * width,
            right=-dice.between(3.2, 8) * width,
            height=dice.between(5.5, 8.5),
            racks=(dice.chance(0.7), dice.chance(0.7), dice.chance(0.65)),
        )

    def paint(self, canvas: Canvas, camera: Camera, dice: Dice) -> None:
        """Paint the empty hall as background."""
        frame = Frame(camera, Placement(0.0, 0.0))
        self._paint_room(canvas, frame, dice)
        self._paint_markings(canvas, frame, dice)
        uprights, beams = dice.pick(UPRIGHTS), dice.pick(BEAMS)
        depth = 1.1
        if self.racks[2]:
            reach = self.left + 2.5
            place = Placement(self.length - 0.2, reach, 0.0, (0.0, -1.0))
            _paint_row(canvas, camera, place, math.ceil((reach - self.right + 2.5) / 2.8), depth, uprights, beams, dice)
        else:
            self._paint_doors(canvas, frame, dice)
        bays = math.floor((self.length - 1.6 - BACK) / 2.8)
        if self.racks[0]:
            _paint_row(canvas, camera, Placement(BACK, self.left + depth, 0.0), bays, depth, uprights, beams, dice)
        if self.racks[1]:
            end = Placement(BACK + bays * 2.8, self.right - depth, 0.0, (-1.0, 0.0))
            _paint_row(canvas, camera, end, bays, depth, uprights, beams, dice)

    def _paint_room(self, canvas: Canvas, frame: Frame, dice: Dice) -> None:
        wall, floor = (
            shaded(dice.pick(WALLS), dice.between(0.75, 1.1)),
            shaded(dice.pick(FLOORS), dice.between(0.8, 1.1)),
        )
        left, right = self.left + 1.3, self.right - 1.3
        roof = shaded(wall, 0.55)

        def rectangle(a: Vector, b: Vector, c: Vector, d: Vector, colour: Colour) -> None:
            Panel((a, b, c, d), colour).paint(canvas, frame, BACKGROUND)

        top, end = self.height, self.length
        rectangle((BACK, left, top), (end, left, top), (end, right, top), (BACK, right, top), roof)
        x = BACK + 1.0
        while x < end:
            Block((x, right, top - 0.35), (x + 0.18, left, top - 0.05), shaded(roof, 0.8)).paint(
                canvas, frame, BACKGROUND
            )
            x += 3.0
        rectangle((BACK, left, 0), (end, left, 0), (end, right, 0), (BACK, right, 0), floor)
        rectangle((end, left, 0), (end, right, 0), (end, right, top), (end, left, top), wall)
        for y, shade in ((left, 0.86), (right, 0.94)):
            rectangle((BACK, y, 0), (end, y, 0), (end, y, top), (BACK, y, top), shaded(wall, shade))
            rectangle((BACK, y, 0), (end, y, 0), (end, y, 0.9), (BACK, y, 0.9), shaded(wall, shade * 0.8))
        rectangle((end, left, 0), (end, right, 0), (end, right, 0.9), (end, left, 0.9), shaded(wall, 0.82))
        y = right
        while y < left:
            rectangle((end, y, 0.9), (end, y + 0.03, 0.9), (end, y + 0.03, top), (end, y, top), shaded(wall, 0.93))
            y += 0.6
        lamp = (236, 246, 248) if dice.chance(0.7) else (190, 228, 248)
        rows, spacing = dice.whole(1, 3), dice.between(3.0, 5.0)
        for row in range(rows):
            y = right + (left - right) * (row + 1) / (rows + 1)
            for step in range(5):
                x = 2.5 + step * spacing
                if x < end - 1:
                    z = top - 0.5
                    rectangle((x, y - 0.14, z), (x + 1.5, y - 0.14, z), (x + 1.5, y + 0.14, z), (x, y + 0.14, z), lamp)

    def _paint_markings(self, canvas: Canvas, frame: Frame, dice: Dice) -> None:
        def strip(x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
            Panel(((x0, y0, 0.0), (x1, y0, 0.0), (x1, y1, 0.0), (x0, y1, 0.0)), colour).paint(canvas, frame, BACKGROUND)

        base = canvas.image[-1, canvas.camera.width // 2]
        floor = (int(base[0]), int(base[1]), int(base[2]))
        for _ in range(dice.whole(5, 14)):
            x, y, r = dice.between(1, self.length), dice.between(self.right, self.left), dice.between(0.2, 1.6)
            stain = tuple((x + u, y + v * dice.between(0.6, 1), 0.0) for u, v in round_outline(0, 0, r))
            Panel(stain, shaded(floor, dice.between(0.93, 1.05))).paint(canvas, frame, BACKGROUND)
        joint = shaded(floor, 0.86)
        offset = dice.between(0, 3)
        for step in range(9):
            strip(offset + step * 3, self.right - 1, offset + step * 3 + 0.03, self.left + 1, joint)
            strip(BACK, self.right + offset + step * 3, self.length, self.right + offset + step * 3 + 0.03, joint)
        line = dice.pick(LINES)
        if dice.chance(0.8):
            for y in (self.left - 0.35, self.right + 0.25):
                strip(BACK, y, self.length - 0.8, y + 0.11, line)
        if dice.chance(0.4):
            y = dice.between(self.right + 1.5, self.left - 1.5)
            for step in range(10):
                strip(step * 2.4, y, step * 2.4 + 1.3, y + 0.11, line)
        if dice.chance(0.3):
            x = dice.between(4, self.length - 3)
            y = self.right + 0.6
            while y < self.left - 1:
                strip(x, y, x + 2.0, y + 0.45, (222, 226, 226))
                y += 0.95
        if dice.chance(0.35):
            x, y = dice.between(4, self.length - 3), dice.between(self.right + 1, self.left - 2.4)
            for u0, v0, u1, v1 in (
                (0.0, 0.0, 1.6, 0.08),
                (0.0, 1.3, 1.6, 1.38),
                (0.0, 0.0, 0.08, 1.38),
                (1.52, 0.0, 1.6, 1.38),
            ):
                strip(x + u0, y + v0, x + u1, y + v1, line)

    def _paint_doors(self, canvas: Canvas, frame: Frame, dice: Dice) -> None:
        x, y = self.length - 0.02, self.right + dice.between(0.2, 1.5)
        shutter, band = dice.pick(((196, 198, 196), (120, 116, 110), (150, 100, 60), (210, 214, 216))), (40, 190, 232)
        while y + 3 < self.left:
            height = dice.between(3.2, 4.2)
            Block((x - 0.12, y - 0.2, 0.0), (x, y + 3.0, height + 0.25), (70, 68, 66)).paint(canvas, frame, BACKGROUND)
            bright = dice.chance(0.2)
            slats = 8
            for slat in range(slats):
                low, high = slat * height / slats, (slat + 0.92) * height / slats
                colour = (238, 240, 240) if bright else shaded(shutter, 0.96 + 0.05 * (slat % 2))
                corners = ((x - 0.13, y, low), (x - 0.13, y + 2.8, low), (x - 0.13, y + 2.8, high), (x - 0.13, y, high))
                Panel(corners, colour).paint(canvas, frame, BACKGROUND)
            for side in (y - 0.4, y + 3.1):
                Prism(round_outline(x - 0.5, side, 0.09, 8), 2, 0.0, 1.0, band).paint(canvas, frame, BACKGROUND)
            y += 3.0 + dice.between(1.0, 2.5)


def _paint_row(
    canvas: Canvas,
    camera: Camera,
    place: Placement,
    bays: int,
    depth: float,
    uprights: Colour,
    beams: Colour,
    dice: Dice,
) -> None:
    """A row of rack bays along its x axis, open towards negative y."""
    frame = Frame(camera, place)
    level = dice.between(1.35, 1.75)
    levels = dice.whole(2, 4)
    full = dice.between(0.6, 0.97)
    row = [
        (x, x + 2.8, _bay(x, depth, level, levels, full, uprights, beams, frame, dice))
        for x in (bay * 2.8 for bay in range(bays))
        if frame.sees((x, -depth, 0.0), (x + 2.8, 0.0, level * levels))
    ]
    for solids in far_to_near(frame.eye[0], row):
        paint_all(solids, canvas, frame, BACKGROUND)


def _bay(
    x: float,
    depth: float,
    level: float,
    levels: int,
    full: float,
    uprights: Colour,
    beams: Colour,
    frame: Frame,
    dice: Dice,
) -> list[Solid]:
    top = level * levels
    front = -depth + 0.02
    gloom = Panel(((x, 0.0, 0.0), (x + 2.8, 0.0, 0.0), (x + 2.8, 0.0, top), (x, 0.0, top)), shaded(uprights, 0.4))
    shelves: list[tuple[float, float, list[Solid]]] = []
    for number in range(levels):
        z = number * level
        goods: list[tuple[float, float, list[Solid]]] = []
        for slot in range(3):
            if dice.chance(full):
                goods.append(_goods(x + 0.12 + slot * 0.88, front, z + (0.1 if number else 0.02), level * 0.82, dice))
        solids = [solid for group in far_to_near(frame.eye[0], goods) for solid in group]
        if number:
            solids.insert(0, Block((x, front, z - 0.02), (x + 2.8, 0.0, z + 0.02), shaded(uprights, 0.7)))
            solids.append(Block((x, front - 0.05, z - 0.1), (x + 2.8, front, z + 0.06), beams))
        shelves.append((z, z + level, solids))
    posts = [Block((x + at, front - 0.06, 0.0), (x + at + 0.1, front, top + 0.3), uprights) for at in (0.0, 2.7)]
    return [gloom, *(solid for shelf in far_to_near(frame.eye[2], shelves) for solid in shelf), *posts]


def _goods(x: float, front: float, z: float, room: float, dice: Dice) -> tuple[float, float, list[Solid]]:
    """What stands in one place of a shelf: one block, two stacked cartons, or plastic totes."""
    width, back = dice.between(0.6, 0.8), front + 0.8
    kind = dice.between(0, 1)
    if kind < 0.35:
        colour = dice.pick(WRAPPED)
        return (
            x,
            x + width,
            [Carton((x, front, z), (x + width, back, z + room * dice.between(0.5, 1)), colour, tape=False)],
        )
    colour = shaded(dice.pick(CARDBOARD if kind < 0.85 else BRIGHT), dice.between(0.85, 1.1))
    height = room * dice.between(0.35, 0.5)
    solids: list[Solid] = [Carton((x, front, z), (x + width, back, z + height), colour)]
    if dice.chance(0.6):
        solids.append(
            Carton((x + 0.04, front, z + height), (x + width - 0.06, back, z + height * 1.9), shaded(colour, 0.93))
        )
    return x, x + width, solids
