"""Who did what when while a site was provisioned: the tools that are not ours, our steps, and a picture of both."""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

from infra.machines.commands import Command
from infra.machines.ssh import Done, Machine
from infra.site.engine import Key, Outcome

PACKAGES = ("apt-get ", "dpkg ")
KUBEADM = ("kubeadm ",)


class Tools:
    """Notes when commands with one of ``words`` run on any machine.

    Attributes:
        spans: machine, begin and end, seconds of ``time.monotonic``.
    """

    def __init__(self, words: tuple[str, ...]) -> None:
        self.spans: list[tuple[str, float, float]] = []
        self._words = words
        self._lock = threading.Lock()
        self._run = Machine.run

    def __enter__(self) -> Tools:
        watch = self

        def run(machine: Machine, command: Command, *, on_line: Callable[[str], None] | None = None) -> Done:
            began = time.monotonic()
            try:
                return watch._run(machine, command, on_line=on_line)
            finally:
                line = " ".join(command.argv) + " "
                if any(word in line for word in watch._words):
                    with watch._lock:
                        watch.spans.append((machine.login.name, began, time.monotonic()))

        Machine.run = run  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Machine.run = self._run  # type: ignore[method-assign]

    def seconds(self) -> float:
        """Return for how long one of them ran on at least one machine."""
        total, end = 0.0, 0.0
        for _, began, ended in sorted(self.spans, key=lambda span: span[1]):
            total += max(0.0, ended - max(began, end))
            end = max(end, ended)
        return total


def connected(ended: float, outcomes: dict[Key, Outcome]) -> float:
    """Return when a run's steps began, by when the run ended: before that it connects to the machines."""
    return ended - max(item.ended for item in outcomes.values())


def draw(outcomes: dict[Key, Outcome], tools: Tools, start: float, path: Path) -> None:
    """Draw a row for each step of each machine, and in it when the tools ran.

    Args:
        start: when the steps began, seconds of ``time.monotonic``.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(name for _, name in outcomes))
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(outcomes) + 1.2), layout="constrained")
    rows = sorted(outcomes, key=lambda key: (outcomes[key].began, key[0]))
    for row, key in enumerate(rows):
        item = outcomes[key]
        axes.barh(row, max(item.ended - item.began, 0.05), left=item.began, color=f"C{names.index(key[1])}", height=0.7)
        for name, began, ended in tools.spans:
            inside = item.began <= began - start <= item.ended
            if name == key[0] and inside:
                axes.barh(row, ended - began, left=began - start, color="0", alpha=0.35, height=0.3)
    axes.set_yticks(range(len(rows)), [f"{machine}: {name}" for machine, name in rows])
    axes.invert_yaxis()
    axes.set_xlabel("seconds (dark: apt, dpkg, kubeadm)")
    figure.savefig(path, dpi=120)


def options(description: str | None) -> argparse.Namespace:
    """Return what the command line says: ``rounds``, and ``picture``, a file for one of them, or None."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--picture", type=Path)
    return parser.parse_args()


def table(what: str, besides: str, walls: list[float], shares: list[float], checks: list[float]) -> str:
    """Return medians and ranges: seconds of ``what``, the share of them ``besides`` the tools, seconds of a check."""
    head = f"| {what}, s | besides {besides} | check of what fits, s |\n|---|---|---|\n"
    return f"{head}| {_row(walls, '.1f')} | {_row(shares, '.1%')} | {_row(checks, '.2f')} |"


def _row(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
