"""What sections ``storage`` and ``registry`` have to say when a machine of the site is to serve them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from configs.loading import Mistake
from configs.storage import parse_smb_url


def service_mistakes(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield what is wrong between the roles of machines and the services that they are to be.

    Args:
        values: the whole file as YAML gave it; what is wrong in itself is left to its own model.
    """
    for name, address in _holders(values, "storage"):
        storage = values.get("storage")
        if not isinstance(storage, dict):
            continue
        example = f"smb://mlops@{address}/sambashare/dvc"
        if storage.get("kind") != "smb":
            what = f"is {storage.get('kind', 'directory')!r}, but {name} is to serve the share"
            yield Mistake(("storage", "kind"), what, f"`kind: smb` with `url: {example}` and `password:`")
            continue
        try:
            host = parse_smb_url(str(storage.get("url"))).host
        except ValueError:
            continue
        if host not in (name, address):
            yield Mistake(("storage", "url"), f"leads to {host}, but {name} is to serve the share", example)
    for name, address in _holders(values, "registry"):
        registry = values.get("registry")
        if registry is None:
            what = f"is missing, but {name} is to be the registry"
            yield Mistake(("registry",), what, f"add `registry:` with `address: {address}:5000`, user, password and ca")
        if not isinstance(registry, dict):
            continue
        host = str(registry.get("address")).partition(":")[0]
        if host not in (name, address):
            what = f"leads to {host}, but {name} is to be the registry"
            yield Mistake(("registry", "address"), what, f"{address}:5000")
        for key, example in (("user", "mlops"), ("password", "{file: ~/.config/mlops/registry-password}")):
            if key not in registry:
                what = "is missing: a registry of the site lets nobody in without a login"
                yield Mistake(("registry", key), what, f"add `{key}: {example}`")


def _holders(values: Mapping[str, Any], role: str) -> Iterator[tuple[str, str]]:
    for section in ("hosts", "vms"):
        entries = values.get(section)
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            roles = entry.get("roles") if isinstance(entry, dict) else None
            if isinstance(roles, list) and role in roles:
                yield str(name), str(entry.get("address"))
