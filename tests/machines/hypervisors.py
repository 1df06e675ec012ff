"""A laboratory machine that runs VMs, reached by ssh as any host of a site, and one VM to be made there."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import httpx
from lab import LabMachine
from lab_vms import BRIDGE, open_host

from infra.machines.host_keys import pin
from infra.machines.ssh import Machine, make_key
from infra.machines.trouble import Login
from infra.site.acting import act
from infra.site.engine import Outcome, State, run_steps
from infra.site.facts import facts_script, readings
from infra.site.step import Action, Step
from infra.vms.driver import Driver, Observed
from infra.vms.ensure import pending_step, vm_step
from infra.vms.machine import VirtualMachine

BOOTS_S = 600
IMAGE = PurePosixPath("/var/lib/mlops/images/cloud.img")


@dataclass
class Host:
    """A machine with a bridge, and the driver under test.

    Attributes:
        vm: a small VM of this host, not made yet.
        told: of all runs.
    """

    there: LabMachine
    reached: Machine
    driver: Driver
    vm: VirtualMachine
    told: list[str] = field(default_factory=list)

    def ensure(self, *, apply: bool = True, keep: bool = False, **changed: object) -> Outcome:
        """Run the VM's step as a site's run does; ``changed``: what the site's file says otherwise now."""
        return self._run(vm_step(replace(self.vm, **changed), self.driver, ()), apply, keep)  # type: ignore[arg-type]

    def pending(self, **changed: object) -> Outcome:
        """Run the step that says what is not done."""
        return self._run(pending_step(replace(self.vm, **changed), self.driver, ()))  # type: ignore[arg-type]

    def observe(self) -> Observed:
        facts = tuple(dict.fromkeys(self.driver.facts(self.vm)))
        answers = self.reached.script(facts_script(facts), 120).stdout
        return self.driver.observe(self.vm, dict(zip(facts, readings(len(facts), answers), strict=True)))

    def do(self, actions: Sequence[Action]) -> None:
        act(actions, self.reached, {self.vm.host: self.reached}, self.told.append)

    def _run(self, step: Step, apply: bool = True, keep: bool = False) -> Outcome:
        outcomes = run_steps([step], {self.vm.host: self.reached}, self._hear, apply=apply, keep=keep)
        return outcomes[step.machine, step.name]

    def _hear(self, step: Step, state: State, detail: str) -> None:
        self.told.append(f"{step.name}: {state} {detail}")


@contextmanager
def hypervisor(folder: Path, layers: Sequence[Path], driver: Driver) -> Iterator[Host]:
    """Yield a host whose disk consists of ``layers``."""
    with open_host(folder / "lab", layers) as (lab, there):
        pin(folder, there.name, [there.host_key])
        host_key = folder / "vm-host-key"
        vm = VirtualMachine(
            name="worker",
            host=there.name,
            mac="52:54:00:12:34:56",
            address=f"{lab.network}.200",
            prefix=24,
            gateway=f"{lab.network}.1",
            nameservers=(f"{lab.network}.1",),
            memory_mb=512,
            cpus=1,
            disk_gb=3,
            bridge=BRIDGE,
            image=IMAGE,
            user_key=make_key(folder / "id_ed25519", "tests"),
            host_key_public=make_key(host_key, "worker"),
            host_key=host_key.read_text(),
        )
        there.run("mkdir", "-p", str(IMAGE.parent))
        with Machine(Login(there.name, there.address, "admin", 22, there.key), folder) as reached:
            yield Host(there, reached, driver, vm)


def told_by_guest(host: Host) -> dict[str, str]:
    """Return what the VM says of itself, over the host's bridge, at the address of its seed."""
    deadline = time.monotonic() + BOOTS_S
    while True:
        try:
            lines = httpx.get(f"http://{host.vm.address}/", timeout=5).text.splitlines()
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return dict(line.split(" ", 1) for line in lines)
