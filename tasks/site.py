"""The site's machines, from a flow."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact

from configs.home import home_folder
from configs.problems import Problem, UserError, printed_error
from configs.site import SITE_FILE, load_site
from infra.repository.code import find_root
from infra.site.engine import Key, Outcome, Report, State, problems_of
from infra.site.report import site_markdown
from infra.site.step import Step
from tasks.verbs import log, say_errors_once, verb

ARTIFACT = "site"


@verb("provision site")
def provision(*, keep: bool) -> None:
    """Make all machines what the site's file says.

    Args:
        keep: what a failed step has made new, as a VM, stays.

    Raises:
        UserError: a step failed; the others that do not wait for it are done all the same.
    """
    problems = problems_of(_run(apply=True, only_repairs=False, keep=keep))
    if problems:
        raise UserError(problems)


@verb("check site")
def check(*, repair: bool) -> None:
    """Look for what differs from the site's file, and mend it where that is safe.

    Raises:
        UserError: something differs and was not mended, or a machine could not be asked.
    """
    outcomes = _run(apply=repair, only_repairs=True)
    problems = problems_of(outcomes)
    for (machine, step), outcome in outcomes.items():
        if outcome.state is State.DIFFERS:
            problems += [
                Problem(f"{machine}, step {step}", f"{item.why}: {item.what}", item.by_hand or "mlops site apply")
                for item in outcome.changes
                if not item.note
            ]
    if problems:
        raise UserError(problems)


@verb("open cluster")
def open_cluster(*, needed: bool) -> bool:
    """Fetch the login of the cluster that the site has made; returns whether the site wants the platform there.

    Args:
        needed: without a platform there is something that cannot be done.

    Raises:
        UserError: the control plane cannot be reached, a platform is needed and the site wants none, or the cluster
            has no place for its data: told before an image is built.
    """
    from infra.kubernetes.client import connect
    from infra.kubernetes.platform.choice import missing
    from infra.site.access import fetch_kubeconfig, refuse_another

    say_errors_once()
    root = find_root(Path.cwd())
    site = load_site(root / SITE_FILE)
    path = fetch_kubeconfig(site, home_folder(root))
    if path is not None:
        log().info("administrators of the cluster use %s", path)
    if path is None or site.cluster is None:
        if needed:
            remedy = "add `kubernetes:` with a control plane, and `cluster: {}`; or leave `smoke` out"
            raise UserError(Problem(f"{SITE_FILE} cluster", "is missing: nothing can be trained there", remedy))
        log().info("no platform: %s says of no cluster, or of none that is made here", SITE_FILE)
        return False
    refuse_another(site, path)
    problems = missing(site.cluster, connect(site.cluster))
    if problems:
        raise UserError(problems)
    return True


def builds_image() -> bool:
    """Whether the platform runs an image of this checkout, and none that the site names."""
    site = load_site(find_root(Path.cwd()) / SITE_FILE)
    return site.cluster is not None and site.cluster.images.run is None


@verb("smoke run")
def smoke() -> None:
    """Train something small on the cluster, over two workers: pods, images, names and servers work together.

    Raises:
        UserError: it did not come to its end; with what it said.
    """
    from infra.kubernetes.platform.connect import disconnect
    from infra.process import run_guarded
    from infra.stack.connection import load_connection

    root = find_root(Path.cwd())
    home = home_folder(root)
    connected = load_connection(home) is not None
    lines: list[str] = []
    told = log()

    def hear(line: str) -> None:
        lines.append(line)
        told.info("%s", line)

    # A command of its own: its servers are the cluster's, not those that this flow talks to.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    try:
        command = [sys.executable, "-m", "cli", "site", "smoke"]
        status = run_guarded(command, cwd=root, env=environment, on_line=hear)
    finally:
        if not connected:
            disconnect(home)
    if status:
        said = "\n".join(printed_error(lines) or lines[-20:])
        raise UserError(Problem("smoke run", f"\n{said}", "mlops diagnose; then again: mlops site smoke"))


def report_to(told: logging.Logger | logging.LoggerAdapter[Any]) -> Report:
    """Return what logs how steps end; steps run in threads, which have no run of their own."""

    def report(step: Step, state: State, detail: str) -> None:
        if state in (State.CHANGED, State.DIFFERS, State.FAILED, State.LEFT_OUT) or (state is State.FITS and detail):
            told.info("%s: %s: %s %s", step.machine, step.name, state, detail)

    return report


def _run(*, apply: bool, only_repairs: bool, keep: bool = False) -> dict[Key, Outcome]:
    from infra.site.session import run_site

    say_errors_once()
    root = find_root(Path.cwd())
    outcomes = run_site(
        load_site(root / SITE_FILE),
        root,
        home_folder(root),
        report_to(log()),
        apply=apply,
        only_repairs=only_repairs,
        keep=keep,
    )
    create_markdown_artifact(key=ARTIFACT, markdown=site_markdown(outcomes), description="Machines by steps")
    return outcomes
