"""A trained detector and its exports, made once for all tests that need them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.ml import detector
from tests.ml.detector import Workplace, make_recipe

_OPEN = Image.open  # before Ultralytics replaces it, as it does when it is imported


@pytest.fixture(autouse=True)
def pillow_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage is a process of its own: reading datasets must not meet what Ultralytics does to Pillow."""
    monkeypatch.setattr(Image, "open", _OPEN)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint of a trained detector; Ultralytics keeps its settings in the session's folder."""
    root = tmp_path_factory.mktemp("detector")
    before = os.environ.get("MLOPS_HOME")
    os.environ["MLOPS_HOME"] = str(root / "state")
    from ml.quiet import quiet_libraries

    quiet_libraries()
    yield detector.train(root)
    if before is None:
        del os.environ["MLOPS_HOME"]
    else:
        os.environ["MLOPS_HOME"] = before


@pytest.fixture(scope="session")
def workplace(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """The weights evaluated on scenes of three sizes that they have not seen; do not write into it."""
    from ml.evaluate import evaluate

    root = tmp_path_factory.mktemp("workplace")
    detector.write_split(root / "data", "test", range(100, 108))
    detector.write_split(root / "data", "test", range(108, 112), 100, 140)
    (root / "models").mkdir()
    (root / "models" / "model.pt").write_bytes(weights.read_bytes())
    recipe = make_recipe(root / "data")
    return Workplace(root, recipe, evaluate(recipe, root / "models", root / "reports" / "evaluate"))
