"""Step ``mounts``: the share mounted on a machine by systemd, at the first access and again after every reboot.

A mount logs in by the password that it began with, at each of its reconnections, and so do the containers that have it:
they are mounts of the same superblock. Kernels refuse another password at a remount (all of 6.1; newer ones until the
server has refused the old one). So a new password is mounted *over* what is there: the mount below stays, its shared
propagation hands the new one on to the containers (``mountPropagation: HostToContainer``), and what they open from then
on is opened by the new password. What was open before lasts until the server or the network is interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator

from infra.machines.commands import Command, Removal
from infra.samba.client import Mount, mount_options, render_files
from infra.samba.sentinel import SENTINEL
from infra.site.facts import Fact, Facts
from infra.site.reading import (
    MARKERS,
    file_changes,
    file_fact,
    package_changes,
    packages_fact,
    read_unit,
    unit_changes,
    unit_fact,
)
from infra.site.step import Change, Step
from infra.site.steps.mount_modules import mount_modules_changes, mount_modules_facts

PACKAGES = ("cifs-utils",)
# Where nothing is mounted, the next access does it, by the file that is there now. The kernel says busy where the very
# same is mounted, by this password: another one was tried and refused. The mount below is private from then on: or
# whoever unmounts ours here would take it from the containers, too.
_MOUNT_OVER = """\
systemctl --quiet is-active "$4" || exit 0
cd "$3" || exit
said=$(mount -t cifs -o "$1" "$2" "$3" 2>&1) || case $said in
  *"mount error(16)"*) exit 0 ;;
  *) echo "$said"; exit 1 ;;
esac
mount --no-canonicalize --make-private .
"""
# Before what is mounted is given up: while the server is away, or refuses us, there is nothing better to be had.
_TRY = 'at=$(mktemp -d) && trap "rmdir $at" EXIT && mount -t cifs -o "$1" "$2" "$at" && umount "$at"'
_LAYERS = 'grep -F " $1 " /proc/self/mountinfo | grep " - cifs " | cut -d " " -f 3 | sort -u | wc -l'


def mount_step(machine: str, mount: Mount, share: str, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step that mounts ``mount`` on ``machine``.

    Args:
        share: the id in the share's sentinel: without it, what is mounted is something else.
    """
    credentials, *units = render_files(mount)
    automount, mounted = f"{mount.unit}.automount", f"{mount.unit}.mount"
    # Reading it is what mounts; where that fails, the reason is in the journal.
    script = (
        'cat "$1" && exit; why=$(journalctl -q -b -n 9 -o cat --no-pager -u "$2" | grep "mount error" | tail -n 1); '
        'echo "${why:-$(systemctl status --no-pager --lines=3 "$2" | tail -n 3)}"; exit 1'
    )
    sentinel = Fact(("sh", "-c", script, "sh", str(mount.where / SENTINEL), mounted))
    layers = Fact(("sh", "-c", _LAYERS, "sh", str(mount.where).replace(" ", r"\040")))
    there = ("sh", ",".join(mount_options(mount)), mount.source)

    def changes(facts: Facts) -> Iterator[Change]:
        yield from package_changes(PACKAGES, facts)
        yield from mount_modules_changes(facts)
        login = file_changes(credentials, facts, restarts=(mounted,))
        changed = [change for unit in units for change in file_changes(unit, facts, restarts=(automount,))]
        yield from login
        yield from changed
        started = unit_changes(automount, facts, changed=bool(changed))
        begun = Removal(MARKERS / mounted)
        if started:
            # What is mounted from elsewhere or by other options stays so until it is mounted anew.
            yield Change(
                f"unmount {mount.where}",
                "it is to be mounted as the site says now",
                (Command(("systemctl", "stop", mounted), accepted=frozenset({0, 5})), begun),
            )
            yield from started
        elif login or read_unit(mounted, facts).marked:
            over = Command(("sh", "-c", _MOUNT_OVER, *there, str(mount.where), mounted))
            why = "what is mounted logs in by the credentials of before"
            yield Change(f"mount {mount.source} over what is mounted at {mount.where}", why, (over, begun))
        elif not facts[sentinel].ok or f'"{share}"' not in facts[sentinel].text:
            again = (
                Command(("sh", "-c", _TRY, *there)),
                Command(("systemctl", "reset-failed", mounted), accepted=frozenset({0, 1, 5})),
                Command(("systemctl", "restart", automount)),
            )
            told = " ".join(facts[sentinel].text.split())
            yield Change(f"mount {mount.source} at {mount.where}", f"{SENTINEL} cannot be read: {told}", again)
        elif (count := facts[layers].text.strip()) not in ("", "0", "1"):
            # Of the mounts below, none can be taken away: containers have them until they end.
            why = (
                f"{count} mounts lie over each other at {mount.where} since its password changed: what began before "
                "keeps those below, and each of them tries an old password once a second, when the server has restarted"
            )
            yield Change(f"restart {machine} when nothing runs there", why, note=True)

    files = map(file_fact, (credentials, *units))
    unit_facts = (unit_fact(automount), unit_fact(mounted))
    facts = (packages_fact(PACKAGES), *mount_modules_facts(), *files, *unit_facts, sentinel, layers)
    return Step("mounts", machine, facts, changes, after)
