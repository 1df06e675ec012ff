"""Libraries kept to themselves: offline, silent, with their settings below the state folder, not in the user's home."""

from __future__ import annotations

import os

from configs.home import home_folder
from configs.problems import Problem, UserError


def quiet_libraries() -> None:
    """Set the environment up; call it before Ultralytics, ONNX Runtime or Matplotlib is imported.

    Raises:
        UserError: the folder cannot be written.
    """
    home = home_folder() / "libraries"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(Problem(str(home), f"cannot be made: {error.strerror}", "make it writable")) from None
    os.environ.update(
        YOLO_CONFIG_DIR=str(home),
        YOLO_OFFLINE="true",
        YOLO_AUTOINSTALL="false",
        YOLO_VERBOSE="false",
        MPLCONFIGDIR=str(home),
        ORT_DISABLE_TELEMETRY="1",
    )
