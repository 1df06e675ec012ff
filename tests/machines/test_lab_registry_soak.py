"""The site's registry under load, killed again and again: nothing acknowledged is lost, and its memory stays bounded.

``MLOPS_SOAK_S`` says for how many seconds; what was measured is printed (``pytest -s``).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass, field

import pytest
from lab import Lab, LabError, LabMachine
from lab_sites import LabSite
from registry_soak import Soak

from infra.site.steps.registry import DATA

pytestmark = [pytest.mark.machine, pytest.mark.slow]
SECONDS = float(os.environ.get("MLOPS_SOAK_S", "30"))
TROUBLED = 0.6
"""The part of the time with kills; then one process serves on, and would show that it grows."""
PAUSE_S = 4
MEMORY_MB = 400
"""More than it ever took, by far less than a leak of what is pushed would come to in a long run."""
LIMIT = "/usr/local/sbin/mlops-registry-limit"
WATCH = """\
pid=$(systemctl show -p MainPID --value docker-registry)
grep -E '^Vm(RSS|HWM):' "/proc/$pid/status" && ls "/proc/$pid/fd" | wc -l
"""


@dataclass
class Watch:
    """What was seen of the server: (seconds, resident MB, highest MB of this process, open files)."""

    rows: list[tuple[float, float, float, int]] = field(default_factory=list)


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> LabSite:
    made = LabSite(lab, tmp_path_factory.mktemp("checkout"))
    outcomes = made.run(apply=True, steps=[step for step in made.steps() if step.machine == "registry"])
    assert {key: item.error for key, item in outcomes.items() if item.error} == {}
    return made


def trouble(machine: LabMachine, soak: Soak, until: float) -> None:
    """Kill the server, clean it up, put it above its limit for a moment, and again."""
    limit = (machine.root / LIMIT.lstrip("/")).read_text()
    for what in itertools.cycle(("kill", "clean", "kill", "limit")):
        time.sleep(PAUSE_S)
        if time.monotonic() > until:
            return
        if what == "kill":
            machine.run("systemctl", "kill", "--signal=KILL", "docker-registry.service")
        elif what == "clean":
            machine.run("systemctl", "start", "mlops-registry-clean.service")
        else:
            for text in (limit.replace("-gt 81920", "-gt 0"), limit):
                (machine.root / LIMIT.lstrip("/")).write_text(text)
                machine.run("systemctl", "start", "mlops-registry-limit.service")
                time.sleep(1)
        soak.count(f"trouble: {what}")


def look(machine: LabMachine, seen: Watch, stop: threading.Event) -> None:
    began = time.monotonic()
    while not stop.wait(2):
        with contextlib.suppress(
            LabError, subprocess.TimeoutExpired
        ):  # between a kill and its restart there is no process
            resident, highest, files = machine.run("sh", "-c", WATCH).splitlines()
            by_size = sorted((int(resident.split()[1]) / 1024, int(highest.split()[1]) / 1024))
            seen.rows.append((time.monotonic() - began, by_size[0], by_size[1], int(files)))


@pytest.mark.timeout(SECONDS * 2 + 600)
def test_nothing_acknowledged_is_lost_and_memory_stays_bounded(site: LabSite) -> None:
    machine = site.machines["registry"]
    trusted = ssl.create_default_context(cafile=str(site.home / "site/authority/ca.crt"))
    password = (site.home / "registry-password").read_text().strip()
    soak = Soak(f"https://{machine.address}:5000", ("mlops", password), trusted)
    began = time.monotonic()
    seen, stop, errors = Watch(), threading.Event(), []

    def guarded() -> None:
        try:
            trouble(machine, soak, began + SECONDS * TROUBLED)
        except Exception as error:
            errors.append(error)

    around = [threading.Thread(target=guarded), threading.Thread(target=look, args=(machine, seen, stop))]
    for thread in around:
        thread.start()
    soak.run(SECONDS, pushers=3, pullers=1)
    stop.set()
    for thread in around:
        thread.join()
    machine.run("systemctl", "start", "mlops-registry-clean.service")
    soak.verify()
    size = machine.run("du", "-sm", str(DATA)).split()[0]
    uploads = machine.run("sh", "-c", f"ls -d {DATA}/docker/registry/v2/repositories/*/*/_uploads/*/ | wc -l").strip()
    print(f"\n{SECONDS:g} s, ended after {time.monotonic() - began:.0f} s: {dict(sorted(soak.done.items()))}")
    print(f"{len(soak.kept)} images kept, {size} MB on disk")
    print(f"uploads left for the daily purge: {uploads}")
    for row in seen.rows[:: max(1, len(seen.rows) // 20)]:
        print("after {:4.0f} s: {:5.1f} MB resident, {:5.1f} MB at most, {} files".format(*row))
    assert errors == []
    assert soak.failures == []
    assert soak.kept
    assert soak.done["trouble: kill"] >= 2
    assert soak.done["pushes cut off"] >= 1
    assert max(row[2] for row in seen.rows) < MEMORY_MB
    assert max(row[3] for row in seen.rows) < 200
