"""The run's own code ended: what its exit code means, and its last words; or its time was up."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import replace

from infra.kubernetes.diagnosis.facts import Container, Ended, Facts, Pod
from infra.kubernetes.diagnosis.record import Category, Diagnosis

LAST = 8
"""Last lines of a log that are evidence."""
_PREFECT = re.compile(
    r"(All connection attempts failed|Connection refused|Name or service not known|"
    r"Temporary failure in name resolution|timed out|401 Unauthorized|403 Forbidden|Failed to reach API)",
    re.IGNORECASE,
)
_PREFECT_AT = re.compile(
    r"PREFECT_API_URL|prefect\.client|/api/flow_runs|prefect[\w.-]*:4200|Failed to reach API at \S+"
)


def deadline(facts: Facts) -> Diagnosis | None:
    """Return that the run was ended because it took longer than it may."""
    for job in facts.jobs:
        pods = [pod for pod in facts.pods if pod.reason == "DeadlineExceeded"]
        if not pods and (job.failed is None or job.failed.reason != "DeadlineExceeded"):
            continue
        seconds = f" of {job.deadline_s:g} s" if job.deadline_s else ""
        since = f"{job.failed.since:%H:%M:%S} " if job.failed and job.failed.since else ""
        said = job.failed.message if job.failed else pods[0].message
        return Diagnosis(
            Category.DEADLINE,
            f"The run took longer than its deadline{seconds}, and was ended.",
            (f"{since}DeadlineExceeded: {said}",),
            "raise cluster.training.deadline_s or the deployment's deadline; run again, it goes on at its checkpoint",
        )
    return None


def prefect_unreachable(facts: Facts) -> Diagnosis | None:
    """Return that the pod could not reach the Prefect server before its flow began."""
    for pod in facts.pods:
        for container in pod.containers:
            if container.ended is None and not container.running:
                continue
            if container.ended is not None and container.ended.exit_code == 0:
                continue
            log = "\n".join(container.log)
            if _PREFECT.search(log) and _PREFECT_AT.search(log):
                lines = [line for line in container.log if _PREFECT.search(line)]
                refused = any(re.search("401|403", line) for line in lines)
                why = "refuses its login" if refused else "cannot be reached from it"
                return Diagnosis(
                    Category.PREFECT_UNREACHABLE,
                    f"The run's pod on {pod.node} runs, but the Prefect server {why}.",
                    tuple(lines[-2:]),
                    "mlops platform status; PREFECT_API_URL in ConfigMap mlops-environment has to be reached from pods",
                    passing=not refused,
                )
    return None


def ended(facts: Facts) -> Diagnosis | None:
    """Return what the code's exit code means, with its last lines.

    In a gang, the rank that failed first of its own accord: the others only lost their peer.
    """
    ends = [(pod, container, end) for pod in facts.pods for container, end in pod.ends() if end.exit_code]
    if not ends:
        return _by_prefect(facts)
    far = facts.now
    ends.sort(key=lambda item: (item[2].exit_code in _SENT, item[2].finished or far))
    pod, container, end = ends[0]
    return _exit(facts, pod, container, end)


_SENT = (128 + signal.SIGTERM, 128 + signal.SIGKILL)
"""Exit codes of a process that somebody else ended."""


def _exit(facts: Facts, pod: Pod, container: Container, end: Ended) -> Diagnosis:
    who = f"Rank {pod.rank}" if pod.rank is not None and facts.gang else "The run's code"
    last = tuple(container.log[-LAST:])
    when = f"{end.finished:%H:%M:%S} " if end.finished else ""
    evidence = (*last, f"{when}{container.name} ended with exit code {end.exit_code}")
    code = end.exit_code
    if code == 137:
        return Diagnosis(
            Category.USER_CODE,
            f"{who} was killed (exit code 137, SIGKILL), and not by its memory limit.",
            evidence,
            "look at who killed it: a second OOM killer on the node (dmesg), or the code itself; run it again",
        )
    if code == 143:
        return Diagnosis(
            Category.POD_DELETED,
            f"{who} was asked to end (exit code 143, SIGTERM) before it was done.",
            evidence,
            "nothing to do: the run is started again by itself and goes on at its last checkpoint",
            passing=True,
        )
    meaning, remedy = explain(code)
    error = _error(last)
    what = f"{who} ended with exit code {code}: {meaning}." if meaning else f"{who} ended with exit code {code}"
    if not meaning:
        what += f": {error}" if error else "."
    return Diagnosis(Category.USER_CODE, what, evidence, remedy)


def explain(code: int) -> tuple[str, str]:
    """Return what an exit code means, empty when the code says no more than "failed", and what to do."""
    if code == 126:
        return "the command may not be executed", "make the file executable (chmod +x), or start it by its interpreter"
    if code == 127:
        return "a command was not found", "name a command that the image has, or add it to the image"
    if 128 < code <= 128 + 64:
        try:
            name = signal.Signals(code - 128).name
        except ValueError:
            name = f"signal {code - 128}"
        why = {
            "SIGSEGV": "a crash in native code (SIGSEGV)",
            "SIGABRT": "native code gave up (SIGABRT)",
            "SIGILL": "an instruction that the node's processor does not have (SIGILL)",
            "SIGFPE": "an arithmetic error in native code (SIGFPE)",
        }.get(name, f"ended by {name}")
        remedy = "read the last lines; PYTHONFAULTHANDLER=1 shows where native code was"
        if name == "SIGILL":
            remedy = "select nodes whose processor fits the image's libraries"
        return why, remedy
    return "", "read the last lines, mend the code, build the image again and run again"


def _by_prefect(facts: Facts) -> Diagnosis | None:
    """A flow that failed by an exception told Prefect itself, and its container ended well."""
    run = facts.run
    crashed = (
        re.search(r"exited with (?:non-zero )?(?:exit |status )?code:? (-?[1-9]\d*)", run.message) if run else None
    )
    if run is not None and run.kind == "CRASHED" and crashed:
        # Prefect's runner in the pod saw the flow's process end, and ended well itself.
        code = int(crashed.group(1))
        end = Ended(code if code > 0 else 128 - code, "Error", run.message, run.since)
        pod = facts.pods[-1] if facts.pods else Pod("", "Failed", run.since)
        container = pod.containers[0] if pod.containers else Container("flow", "")
        return _exit(facts, pod, container if container.log else replace(container, log=run.log), end)
    if run is None or run.kind != "FAILED":
        return None
    message = re.sub(r"^Flow run encountered an exception: ", "", run.message)
    first = message.splitlines()[0] if message else "without a message"
    return Diagnosis(
        Category.USER_CODE,
        f"The flow failed: {first}",
        tuple(run.log[-LAST:]) or tuple(message.splitlines()[1:LAST]),
        "read the last lines, mend code, recipe or data, and run again",
    )


def _error(lines: Sequence[str]) -> str:
    """Return the exception's own line of a traceback's end, if that is what the lines end with."""
    for line in reversed(lines):
        if re.match(r"^[\w.]+(Error|Exception|Interrupt|Exit)\b", line):
            return line
    return ""
