"""The Job controller and the only node of the fake cluster: a container is a process of this machine.

Statuses are written as Kubernetes 1.33 writes them, in its order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fake_store import Key, Manifest, RefusedError, Store, now

TRACKING = "batch.kubernetes.io/job-tracking"
RETRY_S = 0.3


class Node:
    """Runs the pods of Jobs.

    Args:
        image: the environment that a container has before its own: what an image would bring.
        folder: gets the output of each pod.
    """

    def __init__(self, store: Store, image: Mapping[str, str], folder: Path) -> None:
        self.store = store
        self.image = dict(image)
        self.folder = folder
        self.pods_allowed: int | None = None
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def log(self, pod: str) -> bytes:
        path = self.folder / f"{pod}.log"
        return path.read_bytes() if path.exists() else b""

    def kill(self, pod: str, number: int) -> None:
        """Send a signal to everything that runs in a pod."""
        with contextlib.suppress(ProcessLookupError, KeyError):
            os.killpg(self._processes[pod].pid, number)

    async def close(self) -> None:
        for pod in list(self._processes):
            self.kill(pod, signal.SIGKILL)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def job_created(self, job: Manifest) -> None:
        self._start(self._run_job(("jobs", job["metadata"]["namespace"], job["metadata"]["name"])))

    def delete_job(self, key: Key, policy: str) -> Manifest:
        job = self.store.get(key)
        pods = [
            ("pods", key[1], pod["metadata"]["name"])
            for pod in self.store.list("pods", key[1], f"job-name={key[2]}", "")
        ]
        if policy == "Orphan":
            return self.store.remove(key)
        for pod in pods:
            self.delete_pod(pod)
        if policy == "Foreground" and pods:
            metadata = {"deletionTimestamp": now(), "finalizers": ["foregroundDeletion"]}
            self._start(self._remove_after(key, pods))
            return self.store.patch(key, {"metadata": metadata})
        return self.store.remove(key) or job

    def delete_pod(self, key: Key, grace_s: float | None = None) -> Manifest:
        pod = self.store.get(key)
        if grace_s is None:
            grace_s = pod["spec"].get("terminationGracePeriodSeconds", 30)
        self._start(self._end(key, float(grace_s)))
        marks = {"deletionTimestamp": now(), "deletionGracePeriodSeconds": grace_s}
        return self.store.patch(key, {"metadata": {**marks, "finalizers": ["fake/kubelet"]}})

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_job(self, key: Key) -> None:
        uid, began, failed = self.store.get(key)["metadata"]["uid"], now(), 0
        limit = self.store.get(key)["spec"].get("backoffLimit", 6)
        while True:
            pod = await self._create_pod(key, uid)
            self._status(key, uid, {"active": 1, "ready": 0, "startTime": began})
            code = await self._run_pod(pod, lambda: self._status(key, uid, {"ready": 1}))
            if code is None:
                return
            failed += code != 0
            if code == 0 or failed > limit:
                break
        ends = {"active": None, "ready": 0, "failed": failed or None}
        if code == 0:
            why = ("SuccessCriteriaMet", "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
            ends |= {"succeeded": 1, "completionTime": now()}
        else:
            why = ("FailureTarget", "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        first, last, reason, message = why
        details = {"status": "True", "reason": reason, "message": message}
        times = {"lastProbeTime": now(), "lastTransitionTime": now()}
        conditions = [{"type": name, **details, **times} for name in (first, last)]
        self._status(key, uid, {**ends, "conditions": conditions})

    def _status(self, key: Key, uid: str, status: Manifest) -> None:
        """Of a Job, unless it has been deleted meanwhile."""
        with contextlib.suppress(RefusedError):
            if self.store.get(key)["metadata"]["uid"] == uid:
                self.store.patch(key, {"status": {"terminating": 0, "uncountedTerminatedPods": {}, **status}})

    async def _create_pod(self, key: Key, uid: str) -> Key:
        said = False
        while self.pods_allowed is not None and len(self._processes) >= self.pods_allowed:
            if not said:
                self._refused(key, uid)
            said = True
            await asyncio.sleep(RETRY_S)
        job = self.store.get(key)
        template = job["spec"]["template"]
        labels = {
            **template.get("metadata", {}).get("labels", {}),
            "batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": key[2],
            "controller-uid": uid, "job-name": key[2],
        }  # fmt: skip
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": key[2], "uid": uid}
        metadata = {
            "name": f"{key[2]}-{uuid.uuid4().hex[:5]}", "labels": labels, "finalizers": [TRACKING],
            "annotations": template.get("metadata", {}).get("annotations", {}),
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        }  # fmt: skip
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": dict(template["spec"])}
        pod["status"] = {"phase": "Pending", "qosClass": "BestEffort"}
        self.store.create("pods", key[1], pod)
        return ("pods", key[1], str(metadata["name"]))

    def _refused(self, key: Key, uid: str) -> None:
        what = f'Error creating: pods "{key[2]}-x" is forbidden: exceeded quota: runs, requested: pods=1, '
        event = {
            "apiVersion": "v1", "kind": "Event", "metadata": {"generateName": f"{key[2]}."}, "type": "Warning",
            "reason": "FailedCreate", "message": f"{what}used: pods={self.pods_allowed}, limited: pods=...",
            "involvedObject": {"kind": "Job", "namespace": key[1], "name": key[2], "uid": uid},
            "lastTimestamp": now(), "count": 1,
        }  # fmt: skip
        self.store.create("events", key[1], event)

    async def _run_pod(self, key: Key, ready: Any) -> int | None:
        """Run a pod's only container to its end; its exit code, or None when the pod was deleted before it began."""
        pod = self.store.get(key)
        name = key[2]
        container = pod["spec"]["containers"][0]
        scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now()}
        waiting = {"state": {"waiting": {"reason": "ContainerCreating"}}}
        self._pod(key, container, "Pending", waiting, startTime=now(), conditions=[scheduled])
        environment = {**self.image, **{item["name"]: item.get("value", "") for item in container.get("env", [])}}
        command = [*container.get("command", []), *container.get("args", [])]
        began = now()
        with (self.folder / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        self._processes[name] = process
        self._pod(
            key, container, "Running", {"ready": True, "started": True, "state": {"running": {"startedAt": began}}}
        )
        ready()
        code = await process.wait()
        self.kill(name, signal.SIGKILL)  # the pid namespace ends with its first process
        del self._processes[name]
        code = 128 - code if code < 0 else code
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "startedAt": began, "finishedAt": now()}
        self._pod(key, container, "Failed" if code else "Succeeded", {"started": False, "state": {"terminated": ended}})
        with contextlib.suppress(RefusedError):
            held = self.store.get(key)["metadata"].get("finalizers", [])
            self.store.patch(key, {"metadata": {"finalizers": [item for item in held if item != TRACKING]}})
        return code

    def _pod(self, key: Key, container: Manifest, phase: str, status: Manifest, **more: Any) -> None:
        whole = {"name": container["name"], "image": container.get("image", ""), "imageID": "", "lastState": {}}
        whole |= {"restartCount": 0, "ready": False, "started": False, **status}
        with contextlib.suppress(RefusedError):
            self.store.patch(key, {"status": {"phase": phase, "containerStatuses": [whole], **more}})

    async def _end(self, key: Key, grace_s: float) -> None:
        self.kill(key[2], signal.SIGTERM)
        deadline = asyncio.get_running_loop().time() + grace_s
        while key[2] in self._processes:
            if asyncio.get_running_loop().time() > deadline:
                self.kill(key[2], signal.SIGKILL)
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.05)  # its last status comes first
        with contextlib.suppress(RefusedError):
            self.store.patch(key, {"metadata": {"finalizers": []}})

    async def _remove_after(self, job: Key, pods: list[Key]) -> None:
        while any(pod in self.store.objects for pod in pods):
            await asyncio.sleep(0.05)
        with contextlib.suppress(RefusedError):
            self.store.patch(job, {"metadata": {"finalizers": []}})
