"""An upgrade of a site's cluster, shown in a terminal; it is asked for before it begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from cli.console import console
from cli.site_table import live_site, print_changes
from configs.home import home_folder
from configs.site import Site
from infra.site.engine import Key, Outcome
from infra.site.life.upgrade import CHECKS, Plan, look
from infra.site.step import Step


class ShownUpgrade:
    """A :class:`infra.site.life.upgrade.Watcher`.

    Attributes:
        began: whether steps that change the cluster have begun.
    """

    def __init__(self, yes: bool, run: Callable[[Sequence[Step]], None]) -> None:
        """Ask nothing when ``yes``; ``run`` is of the watcher."""
        self.began = False
        self._yes, self._run = yes, run

    def look(self, site: Site, steps: Sequence[Step]) -> dict[Key, Outcome]:
        with live_site(steps) as table:
            return look(site, Path.cwd(), home_folder(), table.report, steps)

    def planned(self, plan: Plan) -> None:
        if plan.problems:
            return
        if plan.done:
            console.print(f"\nNothing is to be done: all nodes are of {plan.release}.")
            return
        print_changes(plan.outcomes)
        kept = f"the state before is kept: {plan.snapshot}"
        console.print(f"\nIn this order, one node at a time; {kept}.", soft_wrap=True)
        if not self._yes:
            typer.confirm(f"Upgrade the cluster to {plan.release}?", abort=True)

    def run(self, steps: Sequence[Step]) -> None:
        self.began = any(step.name not in CHECKS for step in steps)
        self._run(steps)

    def say(self, told: str) -> None:
        console.print(told)
