"""Beside the worker of the platform: tells why runs fail or do not begin, and retries what can pass.

Entry: :func:`supervise`, a side task of the worker's process.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightkube import Client

    from configs.cluster import Cluster

EVERY_S = 5.0
"""Seconds between two looks."""


async def supervise(cluster: Cluster, client: Client, pool: str, stop: asyncio.Event) -> None:
    """Look at the runs of ``pool`` every few seconds until ``stop`` is set.

    Opens its own Prefect client from the environment (``PREFECT_API_URL``). ``client`` is synchronous and used from
    a thread. Never raises for a server or an API that is away: it says so once and goes on.
    """
    raise NotImplementedError
