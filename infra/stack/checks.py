"""What ``mlops doctor`` looks at: each check says what it found, and what to do when that is not good.

Checks run side by side, each with a time limit; one that hangs is itself a finding.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from infra.findings import Finding, Level
from infra.image import check as image_check
from infra.repository import share_check
from infra.stack import ports, processes, rest
from infra.stack.state import LOOPBACK, MLFLOW, PREFECT, WORK_POOL, WORKER, load_stack

LIMIT_S = 15.0
GIB = 2**30


@dataclass(frozen=True)
class Place:
    """Where to look: the checkout's root and the state folder."""

    checkout: Path
    home: Path


def examine(place: Place) -> list[Finding]:
    """Run all checks side by side; results in the order of :data:`CHECKS`."""
    pool = ThreadPoolExecutor(max_workers=len(CHECKS))
    asked = [(name, pool.submit(check, place)) for name, check in CHECKS.items()]
    findings = []
    for name, future in asked:
        try:
            result = future.result(timeout=LIMIT_S)
            if isinstance(result, list):
                findings += result
                continue
            level, detail, remedy = result
        except FutureTimeoutError:
            level, detail, remedy = "broken", f"no answer within {LIMIT_S:.0f} s", "look at what makes it hang"
        except Exception as error:  # a check that fails itself must not hide the others
            level, detail, remedy = "broken", f"could not be checked: {type(error).__name__}: {error}", "report this"
        findings.append(Finding(name, level, detail, remedy))
    pool.shutdown(wait=False, cancel_futures=True)
    return findings


Result = tuple[Level, str, str]


def _python(place: Place) -> Result:
    found = sys.version.split()[0]
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return "good", found, ""
    return "broken", found, "3.11, 3.12 or 3.13 is needed: remove .venv, then `make setup PYTHON=python3.12`"


def _packages(place: Place) -> Result:
    lock = place.checkout / "requirements.lock"
    if not lock.exists():
        return "warning", "no requirements.lock here to compare with", "run this in the root of the checkout"
    from packaging.requirements import Requirement

    wrong, count = [], 0
    for line in lock.read_text(encoding="utf-8").splitlines():
        if not re.match(r"[A-Za-z0-9]", line):
            continue
        requirement = Requirement(line.split(" \\")[0])
        if requirement.marker and not requirement.marker.evaluate():
            continue
        count += 1
        try:
            found = version(requirement.name)
            # A local version (2.15.0+cpu) is the same release from another index.
            if not requirement.specifier.contains(found, prereleases=True):
                wrong.append(f"{requirement.name} is {found} instead of {requirement.specifier}")
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        return "broken", "; ".join(wrong[:3]) + more, "`make setup` installs what requirements.lock says"
    return "good", f"{count} packages as in requirements.lock", ""


def _disk(place: Place) -> Result:
    free = shutil.disk_usage(_existing(place.home)).free / GIB
    detail = f"{free:.1f} GiB free"
    remedy = "free some space, or put the state folder on a larger disk by MLOPS_HOME"
    if free < 1:
        return "broken", detail, remedy
    return ("warning", detail, remedy) if free < 5 else ("good", detail, "")


def _memory(place: Place) -> Result:
    found = psutil.virtual_memory()
    free = found.available / GIB
    detail = f"{free:.1f} of {found.total / GIB:.1f} GiB available"
    remedy = "close other programs; the stack takes about 1 GiB, a training 2 GiB or more"
    if free < 1:
        return "broken", detail, remedy
    return ("warning", detail, remedy) if free < 3 else ("good", detail, "")


def _ports(place: Place) -> Result:
    stack = load_stack(place.home)
    if stack is None:
        held = [told for port in (4200, 5000) if (told := ports.stranger(LOOPBACK, port))]
        if held:
            return "warning", "; ".join(held), "nothing to do: `mlops up` takes free ports instead"
        return "good", "4200 and 5000 are free", ""
    gone = [name for name in (PREFECT, MLFLOW) if not processes.is_running(stack.parts.get(name))]
    held = [f"that of {name}, {told}" for name in gone if (told := ports.stranger(stack.host, stack.port(name)))]
    if held:
        return "broken", "; ".join(held), "`mlops up` takes another, unless a run goes on that knows no other"
    return "good", f"{stack.prefect_port} and {stack.mlflow_port}, {'free for us' if gone else 'both ours'}", ""


