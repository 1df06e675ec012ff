"""What provisioning a site costs besides apt: two bare machines to storage and registry, then a check of what fits.

Machines are those of ``tests/machines`` (systemd-nspawn, root): packages come from a folder, so apt has nothing to
download, and our share of the time is larger than with a mirror. Prints one row; ``--picture`` draws who did what when.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "machines"))

from lab import open_lab
from lab_sites import LabSite

from benchmarks.site_watch import PACKAGES, Tools, draw, row


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
            with Tools(PACKAGES) as apt:
                began = time.monotonic()
                outcomes = site.run(apply=True)
                walls.append(time.monotonic() - began)
            shares.append(1 - apt.seconds() / walls[-1])
            began = time.monotonic()
            site.run(apply=False)
            checks.append(time.monotonic() - began)
            if options.picture:
                draw(outcomes, apt, began - walls[-1], options.picture)
    print("| provisioning, s | besides apt | check of what fits, s |\n|---|---|---|")
    print(f"| {row(walls, '.1f')} | {row(shares, '.0%')} | {row(checks, '.2f')} |")


if __name__ == "__main__":
    main()
