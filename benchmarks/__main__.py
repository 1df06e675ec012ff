"""Runs all benchmarks one after the other: ``make bench``. Takes about two hours on two idle cores.

Those named ``kubernetes_*`` need a cluster, those named ``site_*`` root: they are run by hand.
"""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = (
    ("Stage `train`", ["benchmarks.train_stage", "--data", "data", "--pairs", "3", "--seeds", "0", "1", "2"]),
    ("Stage `detect`", ["benchmarks.detect_video", "--pairs", "5"]),
    ("The flow", ["benchmarks.main_job", "--pairs", "5"]),
    ("The stack's start", ["benchmarks.stack_start", "--rounds", "5"]),
    ("DVC over SMB", ["benchmarks.smb_dvc", "--pairs", "5"]),
    ("Two workers against one", ["benchmarks.ddp_efficiency", "--pairs", "5"]),
    ("The autoencoder to equal loss", ["benchmarks.ddp_autoencoder", "--data", "fashion-mnist"]),
    ("Bare transfers over SMB", ["benchmarks.smb_transfer", "--pairs", "5"]),
)


def main() -> int:
    """Return the number of benchmarks that failed."""
    failed = 0
    for title, command in BENCHMARKS:
        print(f"\n## {title}\n", flush=True)
        failed += subprocess.run([sys.executable, "-m", *command]).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
