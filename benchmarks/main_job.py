"""What the flow costs on top of its stages, and how soon it sees that nothing changed.

    python -m benchmarks.main_job --pairs 3

In two equal small checkouts, the same training (a new seed for each pair) runs once as `dvc repro` and once as the
flow on a warm stack, in turn. The flow's time is from scheduling to the final state. Prints a markdown table.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from checkouts import check, run, small_checkout  # noqa: E402 - the tests' small copy of this project


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory(prefix="main-job-") as folder:
        alone, site = small_checkout(Path(folder) / "alone"), small_checkout(Path(folder) / "site")
        check(site, "mlops", "up")
        try:
            check(site, "mlops", "train")  # the first run pays for what is cached afterwards
            check(alone, "dvc", "repro")
            rows = [_pair(alone, site, seed) for seed in range(1, pairs + 1)]
            unchanged = [_timed(site, "mlops", "train") for _ in range(pairs)]
            memory = _stack_memory(site)
        finally:
            run(site, "mlops", "down")
    stages = statistics.median(row[0] for row in rows)
    flow = statistics.median(row[1] for row in rows)
    extra = statistics.median(row[1] - row[0] for row in rows)
    print("| work | median of", pairs, "|")
    print("|---|---|")
    print(f"| the stages alone (`dvc repro`) | {stages:.1f} s |")
    print(f"| the flow, warm stack, terminal included | {flow:.1f} s |")
    print(f"| the flow minus its stages, pair by pair | {extra:.1f} s |")
    print(f"| the flow with nothing changed | {statistics.median(unchanged):.1f} s |")
    print(f"| memory of the stack at rest | {memory:.0f} MiB |")


def _pair(alone: Path, site: Path, seed: int) -> tuple[float, float]:
    for checkout in (alone, site):
        recipe = checkout / "configs" / "forklift.yaml"
        recipe.write_text(re.sub(r"(?m)^  seed: \d+", f"  seed: {seed}", recipe.read_text()))
    return _timed(alone, "dvc", "repro"), _timed(site, "mlops", "train")


def _timed(checkout: Path, *command: str) -> float:
    begun = time.perf_counter()
    check(checkout, *command)
    return time.perf_counter() - begun


def _stack_memory(site: Path) -> float:
    total = 0
    for process in psutil.process_iter(["cwd", "environ"]):
        if (process.info["environ"] or {}).get("MLOPS_HOME") == str(site / ".mlops"):
            total += process.memory_info().rss
    return total / 2**20


if __name__ == "__main__":
    main()
