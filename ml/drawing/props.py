"""What stands about in a warehouse: cartons, pallets, drums, cones, and things a bit like trucks or people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ml.drawing.camera import Camera, Frame, Placement, Vector
from ml.drawing.canvas import Canvas, Colour
from ml.drawing.exact import Dice
from ml.drawing.solids import Block, Hull, Panel, Prism, Solid, bar, paint_all, round_outline, shaded

CARDBOARD: tuple[Colour, ...] = ((96, 146, 190), (84, 128, 168), (112, 164, 206), (78, 112, 146))
WRAPPED: tuple[Colour, ...] = ((186, 190, 186), (164, 150, 120), (176, 168, 158), (120, 92, 66))
BRIGHT: tuple[Colour, ...] = (
    (30, 176, 236),
    (30, 116, 232),
    (44, 46, 190),
    (150, 90, 36),
    (70, 130, 60),
    (170, 170, 168),
)
VESTS: tuple[Colour, ...] = ((40, 228, 206), (30, 120, 246))
WOOD: Colour = (98, 142, 176)
STEEL: Colour = (84, 80, 78)


class Prop(Protocol):
    """Something that can be put somewhere; ``radius`` is that of its footprint in metres."""

    @property
    def radius(self) -> float: ...

    def paint(self, canvas: Canvas, camera: Camera, place: Placement, owner: int) -> None:
        """Paint it standing at ``place``."""


@dataclass(frozen=True)
class Pile:
    """Solids in the order from the floor upwards, as most things are seen from above."""

    solids: tuple[Solid, ...]
    radius: float

    def paint(self, canvas: Canvas, camera: Camera, place: Placement, owner: int) -> None:
        paint_all(self.solids, canvas, Frame(camera, place), owner)


@dataclass(frozen=True)
class Carton:
    """A closed box with tape over its lid and front, and a label."""

    low: Vector
    high: Vector
    colour: Colour
    tape: bool = True

    def paint(self, canvas: Canvas, frame: Frame, owner: int) -> None:
        Block(self.low, self.high, self.colour).paint(canvas, frame, owner)
        if not self.tape:
            return
        (x0, y0, z0), (x1, y1, z1) = self.low, self.high
        mid, half = (y0 + y1) / 2, (y1 - y0) * 0.06
        tape = shaded(self.colour, 0.8)
        if frame.eye[2] > z1:
            Panel(((x0, mid - half, z1), (x1, mid - half, z1), (x1, mid + half, z1), (x0, mid + half, z1)), tape).paint(
                canvas, frame, owner
            )
        drop = z1 - (z1 - z0) * 0.3
        for x, visible in ((x0, frame.eye[0] < x0), (x1, frame.eye[0] > x1)):
            if visible:
                Panel(
                    ((x, mid - half, drop), (x, mid + half, drop), (x, mid + half, z1), (x, mid - half, z1)), tape
                ).paint(canvas, frame, owner)
        mid, half = (x0 + x1) / 2, (x1 - x0) * 0.16
        low, high = z0 + (z1 - z0) * 0.2, z0 + (z1 - z0) * 0.5
        for y, visible in ((y0, frame.eye[1] < y0), (y1, frame.eye[1] > y1)):
            if visible:
                Panel(
                    ((mid - half, y, low), (mid + half, y, low), (mid + half, y, high), (mid - half, y, high)),
                    (214, 218, 220),
                ).paint(canvas, frame, owner)


def pallet(z: float = 0.0) -> list[Solid]:
    """A wooden pallet, 1.2 m by 0.8 m, standing ``z`` above the floor."""
    feet: list[Solid] = [Block((-0.56, y, z), (0.56, y + 0.1, z + 0.1), shaded(WOOD, 0.6)) for y in (-0.4, -0.05, 0.3)]
    return [*feet, Block((-0.58, -0.42, z + 0.1), (0.58, 0.42, z + 0.14), WOOD)]


def pallet_load(dice: Dice) -> Pile:
    """A pallet with one wrapped block, or layers of cartons."""
    solids, z = pallet(), 0.14
    if dice.chance(0.35):
        solids.append(Carton((-0.54, -0.4, z), (0.54, 0.4, z + dice.between(0.5, 1.2)), dice.pick(WRAPPED), tape=False))
        return Pile(tuple(solids), 0.7)
    colour, height = dice.pick(CARDBOARD), dice.between(0.28, 0.45)
    for _ in range(dice.whole(1, 3)):
        shade = dice.between(0.9, 1.08)
        solids.append(Carton((-0.52, 0.01, z), (0.52, 0.4, z + height), shaded(colour, shade)))
        solids.append(Carton((-0.52, -0.4, z), (0.52, -0.01, z + height), shaded(colour, shade * 0.96)))
        z += height
    return Pile(tuple(solids), 0.7)


def empty_pallets(dice: Dice) -> Pile:
    """A stack of empty pallets."""
    return Pile(tuple(solid for level in range(dice.whole(1, 7)) for solid in pallet(level * 0.145)), 0.7)


def carton(dice: Dice) -> Pile:
    """One to three cartons on the floor."""
    solids: list[Solid] = []
    z = 0.0
    for _ in range(dice.whole(1, 3)):
        half, height = dice.between(0.2, 0.36), dice.between(0.25, 0.5)
        solids.append(
            Carton(
                (-half, -half, z), (half, half * 0.9, z + height), shaded(dice.pick(CARDBOARD), dice.between(0.9, 1.1))
            )
        )
        z += height
    return Pile(tuple(solids), 0.45)


def drum(dice: Dice) -> Pile:
    """An oil drum with two ribs."""
    colour = dice.pick(BRIGHT)
    parts = (
        (0.0, 0.29, 0.3, 1.0),
        (0.29, 0.31, 0.31, 0.8),
        (0.31, 0.58, 0.3, 1.0),
        (0.58, 0.6, 0.31, 0.8),
        (0.6, 0.88, 0.3, 1.0),
    )
    return Pile(
        tuple(Prism(round_outline(0, 0, r), 2, low, high, shaded(colour, k)) for low, high, r, k in parts), 0.35
    )


def cone(_: Dice) -> Pile:
    """A traffic cone."""
    orange, white = (24, 104, 240), (226, 230, 230)
    steps = (
        (0.04, 0.2, 0.15, orange),
        (0.2, 0.34, 0.11, white),
        (0.34, 0.52, 0.085, orange),
        (0.52, 0.62, 0.05, white),
        (0.62, 0.7, 0.03, orange),
    )
    body = tuple(Hull(((0.0, 0.0, low, r), (0.0, 0.0, high, r * 0.75)), colour) for low, high, r, colour in steps)
    return Pile((Block((-0.2, -0.2, 0.0), (0.2, 0.2, 0.04), orange), *body), 0.25)


def bollard(dice: Dice) -> Pile:
    """A striped guard post, from afar as tall and thin as a child."""
    radius, height, bands = dice.between(0.07, 0.13), dice.between(0.9, 1.35), 6
    step = height / bands
    colours: tuple[Colour, Colour] = ((30, 196, 240), (40, 40, 40))
    return Pile(
        tuple(
            Prism(round_outline(0, 0, radius, 10), 2, n * step, (n + 1) * step, colours[n % 2]) for n in range(bands)
        ),
        0.2,
    )


def coat_stand(dice: Dice) -> Pile:
    """A vest or coat on a stand: a trunk like a person's, but neither head nor legs."""
    colour = dice.pick((*VESTS, (70, 62, 58), (110, 76, 46)))
    foot = tuple(
        bar((0.0, 0.0, 0.08), (x, y, 0.02), 0.02, STEEL) for x, y in ((0.25, 0.0), (-0.15, 0.2), (-0.15, -0.2))
    )
    coat = Hull(
        ((0.0, 0.13, 1.42, 0.05), (0.0, -0.13, 1.42, 0.05), (0.0, 0.17, 0.8, 0.1), (0.0, -0.17, 0.8, 0.1)),
        colour,
        glow=True,
    )
    return Pile((*foot, bar((0.0, 0.0, 0.06), (0.0, 0.0, 1.65), 0.02, STEEL), coat), 0.3)


