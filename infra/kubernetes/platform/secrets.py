"""Secrets that come from the site: the share's login and the registry's. They follow a change of the password."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.site import Site
from configs.storage import SmbStorage
from infra.kubernetes.manifests import REGISTRY, SHARE, manifest
from infra.kubernetes.platform.wanted import Wanted
from infra.password import read_password


def site_secrets(site: Site, wanted: Wanted, root: Path, home: Path) -> list[dict[str, Any]]:
    """Return the Secrets of share and registry that pods need. Not to be shown, compared or written anywhere.

    Raises:
        UserError: a password is not where the site says.
    """
    found = []
    if isinstance(wanted.share, SmbStorage):
        found.append(_share(wanted.share, wanted.namespace, root, home))
    if site.registry is not None and wanted.pull_secrets:
        from infra.registry.login import docker_config, find_login

        text = docker_config(site.registry, find_login(site.registry, root, home))
        found.append(
            manifest(
                "v1",
                "Secret",
                REGISTRY,
                "registry",
                namespace=wanted.namespace,
                type="kubernetes.io/dockerconfigjson",
                data=_encoded({".dockerconfigjson": text}),
            )
        )
    return found


def _share(share: SmbStorage, namespace: str, root: Path, home: Path) -> dict[str, Any]:
    what = f"password of {share.account} at {share.place.server}"
    values = {
        "user": share.account,
        "username": share.account,
        "password": read_password(share.password, what, root, home),
    }
    domain = share.domain or share.place.domain
    if domain is not None:
        values["domain"] = domain
    return manifest("v1", "Secret", SHARE, "share", namespace=namespace, type="Opaque", data=_encoded(values))


def _encoded(values: Mapping[str, str]) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
