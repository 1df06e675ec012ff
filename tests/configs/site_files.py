"""Site files for tests, and what is said of the mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.problems import UserError
from configs.site import load_site

SHIPPED = Path(__file__).parents[2] / "configs" / "site.yaml"


def write(folder: Path, text: str) -> Path:
    """Write a site file of this text; its storage, in the first line, is a folder."""
    path = folder / "site.yaml"
    path.write_text(f"storage: {{kind: directory}}\n{text}")
    return path


def told(path: Path) -> dict[str, str]:
    """What is said about each key, with its line."""
    with pytest.raises(UserError) as caught:
        load_site(path)
    problems = caught.value.problems
    return {problem.where.removeprefix(f"{path}:"): f"{problem.what} {problem.remedy}" for problem in problems}
