"""Step ``health``: what no other step looks at and no command mends: disks, failed units, the clock."""

from __future__ import annotations

from collections.abc import Iterator

from infra.site.facts import Fact, Facts
from infra.site.reading import CONTAINED
from infra.site.step import Change, Step

FULL_PERCENT = 90
_CONTAINERS = "/run/containerd/"
"""Here each container sees the disk of its node once more."""
_DISKS = Fact(("df", "--local", "--output=pcent,ipcent,target", "-x", "tmpfs", "-x", "devtmpfs", "-x", "squashfs"))
_FAILED = Fact(("systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager"))
_CLOCK = Fact(("timedatectl", "show", "--property=NTPSynchronized", "--value"))


def health_step(machine: str, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step for ``machine``: all its changes are a person's to make."""
    return Step("health", machine, (_DISKS, _FAILED, _CLOCK, CONTAINED), _changes, after)


def _changes(facts: Facts) -> Iterator[Change]:
    for line in facts[_DISKS].text.splitlines()[1:]:
        space, inodes, place = line.split(maxsplit=2)
        if place.startswith(_CONTAINERS):
            continue
        for used, what in ((space, "space"), (inodes, "inodes")):
            if used.rstrip("%").isdigit() and int(used.rstrip("%")) >= FULL_PERCENT:
                yield Change(
                    f"make room in {place}",
                    f"{used} of its {what} are used",
                    by_hand=f"remove what is not needed (du -xh {place} | sort -h | tail), or give it a larger disk",
                )
    for line in facts[_FAILED].text.splitlines() if facts[_FAILED].ok else ():
        unit = line.split()[0]
        yield Change(f"mend {unit}", "it has failed", by_hand=f"look why: journalctl -b -u {unit}")
    # A container has its host's clock, and can't be asked.
    if not facts[CONTAINED].ok and facts[_CLOCK].text.strip() == "no":
        yield Change(
            "set the clock",
            "it is not in step with any time server: certificates and logins may be refused",
            by_hand="let the machine reach a time server, and see `chronyc sources`; after a start it takes a minute",
        )
