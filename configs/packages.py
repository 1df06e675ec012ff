"""Section ``packages`` of the site: where the machines get packages from; left out, from where they do already."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from configs.loading import HIDDEN, Mistake, Section


def _url(text: str) -> str:
    if "@" in text:
        raise PydanticCustomError(HIDDEN, "leave user and password out of the address")
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?|file:///\S+", text):
        raise ValueError("write http://, https:// or file:///, with a host or a folder of the machines")
    return text


Url = Annotated[str, AfterValidator(_url)]
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/+-]*$")]
Suite = Annotated[str, Field(pattern=r"^(/|[A-Za-z0-9{][A-Za-z0-9._/+{}-]*/?|\./)$")]


class Source(Section):
    """A repository of Debian packages, as sources.list(5) describes it: a mirror, or somebody's own."""

    url: Url
    distribution: Literal["debian", "ubuntu"] | None = Field(None, description="for machines of it only; left out: all")
    suites: tuple[Suite, ...] = Field(
        ("{codename}",),
        min_length=1,
        description="`{codename}` is the machine's own release, as in `{codename}-updates`; `/` is a flat repository",
    )
    components: tuple[Word, ...] = Field(("main",), description="of no use, and left out, where the suite is `/`")
    keyring: Path | None = Field(
        None, description="the key that signs it, in ASCII armour (.asc); left out: one that the machine trusts already"
    )


class Packages(Section):
    """Mirrors, a proxy, and a file with all packages for machines without a network."""

    sources: tuple[Source, ...] = ()
    proxy: Annotated[str, AfterValidator(_url)] | None = Field(None, description="that apt goes by")
    bundle: Path | None = Field(None, description="made by `mlops site bundle`: packages of it come first")
    only: bool = Field(
        True,
        description="apt asks what is named here and nothing else; false: also the sources that the machines have. "
        "Those are not touched either way",
    )


def package_mistakes(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield what is wrong between the section and the others.

    Args:
        values: the whole file as YAML gave it.
    """
    packages, kubernetes = values.get("packages"), values.get("kubernetes")
    if not isinstance(packages, dict) or packages.get("only", True) is not True:
        return
    if not packages.get("bundle") and not packages.get("sources"):
        if "proxy" not in packages:
            yield Mistake(("packages",), "names no packages", "add `bundle:`, `sources:` or `proxy:`")
        return
    if isinstance(kubernetes, dict):
        for key, default in (("packages", "community"), ("gpu_packages", "nvidia")):
            if kubernetes.get(key, default) == default and (key == "packages" or key in kubernetes):
                what = f"is {default}, whose repository is not asked beside what `packages:` names"
                yield Mistake(("kubernetes", key), what, "`system`, or `only: false` at `packages`")
