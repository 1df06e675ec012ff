"""Follows one distributed training on a cluster to its end: its Job, its pods, their logs, and the events of rank 0.

Job and pods are listed about once a second instead of watched: a gang has few pods, a list needs no resource version
that may be gone, and after an outage of the API server the next list is as good as any. What Kubernetes does not do for
a gang by itself is done here: a gang that stays too small, cannot start or does not come together is ended with the
reason, and a pod whose node does not answer any more is removed, or it would never be replaced.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from configs.problems import Problem
from infra.ddp.failure import Transcript
from infra.ddp.launch import Gang, Outcome, Watch
from infra.ddp.worker_log import EVENT, NOTE, READY, STARTED
from infra.kubernetes.client import is_away
from infra.kubernetes.gang import workers
from infra.kubernetes.gang.jobs import AWAY_S, STUCK_S, read_job
from infra.kubernetes.gang.logs import GangLogs, Line, wait_complete
from infra.kubernetes.gang.pod import GANG, amounts_of
from infra.kubernetes.gang.queue import Wait, read_wait
from infra.kubernetes.gang.verdict import why_failed
from infra.kubernetes.gang.workers import Worker
from infra.kubernetes.objects import discard

if TYPE_CHECKING:
    from lightkube import Client

POLL_S = 1.0
TICK_S = 0.2
HOPELESS_S = 30.0
"""Seconds that a pod has to get over what should not get better, as a registry that says no while it starts."""
LOGS_S = 15.0


class Following:
    """One gang being followed."""

    def __init__(self, client: Client, gang: Gang, watch: Watch, logs: GangLogs) -> None:
        self._client, self._gang, self._watch, self._logs = client, gang, watch, logs
        self._pods: dict[str, Worker] = {}
        self._seen: dict[str, Worker] = {}
        self._transcripts: dict[str, Transcript] = {}
        self._events: set[str] = set()
        self._ready: set[str] = set()
        self._said: dict[str, str] = {}
        self._waits: set[str] = set()
        self._losses: list[str] = []
        self._starts = 0
        self._together = False
        self._since: dict[str, float] = {}
        self._leaving: dict[str, float] = {}

    def run(self) -> Outcome:
        """Follow the gang until it has ended.

        Raises:
            httpx2.HTTPError: the API server was away for longer than :data:`AWAY_S`, or refuses to be asked.
        """
        next_poll = 0.0
        try:
            while True:
                self._watch.tick()
                self._hand_on()
                if time.monotonic() >= next_poll:
                    if (outcome := self._look()) is not None:
                        return outcome
                    next_poll = time.monotonic() + POLL_S
                time.sleep(TICK_S)
        finally:
            self._logs.close()

    def _look(self) -> Outcome | None:
        try:
            job = read_job(self._client, self._gang.name)
            wait = read_wait(self._client, job) if job is not None else None
            self._note_pods()
            self._free_stuck()
        except Exception as error:
            if not is_away(error):
                raise
            self._away(error)
            return None
        if self._since.pop("away", None) is not None:
            self._watch.note("the API server answers again")
        if job is None:
            return self._ended(Problem(self._gang.name, "its Job was deleted by somebody else", "start it again"))
        return self._finished(job) or (self._judged() if wait is None else self._queued(wait))

    def _note_pods(self) -> None:
        from lightkube.resources.core_v1 import Pod

        found = [workers.read_worker(pod.to_dict()) for pod in self._client.list(Pod, labels={GANG: self._gang.name})]
        now = {worker.uid: worker for worker in found}
        for line in workers.changes(self._pods, now):
            # Volcano gives the members of a gang in turn the reasons of each other, once a second.
            if line not in self._waits:
                self._watch.note(line)
            if " waits: " in line:
                self._waits.add(line)
        lost = [worker for uid, worker in self._pods.items() if worker.runs and not (uid in now and now[uid].runs)]
        self._together = self._together and not lost
        self._losses += [f"{worker} is lost: its pod is gone" for worker in lost if worker.uid not in now]
        for worker in found:
            if worker.runs or worker.finished:
                self._logs.follow(worker)
        for uid in self._pods.keys() - now.keys():
            self._logs.lost(uid)
        self._pods = now
        self._seen |= now

    def _free_stuck(self) -> None:
        """Remove pods that should have ended long ago; their nodes do not answer, and the Job waits for them."""
        from lightkube.core.exceptions import ApiError
        from lightkube.resources.core_v1 import Pod

        now = time.monotonic()
        self._leaving = {
            uid: self._leaving.get(uid, now)
            for uid, worker in self._pods.items()
            if worker.leaving and not worker.finished
        }
        for uid, since in self._leaving.items():
            if now - since > STUCK_S:
                worker = self._pods[uid]
                self._watch.note(f"{worker}: its node does not answer, the pod is given up")
                with contextlib.suppress(ApiError):
                    self._client.delete(Pod, worker.pod, grace_period=0)

    def _away(self, error: Exception) -> None:
        since = self._since.get("away")
        if since is None:
            self._since["away"] = time.monotonic()
            self._watch.note(f"the API server does not answer, the training goes on meanwhile: {error}")
        elif time.monotonic() - since > AWAY_S:
            raise error

    def _hand_on(self) -> None:
        for line in self._logs.new():
            self._take(line)

    def _take(self, line: Line) -> None:
        text, uid = line.text, line.worker.uid
        if text.startswith(EVENT):
            # A pod that replaces another repeats what is in the file of events.
            if text not in self._events:
                self._events.add(text)
                with contextlib.suppress(json.JSONDecodeError):
                    self._watch.event(json.loads(text.removeprefix(EVENT)))
            return
        self._watch.line(text)
        if text.startswith(NOTE):
            self._take_note(line, text.removeprefix(NOTE))
        elif (said := self._transcript(uid).add(text)) is not None:
            self._watch.note(f"{line.worker}: {said}")

    def _transcript(self, uid: str) -> Transcript:
        return self._transcripts.setdefault(uid, Transcript())

    def _take_note(self, line: Line, said: str) -> None:
        if said != self._said.get(line.worker.uid):
            self._watch.note(f"{line.worker}: {said}")
        self._said[line.worker.uid] = said
        if said.startswith(STARTED):
            self._together = True
            self._transcript(line.worker.uid).started()
            self._starts += line.worker.index == 0
        elif said.startswith(READY):
            self._ready.add(line.worker.uid)

    def _finished(self, job: Mapping[str, Any]) -> Outcome | None:
        """Return how the Job ended, None as long as it has not."""
        for condition in job.get("status", {}).get("conditions") or ():
            if condition.get("status") != "True":
                continue
            if condition["type"] in ("Complete", "SuccessCriteriaMet"):
                return self._ended(None)
            if condition["type"] == "Failed":
                return self._ended(self._why(condition))
        return None

    def _why(self, condition: Mapping[str, Any]) -> Problem:
        wait_complete(self._logs, LOGS_S)
        self._hand_on()
        ended = [worker for worker in self._seen.values() if worker.finished and not worker.succeeded]
        for transcript in self._transcripts.values():
            transcript.restarts = max(0, self._starts - 1)
        return why_failed(self._gang, condition, ended, self._losses, self._transcripts)

    def _queued(self, wait: Wait) -> Outcome | None:
        """Say why the gang waits; return its end where the queue can never let it go."""
        if self._said.get("queue") != str(wait):
            self._watch.note(str(wait))
        self._said["queue"] = str(wait)
        for clock in ("hopeless", "few", "apart"):  # one that Kueue has put back into its queue begins anew
            self._since.pop(clock, None)
        if self._lasts("in vain", wait.in_vain, self._gang.below_least_s):
            told = f"could not start for {self._gang.below_least_s} s: it {wait}"
            from lightkube.resources.batch_v1 import Job

            discard(self._client, Job, self._gang.name)  # has no pods whose logs somebody might want
            return self._ended(Problem(self._gang.name, told, "ask for less, or have the queue's quota raised"))
        return None

    def _judged(self) -> Outcome | None:
        """Return the end of a gang that cannot get better, None where it can."""
        present = workers.newest(self._pods.values())
        running = [worker for worker in present.values() if worker.runs]
        few = len(running) < self._gang.least
        if self._lasts("hopeless", few and any(worker.hopeless for worker in present.values()), HOPELESS_S):
            told = f"cannot start:\n{self._missing(present)}"
            return self._give_up(Problem(self._gang.name, told, "see what each worker says"))
        if self._lasts("few", few, self._gang.below_least_s):
            had = f"had {len(running)} of at least {self._gang.least} workers"
            each = ", ".join(f"{value} {name}" for name, value in amounts_of(self._gang, 1).items())
            told = f"{had} for {self._gang.below_least_s} s ({each} each):\n{self._missing(present)}"
            return self._give_up(Problem(self._gang.name, told, "make room for them, or lower workers"))
        ready = sum(worker.uid in self._ready for worker in running) >= self._gang.least
        if self._lasts("apart", ready and not few and not self._together, self._gang.rendezvous_s):
            told = f"{len(running)} workers run, but did not find each other in {self._gang.rendezvous_s} s"
            hint = "see what they wait for; can pods of different nodes reach each other and the cluster's DNS?"
            return self._give_up(Problem(self._gang.name, f"{told}{self._waiting(running)}", hint))
        return None

    def _lasts(self, name: str, holds: bool, seconds: float) -> bool:
        """Whether something has held without a break for longer than ``seconds``."""
        if not holds:
            self._since.pop(name, None)
            return False
        return time.monotonic() - self._since.setdefault(name, time.monotonic()) > seconds

    def _missing(self, present: Mapping[int, Worker]) -> str:
        """Return who does not run and why; why there is no pod is said in the events of the Job alone."""
        from lightkube.resources.core_v1 import Event

        no_pod = "no pod"
        if len(present) < self._gang.most:
            about: dict[str, Any] = {"involvedObject.name": self._gang.name, "reason": "FailedCreate"}
            events = [event.message or "" for event in self._client.list(Event, fields=about)]
            no_pod = f"no pod: {events[-1]}" if events else no_pod
        return "\n".join(workers.missing(present, self._gang.most, no_pod))

    def _waiting(self, running: list[Worker]) -> str:
        return "".join(f"\n{worker}: {self._said[worker.uid]}" for worker in running if worker.uid in self._said)

    def _give_up(self, problem: Problem) -> Outcome:
        """End the Job, but keep it until its time to live is over."""
        from lightkube.resources.batch_v1 import Job

        self._client.patch(Job, self._gang.name, {"spec": {"activeDeadlineSeconds": 1, "suspend": False}})
        return self._ended(problem)

    def _ended(self, failure: Problem | None) -> Outcome:
        """Read the logs to their ends and remove the Service, which nobody needs any more."""
        from lightkube.core.exceptions import ApiError
        from lightkube.resources.core_v1 import Service

        with contextlib.suppress(ApiError):
            self._client.delete(Service, self._gang.name)
        wait_complete(self._logs, LOGS_S)
        self._hand_on()
        return Outcome(failure, max(0, self._starts - 1))
