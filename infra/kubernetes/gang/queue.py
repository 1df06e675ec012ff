"""A gang that waits in a queue of Kueue's: its Job is suspended and has no pods until there is room for all workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.kubernetes.kueue import QUEUE, NotInstalledError, is_never, read_waits

if TYPE_CHECKING:
    from lightkube import Client


@dataclass(frozen=True)
class Wait:
    """A gang's place in a queue; ``said`` is Kueue's reason, empty where it gives none."""

    queue: str
    said: str

    def __str__(self) -> str:
        return f"waits in queue {self.queue}: {self.said or 'Kueue has not looked at it yet'}"

    @property
    def in_vain(self) -> bool:
        """Whether others that end do not help."""
        return is_never(self.said)


def read_wait(client: Client, job: Mapping[str, Any]) -> Wait | None:
    """Return why a gang's Job waits in its queue; None where it does not.

    Raises:
        httpx2.HTTPError: the API server refuses, or is away.
    """
    queue = (job["metadata"].get("labels") or {}).get(QUEUE)
    if queue is None or not job["spec"].get("suspend"):
        return None
    try:
        return Wait(queue, read_waits(client).get(job["metadata"]["name"], ""))
    except NotInstalledError:
        return Wait(queue, "the cluster has no Kueue any more")
