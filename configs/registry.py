"""Section ``registry`` of the site: where images are kept, and how one logs in to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from configs.loading import HIDDEN, Section
from configs.secret import PasswordReference

DOCKER_HUB = "docker.io"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:]+\])"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
PREFIX = rf"{_HOST}(?::\d+)?(?:/{_PART})+"
"""Of images in a registry: its address, and what comes before their names."""


def _address(text: str) -> str:
    form = "write host or host:port, as registry.example.org:5000"
    if "@" in text:
        raise PydanticCustomError(HIDDEN, "leave user and password out of the address: {form}", {"form": form})
    if text.startswith("http://"):
        raise ValueError(f"a registry is reached by TLS only: {form}")
    if "/" in text:
        raise ValueError(f"{form}; what follows the host belongs into `repository`")
    host, _, port = text.rpartition(":") if re.search(r":\d*$", text) and not text.endswith("]") else (text, "", "")
    if not re.fullmatch(_HOST, host) or (port and not 0 < int(port) < 65536) or text.endswith(":"):
        raise ValueError(form)
    if "." not in host and not port and host != "localhost" and not host.startswith("["):
        # Container tools read the first word of a reference as a host only if it looks like one.
        raise ValueError(f"{host} alone would be read as a name on Docker Hub: give its port or its full name")
    return text


class Registry(Section):
    """A registry of images (the OCI distribution API), over HTTPS; its password is elsewhere."""

    address: Annotated[str, AfterValidator(_address)] = Field(description="host[:port]; docker.io is Docker Hub")
    repository: str = Field(
        "kubernetes-mlops",
        pattern=rf"^{_PART}(?:/{_PART})*$",
        max_length=200,
        description="the image's name there, with any prefix",
    )
    ca: Path | None = Field(None, description="PEM file of the CA; left out: those that the system trusts")
    user: str | None = Field(None, pattern=r"^[^\s:]+$", description="the account; left out: nobody logs in")
    password: PasswordReference | None = None

    limit_gb: int = Field(
        80, ge=1, description="of a registry on a machine of the site: above it, nothing more can be pushed"
    )

    @model_validator(mode="after")
    def _whole_login(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("a login is `user:` and `password:`; without a login leave both out")
        return self

    @model_validator(mode="after")
    def _whole_name(self) -> Self:
        if self.address == DOCKER_HUB and "/" not in self.repository:
            raise ValueError("on Docker Hub a repository has its owner before it, as alice/kubernetes-mlops")
        return self

    @property
    def image(self) -> str:
        """Return the image's name without tag or digest, as container tools and pods write it."""
        return f"{self.address}/{self.repository}"

    @property
    def url(self) -> str:
        """Return the address of its API."""
        return "https://registry-1.docker.io" if self.address == DOCKER_HUB else f"https://{self.address}"

    @property
    def login_key(self) -> str:
        """Return the name under which ``config.json`` of container tools keeps the login."""
        return "https://index.docker.io/v1/" if self.address == DOCKER_HUB else self.address
