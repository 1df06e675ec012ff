"""What the flow costs on top of its stages, and how soon it sees that nothing changed.

    python -m benchmarks.main_job --pairs 3
    python -m benchmarks.main_job --pairs 1 --data data

In two equal checkouts, the same training (a new seed for each pair) runs once as `dvc repro` and once as the flow on a
warm stack; who begins changes from pair to pair. With ``--data`` it is the main job at its full size, else a small one.
The flow's time is that of `mlops train`, start to exit. Prints a markdown table.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from checkouts import check, copy_project, git, run, small_checkout  # noqa: E402 - the tests' small copy of this project


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--data", type=Path, help="the whole drawn dataset; without it, a small one is drawn")
    options = parser.parse_args()
    pairs = options.pairs
    with tempfile.TemporaryDirectory(prefix="main-job-") as folder:
        alone, site = (_checkout(Path(folder) / name, options.data) for name in ("alone", "site"))
        check(site, "mlops", "up")
        try:
            epochs = [_change(checkout, "epochs", "1") for checkout in (alone, site)]
            check(site, "mlops", "train")  # the first run pays for what is cached afterwards
            check(alone, "dvc", "repro")
            for checkout in (alone, site):
                _change(checkout, "epochs", epochs[0])
            rows = [_pair(alone, site, seed) for seed in range(1, pairs + 1)]
            unchanged = [_timed(site, "mlops", "train") for _ in range(pairs)]
            at_rest = _memory(site)
            _change(site, "seed", "0")
            peak = _peak_memory(site, "mlops", "train")
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
    print(f"| memory of the stack at rest | {at_rest:.0f} MiB |")
    print(f"| memory of the stack and the flow, peak | {peak:.0f} MiB |")


def _checkout(target: Path, data: Path | None) -> Path:
    if data is None:
        return small_checkout(target)
    copy_project(target)
    shutil.copytree(data, target / "data")
    check(target, "dvc", "add", "--quiet", "data")
    git(target, "add", "--all")
    git(target, "commit", "--quiet", "-m", "The whole warehouse")
    return target


def _change(checkout: Path, key: str, value: str) -> str:
    """Set a key of the recipe's section `train` and return what it was."""
    recipe = checkout / "configs" / "forklift.yaml"
    text = recipe.read_text()
    found = re.search(rf"(?m)^  {key}: (\S+)", text)
    assert found, key
    recipe.write_text(text[: found.start(1)] + value + text[found.end(1) :])
    return found[1]


def _pair(alone: Path, site: Path, seed: int) -> tuple[float, float]:
    for checkout in (alone, site):
        _change(checkout, "seed", str(seed))
    times: dict[str, float] = {}
    for command in (["dvc", "repro"], ["mlops", "train"])[:: 1 if seed % 2 else -1]:
        times[command[0]] = _timed(alone if command[0] == "dvc" else site, *command)
        print(f"{' '.join(command)}: {times[command[0]]:.1f} s", file=sys.stderr, flush=True)
    return times["dvc"], times["mlops"]


def _timed(checkout: Path, *command: str) -> float:
    begun = time.perf_counter()
    check(checkout, *command, timeout=1200)
    return time.perf_counter() - begun


def _peak_memory(site: Path, *command: str) -> float:
    """MiB at most, looked at every half second while the command runs."""
    seen = [0.0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            seen.append(_memory(site))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        check(site, *command, timeout=1200)
    finally:
        done.set()
        watcher.join()
    return max(seen)


def _memory(site: Path) -> float:
    """MiB of all processes of the stack and of what it runs; pages that several share count for each."""
    total = 0
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("MLOPS_HOME") == str(site / ".mlops"):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
    return total / 2**20


if __name__ == "__main__":
    main()
