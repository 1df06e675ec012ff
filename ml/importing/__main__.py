"""``python -m ml.importing SOURCE TARGET --classes a,b``: import a dataset by hand."""

from __future__ import annotations

import argparse
from pathlib import Path

from configs.problems import run_main
from ml.importing import import_dataset


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not OLD=NEW")
    return old.strip(), new.strip()


def main() -> None:
    """Read the command line, import, and print the summary."""
    parser = argparse.ArgumentParser(prog="python -m ml.importing", description=(__doc__ or "").split(": ")[1])
    parser.add_argument("source", type=Path, help="folder or zip in YOLO, Roboflow or COCO layout")
    parser.add_argument("target", type=Path, help="a new folder")
    parser.add_argument("--classes", required=True, help="class names in label order, separated by commas")
    parser.add_argument("--rename", type=_pair, action="append", default=[], metavar="OLD=NEW", help="NEW empty: drop")
    parser.add_argument("--seed", type=int, default=0, help="decides which images make up a missing split")
    parser.add_argument("--keep-splits", action="store_true", help="leave leaking groups where the source has them")
    given = parser.parse_args()
    classes = tuple(name.strip() for name in given.classes.split(","))
    options = {"rename": dict(given.rename), "regroup": not given.keep_splits, "seed": given.seed}
    print(import_dataset(given.source, given.target, classes, **options))


if __name__ == "__main__":
    run_main(main)
