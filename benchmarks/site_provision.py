"""What provisioning a site costs besides apt: two bare machines to storage and registry, then a check of what fits.

Machines are those of ``tests/machines`` (systemd-nspawn, root): packages come from a folder, so apt has nothing to
download, and our share of the time is larger than with a mirror. Prints one row; ``--picture`` draws who did what when.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "machines"))

from lab import open_lab
from lab_sites import LabSite

from infra.machines.commands import Command
from infra.machines.ssh import Done, Machine
from infra.site.engine import Key, Outcome

Span = tuple[float, float]


class Apt:
    """Notes when apt and dpkg run on any machine."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, float, float]] = []
        self._lock = threading.Lock()
        self._run = Machine.run

    def __enter__(self) -> Apt:
        watch = self

        def run(machine: Machine, command: Command, *, on_line: Callable[[str], None] | None = None) -> Done:
            began = time.monotonic()
            try:
                return watch._run(machine, command, on_line=on_line)
            finally:
                if {"apt-get", "dpkg"} & set(command.argv):
                    with watch._lock:
                        watch.spans.append((machine.login.name, began, time.monotonic()))

        Machine.run = run  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Machine.run = self._run  # type: ignore[method-assign]

    def seconds(self) -> float:
        """Return for how long apt ran on at least one machine."""
        total, end = 0.0, 0.0
        for _, began, ended in sorted(self.spans, key=lambda span: span[1]):
            total += max(0.0, ended - max(began, end))
            end = max(end, ended)
        return total


def main() -> None:
    """Provision, check, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    walls, shares, checks = [], [], []
    for _ in range(options.rounds):
        with TemporaryDirectory() as folder, open_lab(Path(folder) / "lab") as lab:
            site = LabSite(lab, Path(folder) / "checkout")
            with Apt() as apt:
                began = time.monotonic()
                outcomes = site.run(apply=True)
                walls.append(time.monotonic() - began)
            shares.append(1 - apt.seconds() / walls[-1])
            began = time.monotonic()
            site.run(apply=False)
            checks.append(time.monotonic() - began)
            if options.picture:
                draw(
                    outcomes, [(name, start, end) for name, start, end in apt.spans], began - walls[-1], options.picture
                )
    print("| provisioning, s | besides apt | check of what fits, s |\n|---|---|---|")
    print(f"| {_row(walls, '.1f')} | {_row(shares, '.0%')} | {_row(checks, '.2f')} |")


def draw(outcomes: dict[Key, Outcome], apt: list[tuple[str, float, float]], start: float, path: Path) -> None:
    """Draw a row for each step of each machine, and below them when apt ran."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(name for _, name in outcomes))
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(outcomes) + 1.2), layout="constrained")
    rows = sorted(outcomes, key=lambda key: (outcomes[key].began, key[0]))
    for row, key in enumerate(rows):
        item = outcomes[key]
        axes.barh(row, max(item.ended - item.began, 0.05), left=item.began, color=f"C{names.index(key[1])}", height=0.7)
        for name, began, ended in apt:
            inside = item.began <= began - start <= item.ended
            if name == key[0] and inside:
                axes.barh(row, ended - began, left=began - start, color="0", alpha=0.35, height=0.3)
    axes.set_yticks(range(len(rows)), [f"{machine}: {name}" for machine, name in rows])
    axes.invert_yaxis()
    axes.set_xlabel("seconds (dark: apt)")
    figure.savefig(path, dpi=120)


def _row(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
