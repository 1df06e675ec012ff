"""What a check of ``mlops doctor`` has found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["good", "warning", "broken"]


@dataclass(frozen=True)
class Finding:
    """One check's result; a ``warning`` works, but not as well as it could; ``remedy`` is empty when all is well."""

    name: str
    level: Level
    detail: str
    remedy: str = ""
