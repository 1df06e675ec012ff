"""The autoencoder to the loss that the thesis's Lightning script reaches, with one image a step there.

    python -m benchmarks.ddp_autoencoder --data fashion-mnist --peer-s 60

The peer trains for a while; then ours trains until its loss on the same test split is as low, which it has to be after
at most so many epochs, set beforehand: its steps become smaller until then. Times are of the training alone, without
imports, with one thread each; ours judges after each epoch and that counts, theirs does not. With ``--processor`` they
are the processor's, which other programs disturb less; ``--peer-s`` counts those, too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROCESSOR = (
    "import runpy, sys, time; time.monotonic = time.process_time; del sys.argv[0]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
"""Runs a script with the processor's seconds for those of the clock."""


def main() -> None:
    """Read the command line, measure, print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--until", type=float, default=0.0, help="loss at which the peer stops")
    parser.add_argument("--peer-s", type=float, default=600.0, help="seconds after which it stops in any case")
    parser.add_argument("--epochs", type=int, default=1, help="of ours, at most")
    parser.add_argument("--seed", type=int, default=0, help="of both")
    parser.add_argument("--processor", action="store_true", help="seconds of the processor, not of the clock")
    options = parser.parse_args()
    clock = ("-c", PROCESSOR) if options.processor else ()
    data, seed = str(options.data.absolute()), ("--seed", str(options.seed))
    stop = ["--until", str(options.until), "--limit-s", str(options.peer_s)]
    peer = json.loads(run(*clock, "benchmarks/ddp_lightning_peer.py", "--data", data, *stop, *seed).splitlines()[-1])
    print(f"peer: {peer}", file=sys.stderr, flush=True)
    target = ("--epochs", str(options.epochs), "--until", str(peer["loss"]))
    said = run(*clock, "ml/ddp/autoencoder.py", "--data", data, *target, *seed)
    epochs = re.findall(r"epoch (\d+)/\d+  loss ([\d.]+)  (\d+) images/s", said)
    if float(epochs[-1][1]) > peer["loss"]:
        raise RuntimeError(f"after {options.epochs} epochs ours has a loss of {epochs[-1][1]}")
    seconds = float(re.findall(r"trained in ([\d.]+) s", said)[-1])
    print(
        "\n".join(
            [
                "| | images | loss on the test split | training, s |",
                "|---|---|---|---|",
                f"| Lightning, batch size 1 | {peer['steps']} | {peer['loss']:.5f} | {peer['seconds']:.1f} |",
                f"| `ml/ddp/autoencoder.py` | {int(epochs[-1][0]) * 60_000} | {epochs[-1][1]} | {seconds:.2f} |",
                "",
                f"ratio {peer['seconds'] / seconds:.0f}",
            ]
        )
    )


def run(*arguments: str) -> str:
    """Run Python with a state folder of its own and return what it printed."""
    with tempfile.TemporaryDirectory(prefix="bench-ddp-") as home:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "MLOPS_HOME": home}
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return done.stdout


if __name__ == "__main__":
    main()
