"""Does the site's registry let us in, may we push, and what builds images here? For ``doctor``."""

from __future__ import annotations

from pathlib import Path

from configs.problems import UserError
from configs.registry import Registry
from configs.site import SITE_FILE, Site, load_site
from infra.findings import Finding
from infra.image.builders import find_builder
from infra.image.record import read_records
from infra.registry.client import RegistryClient
from infra.registry.login import ca_path, find_login

_REGISTRY, _BUILDER, _IMAGE = "registry", "image builder", "image"


def check(checkout: Path, home: Path) -> list[Finding]:
    """Look at the registry of the site; nothing is found where the site has none. Leaves nothing in it."""
    if not (checkout / SITE_FILE).exists():
        return []
    try:
        site = load_site(checkout / SITE_FILE)
    except UserError as error:
        return [_broken(_REGISTRY, error)]
    if site.registry is None:
        return []
    return [_reach(site.registry, checkout, home), _builder(site), _image(site.registry, home)]


def _reach(registry: Registry, checkout: Path, home: Path) -> Finding:
    try:
        login = find_login(registry, checkout, home)
        with RegistryClient(registry, login, ca_path(registry, checkout)) as client:
            client.ping()
            client.check_push()
            count = len(client.tags())
    except UserError as error:
        return _broken(_REGISTRY, error)
    who = f"as {login.user}" if login else "without a login"
    return Finding(_REGISTRY, "good", f"{registry.image}, {who}, may push; {count} images there")


def _builder(site: Site) -> Finding:
    try:
        return Finding(_BUILDER, "good", find_builder(site.image.builder))
    except UserError as error:
        problem = error.problems[0]
        return Finding(_BUILDER, "warning", problem.what, problem.remedy)


def _image(registry: Registry, home: Path) -> Finding:
    try:
        records = [record for record in read_records(home) if record.reference.startswith(f"{registry.image}@")]
    except UserError as error:
        return _broken(_IMAGE, error)
    if not records:
        return Finding(_IMAGE, "warning", "none was built from this checkout yet", "`mlops build-image` makes one")
    return Finding(_IMAGE, "good", f"{records[-1].tag}, {records[-1].digest[:19]}")


def _broken(name: str, error: UserError) -> Finding:
    problem = error.problems[0]
    detail = problem.what if problem.where.startswith("registry ") else f"{problem.where}: {problem.what}"
    return Finding(name, "broken", detail, problem.remedy or "mend it")
