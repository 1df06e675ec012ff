"""Many runs queued at once on a small cluster: whether all end, how fast, and what the database said.

    KUBECONFIG=... python -m benchmarks.kubernetes_queue --image registry.example/mlops:1 --runs 50 --plot queue.png

``--database`` names another database than sqlite, as Prefect writes its address. Prints one markdown row.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.kubernetes_lab import POOL, Lab, Namespace, at
from configs.problems import run_main

FLOW = """
from prefect import flow


@flow
def lab():
    pass
"""
LIMIT_S = 3600.0
RESOURCES = {"requests": {"cpu": "100m", "memory": "256Mi"}}


def main() -> None:
    """Read the command line, queue the runs, wait, print a row and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True, help="with this project's environment, on every node")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--concurrency", type=int, default=6, help="runs at a time, as the pool's limit")
    parser.add_argument("--database", default="", help="left out: sqlite")
    parser.add_argument("--plot", type=Path, default=Path("queue.png"))
    options = parser.parse_args()
    with Namespace() as namespace, tempfile.TemporaryDirectory(prefix="bench-queue-") as folder:
        lab = Lab(Path(folder), namespace, options.image, FLOW, database=options.database, resources=RESOURCES)
        with lab:
            lab.patch(f"/work_pools/{POOL}", {"concurrency_limit": options.concurrency})
            lab.start_worker()
            start = time.time()
            runs = [lab.run() for _ in range(options.runs)]
            found = wait(lab, start)
        logs = "".join(path.read_text(errors="replace") for path in lab.folder.glob("*.log"))
    states = Counter(run["state"]["name"] for run in found)
    begun = sorted(at(run["start_time"]) - start for run in found if run["start_time"])
    ended = sorted(at(run["end_time"]) - start for run in found if run["end_time"])
    draw(options.plot, begun, ended, f"{options.runs} runs, {options.concurrency} at a time")
    locks = len(re.findall(r"database is locked|deadlock detected", logs))
    twice = sum(run["run_count"] > 1 for run in found)
    kind = options.database.split(":")[0] or "sqlite"
    print("| database | runs | ended as | started twice | lock errors | all ended after s | runs a minute |")
    print("|---|---|---|---|---|---|---|")
    told = ", ".join(f"{name} {count}" for name, count in states.items())
    print(
        f"| {kind} | {len(runs)} | {told} | {twice} | {locks} | {ended[-1]:.0f} | {60 * len(ended) / ended[-1]:.1f} |"
    )


def wait(lab: Lab, start: float) -> list[dict]:
    """All runs, when the last one has ended."""
    while True:
        found = lab.ask("/flow_runs/filter", {"limit": 200})
        left = [run for run in found if run["state"]["type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")]
        print(f"{time.time() - start:5.0f} s: {len(left)} left", file=sys.stderr, flush=True)
        if not left:
            return found
        if time.time() - start > LIMIT_S:
            raise TimeoutError(f"{len(left)} runs have not ended: {Counter(run['state']['name'] for run in left)}")
        time.sleep(5)


def draw(path: Path, begun: list[float], ended: list[float], title: str) -> None:
    """Runs that had begun and ended by each second."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for times, name in ((begun, "begun"), (ended, "ended")):
        axes.step([0.0, *times], range(len(times) + 1), where="post", label=name)
    axes.set(xlabel="seconds since the first was queued", ylabel="runs", title=title, xlim=(0, None), ylim=(0, None))
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run_main(main)
