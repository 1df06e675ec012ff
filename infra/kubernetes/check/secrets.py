"""Secrets that stand in the open."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from configs.problems import Problem
from infra.kubernetes.check.pods import pods_of
from infra.kubernetes.manifests import Manifest, title


def secrets(manifests: Sequence[Manifest]) -> Iterator[Problem]:
    """Yield what is secret in the open: in ConfigMaps, in variables, and Secrets among the manifests."""
    secret_name = re.compile(r"password|secret|token|auth_string|api_key|credential", re.IGNORECASE)
    in_address = re.compile(r"://[^/\s:@]+:[^/\s@$]+@")
    for item in manifests:
        where = title(item)
        if item["kind"] == "Secret":
            yield Problem(where, "is among the manifests, which are shown and compared", "make Secrets apart")
        if item["kind"] == "ConfigMap":
            for key, value in item.get("data", {}).items():
                is_script = "\n" in value
                if in_address.search(value) or (secret_name.search(key) and not is_script):
                    yield Problem(f"{where}, key {key}", "looks like a secret", "put it into a Secret")
        found = pods_of(item)
        for container in found.containers if found else ():
            for variable in container.get("env", ()):
                name, value = variable["name"], variable.get("value", "")
                plain = secret_name.search(name) and not name.endswith(("_FILE", "_SECRET_NAME", "_SECRET_KEY"))
                if in_address.search(value) or (value and plain):
                    yield Problem(f"{where}, variable {name}", "looks like a secret", "take it from a Secret")
