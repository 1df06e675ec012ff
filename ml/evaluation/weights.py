"""Reads an Ultralytics checkpoint without Ultralytics touching the user's home or the network."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.problems import Problem, UserError
from ml.quiet import quiet_libraries

# What unpickling a file that is no checkpoint may end with.
BROKEN = (
    *(RuntimeError, KeyError, TypeError, AttributeError, ValueError, EOFError, OSError, ImportError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)


def load_weights(path: Path, classes: Sequence[str]) -> Any:
    """The detector in a checkpoint: a ``torch.nn.Module`` on the CPU in float32, fused, ready to infer.

    Args:
        path: ``.pt`` file as Ultralytics writes it. It is a pickle: load only what you trust.
        classes: the names it must have been trained for, in order.

    Raises:
        UserError: there is no such file, it is no checkpoint of a detector, or its classes are others.
    """
    if not path.is_file():
        raise UserError(Problem(str(path), "there is no such file", "train first: python -m ml.train"))
    quiet_libraries()
    from ultralytics.nn.tasks import load_checkpoint

    remedy = "give the weights of an Ultralytics detector, as `python -m ml.train` makes them"
    try:
        model, _ = load_checkpoint(str(path), fuse=True)
        names = tuple(str(model.names[index]) for index in range(len(model.names)))
        task = str(model.task)
    except BROKEN as error:
        raise UserError(Problem(str(path), f"is no checkpoint: {_first_line(error)}", remedy)) from None
    if task != "detect":
        raise UserError(Problem(str(path), f"is a model for the task `{task}`", remedy))
    if names != tuple(classes):
        what = f"was trained for the classes {', '.join(names)}; the recipe says {', '.join(classes)}"
        raise UserError(Problem(str(path), what, "train again, or mend data.classes in the recipe"))
    return model


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
