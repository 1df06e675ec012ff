"""Section ``image`` of the site: what the image of flows and trainings is made from, and by which tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from configs.loading import HIDDEN, Section

Builder = Literal["docker", "podman", "buildah"]
Torch = Literal["cuda", "cpu"]


def _index(text: str) -> str:
    if not text.startswith("https://"):
        raise ValueError("write the address of a package index, as https://packages.example.org/simple")
    if "@" in text:
        message = "leave user and password out of the address: they belong into the file that `pip_conf` names"
        raise PydanticCustomError(HIDDEN, message)
    return text


class ImageBuild(Section):
    """How the image is built; all of it may be left out."""

    builder: Builder | None = Field(None, description="left out: the first of docker, podman, buildah that works")
    base: str | None = Field(
        None, pattern=r"^\S+$", description="an image with Python 3.11 to 3.13; left out: that of the Dockerfile"
    )
    torch: Torch = Field("cuda", description="`cpu`: without the CUDA libraries")
    torch_index: Annotated[str, AfterValidator(_index)] | None = Field(
        None, description="where the wheels of torch without CUDA are; left out: PyTorch's own index"
    )
    pip_conf: Path | None = Field(
        None, description="settings of pip for the build only, for a package index of one's own"
    )
    ca: Path | None = Field(None, description="PEM file that pip trusts in the build only, for such an index")
