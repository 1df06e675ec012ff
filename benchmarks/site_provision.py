"""What provisioning a site costs besides apt: two bare machines to storage and registry, then a check of what fits.

Machines are those of ``tests/machines`` (systemd-nspawn, root): packages come from a folder, so apt has nothing to
download, and our share of the time is larger than with a mirror. Prints one row; ``--picture`` draws who did what when.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "machines"))

from lab import open_lab
from lab_sites import LabSite

from benchmarks.site_watch import PACKAGES, Tools, connected, draw, options, table


def main() -> None:
    """Provision, check, and print."""
    asked = options(__doc__)
    walls, shares, checks = [], [], []
    for _ in range(asked.rounds):
        with TemporaryDirectory() as folder, open_lab(Path(folder) / "lab") as lab:
            site = LabSite(lab, Path(folder) / "checkout")
            with Tools(PACKAGES) as apt:
                began = time.monotonic()
                outcomes = site.run(apply=True)
                walls.append(time.monotonic() - began)
            shares.append(1 - apt.seconds() / walls[-1])
            checked = time.monotonic()
            site.run(apply=False)
            checks.append(time.monotonic() - checked)
            if asked.picture:
                draw(outcomes, apt, connected(began + walls[-1], outcomes), asked.picture)
    print(table("provisioning", "apt", walls, shares, checks))


if __name__ == "__main__":
    main()
