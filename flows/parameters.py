"""Parameters that several flows share: checked before a run is scheduled, shown as a form in the UI."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

RecipeFile = Annotated[
    str,
    Field(
        pattern=r"^configs/[\w./-]+\.ya?ml$", description="The recipe: a file below configs/, as configs/forklift.yaml"
    ),
]
ModelName = Annotated[
    str, Field(pattern=r"^[\w.-]+([@/][\w-]+)?$", description="A version: forklift@champion, forklift/3 or a run's id")
]
