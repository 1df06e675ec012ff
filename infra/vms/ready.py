"""Step ``ready``: a VM has started, knows who it is, and lets us in."""

from __future__ import annotations

import json
from collections.abc import Iterator

from infra.machines.commands import Command
from infra.site.facts import Fact, Facts
from infra.site.step import Change, Step

BOOTS_S = 600
EMULATED_S = 1800
"""Without a processor's help a machine that shares its host takes its time."""
SETTLES_S = 900
# It is written when cloud-init has ended, at every boot. The files rather than the command, which takes seconds.
_RESULT = Fact(("cat", "/run/cloud-init/result.json"))
_RUNS = Fact(("sh", "-c", "command -v cloud-init && ! test -e /run/cloud-init/disabled"))
_LOOK = "look at /var/log/cloud-init.log on the machine"


def ready_step(name: str, after: tuple[tuple[str, str], ...], boots_s: float = BOOTS_S) -> Step:
    """Return the step of VM ``name``. A VM that this run made and that is not ready is of no use: it is undone.

    Args:
        after: the step that makes and starts it. boots_s: after which it is given up.
    """
    return Step("ready", name, (_RUNS, _RESULT), _changes, after, boots_s=boots_s, vouches_for=after)


def _changes(facts: Facts) -> Iterator[Change]:
    if not facts[_RUNS].ok:
        yield Change("let cloud-init run", "it is not in the image, or found no seed", by_hand=_LOOK)
        return
    if not facts[_RESULT].ok:
        wait = Command(("cloud-init", "status", "--wait"), accepted=frozenset({0, 1, 2}), timeout_s=SETTLES_S)
        yield Change("wait for cloud-init", "it has not ended yet", (wait,))
        return
    result = json.loads(facts[_RESULT].text)["v1"]
    source, errors = str(result["datasource"]), [str(error) for error in result["errors"]]
    if "NoCloud" not in source:
        remedy = f"the image's kernel must know the VM's disks (virtio; of VirtualBox a CD at SATA); {_LOOK}"
        yield Change("give the machine its identity", f"its seed was not found, but {source}", by_hand=remedy)
    if errors:
        yield Change("let cloud-init end well", "; ".join(errors), by_hand=_LOOK)
