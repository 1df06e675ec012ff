"""The worker of the Kubernetes pool: makes a Job of every flow run, in the platform's pod or on a laptop.

    python -m infra.kubernetes.worker --pool kubernetes --namespace mlops --ready /tmp/ready

It reaches the cluster by its pod's service account or by KUBECONFIG, and Prefect by PREFECT_API_URL. It outlives both
being away, see ``job_worker``; beside it run the housekeeping of lost runs, see ``housekeeping``, and the supervisor
that tells why runs fail, see ``supervisor``. On SIGTERM it takes no more runs and leaves the Jobs alone: the next
worker goes on with them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import threading
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

from configs.cluster import Cluster
from configs.problems import Problem, UserError, run_main
from infra.kubernetes.client import SERVICE_ACCOUNT, connect
from infra.kubernetes.manifests import WORK_POOL

ACCOUNT = SERVICE_ACCOUNT / "namespace"
PATIENCE_S = 24 * 3600.0
STOP_S = 12.0
"""Half of the time that a pod has to end."""
RESTART_S = 10.0


def main() -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        UserError: no Prefect server or no cluster is named.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--pool", default=WORK_POOL)
    parser.add_argument("--namespace", default=_own_namespace(), help="where the Jobs are (default: %(default)s)")
    parser.add_argument("--ready", type=Path, help="file that is touched whenever runs are looked for: for probes")
    help_patience = "how long a run waits for the cluster's API before it is Crashed (default: a day)"
    parser.add_argument("--patience", type=float, default=PATIENCE_S, metavar="SECONDS", help=help_patience)
    help_retries = "starts of a run after it lost its node or its place there (default: %(default)s)"
    parser.add_argument("--retries", type=int, default=Cluster().retries, help=help_retries)
    arguments = parser.parse_args()
    _check()
    # Read when the integration is imported, below.
    os.environ["PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES"] = f'["{arguments.namespace}"]'
    os.environ["PREFECT_INTEGRATIONS_KUBERNETES_WORKER_CREATE_JOB_RETRY_MAX_RETRIES"] = "1"
    os.environ.setdefault("PREFECT_WORKER_QUERY_SECONDS", "2")
    asyncio.run(_until_stopped(arguments))


def _own_namespace() -> str:
    return ACCOUNT.read_text(encoding="utf-8").strip() if ACCOUNT.exists() else Cluster().namespace


def _check() -> None:
    problems = []
    if not os.environ.get("PREFECT_API_URL"):
        remedy = "the address of the platform's Prefect server, as `mlops platform connect` prints it"
        problems.append(Problem("PREFECT_API_URL", "is not set", remedy))
    named = os.environ.get("KUBECONFIG") or Path.home() / ".kube/config"
    if not ACCOUNT.exists() and not any(Path(path).is_file() for path in str(named).split(os.pathsep)):
        problems.append(Problem(str(named), "there is no such file", "name the cluster's kubeconfig by KUBECONFIG"))
    if problems:
        raise UserError(problems)


async def _until_stopped(arguments: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)

    # It takes the place of Prefect's own Kubernetes worker, on purpose.
    warnings.filterwarnings("ignore", message="Type 'PatientWorker'")
    from infra.kubernetes.housekeeping import keep_house
    from infra.kubernetes.job_worker import PatientWorker
    from infra.stack.waiting import server_is_up

    name = f"{arguments.namespace if ACCOUNT.exists() else socket.gethostname()} {arguments.pool}"
    worker = PatientWorker(work_pool_name=arguments.pool, name=name, limit_s=arguments.patience)
    if arguments.ready:
        worker.polled = arguments.ready.touch

    async def work() -> None:
        await server_is_up(float("inf"))
        await worker.start()

    tasks = [
        asyncio.create_task(work()),
        asyncio.create_task(_again("housekeeping", lambda: keep_house(worker, arguments.pool, arguments.namespace))),
        asyncio.create_task(_again("supervisor", lambda: _supervise(arguments, stopping))),
    ]
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait((tasks[0], stop), return_when=asyncio.FIRST_COMPLETED)
    worker.stopping = True
    # The observer's thread, or a server that is away, may hold up the end: there is nothing to lose by it.
    deadline = threading.Timer(2 * STOP_S, os._exit, (0,))
    deadline.daemon = True
    deadline.start()
    # Runs whose Jobs are being made now; those that wait for the cluster are left to the next worker.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STOP_S):
            while stopping.is_set() and worker.submitting:
                await asyncio.sleep(0.1)
    for task in (*tasks[1:], tasks[0], stop):
        task.cancel()
    await asyncio.gather(*tasks[1:], stop, return_exceptions=True)
    with contextlib.suppress(asyncio.CancelledError):
        await tasks[0]
    print("worker stopped")


async def _supervise(arguments: argparse.Namespace, stopping: asyncio.Event) -> None:
    from infra.kubernetes.supervisor import supervise

    cluster = Cluster(namespace=arguments.namespace, retries=arguments.retries)
    client = await asyncio.to_thread(connect, cluster)
    await supervise(cluster, client, arguments.pool, stopping)


async def _again(what: str, start: Callable[[], Awaitable[None]]) -> None:
    """Run a side task for ever: its failure is said, never the worker's."""
    while True:
        try:
            await start()
        except Exception as error:
            print(f"{what} begins again in {RESTART_S:.0f} s: {type(error).__name__}: {error}")
        await asyncio.sleep(RESTART_S)


if __name__ == "__main__":
    run_main(main)
