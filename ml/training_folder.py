"""Names the folder that a training keeps its checkpoints in, for whoever brings one there or takes one away.

    python -m ml.training_folder --recipe configs/forklift.yaml

Prints the folder, below ``MLOPS_HOME``; its last part is the training's key: the same for the same recipe, data,
starting weights and libraries. It reads the whole dataset for that, and imports nothing heavy.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from configs.home import home_folder
from configs.problems import run_main
from configs.recipe import load_recipe
from ml.yolov5 import inputs


def main() -> None:
    """Read the command line and print the folder."""
    parser = argparse.ArgumentParser(prog="python -m ml.training_folder", description=__doc__)
    parser.add_argument("--recipe", type=Path, required=True, help="for example configs/forklift.yaml")
    recipe = load_recipe(parser.parse_args().recipe)
    inputs.check_data(recipe.data.path)
    home = home_folder()
    model = inputs.resolve_model(recipe.train.model, home / "weights")
    print(home / "training" / inputs.key(recipe, model, inputs.digest(recipe.data.path)))


if __name__ == "__main__":
    run_main(main)
