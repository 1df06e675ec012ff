"""A Kubernetes API over HTTP for contract tests: what the worker, its observer and lightkube ask, and its failures.

    with FakeCluster(folder, image) as cluster:
        cluster.faults.append(Fault("POST", "/jobs$", lose=True))
        cluster.kubeconfig ...

It proves what clients do with an API, not what Kubernetes does: no admission, no scheduler, no volumes.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from aiohttp import web
from fake_node import Node
from fake_store import Key, Manifest, RefusedError, Store

Result = TypeVar("Result")
KINDS = {
    "/api/v1": {
        "pods": ("Pod", True),
        "events": ("Event", True),
        "namespaces": ("Namespace", False),
        "nodes": ("Node", False),
        "persistentvolumeclaims": ("PersistentVolumeClaim", True),
        "resourcequotas": ("ResourceQuota", True),
        "services": ("Service", True),
    },
    "/apis/coordination.k8s.io/v1": {"leases": ("Lease", True)},
    "/apis/batch/v1": {"jobs": ("Job", True)},
    "/apis/apiextensions.k8s.io/v1": {"customresourcedefinitions": ("CustomResourceDefinition", False)},
}
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
PATH = re.compile(
    r"(?P<group>/api/v1|/apis/[^/]+/[^/]+)(/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<plural>[a-z]+)(/(?P<name>[^/]+))?(/(?P<sub>[a-z]+))?"
)


@dataclass
class Fault:
    """The next ``times`` requests that fit ``method`` and the pattern ``path`` go wrong.

    ``lose``: the request is carried out and its answer never comes. Else it is answered by ``refusal``.
    """

    method: str
    path: str
    refusal: RefusedError | None = None
    lose: bool = False
    times: int = 1


@dataclass
class FakeCluster:
    """One cluster in a thread of its own, from ``with`` to its end.

    Args:
        folder: gets the kubeconfig and the output of pods.
        image: environment of every container.
    """

    folder: Path
    image: Mapping[str, str]
    port: int = 0
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __enter__(self) -> FakeCluster:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(self, *problem: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def ask(self, question: Callable[[Store, Node], Result]) -> Result:
        """Look at, or change, the cluster from the test's thread."""

        async def asked() -> Result:
            return question(self.store, self.node)

        return asyncio.run_coroutine_threadsafe(asked(), self._loop).result(10)

    def list(self, plural: str, labels: str = "") -> list[Manifest]:
        return self.ask(lambda store, node: store.list(plural, "", labels, ""))

    def kubeconfig(self, port: int | None = None) -> Path:
        """A kubeconfig for this cluster, or for a proxy before it."""
        path = self.folder / f"kubeconfig-{port or self.port}"
        values = {
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{port or self.port}"}}],
            "users": [{"name": "fake", "user": {"token": "none"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": "mlops"}}],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(values))
        return path

    async def _open(self) -> None:
        self._watches: set[asyncio.Task[Any]] = set()
        self.store = Store()
        self.node = Node(self.store, self.image, self.folder)
        self.store.create("namespaces", "", {"metadata": {"name": "mlops"}, "status": {"phase": "Active"}})
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        for stream in list(self._watches):
            stream.cancel()
        await self.node.close()
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        fault = next((item for item in self.faults if self._fits(item, request)), None)
        try:
            if fault and fault.refusal:
                raise fault.refusal
            answer = await self._answer(request)
        except RefusedError as error:
            # Not web.json_response: it names a charset, and lightkube takes that for another server's answer.
            told = json.dumps(error.status()).encode()
            return web.Response(body=told, content_type="application/json", status=error.code)
        if fault and request.transport:
            request.transport.abort()
        return answer

    def _fits(self, fault: Fault, request: web.Request) -> bool:
        if fault.times and fault.method == request.method and re.search(fault.path, request.path):
            fault.times -= 1
            return True
        return False

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if (discovered := _discover(request.path)) is not None:
            return web.json_response(discovered)
        if request.path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            return web.json_response({**await request.json(), "status": {"allowed": True}}, status=201)
        where = PATH.fullmatch(request.path)
        if not where or where["plural"] not in KINDS.get(where["group"], {}):
            return web.Response(text="404 page not found\n", status=404)
        plural, namespace, name = where["plural"], where["namespace"] or "", where["name"]
        if name is None:
            if request.method == "POST":
                created = self.store.create(plural, namespace, defaulted(plural, await request.json()))
                if plural == "jobs":
                    self.node.job_created(created)
                return web.json_response(created, status=201)
            if request.query.get("watch") in ("true", "True", "1"):
                return await self._watch(request, plural, namespace)
            items = self.store.list(plural, namespace, *_selectors(request))
            kind = f"{KINDS[where['group']][plural][0]}List"
            version = where["group"].removeprefix("/apis/").removeprefix("/api/")
            metadata = {"resourceVersion": str(self.store.version)}
            return web.json_response({"kind": kind, "apiVersion": version, "metadata": metadata, "items": items})
        key: Key = (plural, namespace, name)
        if where["sub"] == "log":
            self.store.get(key)
            return web.Response(body=self.node.log(name), content_type="text/plain")
        if request.method == "DELETE":
            return web.json_response(self._delete(key, await request.text(), request.query))
        if request.method in ("PATCH", "PUT"):
            return web.json_response(self.store.patch(key, await request.json()))
        return web.json_response(self.store.get(key))

    def _delete(self, key: Key, body: str, query: Mapping[str, str]) -> Manifest:
        options = {**(json.loads(body) if body else {}), **query}
        if key[0] == "jobs":
            # Without a word about it, batch/v1 leaves the pods behind.
            return self.node.delete_job(key, options.get("propagationPolicy", "Orphan"))
        if key[0] == "pods":
            grace = options.get("gracePeriodSeconds")
            return self.node.delete_pod(key, None if grace is None else float(grace))
        return self.store.remove(key)

    async def _watch(self, request: web.Request, plural: str, namespace: str) -> web.StreamResponse:
        version = int(request.query.get("resourceVersion") or 0) or self.store.version
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        stream = asyncio.ensure_future(self._stream(request, response, version, plural, namespace))
        self._watches.add(stream)
        limit = float(request.query.get("timeoutSeconds") or 1800)
        try:
            await asyncio.wait_for(stream, limit)
        except (TimeoutError, ConnectionError):
            return response
        except asyncio.CancelledError:
            if request.transport:
                request.transport.abort()
        finally:
            self._watches.discard(stream)
        return response

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, version: int, plural: str, namespace: str
    ) -> None:
        while True:
            changed, upto = self.store.changed, self.store.version
            try:
                changes = list(self.store.since(version, plural, namespace, *_selectors(request)))
            except RefusedError as error:
                await response.write(json.dumps({"type": "ERROR", "object": error.status()}).encode() + b"\n")
                return
            for change in changes:
                await response.write(json.dumps({"type": change.kind, "object": change.manifest}).encode() + b"\n")
            version = upto
            await changed.wait()


def defaulted(plural: str, manifest: Manifest) -> Manifest:
    """What the API fills in where a Job says nothing."""
    if plural == "jobs":
        manifest["spec"] = {"parallelism": 1, "completions": 1, "backoffLimit": 6, **manifest["spec"]}
        manifest["status"] = {}
    return manifest


def _selectors(request: web.Request) -> tuple[str, str]:
    return request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")


def _discover(path: str) -> Manifest | None:
    if path == "/version":
        return {"major": "1", "minor": "33", "gitVersion": "v1.33.0", "platform": "linux/amd64"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = []
        for prefix in KINDS:
            if prefix != "/api/v1":
                name, version = prefix.removeprefix("/apis/").split("/")
                preferred = {"groupVersion": f"{name}/{version}", "version": version}
                groups.append({"name": name, "versions": [preferred], "preferredVersion": preferred})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if path in KINDS:
        resources = [
            {"name": plural, "singularName": kind.lower(), "namespaced": inside, "kind": kind, "verbs": VERBS}
            for plural, (kind, inside) in KINDS[path].items()
        ]
        version = path.removeprefix("/apis/").removeprefix("/api/")
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
    return None
