"""Amounts of resources: read as Kubernetes writes them, told as a person would."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

GIB, MIB = 2.0**30, 2.0**20


def amount(text: str | int | float | None) -> float | None:
    """Return a quantity (``500m``, ``2Gi``) in base units; None for none."""
    if text is None:
        return None
    from lightkube.utils.quantity import parse_quantity

    value = parse_quantity(str(text))
    return None if value is None else float(value)


def told(resource: str, value: float) -> str:
    """Return an amount of a resource in words: ``0.8 CPU``, ``1.5 GiB of memory``, ``2 nvidia.com/gpu``."""
    if resource == "cpu":
        return f"{value:.3g} CPU"
    if resource in ("memory", "ephemeral-storage"):
        return f"{size(value)} of {'memory' if resource == 'memory' else 'disk'}"
    if resource == "pods":
        return f"{value:g} pod{'' if value == 1 else 's'}"
    return f"{value:g} {resource}"


def size(value: float) -> str:
    """Return bytes in GiB or MiB."""
    return f"{value / GIB:.3g} GiB" if value >= GIB else f"{value / MIB:.3g} MiB"


def pod_requests(spec: Mapping[str, Any]) -> dict[str, float]:
    """Return what the scheduler reserves for a pod: the sum of its containers, or its largest init container."""
    total: dict[str, float] = {}
    for container in spec.get("containers") or ():
        for name, value in _requests(container):
            total[name] = total.get(name, 0.0) + value
    for container in spec.get("initContainers") or ():
        for name, value in _requests(container):
            total[name] = max(total.get(name, 0.0), value)
    for name, text in (spec.get("overhead") or {}).items():
        total[name] = total.get(name, 0.0) + (amount(text) or 0.0)
    return total


def _requests(container: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    for name, text in ((container.get("resources") or {}).get("requests") or {}).items():
        yield name, amount(text) or 0.0
