"""A site of laboratory machines: its file, its state folder, its host keys pinned."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from lab import Lab

from configs.site import Site, load_site
from infra.machines.host_keys import pin
from infra.site.engine import Key, Outcome, State
from infra.site.inventory import site_folder
from infra.site.plan import site_steps
from infra.site.session import run_site
from infra.site.step import Step

CHECKOUT = Path(__file__).parents[2]
FILE = """\
storage:
  kind: smb
  url: smb://alice@{storage}/sambashare/dvc
  password: {{file: .mlops/share-password}}
registry:
  address: {registry}:5000
  ca: .mlops/site/authority/ca.crt
  user: mlops
  password: {{file: .mlops/registry-password}}
network: {{cidr: {network}.0/24, gateway: {network}.1}}
{more}hosts:
  storage: {{address: {storage}, roles: [storage], ssh: {{user: admin, key: {key}}}}}
  registry: {{address: {registry}, roles: [registry], ssh: {{user: admin, key: {key}}}}}
"""
NODE = """\
  {name}: {{address: {address}, roles: [{roles}], ssh: {{user: admin, key: {key}}}}}
"""


class LabSite:
    """Machines ``storage``, ``registry`` and nodes of a lab, and the checkout ``root`` whose site they are.

    Args:
        nodes: more machines, by name, with their roles. more: sections of the site's file. disk_mb: as for the lab.
    """

    def __init__(
        self,
        lab: Lab,
        root: Path,
        nodes: Mapping[str, str] | None = None,
        more: str = "",
        disk_mb: int | None = None,
    ) -> None:
        self.root = root
        self.home = root / ".mlops"
        nodes = nodes or {}
        names = ("storage", "registry", *nodes)
        self.machines = dict(zip(names, lab.add(*names, disk_mb=disk_mb), strict=True))
        text = FILE.format(
            storage=self.machines["storage"].address,
            registry=self.machines["registry"].address,
            network=lab.network,
            key=lab.key,
            more=more,
        )
        for name, roles in nodes.items():
            text += NODE.format(name=name, roles=roles, address=self.machines[name].address, key=lab.key)
        (root / "configs").mkdir(parents=True)
        self.file = root / "configs/site.yaml"
        self.file.write_text(text)
        for name, machine in self.machines.items():
            pin(site_folder(self.home), name, [machine.host_key])
        self.told: list[str] = []

    @property
    def site(self) -> Site:
        return load_site(self.file)

    def steps(self) -> list[Step]:
        return site_steps(self.site, self.root, self.home)

    def run(self, *, apply: bool, steps: list[Step] | None = None) -> dict[Key, Outcome]:
        """Run the whole site, or some steps; what is told of them is kept in ``told``."""
        return run_site(self.site, self.root, self.home, self.hear, apply=apply, steps=steps)

    def hear(self, step: Step, state: State, detail: str) -> None:
        self.told.append(f"{step.machine}: {step.name}: {state} {detail}")


def start_mlops(root: Path, *words: str) -> subprocess.Popen[str]:
    """Start ``mlops`` in the site's checkout ``root``."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "MLOPS_HOME": str(root / ".mlops"), "NO_COLOR": "1"}
    return _start(root, environment, "-m", "cli", *words)


def start_flow(root: Path, name: str, /, **parameters: object) -> subprocess.Popen[str]:
    """Start flow ``name`` (``check_site``) in a process, with a Prefect server of its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    environment |= {
        "PYTHONPATH": str(CHECKOUT),
        "MLOPS_HOME": str(root / ".mlops"),
        "PREFECT_HOME": str(root / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a busy machine starts it slowly
    }
    return _start(root, environment, "-c", f"from flows.{name} import {name}; {name}(**{parameters!r})")


def ended(process: subprocess.Popen[str], timeout_s: float = 120) -> tuple[int, str]:
    """Wait for a command's end; returns its status and what it said."""
    said, _ = process.communicate(timeout=timeout_s)
    return process.returncode, said


def _start(root: Path, environment: Mapping[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
