"""A person: looks (clothes, build) and a pose, made of rounded limbs. Local x is where the person faces."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ml.drawing.camera import Camera, Frame, Placement, Vector
from ml.drawing.canvas import OTHER, Canvas, Colour
from ml.drawing.exact import Dice, circle
from ml.drawing.solids import Block, Hull, Solid, paint_all, shaded

SKINS: tuple[Colour, ...] = ((150, 178, 224), (112, 146, 202), (74, 104, 156), (46, 66, 104))
HAIRS: tuple[Colour, ...] = ((24, 26, 30), (30, 48, 74), (60, 96, 130), (120, 124, 128))
CLOTHES: tuple[Colour, ...] = (
    (112, 72, 38), (60, 58, 56), (148, 146, 140), (60, 82, 58), (44, 44, 140), (150, 120, 70),
    (200, 204, 206), (96, 60, 92),
)  # fmt: skip
TROUSERS: tuple[Colour, ...] = ((84, 58, 36), (46, 44, 44), (74, 92, 104), (104, 104, 100), (110, 80, 58))
VESTS: tuple[Colour, ...] = ((40, 228, 206), (30, 120, 246), (44, 236, 170))
HELMETS: tuple[Colour, ...] = ((40, 208, 246), (236, 238, 240), (190, 110, 36), (40, 44, 206), (40, 120, 240))
STRIPE: Colour = (214, 220, 220)


@dataclass(frozen=True)
class Arm:
    """Angles in turns: the shoulder's swing forward, the elbow's bend, and how far the arm is spread sideways."""

    swing: float = 0.0
    bend: float = 0.03
    spread: float = 0.03


@dataclass(frozen=True)
class Pose:
    """Angles in turns. ``left`` and ``right`` legs are (thigh forward, knee bend); ``lean`` bends the back forward.

    ``seated`` keeps the hip at the local origin instead of putting the lower foot on the floor.
    """

    left: tuple[float, float] = (0.008, 0.01)
    right: tuple[float, float] = (-0.008, 0.01)
    left_arm: Arm = Arm()
    right_arm: Arm = Arm()
    lean: float = 0.005
    seated: bool = False
    carries: bool = False


def walking(phase: float, carries: bool = False) -> Pose:
    """A step: ``phase`` in turns, one turn is two steps (about 1.45 m)."""
    c, s = circle(phase)
    arms = (Arm(0.12, 0.13), Arm(0.12, 0.13)) if carries else (Arm(-0.075 * s, 0.05), Arm(0.075 * s, 0.05))
    return Pose(
        left=(0.075 * s + 0.01, 0.015 + 0.1 * max(0.0, c)),
        right=(-0.075 * s + 0.01, 0.015 + 0.1 * max(0.0, -c)),
        left_arm=arms[0],
        right_arm=arms[1],
        lean=0.012,
        carries=carries,
    )


DRIVING = Pose((0.2, 0.2), (0.21, 0.17), Arm(0.13, 0.07, 0.02), Arm(0.1, 0.1, 0.04), lean=0.0, seated=True)


def any_pose(dice: Dice) -> Pose:
    """Walking as often as working."""
    return walking(dice.between(0, 1), carries=dice.chance(0.2)) if dice.chance(0.5) else working(dice)


def working(dice: Dice) -> Pose:
    """Somebody who stays: standing, pointing, phoning, reaching up, stooping or kneeling."""
    arm = Arm(dice.between(-0.02, 0.05), dice.between(0.02, 0.1), dice.between(0.02, 0.05))
    other = dice.pick((
        Arm(dice.between(-0.03, 0.04), dice.between(0.01, 0.08)),
        Arm(dice.between(0.2, 0.27), 0.01, dice.between(0.0, 0.1)),
        Arm(0.08, 0.36),
        Arm(dice.between(0.36, 0.44), 0.03),
    ))  # fmt: skip
    upright = Pose(left_arm=arm, right_arm=other, lean=dice.between(-0.005, 0.02))
    if dice.chance(0.14):
        return replace(upright, lean=dice.between(0.1, 0.17), left_arm=Arm(0.02, 0.02), right_arm=Arm(0.06, 0.04))
    if dice.chance(0.1):
        return replace(upright, left=(0.24, 0.25), right=(0.01, 0.26), lean=0.04)
    return upright


@dataclass(frozen=True)
class Person:
    """What one person looks like. Lengths are shares of the height in metres."""

    height: float
    build: float
    skin: Colour
    hair: Colour
    top: Colour
    trousers: Colour
    vest: Colour | None
    helmet: Colour | None

    @classmethod
    def any(cls, dice: Dice) -> Person:
        """A person as chance will have it."""
        return cls(
            height=dice.between(1.58, 1.93),
            build=dice.between(0.9, 1.22),
            skin=dice.pick(SKINS),
            hair=dice.pick(HAIRS),
            top=dice.pick(CLOTHES),
            trousers=dice.pick(TROUSERS),
            vest=dice.pick(VESTS) if dice.chance(0.6) else None,
            helmet=dice.pick(HELMETS) if dice.chance(0.55) else None,
        )

    def paint(self, canvas: Canvas, camera: Camera, place: Placement, pose: Pose, owner: int) -> None:
        """Paint the person standing (or with the hip, when seated) at ``place``."""
        frame = Frame(camera, place)
        parts = self._parts(pose, frame)
        parts.sort(key=lambda part: -frame.depth(part[0]))
        for _, solids in parts:
            paint_all(solids, canvas, frame, owner)

    def _parts(self, pose: Pose, frame: Frame) -> list[tuple[Vector, list[Solid]]]:
        """The body's parts, each with a point that says how far away it is."""
        h, b = self.height, self.height * self.build
        legs = [_leg(pose.left, h), _leg(pose.right, h)]
        hip = 0.0 if pose.seated else 0.035 * h - min(ankle[1] for _, ankle in legs)
        c, s = circle(pose.lean)
        chest = (0.3 * h * s, hip + 0.3 * h * c)
        parts: list[tuple[Vector, list[Solid]]] = []
        for side, (knee, ankle) in zip((1.0, -1.0), legs, strict=True):
            y = side * 0.055 * b
            at = [(0.0, y, hip), (knee[0], y * 1.1, hip + knee[1]), (ankle[0], y * 1.1, hip + ankle[1])]
            colour = shaded(self.trousers, 1.08 if side * frame.eye[1] > 0 else 0.92)
            limb: list[Solid] = [
                Hull(
                    ((*at[2], 0.026 * h), (at[2][0] + 0.085 * h, y * 1.2, at[2][2] - 0.012 * h, 0.021 * h)),
                    (34, 34, 38),
                ),
                Hull(((*at[1], 0.038 * b), (*at[2], 0.028 * b)), colour),
                Hull(((*at[0], 0.052 * b), (*at[1], 0.039 * b)), colour),
            ]
            parts.append((_between(at[0], at[2]), limb))
        parts.append(((chest[0] * 0.5, 0.0, (hip + chest[1]) / 2), self._torso(chest, hip, frame)))
        sleeve = shaded(self.top, 0.9)
        for side, arm in ((1.0, pose.left_arm), (-1.0, pose.right_arm)):
            shoulder = (chest[0], side * 0.118 * b, chest[1])
            elbow, hand = _arm(arm, shoulder, side, h)
            reach: list[Solid] = [
                Hull(((*hand, 0.025 * h),), self.skin),
                Hull(((*elbow, 0.03 * b), (*hand, 0.022 * b)), self.skin if self.vest is None and side > 0 else sleeve),
                Hull(((*shoulder, 0.038 * b), (*elbow, 0.03 * b)), sleeve),
            ]
            parts.append((_between(shoulder, hand), reach))
        parts.append(((chest[0] + 0.02 * h, 0.0, chest[1] + 0.1 * h), self._head(chest, frame)))
        if pose.carries:
            z = chest[1] - 0.22 * h
            parts.append(((0.32, 0.0, z), [_Carried(Block((0.14, -0.22, z), (0.5, 0.22, z + 0.3), (92, 140, 184)))]))
        return parts

    def _torso(self, chest: tuple[float, float], hip: float, frame: Frame) -> list[Solid]:
        h, b = self.height, self.height * self.build
        sides = (1.0, -1.0)
        trunk = tuple((chest[0], y * 0.082 * b, chest[1], 0.052 * b) for y in sides)
        waist = tuple((0.0, y * 0.05 * b, hip + 0.03 * h, 0.056 * b) for y in sides)
        solids: list[Solid] = [Hull(trunk + waist, self.vest or self.top, glow=True)]
        if self.vest is not None:
            for share in (0.22, 0.52):
                x, z = chest[0] * (1 - share), chest[1] + (hip - chest[1]) * share
                width = (0.082 - 0.03 * share) * b + 0.036 * b
                solids.append(Hull(tuple((x, y * width, z, 0.014 * h) for y in sides), STRIPE))
            if frame.eye[0] > 0:
                solids.append(
                    Hull(
                        ((chest[0] + 0.05 * b, 0.0, chest[1], 0.006 * h), (0.06 * b, 0.0, hip, 0.006 * h)),
                        shaded(self.vest, 0.55),
                    )
                )
        return solids

    def _head(self, chest: tuple[float, float], frame: Frame) -> list[Solid]:
        h = self.height
        x, z = chest[0] + 0.012 * h, chest[1] + 0.115 * h
        neck = Hull(((chest[0], 0.0, chest[1] + 0.02 * h, 0.034 * h), (x, 0.0, z, 0.032 * h)), shaded(self.skin, 0.85))
        face = Hull(
            ((x + 0.012 * h, 0.0, z - 0.022 * h, 0.042 * h), (x + 0.008 * h, 0.0, z + 0.018 * h, 0.05 * h)),
            self.skin,
            glow=True,
        )
        hair = Hull(
            ((x - 0.016 * h, 0.0, z - 0.004 * h, 0.05 * h), (x - 0.006 * h, 0.0, z + 0.03 * h, 0.054 * h)), self.hair
        )
        solids: list[Solid] = [neck, hair, face] if frame.eye[0] > 0 else [neck, face, hair]
        if self.helmet is None:
            solids.append(
                Hull(
                    ((x - 0.012 * h, 0.0, z + 0.044 * h, 0.046 * h), (x + 0.014 * h, 0.0, z + 0.05 * h, 0.036 * h)),
                    self.hair,
                )
            )
        else:
            brim = ((x - 0.05 * h, 0.0), (x + 0.085 * h, 0.0), (x, 0.056 * h), (x, -0.056 * h))
            solids.append(Hull(tuple((u, v, z + 0.034 * h, 0.012 * h) for u, v in brim), shaded(self.helmet, 0.8)))
            solids.append(
                Hull(
                    ((x - 0.008 * h, 0.0, z + 0.05 * h, 0.055 * h), (x + 0.01 * h, 0.0, z + 0.056 * h, 0.05 * h)),
                    self.helmet,
                    glow=True,
                )
            )
        return solids


