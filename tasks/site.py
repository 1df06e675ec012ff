"""The site's machines, from a flow."""

from __future__ import annotations

from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from configs.home import home_folder
from configs.problems import Problem, UserError
from configs.site import SITE_FILE, load_site
from infra.repository.code import find_root
from infra.site.engine import Key, Outcome, State, problems_of
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
            ]
    if problems:
        raise UserError(problems)


def _run(*, apply: bool, only_repairs: bool, keep: bool = False) -> dict[Key, Outcome]:
    from infra.site.session import run_site

    say_errors_once()
    root = find_root(Path.cwd())
    told = log()  # steps run in threads, which have no run of their own

    def report(step: Step, state: State, detail: str) -> None:
        if state in (State.CHANGED, State.DIFFERS, State.FAILED, State.LEFT_OUT):
            told.info("%s: %s: %s %s", step.machine, step.name, state, detail)

    outcomes = run_site(
        load_site(root / SITE_FILE), root, home_folder(root), report, apply=apply, only_repairs=only_repairs, keep=keep
    )
    create_markdown_artifact(key=ARTIFACT, markdown=site_markdown(outcomes), description="Machines by steps")
    return outcomes
