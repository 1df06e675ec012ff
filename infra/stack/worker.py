"""The process worker as a child of the stack.

Before it takes its first run, and again every few seconds, it skips all missed scheduled runs but the newest, see
``missed``. On SIGTERM it stops taking runs and stops the processes of those that run, with time to write a checkpoint.

``prefect worker start`` imports every installed integration first, the Kubernetes client among them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
from datetime import UTC, datetime
from pathlib import Path

from infra.stack.state import WORK_POOL
from infra.stack.waiting import ensure_work_pool, server_is_up

SKIP_EVERY_S = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ready", type=Path, help="file that gets the worker's pid once it takes runs")
    arguments = parser.parse_args()
    # Importing takes longer than anything else here: done while the server starts.
    import prefect.workers.process  # noqa: F401

    asyncio.run(_until_stopped(arguments.ready))


async def _until_stopped(ready: Path) -> None:
    task = asyncio.ensure_future(_work(ready))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        print("worker stopped")


async def _work(ready: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.workers.process import ProcessWorker

    await server_is_up()
    async with get_client() as client:
        await ensure_work_pool(client)
    await _skip_missed()
    worker = ProcessWorker(work_pool_name=WORK_POOL, name=f"{socket.gethostname()} {WORK_POOL}")
    async with asyncio.TaskGroup() as group:
        housekeeping = group.create_task(_keep_skipping())

        def started(message: str) -> None:
            print(message)
            if "started" in message:
                ready.write_text(f"{os.getpid()}\n", encoding="utf-8")

        try:
            await worker.start(printer=started)
        finally:
            housekeeping.cancel()


async def _keep_skipping() -> None:
    while True:
        await asyncio.sleep(SKIP_EVERY_S)
        try:
            await _skip_missed()
        except Exception as error:  # the server is away: the worker itself decides when that is too long
            print(f"missed runs could not be looked up: {error}")


async def _skip_missed() -> None:
    from prefect.client.orchestration import get_client

    from infra.stack.missed import skip_missed

    async with get_client() as client:
        count = await skip_missed(client, WORK_POOL, datetime.now(UTC))
    if count:
        print(f"skipped {count} missed scheduled runs")


if __name__ == "__main__":
    main()
