"""Where a password is: a reference in a file of the project, never the password."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from configs.loading import HIDDEN, Section


class PasswordReference(Section):
    """Where a password is: exactly one of three places. The password itself is never part of a file of the project."""

    environment: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="name of an environment variable"
    )
    file: Path | None = Field(None, description="a file of the password alone, readable by its owner only (0600)")
    prefect_secret: str | None = Field(None, pattern=r"^[a-z0-9-]+$", description="name of a Secret block in Prefect")

    @model_validator(mode="before")
    @classmethod
    def _no_literal(cls, value: Any) -> Any:
        if isinstance(value, dict | PasswordReference):
            return value
        raise PydanticCustomError(
            HIDDEN,
            "name where the password is: `environment: NAME`, `file: PATH` (0600) or `prefect_secret: NAME`;"
            " if this file was committed, change the password",
        )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(place is not None for place in (self.environment, self.file, self.prefect_secret)) != 1:
            raise ValueError("name one place: `environment: NAME`, `file: PATH` or `prefect_secret: NAME`")
        return self
