"""Step ``mounts``: the share mounted on a machine by systemd, at the first access and again after every reboot."""

from __future__ import annotations

from collections.abc import Iterator

from infra.machines.commands import Command
from infra.samba.client import Mount, render_files
from infra.samba.sentinel import SENTINEL
from infra.site.facts import Fact, Facts
from infra.site.reading import (
    file_changes,
    file_fact,
    package_changes,
    packages_fact,
    unit_changes,
    unit_fact,
)
from infra.site.step import Change, Step

PACKAGES = ("cifs-utils",)


def mount_step(machine: str, mount: Mount, share: str, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step that mounts ``mount`` on ``machine``.

    Args:
        share: the id in the share's sentinel: without it, what is mounted is something else.
    """
    files = render_files(mount)
    automount = f"{mount.unit}.automount"
    # Reading it is what mounts; where that fails, the reason is in the journal.
    script = (
        'cat "$1" && exit; why=$(journalctl -q -b -n 9 -o cat --no-pager -u "$2" | grep "mount error" | tail -n 1); '
        'echo "${why:-$(systemctl status --no-pager --lines=3 "$2" | tail -n 3)}"; exit 1'
    )
    sentinel = Fact(("sh", "-c", script, "sh", str(mount.where / SENTINEL), f"{mount.unit}.mount"))

    def changes(facts: Facts) -> Iterator[Change]:
        yield from package_changes(PACKAGES, facts)
        changed = [change for file in files for change in file_changes(file, facts, restarts=(automount,))]
        yield from changed
        started = unit_changes(automount, facts, changed=bool(changed))
        if started:
            # What is mounted by the old password or options stays so until it is mounted anew.
            yield Change(
                f"unmount {mount.where}",
                "it is to be mounted as the site says now",
                (Command(("systemctl", "stop", f"{mount.unit}.mount"), accepted=frozenset({0, 5})),),
            )
        yield from started
        if not started and (not facts[sentinel].ok or f'"{share}"' not in facts[sentinel].text):
            again = (
                Command(("systemctl", "reset-failed", f"{mount.unit}.mount"), accepted=frozenset({0, 1, 5})),
                Command(("systemctl", "restart", automount)),
            )
            told = " ".join(facts[sentinel].text.split())
            yield Change(f"mount {mount.source} at {mount.where}", f"{SENTINEL} cannot be read: {told}", again)

    facts = (packages_fact(PACKAGES), *map(file_fact, files), unit_fact(automount), sentinel)
    return Step("mounts", machine, facts, changes, after)
