"""Two workers against twice one, and our launcher against torchrun by hand, with one thread a rank.

    python -m benchmarks.ddp_efficiency --pairs 3

Samples a second within the training, after warm-up; all take turns. Two trainings of one worker at the same time, which
exchange nothing, show what this machine's cores give at best together.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from infra.ddp.launch import Gang, Watch
from infra.ddp.torchrun import open_launcher

ROOT = Path(__file__).parents[1]
SCRIPT = "benchmarks/ddp_long_step.py"


def main() -> None:
    """Read the command line, measure, print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {"one": [], "apart": [], "two": [], "ours": []}
    for _ in range(options.pairs):
        rates["one"].append(by_hand(1))
        with ThreadPoolExecutor() as beside:
            rates["apart"].append(sum(beside.map(by_hand, (1, 1))))
        rates["two"].append(by_hand(2))
        rates["ours"].append(ours(2))
        print({name: round(found[-1]) for name, found in rates.items()}, file=sys.stderr, flush=True)
    print(table(rates))


def by_hand(workers: int) -> float:
    """Samples a second under plain torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}", SCRIPT]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return rate(done.stdout)


def ours(workers: int) -> float:
    """Samples a second under the launcher of ``train-ddp/local``."""
    gang = Gang(
        "bench-ddp", "bench", (SCRIPT,), workers, workers, 1, 1.0, 1 << 30, 0, "gloo", PurePosixPath("c"), 0, 60, 60
    )
    lines: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bench-ddp-") as home:
        launcher = open_launcher(ROOT, Path(home))
        launcher.launch(gang)
        try:
            outcome = launcher.follow(gang, Watch(lambda event: None, lambda note: None, lines.append))
        finally:
            launcher.remove(gang)
    if outcome.failure is not None:
        raise RuntimeError(str(outcome.failure))
    return rate("\n".join(lines))


def rate(text: str) -> float:
    """The result among a training's lines."""
    (found,) = re.findall(r"RESULT (\{.*\})", text)
    return float(json.loads(found)["rate"])


def table(rates: dict[str, list[float]]) -> str:
    """Medians, and the medians of the rounds' ratios, as markdown."""

    def ratio(of: str, to: str) -> float:
        return statistics.median(mine / other for mine, other in zip(rates[of], rates[to], strict=True))

    medians = {name: statistics.median(found) for name, found in rates.items()}
    return "\n".join(
        [
            f"{os.cpu_count()} cores, one thread a rank, {len(rates['one'])} rounds",
            "",
            "| | samples/s | ratio |",
            "|---|---|---|",
            f"| torchrun, 1 worker | {medians['one']:.0f} | |",
            f"| two trainings of 1 worker | {medians['apart']:.0f} | {ratio('apart', 'one') / 2:.3f} of twice one |",
            f"| torchrun, 2 workers | {medians['two']:.0f} | {ratio('two', 'one') / 2:.3f} of twice one, "
            f"{ratio('two', 'apart'):.3f} of two apart |",
            f"| our launcher, 2 workers | {medians['ours']:.0f} | {ratio('ours', 'two'):.3f} of torchrun's |",
        ]
    )


if __name__ == "__main__":
    main()
