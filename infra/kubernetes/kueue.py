"""Kueue's queues: whether there is one of a name, and why a Job waits in it.

What Kueue knows of a Job is in a Workload that the Job owns: condition ``QuotaReserved`` says why it has to wait. The
versions of its API are asked for from the newest on: which of them a cluster serves depends on Kueue's own version.
https://kueue.sigs.k8s.io/docs/concepts/workload/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from infra.kubernetes.client import status_code

if TYPE_CHECKING:
    from lightkube import Client

QUEUE = "kueue.x-k8s.io/queue-name"
"""Label of a Job: the LocalQueue that it waits in."""
_GROUP = "kueue.x-k8s.io"
_VERSIONS = ("v1beta2", "v1beta1")
_NEVER = "maximum capacity"
"""Is said of what would not fit into an empty queue either."""
Answer = TypeVar("Answer")


class NotInstalledError(Exception):
    """The cluster has no Kueue, or one whose API we do not know."""


def has_queue(client: Client, name: str) -> bool:
    """Whether the client's namespace has the LocalQueue.

    Raises:
        NotInstalledError: see there.
        httpx2.HTTPError: the API server refuses, or is away.
    """
    from lightkube.core.exceptions import ApiError
    from lightkube.generic_resource import create_namespaced_resource

    def ask(version: str) -> bool:
        client.get(create_namespaced_resource(_GROUP, version, "LocalQueue", "localqueues"), name)
        return True

    try:
        return _served(ask)
    except ApiError as error:
        if status_code(error) != 404:
            raise
        return False


def read_waits(client: Client, namespace: str | None = None) -> dict[str, str]:
    """Return what Kueue says of each Job that it holds back, by the Job's name.

    Args:
        namespace: None for the client's own.

    Raises:
        NotInstalledError: see there.
        httpx2.HTTPError: the API server refuses, or is away.
    """
    from lightkube.generic_resource import create_namespaced_resource

    def ask(version: str) -> list[Mapping[str, Any]]:
        kind = create_namespaced_resource(_GROUP, version, "Workload", "workloads")
        found = client.list(kind, namespace=namespace)
        return [workload.to_dict() for workload in found]  # type: ignore[no-untyped-call] # of generic kinds

    return waits(_served(ask))


def waits(workloads: list[Mapping[str, Any]]) -> dict[str, str]:
    """Return why Jobs wait, from the Workloads that they own. Pure."""
    found = {}
    for workload in workloads:
        conditions = {item["type"]: item for item in (workload.get("status") or {}).get("conditions") or ()}
        reserved = conditions.get("QuotaReserved")
        if reserved is not None and reserved["status"] == "False":
            for owner in workload["metadata"].get("ownerReferences") or ():
                if owner["kind"] == "Job":
                    found[owner["name"]] = " ".join(str(reserved.get("message", "")).split())
    return found


def is_never(said: str) -> bool:
    """Whether a Job waits for more than its queue can ever give, as the queue is now."""
    return _NEVER in said


def _served(ask: Callable[[str], Answer]) -> Answer:
    """Ask in the newest version of the API that is served."""
    from httpx2 import HTTPStatusError
    from lightkube.core.exceptions import ApiError

    for version in _VERSIONS:
        try:
            return ask(version)
        except HTTPStatusError as error:
            # Of a kind that it does not serve, the API server knows so little that it answers in plain text.
            if status_code(error) != 404 or isinstance(error, ApiError):
                raise
    raise NotInstalledError
