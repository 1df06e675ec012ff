"""Stage ``train``: from the recipe's model and data to ``models/model.pt``.

    python -m ml.train --recipe configs/forklift.yaml

Start it again after it was stopped or killed, and it goes on after its last whole epoch. Exit status: 0 trained,
1 something is wrong that the message says, 143 and 130 stopped by SIGTERM and Ctrl-C.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from configs.home import home_folder
from configs.problems import run_main
from configs.recipe import load_recipe
from ml.events import Events
from ml.inputs import inputs_held


class Stop:
    """Ends the process at SIGTERM and Ctrl-C. Python drops what is raised in some callbacks, so it is kept, too."""

    def __init__(self) -> None:
        self.status = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.status = 128 + number
        print("stopped; the same command goes on after the last whole epoch", file=sys.stderr)
        self.check()

    def check(self) -> None:
        """Raise ``SystemExit`` if the process has been asked to stop."""
        if self.status:
            sys.exit(self.status)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m ml.train", description="Train the recipe's YOLOv5 detector.")
    parser.add_argument("--recipe", type=Path, required=True, help="for example configs/forklift.yaml")
    stop = Stop()
    path = parser.parse_args().recipe
    with inputs_held("train", path):
        recipe = load_recipe(path)
        from ml.yolov5.training import train

        train(recipe, Events("train"), home_folder(), stop.check)


if __name__ == "__main__":
    run_main(main)
