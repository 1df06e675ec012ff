"""What making a cluster costs besides apt and kubeadm: three bare machines to nodes, then a check of what fits.

Machines are those of ``tests/cluster/kube_site`` (systemd-nspawn, root; ``KUBE_BIN`` and ``ETCD_BIN`` name Kubernetes):
packages and images come from this machine, so nothing is downloaded, and our share of the time is larger than with a
mirror. Not counted: filling the registry with images between the two runs, and waiting for the cluster's own pods, in
step ``cluster-health``. Prints a row; ``--picture`` draws both runs.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "machines"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "cluster"))

from kube_site import BEFORE_IMAGES, KubeSite
from lab import open_lab

from benchmarks.site_watch import KUBEADM, PACKAGES, Tools, connected, draw, options, table
from infra.site.engine import Key, Outcome


def main() -> None:
    """Provision, check, and print."""
    asked = options(__doc__)
    walls, shares, checks = [], [], []
    for _ in range(asked.rounds):
        with TemporaryDirectory() as folder, open_lab(Path(folder) / "lab") as lab:
            binaries, etcd = (Path(os.environ[name]) for name in ("KUBE_BIN", "ETCD_BIN"))
            site = KubeSite(lab, Path(folder) / "checkout", binaries, etcd)
            with Tools(PACKAGES + KUBEADM) as tools:
                began = time.monotonic()
                outcomes = site.run(apply=True, steps=[step for step in site.steps() if step.name in BEFORE_IMAGES])
                first = time.monotonic() - began
                start = connected(began + first, outcomes)
                site.fill()
                between = time.monotonic()
                done = site.run(apply=True, steps=[step for step in site.steps() if step.name != "cluster-health"])
                second = time.monotonic() - between
            later = _later(done, connected(between + second, done) - start)
            outcomes |= {key: item for key, item in later.items() if key not in outcomes}
            walls.append(first + second)
            shares.append(1 - tools.seconds() / walls[-1])
            site.connect_pods()
            site.run(apply=True, steps=[step for step in site.steps() if step.name == "cluster-health"])
            checked = time.monotonic()
            site.run(apply=False)
            checks.append(time.monotonic() - checked)
            if asked.picture:
                draw(outcomes, tools, start, asked.picture)
    print(table("cluster of three machines", "apt and kubeadm", walls, shares, checks))


def _later(outcomes: dict[Key, Outcome], seconds: float) -> dict[Key, Outcome]:
    """Return what a second run did, counted from the begin of the first."""
    return {
        key: replace(item, began=item.began + seconds, ended=item.ended + seconds) for key, item in outcomes.items()
    }


if __name__ == "__main__":
    main()
