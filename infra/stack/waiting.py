"""What the stack's own Prefect clients share: waiting for the server, and the work pool."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from infra.stack import rest
from infra.stack.state import WORK_POOL

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient


async def server_is_up(seconds: float = 180) -> None:
    """Return as soon as the server of ``PREFECT_API_URL`` is healthy.

    Raises:
        TimeoutError: it was not within ``seconds``.
    """
    health = f"{os.environ['PREFECT_API_URL']}/health"
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(rest.answers, health):
            await asyncio.sleep(0.1)


async def ensure_work_pool(client: PrefectClient) -> None:
    """Create the process work pool if it is missing; what a user changed about it stays."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    try:
        await client.create_work_pool(
            WorkPoolCreate(
                name=WORK_POOL,
                type="process",
                description="Runs flows as processes on this machine.",
                base_job_template=ProcessWorker.get_default_base_job_template(),
            )
        )
    except ObjectAlreadyExists:
        return
