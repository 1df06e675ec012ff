"""Step ``base``: what every machine of a site has: its name, the names of the others, the right time, no passwords."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from infra.machines.commands import Command, File
from infra.site.facts import Fact, Facts
from infra.site.reading import CONTAINED, package_changes, packages_fact, unit_changes, unit_fact
from infra.site.step import Change, Step
from infra.site.steps.sshd import sshd_changes, sshd_facts

PACKAGES = ("ca-certificates", "curl", "nftables")
TIME = ("chrony",)
HOSTS = PurePosixPath("/etc/hosts")
BEGIN, END = "# begin: machines of the site", "# end: machines of the site"
_HOSTNAME = Fact(("hostname",))
_HOSTS = Fact(("cat", str(HOSTS)))


def base_step(machine: str, addresses: Mapping[str, str], after: tuple[tuple[str, str], ...] = ()) -> Step:
    """Return the step for ``machine``.

    Args:
        addresses: of all names of the site: machines, and the control plane's endpoint. There is no DNS to ask for
            them: a changed address is changed in the site's file, and reaches every machine by this step.
    """

    def changes(facts: Facts) -> Iterator[Change]:
        if facts[_HOSTNAME].text.strip() != machine:
            command = Command(("hostnamectl", "set-hostname", machine))
            yield Change(f"name it {machine}", f"its name is {facts[_HOSTNAME].text.strip()}", (command,))
        wanted = hosts_text(facts[_HOSTS].text, addresses)
        if wanted != facts[_HOSTS].text:
            diff = difflib.unified_diff(
                facts[_HOSTS].text.splitlines(), wanted.splitlines(), str(HOSTS), str(HOSTS), lineterm=""
            )
            yield Change(f"write {HOSTS}", "names or addresses are others", (File(HOSTS, wanted),), "\n".join(diff))
        yield from sshd_changes(facts)
        # A container's clock is that of its host.
        contained = facts[CONTAINED].ok
        yield from package_changes(PACKAGES if contained else PACKAGES + TIME, facts)
        if not contained:
            yield from unit_changes("chrony.service", facts)

    facts = (
        _HOSTNAME,
        _HOSTS,
        CONTAINED,
        packages_fact(PACKAGES),
        packages_fact(PACKAGES + TIME),
        unit_fact("chrony.service"),
        *sshd_facts(),
    )
    return Step("base", machine, facts, changes, after)


def hosts_text(present: str, addresses: Mapping[str, str]) -> str:
    """Return ``/etc/hosts`` with the site's names in a block of their own; all other lines stay as they are."""
    lines = present.splitlines()
    if BEGIN in lines and END in lines[lines.index(BEGIN) :]:
        first = lines.index(BEGIN)
        last = lines.index(END, first)
        lines[first : last + 1] = _block(addresses)
    else:
        # A block without its end is what somebody cut off by hand: what follows may be theirs.
        lines = [line for line in lines if line != BEGIN] + _block(addresses)
    return "\n".join(lines) + "\n"


def _block(addresses: Mapping[str, str]) -> list[str]:
    return [BEGIN, *(f"{address} {name}" for name, address in addresses.items()), END]
