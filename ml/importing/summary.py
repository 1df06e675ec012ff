"""What an import did, for a person to read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Move:
    """An image that was put into another split than its source had it in, because of the group it belongs to."""

    image: str
    group: str
    source_split: str
    split: str


@dataclass(frozen=True)
class ImportSummary:
    """What an import did.

    Attributes:
        layout: what the source was taken for (``Roboflow``).
        images: split to number of images, as written.
        boxes: class name to number of boxes, as written.
        classes: class name of the source to that of the recipe, ``""`` where it was dropped.
        polygons: polygons that became boxes.
        crowds: COCO crowd regions left out (they are no single object).
        dropped: boxes left out because ``rename`` drops their class.
        leaks: images whose group was in two splits, with the split that each went to (or stayed in).
        notes: everything else worth knowing: how missing splits were made, files that were renamed or left out.
    """

    layout: str
    images: dict[str, int]
    boxes: dict[str, int]
    classes: dict[str, str]
    polygons: int
    crowds: int
    dropped: int
    leaks: tuple[Move, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {split}" for split, count in self.images.items())
        boxes = ", ".join(f"{count} {name}" for name, count in self.boxes.items())
        lines = [f"{self.layout} layout: {counts} images; boxes: {boxes}"]
        renamed = [f"{old} -> {new or 'dropped'}" for old, new in self.classes.items() if old != new]
        lines += [f"classes: {', '.join(renamed)}"] if renamed else []
        for count, what in (
            (self.polygons, "polygons became boxes"),
            (self.crowds, "crowd regions were left out"),
            (self.dropped, "boxes of dropped classes were left out"),
        ):
            lines += [f"{count} {what}"] if count else []
        lines += self.notes
        for move in self.leaks:
            went = f"moved to {move.split}" if move.split != move.source_split else f"left in {move.split}"
            lines.append(f"leak: {move.source_split}/{move.image} ({move.group}) {went}")
        return "\n".join(lines)
