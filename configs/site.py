"""The site: what ``configs/site.yaml`` may say. Each section has a module of its own."""

from __future__ import annotations

from pathlib import Path

from configs.cluster import Cluster
from configs.image import ImageBuild
from configs.loading import Section, load_model
from configs.registry import Registry
from configs.storage import Storage

SITE_FILE = "configs/site.yaml"


class Site(Section):
    """A whole site file."""

    storage: Storage
    cluster: Cluster | None = None
    registry: Registry | None = None
    image: ImageBuild = ImageBuild()


def load_site(path: str | Path) -> Site:
    """Read a site file.

    Raises:
        UserError: with every mistake in the file, each with line, key and what would be right.
    """
    return load_model(path, Site)
