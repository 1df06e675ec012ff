"""``samples.jpg``: a grid of images with their boxes and class names, the faulty ones first."""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ml.dataset.checks import Inspection, Look
from ml.dataset.faults import Fault
from ml.dataset.images import PictureError, decode
from ml.dataset.layout import SPLITS, name_in

COLUMNS, ROWS = 5, 4
TILE, CAPTION, GAP = 320, 40, 8
_PAPER, _INK, _GREY = (250, 250, 248), (30, 30, 30), (205, 205, 205)
_SEVERITY = {"error": (190, 25, 25), "warning": (165, 100, 0)}
# Told apart by people with any colour vision (Okabe and Ito).
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))

Choice = tuple[Look, Fault | None]


def draw_grid(inspection: Inspection, path: Path) -> None:
    """Write the grid as JPEG; the same inspection gives the same bytes in the locked environment."""
    choices = choose(inspection, COLUMNS * ROWS)
    rows = max(1, -(-len(choices) // COLUMNS))
    width, height = COLUMNS * (TILE + GAP) + GAP, rows * (TILE + CAPTION + GAP) + GAP
    sheet = Image.new("RGB", (width, height), _PAPER)
    for index, (look, fault) in enumerate(choices):
        row, column = divmod(index, COLUMNS)
        tile = _tile(inspection, look, fault)
        sheet.paste(tile, (GAP + column * (TILE + GAP), GAP + row * (TILE + CAPTION + GAP)))
    sheet.save(path, "JPEG", quality=88)


def choose(inspection: Inspection, count: int) -> list[Choice]:
    """At most ``count`` samples: each kind of fault in turn, errors before warnings, then sound ones of all splits."""
    root = inspection.dataset.root
    by_file: dict[str, Look] = {}
    for look in inspection.looks:
        by_file[name_in(root, look.sample.image)] = look
        by_file[name_in(root, look.sample.label)] = look
    kinds: dict[tuple[str, str], list[Choice]] = defaultdict(list)
    for fault in inspection.faults:
        if fault.file in by_file:
            kinds[fault.severity, fault.kind].append((by_file[fault.file], fault))
    chosen: list[Choice] = []
    taken: set[Path] = set()
    for severity in ("error", "warning"):
        queues = [choices for (of, _), choices in sorted(kinds.items()) if of == severity]
        for depth in range(max(map(len, queues), default=0)):
            for queue in queues:
                if depth < len(queue) and queue[depth][0].sample.image not in taken and len(chosen) < count:
                    chosen.append(queue[depth])
                    taken.add(queue[depth][0].sample.image)
    room = count - len(chosen)
    sound = {
        split: [x for x in inspection.looks if x.sample.split == split and x.sample.image not in taken]
        for split in SPLITS
    }
    for place, split in enumerate(SPLITS):
        share = min(len(sound[split]), (room + place) // len(SPLITS))
        chosen += [(sound[split][number * len(sound[split]) // share], None) for number in range(share)]
    return chosen


def _tile(inspection: Inspection, look: Look, fault: Fault | None) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE + CAPTION), _PAPER)
    draw = ImageDraw.Draw(tile)
    image = _image(look.sample.image)
    if image is None:
        draw.rectangle((0, 0, TILE, TILE), fill=_GREY)
        draw.text((TILE / 2, TILE / 2), "cannot be decoded", _INK, _font(16), anchor="mm")
    else:
        image.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
        if max(image.size) < TILE:
            image = ImageOps.contain(image, (TILE, TILE), Image.Resampling.NEAREST)
        left, top = (TILE - image.width) // 2, (TILE - image.height) // 2
        _boxes(image, look, inspection.dataset.classes)
        tile.paste(image, (left, top))
    draw.rectangle((0, TILE, TILE, TILE + CAPTION), fill=_PAPER)
    name = f"{look.sample.split}/{look.sample.image.name}"
    draw.text((2, TILE + 3), _fit(name, 13), _INK, _font(13))
    if fault:
        line = f"line {fault.line}: " if fault.line else ""
        draw.text((2, TILE + 21), _fit(f"{line}{fault.kind}: {fault.reason}", 12), _SEVERITY[fault.severity], _font(12))
        draw.rectangle((0, 0, TILE - 1, TILE - 1), outline=_SEVERITY[fault.severity], width=3)
    elif look.labels is not None:
        count = len(look.labels.boxes)
        draw.text((2, TILE + 21), f"{count} box{'es' * (count != 1)}" if count else "background", _INK, _font(12))
    return tile


def _boxes(image: Image.Image, look: Look, classes: tuple[str, ...]) -> None:
    draw = ImageDraw.Draw(image)
    font = _font(13)
    for box in look.labels.boxes if look.labels else ():
        colour = _COLOURS[box.class_id % len(_COLOURS)]
        shares = zip(box.corners, (image.width, image.height) * 2, strict=True)
        left, top, right, bottom = (round(share * side) for share, side in shares)
        draw.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=2)
        name = classes[box.class_id]
        wide = draw.textlength(name, font) + 6
        x, y = max(0, min(left, image.width - wide)), top - 17 if top >= 17 else max(0, top)
        draw.rectangle((x, y, x + wide, y + 17), fill=colour)
        draw.text((x + 3, y + 1), name, (0, 0, 0), font)


def _image(path: Path) -> Image.Image | None:
    try:
        return ImageOps.exif_transpose(decode(path.read_bytes())).convert("RGB")
    except (OSError, PictureError):
        return None


def _fit(text: str, size: int) -> str:
    """``text`` cut in its middle to the width of a tile, without what would break the line."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    font, shown = _font(size), text
    keep = len(text)
    while font.getlength(shown) > TILE - 4 and keep > 4:
        keep -= 1
        shown = f"{text[: keep - keep // 3]}…{text[len(text) - keep // 3 :]}"
    return shown


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans out of matplotlib's package: the same on every machine, with Greek and Cyrillic letters."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return ImageFont.load_default(size)
    path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
