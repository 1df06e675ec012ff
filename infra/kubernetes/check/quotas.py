"""Quotas that are too small for the manifests beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from configs.problems import Problem
from configs.quantity import parse_quantity
from infra.kubernetes.check.pods import Pods
from infra.kubernetes.manifests import Manifest, title


def quotas(manifests: Sequence[Manifest], pods: Sequence[Pods]) -> Iterator[Problem]:
    """Yield quotas that the pods which they count exceed."""
    for item in manifests:
        if item["kind"] != "ResourceQuota":
            continue
        chosen = [candidate for candidate in pods if _in_scope(item["spec"], candidate)]
        for name, hard in item["spec"].get("hard", {}).items():
            asked = _asked(name, chosen)
            if asked > parse_quantity(hard):
                where = title(item)
                yield Problem(where, f"allows {hard} of {name}, the manifests ask for {asked}", "allow more")


def _in_scope(spec: Manifest, pods: Pods) -> bool:
    scopes = spec.get("scopeSelector", {}).get("matchExpressions", ())
    return all(pods.spec.get("priorityClassName") in scope["values"] for scope in scopes)


def _asked(name: str, pods: Iterable[Pods]) -> Decimal:
    """Return how much of a quota's resource pods take: the sum of their containers, or the largest at their start."""
    if name == "pods":
        return Decimal(sum(one.copies for one in pods))
    kind, _, resource = name.partition(".")
    total = Decimal(0)
    for one in pods:
        amounts = [
            [parse_quantity(container.get("resources", {}).get(kind, {}).get(resource, "0")) for container in group]
            for group in (one.spec["containers"], one.spec.get("initContainers", ()))
        ]
        total += one.copies * max(sum(amounts[0], Decimal(0)), *amounts[1], Decimal(0))
    return total
