"""Distributed trainings on a cluster: starts a gang as a Job, adopts one that runs, follows it, and cleans up after it.

The gang belongs to nobody in the cluster: a controller that dies must not take its training along. It is found again by
its name, ends by itself (Job's deadline), goes by itself when it has ended (time to live), and one whose flow run is
over is removed by :func:`infra.kubernetes.gang.jobs.remove_gang`. Its Service and PodGroup are owned by its Job.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.ddp import Kueue, Plain, Volcano
from configs.problems import Problem, UserError
from infra.ddp.launch import Gang, Outcome, Watch
from infra.kubernetes.apply import apply
from infra.kubernetes.client import status_code
from infra.kubernetes.gang import manifests
from infra.kubernetes.gang.follow import Following
from infra.kubernetes.gang.jobs import patiently, read_job, remove_gang
from infra.kubernetes.gang.logs import GangLogs
from infra.kubernetes.gang.pod import FLOW_RUN, Space, folder
from infra.kubernetes.gang.space import open_space
from infra.kubernetes.kueue import NotInstalledError, has_queue
from infra.kubernetes.objects import has

if TYPE_CHECKING:
    from lightkube import Client

_INSTALL = {
    "volcano": "install Volcano (https://volcano.sh/en/docs/installation), or set scheduler.kind to plain",
    "kueue": "install Kueue (https://kueue.sigs.k8s.io/docs/installation), or set scheduler.kind to plain",
}


def open_launcher(root: Path, home: Path) -> KubernetesLauncher:
    """Return the launcher of the site's cluster for the code in ``root`` and the state folder ``home``.

    Raises:
        UserError: the site names no cluster or none that can be used, or pods have no share.
    """
    client, space, kept = open_space(root, home)
    return KubernetesLauncher(client, space, home, kept)


class KubernetesLauncher:
    """Runs gangs in a cluster.

    Attributes:
        space: what the cluster gives gangs.
        home: this machine's state folder; logs are collected in ``<home>/gangs/<name>/logs``.
        kept: where this machine sees the folder that is ``space.kept`` in the pods; None where it does not.
    """

    def __init__(self, client: Client, space: Space, home: Path, kept: Path | None) -> None:
        self._client, self.space, self.home, self.kept = client, space, home, kept

    def launch(self, gang: Gang) -> None:
        """Start the gang, or adopt the one of the same name that runs or has succeeded; one that failed is replaced.

        Raises:
            UserError: the cluster refuses it, or lacks the scheduler.
        """
        patiently(partial(self._check_scheduler, gang))
        job = patiently(partial(read_job, self._client, gang.name))
        if job is not None and _is_over(job):
            remove_gang(self._client, gang.name)
            job = None
        if job is None:
            self._make_folder(gang)
            manifest = manifests.job(gang, self.space)
            job = patiently(partial(apply, self._client, [manifest]))[0].object
        elif job["metadata"].get("labels", {}).get(FLOW_RUN) != gang.flow_run_id:
            raise UserError(
                Problem(f"Job {gang.name}", "belongs to another run", "wait until that is over, or delete the Job")
            )
        uid = job["metadata"]["uid"]
        rest = [manifests.service(gang, self.space, uid)]
        if isinstance(gang.scheduler, Volcano):
            rest.append(manifests.pod_group(gang, self.space, uid, gang.scheduler.queue))
        patiently(partial(apply, self._client, rest))

    def follow(self, gang: Gang, watch: Watch) -> Outcome:
        """Follow a gang to its end."""
        copies = self.kept / folder(gang) / "logs" if self.kept is not None else None
        return Following(self._client, gang, watch, GangLogs(self._client, self._logs(gang), copies)).run()

    def collect(self, gang: Gang, folder: Path) -> None:
        """Bring the logs of all workers and what rank 0 left to ``folder``.

        Raises:
            UserError: this machine does not see where the pods left it.
        """
        copies = self._folder(gang)
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        # What was read from Kubernetes, and what the workers wrote to the share: a pod may be gone before either.
        for source in (*self._logs(gang).glob("*.log"), *(copies / "logs").glob("*.log")):
            target = folder / "logs" / source.name
            if not target.exists() or target.stat().st_size < source.stat().st_size:
                shutil.copyfile(source, target)
        if (copies / "output").is_dir():
            shutil.copytree(copies / "output", folder / "output", dirs_exist_ok=True)

    def leave(self, gang: Gang) -> None:
        """Nothing: the Job goes on, and the next pod of the flow run adopts it."""

    def remove(self, gang: Gang) -> None:
        """Delete the gang's objects, wait until its pods are gone, and remove its files but its checkpoints."""
        remove_gang(self._client, gang.name)
        shutil.rmtree(self.home / folder(gang), ignore_errors=True)
        shutil.rmtree(self._folder(gang), ignore_errors=True)

    def clear(self, gang: Gang) -> None:
        """Remove the gang's checkpoints."""
        if self.kept is not None:
            shutil.rmtree(self.kept / gang.checkpoints, ignore_errors=True)

    def _logs(self, gang: Gang) -> Path:
        return self.home / folder(gang) / "logs"

    def _folder(self, gang: Gang) -> Path:
        if self.kept is None:
            raise UserError(
                Problem(gang.name, "left its output on a share that this machine does not see", "mount the share here")
            )
        return self.kept / folder(gang)

    def _make_folder(self, gang: Gang) -> None:
        """Begin with empty folders: what an earlier attempt of the same run left is not this one's result."""
        shutil.rmtree(self._logs(gang), ignore_errors=True)
        if self.kept is not None:
            shutil.rmtree(self._folder(gang), ignore_errors=True)

    def _check_scheduler(self, gang: Gang) -> None:
        """Find out whether the cluster has what the gang is to be scheduled by.

        Raises:
            UserError: it has not, or not the queue.
        """
        from httpx2 import HTTPStatusError
        from lightkube.generic_resource import create_namespaced_resource

        if isinstance(gang.scheduler, Plain):
            return
        try:
            if isinstance(gang.scheduler, Kueue):
                if not has_queue(self._client, gang.scheduler.queue):
                    what = f"namespace {self.space.namespace} has no LocalQueue {gang.scheduler.queue}"
                    raise UserError(Problem("scheduler.queue", what, "make it, or name one that is there"))
            else:
                groups = create_namespaced_resource("scheduling.volcano.sh", "v1beta1", "PodGroup", "podgroups")
                list(self._client.list(groups, chunk_size=1))
        except (HTTPStatusError, NotInstalledError) as error:
            if isinstance(error, HTTPStatusError) and status_code(error) != 404:
                raise
            what = f"the cluster has no {gang.scheduler.kind}"
            raise UserError(Problem("scheduler.kind", what, _INSTALL[gang.scheduler.kind])) from None


def _is_over(job: Mapping[str, Any]) -> bool:
    """Whether nothing is to be expected of a Job any more: it has failed, or is being deleted."""
    return has(job, "Failed") or has(job, "FailureTarget") or bool(job["metadata"].get("deletionTimestamp"))
