"""What an image is to be, before anything is built: the same plan is the same image, wherever it is made."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from configs.image import ImageBuild
from configs.problems import Problem, UserError
from configs.registry import Registry
from configs.site import SITE_FILE, load_site
from infra.image.record import ImageRecord, now
from infra.image.source import Source, read_source


@dataclass(frozen=True)
class Plan:
    """An image that is wanted.

    Attributes:
        identity: a digest of all that it is made from: code, lock, build arguments, kind of processor.
        arguments: build arguments of the Dockerfile.
    """

    source: Source
    registry: Registry
    settings: ImageBuild
    arguments: Mapping[str, str]
    identity: str

    @property
    def tag(self) -> str:
        """Return the image's tag: who has the same plan asks the registry for the same tag."""
        dirty = "-dirty" if self.source.code.dirty else ""
        return f"{self.source.code.commit[:12]}{dirty}-{self.identity[:12]}"

    @property
    def name(self) -> str:
        """Return the image's name with its tag."""
        return f"{self.registry.image}:{self.tag}"

    def record(self, digest: str) -> ImageRecord:
        """Return what is kept of the image once it is in the registry under ``digest``."""
        return ImageRecord(
            reference=f"{self.registry.image}@{digest}",
            tag=self.tag,
            identity=self.identity,
            commit=self.source.code.commit,
            dirty=self.source.code.dirty,
            lock_sha256=self.source.lock_sha256,
            torch=self.settings.torch,
            when=now(),
        )


def make_plan(root: Path, *, dirty: bool = False) -> Plan:
    """Read the site and the checkout ``root``.

    Args:
        dirty: take uncommitted changes of tracked files along instead of refusing them.

    Raises:
        UserError: mistakes in the site file, no registry there, or a checkout that cannot be built from.
    """
    site = load_site(root / SITE_FILE)
    if site.registry is None:
        remedy = "add the section `registry`: the file has an example"
        raise UserError(Problem(SITE_FILE, "names no registry for the image", remedy))
    source = read_source(root, dirty=dirty)
    settings = site.image
    arguments = {"COMMIT": source.code.commit, "LOCK_SHA256": source.lock_sha256, "TORCH": settings.torch}
    if settings.base is not None:
        arguments["BASE"] = settings.base
    if settings.torch == "cpu" and settings.torch_index is not None:
        arguments["TORCH_INDEX"] = settings.torch_index
    made_from = {"diff": source.code.diff, "arguments": arguments, "processor": platform.machine()}
    identity = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    return Plan(source, site.registry, settings, arguments, identity)
