"""Checks a list of manifests as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from configs.problems import Problem
from infra.kubernetes.check.names import Outside, bindings, claims, references
from infra.kubernetes.check.pods import contradictions, pods_of
from infra.kubernetes.check.quotas import quotas
from infra.kubernetes.check.secrets import secrets
from infra.kubernetes.check.services import services
from infra.kubernetes.manifests import Manifest, title


def check(manifests: Sequence[Manifest], outside: Outside) -> list[Problem]:
    """Return all that is wrong in manifests that are applied together into one namespace; none: an empty list."""
    pods = [found for item in manifests if (found := pods_of(item)) is not None]
    problems = list(_doubles(manifests))
    for item in pods:
        problems += contradictions(item)
        problems += references(item, manifests, outside)
    problems += services(manifests, pods)
    problems += secrets(manifests)
    problems += claims(manifests, outside)
    problems += bindings(manifests, outside)
    problems += quotas(manifests, pods)
    return problems


def _doubles(manifests: Sequence[Manifest]) -> Iterator[Problem]:
    seen = set()
    for item in manifests:
        key = (item["apiVersion"], item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"])
        if key in seen:
            yield Problem(title(item), "is there twice", "keep one")
        seen.add(key)
