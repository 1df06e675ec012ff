"""The process worker as a child of the stack.

Before it takes its first run it tells the server which runs of a former worker have vanished, see ``vanished``. Then,
and again every few seconds, it skips all missed scheduled runs but the newest, see ``missed``, and sets runs to Running
again that the server has taken for lost, see ``returned``. On SIGTERM it stops
taking runs and stops the processes of those that run, with time to write a checkpoint.

``prefect worker start`` imports every installed integration first, the Kubernetes client among them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from configs.home import home_folder
from infra.stack.processes import flow_run_ids, is_flow_process, marked, terminate, wait_gone
from infra.stack.state import WORK_POOL
from infra.stack.vanished import crash_vanished
from infra.stack.waiting import ensure_work_pool, server_is_up

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

HOUSEKEEPING_S = 15
RUNS_LIMIT_S = 40.0  # a training has 30 s to write its checkpoint, the rest is for reporting
REPORT_S = 1.0  # for the worker itself to notice and report an end that the run could not report


def ready_text(pid: int, prefect: str, mlflow: str) -> str:
    """What a worker that takes runs has said: who it is, and which servers it and its runs talk to."""
    return f"{pid} {prefect} {mlflow}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ready", type=Path, help="file that gets the worker's pid and addresses once it takes runs")
    arguments = parser.parse_args()
    # Importing takes longer than anything else here: done while the server starts.
    import prefect.workers.process  # noqa: F401

    asyncio.run(_until_stopped(arguments.ready))


async def _until_stopped(ready: Path) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    work = asyncio.create_task(_work(ready, stopping))
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        # Prefect's worker, when cancelled, kills its runs before they can say that they ended: they are stopped first.
        await _stop_runs()
        work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    print("worker stopped")


async def _work(ready: Path, stopping: asyncio.Event) -> None:
    from prefect.client.orchestration import get_client
    from prefect.workers.process import ProcessWorker

    from infra.stack.outliving import OutlivesServer, watch_for_cancels_for_ever

    class LocalWorker(OutlivesServer, ProcessWorker):
        async def get_and_submit_flow_runs(self) -> list[FlowRun]:
            return [] if stopping.is_set() else await super().get_and_submit_flow_runs()

        def _waits_out(self, error: Exception) -> bool:
            return True  # whatever a stranger at the server's port says to us: the runs go on

    watch_for_cancels_for_ever()
    await server_is_up()
    async with get_client() as client:
        await ensure_work_pool(client)
        alive = flow_run_ids(marked(home_folder()))
        if count := await crash_vanished(client, WORK_POOL, alive):
            print(f"{count} runs of a former worker have vanished")
    await _skip_missed()
    worker = LocalWorker(work_pool_name=WORK_POOL, name=f"{socket.gethostname()} {WORK_POOL}")
    housekeeping = asyncio.create_task(_keep_house())

    def started(message: str) -> None:
        print(message)
        if "started" in message:
            known = os.environ["PREFECT_API_URL"], os.environ["MLFLOW_TRACKING_URI"]
            ready.write_text(ready_text(os.getpid(), *known), encoding="utf-8")

    try:
        await worker.start(printer=started)
    finally:
        housekeeping.cancel()


async def _stop_runs() -> None:
    """SIGTERM the processes of all runs and give them time to write a checkpoint and report their end."""
    runs = [child for child in psutil.Process().children(recursive=True) if is_flow_process(child)]
    terminate(runs)
    left = await asyncio.to_thread(wait_gone, runs, RUNS_LIMIT_S)
    if runs:
        print(f"stopped {len(runs) - len(left)} of {len(runs)} runs")
        await asyncio.sleep(REPORT_S)


async def _keep_house() -> None:
    while True:
        await asyncio.sleep(HOUSEKEEPING_S)
        try:
            await _skip_missed()
            await _set_running_again()
        except Exception as error:  # the server is away, which the worker itself says
            print(f"missed and silent runs could not be looked up: {error}")


async def _skip_missed() -> None:
    from prefect.client.orchestration import get_client

    from infra.stack.missed import skip_missed

    async with get_client() as client:
        count = await skip_missed(client, WORK_POOL, datetime.now(UTC))
    if count:
        print(f"skipped {count} missed scheduled runs")


async def _set_running_again() -> None:
    from prefect.client.orchestration import get_client

    from infra.stack.returned import set_running_again

    async with get_client() as client:
        count = await set_running_again(client, flow_run_ids(marked(home_folder())))
    if count:
        print(f"{count} runs that were taken for lost go on")


if __name__ == "__main__":
    main()