def pallet_jack(dice: Dice) -> Pile:
    """A hand pallet truck: forks and a drawbar in a truck's paint."""
    colour = dice.pick(BRIGHT)
    forks = tuple(Block((0.0, y, 0.06), (1.15, y + 0.16, 0.12), colour) for y in (-0.27, 0.11))
    head = Block((-0.22, -0.24, 0.08), (0.02, 0.24, 0.42), colour)
    lever = bar((-0.15, 0.0, 0.4), (-0.55, 0.0, 1.2), 0.025, STEEL)
    grip = bar((-0.55, -0.16, 1.22), (-0.55, 0.16, 1.22), 0.03, (40, 38, 38))
    return Pile((*forks, Prism(round_outline(-0.15, 0.1, 0.1), 1, -0.06, 0.06, (40, 38, 38)), head, lever, grip), 0.7)


def machine(dice: Dice) -> Pile:
    """A sweeper or charger cabinet: a painted body with dark skirt, without mast or guard."""
    colour, height = dice.pick(BRIGHT), dice.between(0.9, 1.6)
    screen = Panel(
        (
            (-0.41, -0.2, height * 0.7),
            (-0.41, 0.2, height * 0.7),
            (-0.41, 0.2, height * 0.9),
            (-0.41, -0.2, height * 0.9),
        ),
        (70, 66, 60),
    )
    body = Block((-0.4, -0.35, 0.15), (0.5, 0.35, height), colour)
    return Pile((Block((-0.42, -0.37, 0.0), (0.52, 0.37, 0.15), (52, 50, 50)), body, screen), 0.7)


def trolley(dice: Dice) -> Pile:
    """A cage trolley, half full."""
    load = Carton((-0.36, -0.26, 0.2), (0.36, 0.26, dice.between(0.5, 1.2)), dice.pick(CARDBOARD))
    posts = [(x, y) for x in (0.4, -0.4) for y in (0.3, -0.3)]
    uprights = tuple(bar((x, y, 0.05), (x, y, 1.6), 0.02, (150, 150, 146)) for x, y in posts)
    rails = tuple(
        bar((x, -0.3, z), (x, 0.3, z), 0.012, (150, 150, 146)) for z in (0.6, 1.0, 1.4, 1.6) for x in (0.4, -0.4)
    )
    return Pile((Block((-0.4, -0.3, 0.12), (0.4, 0.3, 0.2), STEEL), *uprights[:2], load, *uprights[2:], *rails), 0.55)


CLUTTER = (
    pallet_load,
    pallet_load,
    empty_pallets,
    carton,
    carton,
    drum,
    cone,
    cone,
    bollard,
    coat_stand,
    pallet_jack,
    machine,
    trolley,
)
