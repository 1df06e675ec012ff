"""Ports of this machine's loopback that lead into pods, through the API server; a child like those of the stack.

    python -m infra.kubernetes.forward --namespace mlops prefect=4200:41234 mlflow=5000:41235

Each connection gets a websocket of its own (the subprotocol ``v4.channel.k8s.io`` of ``pods/portforward``) to the pod
that is ready then. So nothing has to be mended after a restart of pod or API server: whoever connects meanwhile waits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.cluster import Cluster
from infra.kubernetes.client import TIMEOUT_S, load_config
from infra.kubernetes.manifests import labels
from infra.kubernetes.objects import has

if TYPE_CHECKING:
    from httpx2 import AsyncClient

LOOPBACK = "127.0.0.1"
PROTOCOL = "v4.channel.k8s.io"
DATA, ERROR = 0, 1
"""Channels of the first port: its bytes, and why it was closed. Each begins with the port's number in two bytes."""
PATIENCE_S = 60.0
CHUNK = 65536


@dataclass(frozen=True)
class Forwarded:
    """One port: that of the component's pods, and ours."""

    component: str
    remote: int
    local: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path)
    parser.add_argument("--context")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("ports", nargs="+", metavar="COMPONENT=REMOTE:LOCAL", type=_port)
    given = parser.parse_args()
    cluster = Cluster(kubeconfig=given.kubeconfig, context=given.context, namespace=given.namespace)
    asyncio.run(_until_stopped(cluster, given.ports))


async def _until_stopped(cluster: Cluster, ports: list[Forwarded]) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with forwarded(cluster, ports):
        await stopping.wait()


@contextlib.asynccontextmanager
async def forwarded(cluster: Cluster, ports: list[Forwarded]) -> AsyncIterator[None]:
    """Forward ``ports`` while the block runs; open connections are cut at its end.

    Raises:
        UserError: the kubeconfig cannot be used.
        OSError: a local port is taken.
    """
    import httpx2
    from lightkube.config.client_adapter import ConnectionParams

    config, _ = load_config(cluster)
    parameters = ConnectionParams(timeout=httpx2.Timeout(TIMEOUT_S, pool=None))
    tasks: set[asyncio.Task[None]] = set()
    # A connection of ours is one to the API server, for as long as it lasts.
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(**parameters.httpx_params(config), limits=limits) as client:

        def accept(port: Forwarded) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
            async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = asyncio.current_task()
                assert task is not None  # noqa: S101 - a coroutine runs in one
                tasks.add(task)
                try:
                    await _carry(client, cluster.namespace, port, reader, writer)
                finally:
                    tasks.discard(task)

            return carry

        servers = [await asyncio.start_server(accept(port), LOOPBACK, port.local) for port in ports]
        try:
            yield
        finally:
            for server in servers:
                server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _carry(
    client: AsyncClient, namespace: str, port: Forwarded, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Carry one connection's bytes until either side closes it."""
    try:
        async with contextlib.AsyncExitStack() as stack:
            socket = await _open(client, namespace, port, stack)
            sides = [asyncio.create_task(_outward(reader, socket)), asyncio.create_task(_inward(socket, writer))]
            try:
                await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for side in sides:
                    side.cancel()
                await asyncio.gather(*sides, return_exceptions=True)
    except* Exception as errors:
        for error in errors.exceptions:
            print(f"{port.component}: {type(error).__name__}: {error}", flush=True)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _open(client: AsyncClient, namespace: str, port: Forwarded, stack: contextlib.AsyncExitStack) -> Any:
    """Open the websocket to a ready pod; what can pass is tried again for :data:`PATIENCE_S` seconds."""
    from httpx2 import HTTPError
    from httpx2.websockets import HTTPXWSException

    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while True:
        try:
            pod = await _ready_pod(client, namespace, port.component)
            return await stack.enter_async_context(
                client.websocket(
                    f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward",
                    params={"ports": str(port.remote)},
                    subprotocols=[PROTOCOL],
                    timeout=None,
                )
            )
        except (HTTPError, HTTPXWSException, LookupError) as error:
            if asyncio.get_running_loop().time() > deadline:
                raise ConnectionError(f"no way to {port.component} for {PATIENCE_S:.0f} s: {error}") from None
            await asyncio.sleep(1)


async def _ready_pod(client: AsyncClient, namespace: str, component: str) -> str:
    selector = ",".join(f"{name}={value}" for name, value in labels(component).items())
    answer = await client.get(f"/api/v1/namespaces/{namespace}/pods", params={"labelSelector": selector})
    answer.raise_for_status()
    for pod in answer.json()["items"]:
        if has(pod, "Ready") and "deletionTimestamp" not in pod["metadata"]:
            return str(pod["metadata"]["name"])
    raise LookupError("no pod is ready")


async def _outward(reader: asyncio.StreamReader, socket: Any) -> None:
    while data := await reader.read(CHUNK):
        await socket.send_bytes(bytes([DATA]) + data)


async def _inward(socket: Any, writer: asyncio.StreamWriter) -> None:
    begun = set()
    while True:
        message = await socket.receive_bytes()
        channel, data = message[0], message[1:]
        if channel not in begun:
            begun.add(channel)
            data = data[2:]
        if channel == ERROR and data:
            raise ConnectionError(data.decode("utf-8", "replace"))
        if channel == DATA and data:
            writer.write(data)
            await writer.drain()


def _port(text: str) -> Forwarded:
    component, _, numbers = text.partition("=")
    remote, _, local = numbers.partition(":")
    return Forwarded(component, int(remote), int(local))


if __name__ == "__main__":
    main()