def _git(place: Place) -> Result:
    if not shutil.which("git"):
        return "broken", "git is not installed", "install git"
    if _run(place, "git", "rev-parse", "--git-dir").returncode:
        return "broken", "this is no git repository", "run this in a clone: models are traced to commits"
    missing = [key for key in ("user.name", "user.email") if _run(place, "git", "config", key).returncode]
    if missing:
        remedy = "; ".join(f'git config --global {key} "..."' for key in missing)
        return "warning", f"{' and '.join(missing)} not set: datasets cannot be published", remedy
    commit = _run(place, "git", "rev-parse", "--short", "HEAD")
    if commit.returncode:
        return "warning", "no commit yet: models cannot be traced", "commit something"
    dirty = _run(place, "git", "status", "--porcelain", "--untracked-files=no").stdout.strip()
    return "good", f"commit {commit.stdout.strip()}{', with changes' if dirty else ''}", ""


def _share(place: Place) -> list[Finding]:
    return share_check.check(place.checkout, place.home)


def _prefect(place: Place) -> Result:
    stack = load_stack(place.home)
    if stack is None:
        return "warning", f"not running (version {version('prefect')})", "`mlops up`"
    try:
        found = rest.prefect(stack, "/admin/version")
    except rest.UnreachableError as error:
        return "broken", str(error), f"`mlops up`; its log is {stack.log(PREFECT)}"
    return "good", f"version {found} at {stack.prefect_url}", ""


def _mlflow(place: Place) -> Result:
    stack = load_stack(place.home)
    if stack is None:
        return "warning", f"not running (version {version('mlflow')})", "`mlops up`"
    try:
        rest.mlflow(stack, "/experiments/search?max_results=1")
    except rest.UnreachableError as error:
        return "broken", str(error), f"`mlops up`; its log is {stack.log(MLFLOW)}"
    return "good", f"version {version('mlflow')} at {stack.mlflow_url}", ""


def _worker(place: Place) -> Result:
    stack = load_stack(place.home)
    if stack is None:
        return "warning", "not running", "`mlops up`"
    remedy = f"`mlops up`; its log is {stack.log(WORKER)}"
    if not processes.is_running(stack.parts.get(WORKER)):
        return "broken", "the process has ended: runs wait for ever", remedy
    try:
        workers = rest.prefect(stack, f"/work_pools/{WORK_POOL}/workers/filter", {})
    except rest.UnreachableError as error:
        return "broken", f"unknown to the server: {error}", remedy
    alive = [worker["name"] for worker in workers if worker["status"] == "ONLINE"]
    if not alive:
        return "broken", "the process lives, but the server has not heard from it", "`mlops down`, then `mlops up`"
    return "good", f"polls work pool {WORK_POOL}", ""


def _registry(place: Place) -> list[Finding]:
    return image_check.check(place.checkout, place.home)


def _gpu(place: Place) -> Result:
    tool = shutil.which("nvidia-smi")
    if not tool:
        return "good", "none: CPU is used", ""
    asked = _run(place, tool, "--query-gpu=name,memory.total", "--format=csv,noheader")
    if asked.returncode:
        said = (asked.stderr or asked.stdout).strip().splitlines() or ["no reason given"]
        return "warning", f"nvidia-smi fails: {said[0]}", "mend the driver, or go on with the CPU"
    return "good", "; ".join(asked.stdout.strip().splitlines()), ""


def _run(place: Place, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    return subprocess.run(
        command, cwd=place.checkout, env=environment, capture_output=True, text=True, timeout=10, check=False
    )


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


CHECKS: dict[str, Callable[[Place], Result | list[Finding]]] = {
    "Python": _python,
    "packages": _packages,
    "disk": _disk,
    "memory": _memory,
    "ports": _ports,
    "git": _git,
    "DVC remote": _share,
    "Prefect": _prefect,
    "MLflow": _mlflow,
    "worker": _worker,
    "registry": _registry,
    "GPU": _gpu,
}
