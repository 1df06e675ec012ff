"""``apply``: bring the platform of a site into its namespace, wait until it works, and tell its server what to run."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from configs.problems import Problem, UserError
from configs.site import Site
from infra.kubernetes.apply import Applied, apply, read
from infra.kubernetes.check.manifests import check
from infra.kubernetes.check.names import Outside
from infra.kubernetes.client import api_errors_for_people, connect, is_away
from infra.kubernetes.forward import LOOPBACK, Forwarded, forwarded
from infra.kubernetes.manifests import MANAGED_BY, MLOPS, POSTGRES, PREFECT, PREFECT_PORT
from infra.kubernetes.objects import discard, has
from infra.kubernetes.platform.choice import choose, cluster_of
from infra.kubernetes.platform.credentials import Logins, ensure_credentials, keep_copy, read_logins
from infra.kubernetes.platform.plan import SECRETS, namespace, platform_manifests
from infra.kubernetes.platform.provision import request
from infra.kubernetes.platform.secrets import site_secrets
from infra.kubernetes.platform.status import COMPONENTS, ComponentState, component_states, newest_pod
from infra.kubernetes.platform.wanted import Wanted
from infra.stack import ports
from infra.stack.environment import QUIET, import_path

if TYPE_CHECKING:
    from lightkube import Client

MANIFESTS, PROVISION = "manifests", "work pool"
PARTS = (MANIFESTS, *COMPONENTS, PROVISION)
READY_LIMIT_S = 900.0
LASTING_S = 45.0
"""How long something that does not pass by itself is looked at before it is taken for that."""
PROVISION_LIMIT_S = 300.0

# Called with the name of a part, what it does now (a word), and a detail for people.
Report = Callable[[str, str, str], None]


@dataclass(frozen=True)
class Installed:
    """What applying did: every object with its change, and the components as they are."""

    applied: list[Applied]
    states: list[ComponentState]


@api_errors_for_people()
def install(
    site: Site, root: Path, home: Path, report: Report, *, image: str | None = None, force: bool = False
) -> Installed:
    """Apply the platform of ``site``; what fits already is left alone, data and passwords always.

    Args:
        root: the checkout. home: its state folder, which gets a private copy of the logins.
        image: used instead of the one that the site or the last build names.
        force: take over fields that somebody else has changed.

    Raises:
        UserError: the cluster cannot be used, refuses something, or a component does not become ready: with the reason.
    """
    client = connect(cluster_of(site))
    wanted = choose(site, client, home, image)
    manifests = platform_manifests(wanted)
    asked = request(wanted)
    problems = check(manifests, Outside(secrets=SECRETS))
    if problems:
        raise UserError(problems)
    report(MANIFESTS, "applying", "")
    home_of = namespace(wanted)
    there = read(client, home_of)
    applied = []
    if there is None or there["metadata"].get("labels", {}).get(MANAGED_BY) == MLOPS:
        applied += apply(client, [home_of], force=force)
    ensure_credentials(client)
    applied += apply(client, site_secrets(site, wanted, root, home), force=True)
    applied += apply(
        client, manifests, force=force, on_applied=lambda one: report(MANIFESTS, "applying", f"{one.kind} {one.name}")
    )
    report(MANIFESTS, "ready", summary(applied))
    logins = read_logins(client)
    assert logins is not None  # noqa: S101 - made above
    keep_copy(home, wanted.namespace, logins)
    start_anew(client)
    states = wait_ready(client, report)
    provision(wanted, asked, root, logins, report)
    return Installed(applied, states)


def summary(applied: list[Applied]) -> str:
    """Return how many objects were created, changed and unchanged, as people read it."""
    counts: dict[str, int] = {}
    for one in applied:
        counts[one.change] = counts.get(one.change, 0) + 1
    return ", ".join(f"{count} {change}" for change, count in sorted(counts.items()))


def start_anew(client: Client) -> None:
    """Delete the pods that something holds up which does not pass by itself: it may have been mended since.

    A node tries them again by itself, but waits up to five minutes in between.
    """
    from lightkube.resources.core_v1 import Pod

    for state in component_states(client):
        if state.pod and state.trouble is not None and state.trouble.lasting:
            discard(client, Pod, state.pod)


def wait_ready(client: Client, report: Report, limit_s: float = READY_LIMIT_S) -> list[ComponentState]:
    """Wait until all components are ready; an API server that is away meanwhile is waited for.

    Raises:
        UserError: what is still wrong after ``limit_s``, or does not pass by itself; each component with its reason.
    """
    import httpx2

    deadline = time.monotonic() + limit_s
    lasting: dict[str, float] = {}
    while True:
        try:
            states = component_states(client)
            _replace_stuck(client)
        except httpx2.HTTPError as error:
            if not is_away(error) or time.monotonic() > deadline:
                raise
            time.sleep(1)
            continue
        for state in states:
            told = "" if state.trouble is None else state.trouble.what
            report(state.name, "ready" if state.ready else "waiting", told)
            if state.trouble is None or not state.trouble.lasting:
                lasting.pop(state.name, None)
            else:
                lasting.setdefault(state.name, time.monotonic())
        if all(state.ready for state in states):
            return states
        hopeless = any(time.monotonic() - since > LASTING_S for since in lasting.values())
        if hopeless or time.monotonic() > deadline:
            raise UserError(
                Problem(state.name, state.trouble.what, "mend it and apply again; data and passwords are kept")
                for state in states
                if state.trouble is not None and (not hopeless or state.name in lasting)
            )
        time.sleep(1)


def _replace_stuck(client: Client) -> None:
    """Delete Postgres' pod where it is of an older manifest and not ready: its controller would wait for it for ever.

    https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/#forced-rollback
    """
    from lightkube.resources.apps_v1 import StatefulSet
    from lightkube.resources.core_v1 import Pod

    pod = newest_pod(client, POSTGRES)
    found = client.get(StatefulSet, POSTGRES).to_dict()
    if pod is None or found.get("status", {}).get("observedGeneration") != found["metadata"]["generation"]:
        return
    revision = pod["metadata"]["labels"].get("controller-revision-hash")
    if revision != found["status"].get("updateRevision") and not has(pod, "Ready"):
        client.delete(Pod, pod["metadata"]["name"])


def provision(wanted: Wanted, asked: str, root: Path, logins: Logins, report: Report) -> None:
    """Register work pool, deployments and automations with the platform's Prefect server.

    Raises:
        UserError: Prefect refuses one; with what it said.
    """
    report(PROVISION, "registering", "")
    status, said = asyncio.run(_provision(wanted, asked, root, logins))
    if status != 0:
        last = [line for line in said.splitlines() if line.strip()][-12:]
        raise UserError(Problem(PROVISION, "\n".join(last) or f"ended with {status}", "mend it and apply again"))
    report(PROVISION, "ready", "")


async def _provision(wanted: Wanted, asked: str, root: Path, logins: Logins) -> tuple[int, str]:
    port = ports.choose(LOOPBACK, None, 0, frozenset({0}), "")
    async with forwarded(wanted.cluster, [Forwarded(PREFECT, PREFECT_PORT, port)]):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "infra.kubernetes.platform.provision"),
            cwd=root,
            env=_environment(f"http://{LOOPBACK}:{port}/api", logins, root),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(child.communicate(asked.encode()), PROVISION_LIMIT_S)
        except TimeoutError:
            child.kill()
            await child.wait()
            return 1, f"no end after {PROVISION_LIMIT_S:.0f} s"
        assert child.returncode is not None  # noqa: S101 - it has ended
        return child.returncode, output.decode("utf-8", "replace")


def _environment(url: str, logins: Logins, root: Path) -> Mapping[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    return {
        **inherited,
        **QUIET,
        "PREFECT_API_URL": url,
        "PREFECT_API_AUTH_STRING": logins.prefect_auth,
        "PREFECT_CLI_PROMPT": "false",
        "PYTHONPATH": import_path(root),
        "NO_PROXY": "127.0.0.1,localhost",
    }
