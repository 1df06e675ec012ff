"""Manifests of somebody else's project that the site's file names: the very file that was looked at, or none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import yaml

from configs.kubernetes import NamedManifest
from configs.problems import Problem, UserError
from configs.site import SITE_FILE
from infra.site.steps.applied import Rollouts


def read_manifest(named: NamedManifest, key: str, root: Path) -> tuple[str, Rollouts]:
    """Return a manifest's text, and the workloads in it.

    Args:
        key: of the site's file, for errors. root: the checkout.

    Raises:
        UserError: the file is not there, is another one, or holds no objects.
    """
    path = root / named.manifest.expanduser()
    where = f"{SITE_FILE} {key}"
    try:
        content = path.read_bytes()
    except OSError as error:
        remedy = "download it from its project, look at it, and write its path and sha256 there"
        raise UserError(Problem(f"{where}.manifest", f"{path} cannot be read: {error.strerror}", remedy)) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != named.sha256:
        remedy = f"look at what has changed in it; if it is the wanted one, write {digest}"
        raise UserError(Problem(f"{where}.sha256", f"{path} is another file than that", remedy))
    try:
        text = content.decode("utf-8")
        rollouts = tuple(_rollouts(text))
    except (UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        what = f"{path} holds no objects of Kubernetes: {' '.join(str(error).split())}"
        raise UserError(Problem(f"{where}.manifest", what, "a YAML file as `kubectl apply` takes it")) from None
    return text, rollouts


def _rollouts(text: str) -> Iterator[tuple[str, str]]:
    for item in yaml.safe_load_all(text):
        if item is None:
            continue
        name, space = item["metadata"]["name"], item["metadata"].get("namespace", "default")
        if item["apiVersion"] == "apps/v1" and item["kind"] in ("Deployment", "DaemonSet"):
            yield space, f"{item['kind'].lower()}/{name}"