@dataclass(frozen=True)
class _Carried:
    """A thing in somebody's hands: it hides its bearer and belongs to nobody."""

    solid: Solid

    def paint(self, canvas: Canvas, frame: Frame, owner: int) -> None:
        self.solid.paint(canvas, frame, OTHER)


def _leg(angles: tuple[float, float], h: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Knee and ankle as (x, z) from the hip."""
    c, s = circle(angles[0])
    knee = (0.245 * h * s, -0.245 * h * c)
    c, s = circle(angles[0] - angles[1])
    return knee, (knee[0] + 0.235 * h * s, knee[1] - 0.235 * h * c)


def _arm(arm: Arm, shoulder: Vector, side: float, h: float) -> tuple[Vector, Vector]:
    """Elbow and hand."""
    outward = circle(arm.spread)[1] * side
    inward = math.sqrt(1 - outward * outward)
    c, s = circle(arm.swing)
    x, y, z = shoulder
    elbow = (x + 0.165 * h * s * inward, y + 0.165 * h * outward, z - 0.165 * h * c * inward)
    c, s = circle(arm.swing + arm.bend)
    return elbow, (elbow[0] + 0.16 * h * s, elbow[1] + 0.03 * h * outward, elbow[2] - 0.16 * h * c)


def _between(a: Vector, b: Vector) -> Vector:
    return ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2)
