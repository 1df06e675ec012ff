"""Importing a flow is light: what is heavy is imported where it is used, in a stage's own process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOWS = sorted(path.stem for path in (ROOT / "flows").glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", FLOWS)
def test_no_heavy_library_is_imported(name: str) -> None:
    heavy = "{'torch', 'torchvision', 'ultralytics', 'mlflow', 'openvino', 'cv2', 'dvc'}"
    code = f"import sys, flows.{name}; found = {heavy} & set(sys.modules); sys.exit(', '.join(sorted(found)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
