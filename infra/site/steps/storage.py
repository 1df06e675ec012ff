"""Step ``storage``: the Samba server of :mod:`infra.samba.server` on a machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from infra.machines.commands import Command
from infra.samba.sentinel import SENTINEL
from infra.samba.server import FOLDER_MODE, Server, render_files, setup_commands
from infra.site.facts import Fact, Facts
from infra.site.reading import (
    file_changes,
    file_fact,
    installed_packages,
    package_changes,
    packages_fact,
    read_unit,
    unit_fact,
    unit_why,
    units_changes,
)
from infra.site.step import Change, Step
from infra.site.steps.firewall import firewall_changes, firewall_facts, firewall_files

PACKAGES = ("samba", "smbclient", "nftables")
UNIT = "smbd.service"
_SAMBA = "samba"
_NMBD = "nmbd.service"
_BY_NAME = Fact(("systemctl", "is-enabled", _NMBD))


def storage_step(
    machine: str, server: Server, passwords: Mapping[str, str], after: tuple[tuple[str, str], ...]
) -> Step:
    """Return the step that makes ``machine`` serve the share.

    Args:
        passwords: of every user of ``server``; they reach the machine by standard input only.

    Raises:
        UserError: a password is missing.
    """
    configuration, sentinel = render_files(server)
    firewall = firewall_files("samba", (445,), server.networks)
    setup = setup_commands(server, passwords)
    logins = {user: _login(server, user, passwords[user]) for user in server.users}
    folders = (server.path, server.path / "dvc")
    folder_facts = tuple(Fact(("stat", "-c", "%a %U %G", str(folder))) for folder in folders)
    wanted_folder = f"{FOLDER_MODE:o} root {server.group}"
    members = Fact(("getent", "group", server.group))

    def changes(facts: Facts) -> Iterator[Change]:
        # Before its package, which would start it.
        new = _SAMBA not in installed_packages(PACKAGES, facts)
        if (new and facts[_BY_NAME].text.strip() != "masked") or facts[_BY_NAME].text.strip() == "enabled":
            mask = Command(("systemctl", "--no-reload", "mask", *(() if new else ("--now",)), _NMBD))
            yield Change(f"keep {_NMBD} from running", "nobody looks machines up by NetBIOS here", (mask,))
        # Nor does smbd ever serve what its package's own configuration would let it.
        configured = file_changes(configuration, facts, restarts=(UNIT,))
        yield from configured
        yield from package_changes(PACKAGES, facts)
        reason = _accounts_reason(facts, server, members, folder_facts, wanted_folder)
        firewall_files_changed, guarded = firewall_changes("samba", firewall, facts)
        changed = bool(configured) and read_unit(UNIT, facts).load != "not-found"
        started = unit_why(UNIT, facts, changed=changed)
        # While smbd is down nobody can log in: that says nothing of the passwords.
        refused = [] if started else [user for user, login in logins.items() if not facts[login].ok]
        said = "; ".join(dict.fromkeys(facts[logins[user]].text.strip() for user in refused))
        if reason or refused:
            why = reason or f"{', '.join(refused)} cannot log in with the site's password: {said}"
            yield Change("make group, accounts and folders of the share", why, setup)
        # After the folders: the sentinel lies in one of them.
        yield from file_changes(sentinel, facts)
        yield from firewall_files_changed
        yield from units_changes({**guarded, UNIT: changed}, facts)

    facts = (
        packages_fact(PACKAGES),
        file_fact(configuration),
        file_fact(sentinel),
        *folder_facts,
        members,
        *logins.values(),
        unit_fact(UNIT),
        _BY_NAME,
        *firewall_facts("samba", firewall),
    )
    return Step("storage", machine, facts, changes, after)


def _login(server: Server, user: str, password: str) -> Fact:
    """Ask smbd itself, as a client does: what it answers is also its health."""
    share = f"//127.0.0.1/{server.share}"
    return Fact(
        ("smbclient", share, "--authentication-file=/dev/stdin", f"--command=get {SENTINEL} /dev/null"),
        stdin=f"username={user}\npassword={password}\n",
    )


def _accounts_reason(
    facts: Facts, server: Server, members: Fact, folder_facts: tuple[Fact, ...], wanted_folder: str
) -> str:
    if not facts[members].ok:
        return f"there is no group {server.group}"
    for fact in folder_facts:
        if not facts[fact].ok:
            return f"{fact.argv[-1]} is not there"
        if facts[fact].text.strip() != wanted_folder:
            return f"{fact.argv[-1]} is {facts[fact].text.strip()}, not {wanted_folder}"
    return ""
