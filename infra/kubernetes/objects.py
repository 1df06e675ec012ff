"""Objects of a cluster that may be there or not: found, deleted, and what their conditions say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from infra.kubernetes.client import status_code

if TYPE_CHECKING:
    from lightkube import Client


def find(client: Client, kind: Any, name: str, *, namespace: str | None = None) -> Any:
    """Return the object, None where there is none.

    Args:
        kind: lightkube's class of it.
        namespace: None for the client's own.

    Raises:
        httpx2.HTTPError: the API server refuses, or is away.
    """
    import httpx2

    try:
        return client.get(kind, name, namespace=namespace)
    except httpx2.HTTPStatusError as error:
        if status_code(error) == 404:
            return None
        raise


def discard(client: Client, kind: Any, name: str, *, namespace: str | None = None, **options: Any) -> None:
    """Delete an object and, after it, what it owns; not there: nothing.

    Args:
        options: of lightkube's ``Client.delete``.

    Raises:
        httpx2.HTTPError: the API server refuses, or is away.
    """
    import httpx2
    from lightkube.types import CascadeType

    try:
        client.delete(kind, name, namespace=namespace, cascade=CascadeType.BACKGROUND, **options)
    except httpx2.HTTPStatusError as error:
        if status_code(error) != 404:
            raise


def has(item: Mapping[str, Any], condition: str) -> bool:
    """Whether a condition of an object (plain JSON values) holds."""
    conditions = (item.get("status") or {}).get("conditions") or ()
    return any(one["type"] == condition and one["status"] == "True" for one in conditions)
