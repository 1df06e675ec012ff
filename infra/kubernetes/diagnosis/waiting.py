"""Nothing of the run is on the cluster: the API is away, the pool is paused, nobody polls it, or others are first."""

from __future__ import annotations

import re
from datetime import timedelta

from infra.kubernetes.diagnosis.facts import Facts, Run
from infra.kubernetes.diagnosis.record import Category, Diagnosis

LATE = timedelta(seconds=15)
"""How long a run may wait for its worker before that is a trouble: a worker looks every few seconds."""
SILENT = timedelta(seconds=90)
"""A worker sends a heartbeat every 30 s."""
PENDING = timedelta(seconds=45)
"""How long a run may be Pending without a Job."""
SUBMISSION = re.compile(r"Failed to submit flow run to infrastructure|Unable to create Kubernetes job", re.IGNORECASE)
_AWAY = re.compile(
    r"Cannot connect to host|ClientConnector\w*Error|ServerDisconnected|Connection (?:refused|reset)|TimeoutError|"
    r"timed out|Service Unavailable|Too ?Many ?Requests|Bad Gateway|Gateway Time-?out|Internal Server Error|"
    r"MaxRetryError|\((?:429|50\d)\)",
    re.IGNORECASE,
)


def api_away(facts: Facts) -> Diagnosis | None:
    """Return that the API server of the cluster does not answer, now or when the run was to be submitted."""
    run = facts.run
    if facts.api_error:
        if run is None or run.kind not in ("PENDING", "RUNNING", "CRASHED"):
            return None
        then = "its pod runs on" if run.kind == "RUNNING" else "the run begins when it is back"
        return Diagnosis(
            Category.API_AWAY,
            f"The cluster's API server does not answer; {then}.",
            (facts.api_error,),
            "look at the control plane: kubectl get --raw /readyz; nothing is lost meanwhile",
            passing=True,
        )
    if run and run.kind == "CRASHED" and SUBMISSION.search(run.message) and _AWAY.search(run.message):
        return Diagnosis(
            Category.API_AWAY,
            "The cluster's API server did not answer when the run was to be submitted.",
            (run.message,),
            "nothing to do: the run is submitted again by itself",
            passing=True,
        )
    return None


def submission(facts: Facts) -> Diagnosis | None:
    """Return why the cluster refused the run's Job."""
    run = facts.run
    if run is None or run.kind != "CRASHED" or not SUBMISSION.search(run.message):
        return None
    if "quota" in run.message.lower():
        return Diagnosis(
            Category.QUOTA,
            "The namespace's quota allows no more Jobs.",
            (run.message,),
            "wait for others to end, or raise cluster.quota; the run is submitted again by itself",
            passing=True,
        )
    return Diagnosis(
        Category.FORBIDDEN,
        "The cluster refused to take the run's Job.",
        (run.message,),
        "mlops platform apply renews the worker's rights and the pool's template; then run again",
    )


def not_begun(facts: Facts) -> Diagnosis | None:
    """Return why a run that is due does not begin."""
    run = facts.run
    if run is None or facts.pods or run.kind not in ("SCHEDULED", "PENDING"):
        return None
    if run.kind == "SCHEDULED" and (run.due is None or facts.now - run.due < LATE):
        return None
    return _paused(run) or _nobody(facts, run) or _queued(run) or _stuck(facts, run)


def _paused(run: Run) -> Diagnosis | None:
    if run.kind != "SCHEDULED":
        return None
    if run.pool_status == "missing":
        return Diagnosis(
            Category.NO_WORKER,
            f"Work pool {run.pool} does not exist.",
            (),
            "mlops platform apply makes it",
        )
    if run.pool_status == "paused":
        return Diagnosis(
            Category.POOL_PAUSED,
            f"Work pool {run.pool} is paused: no run of it begins.",
            _due(run),
            f"prefect work-pool resume {run.pool}",
            passing=True,
        )
    if run.queue_paused:
        return Diagnosis(
            Category.POOL_PAUSED,
            f"Queue {run.queue_paused} of work pool {run.pool} is paused.",
            _due(run),
            f"prefect work-queue resume {run.queue_paused} --pool {run.pool}",
            passing=True,
        )
    return None


def _nobody(facts: Facts, run: Run) -> Diagnosis | None:
    seen = run.workers_seen
    if run.kind != "SCHEDULED" or (run.workers_online and seen and facts.now - seen < SILENT):
        return None
    when = f"the last one was heard at {seen:%H:%M:%S}" if seen else "none was ever heard"
    return Diagnosis(
        Category.NO_WORKER,
        f"No worker looks for runs of work pool {run.pool}: {when}.",
        _due(run),
        "mlops platform status; kubectl logs deployment/worker",
        passing=True,
    )


def _queued(run: Run) -> Diagnosis | None:
    if run.kind != "SCHEDULED" or not run.waits_for:
        return None
    first = ", ".join(run.waits_for[:3])
    more = f" and {len(run.waits_for) - 3} more" if len(run.waits_for) > 3 else ""
    return Diagnosis(
        Category.QUEUED,
        f"The run waits for {first}{more} to end: {run.limit}.",
        _due(run),
        "wait, cancel one of them, or raise the limit (cluster.concurrency, or the deployment's)",
        passing=True,
    )


def _stuck(facts: Facts, run: Run) -> Diagnosis | None:
    since = run.since if run.kind == "PENDING" else run.due or run.since
    if facts.now - since < PENDING or facts.jobs:
        return None
    what = "has taken the run, but made no Job of it" if run.kind == "PENDING" else "does not take the run"
    return Diagnosis(
        Category.NO_WORKER,
        f"The worker of pool {run.pool} {what} for {(facts.now - since).total_seconds():.0f} s.",
        (f"{since:%H:%M:%S} {run.state}{f': {run.message}' if run.message else ''}",),
        "look at the worker: kubectl logs deployment/worker",
        passing=True,
    )


def _due(run: Run) -> tuple[str, ...]:
    return (f"{run.due:%H:%M:%S} was its time; state {run.state}",) if run.due else ()
