"""No logins by password on a machine of the site. Source: sshd_config(5), where the first value of a keyword counts.

Nobody is locked out who came by a key: we did, or this file would not be written; our client offers nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from infra.machines.commands import Command, File, Removal
from infra.site.facts import Fact, Facts
from infra.site.reading import MARKERS, file_changes, file_fact, read_unit, unit_fact
from infra.site.step import Change

UNIT = "ssh.service"
# Before those of cloud images, which may say the contrary.
DROP_IN = File(
    PurePosixPath("/etc/ssh/sshd_config.d/10-mlops.conf"),
    """\
# Rendered for this site: changes here are lost.
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitEmptyPasswords no
PermitRootLogin prohibit-password
""",
)
_WANTED = {
    "passwordauthentication": ("no",),
    "kbdinteractiveauthentication": ("no",),
    "permitemptypasswords": ("no",),
    # By key only, the three of them.
    "permitrootlogin": ("no", "prohibit-password", "without-password"),
}
_SAYS = Fact(("sshd", "-T"))
# A file that sshd cannot read would keep everybody out after its next start, so it does not stay.
_TRY = f"sshd -t || {{ rm -f {DROP_IN.path}; exit 1; }}"


def sshd_facts() -> tuple[Fact, ...]:
    """Ask for our file, whether the server has read it, and what it goes by."""
    return (file_fact(DROP_IN), unit_fact(UNIT), _SAYS)


def sshd_changes(facts: Facts) -> Iterator[Change]:
    """Yield what ends logins by password; connections that stand are not touched."""
    written = file_changes(DROP_IN, facts, restarts=(UNIT,))
    yield from written
    if written or read_unit(UNIT, facts).marked:
        reload = (
            Command(("sh", "-c", _TRY)),
            Command(("systemctl", "try-reload-or-restart", UNIT)),
            Removal(MARKERS / UNIT),
        )
        yield Change(f"reload {UNIT}", "what it reads has changed", reload)
        return
    said = dict(line.split(" ", 1) for line in facts[_SAYS].text.splitlines() if " " in line)
    for name, allowed in _WANTED.items():
        if said.get(name) not in allowed:
            yield Change(
                "let nobody log in by a password",
                f"`sshd -T` says {name} {said.get(name, '(nothing)')}",
                by_hand="begin /etc/ssh/sshd_config with `Include /etc/ssh/sshd_config.d/*.conf`, or take out what "
                "comes before that line; then `systemctl reload ssh`, with a second session open",
            )
