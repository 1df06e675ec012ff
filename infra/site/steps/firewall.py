"""A firewall rule for the ports that a machine serves: from the site's own network only.

A table of our own beside whatever else filters on the machine: a packet it drops is dropped, what it lets pass is still
subject to the others. Source: nft(8).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from infra.machines.commands import File
from infra.site.facts import Fact, Facts
from infra.site.reading import file_changes, file_fact, unit_fact
from infra.site.step import Change

FOLDER = PurePosixPath("/etc/mlops")


def firewall_files(name: str, ports: Sequence[int], networks: Sequence[str]) -> tuple[File, File]:
    """Return the rules and the unit that loads them at every boot, before anything can be reached.

    Args:
        name: of table and unit. ports: TCP. networks: IPv4 networks that may connect; loopback always may.
    """
    allowed = ", ".join(("127.0.0.0/8", *networks))
    served = ", ".join(map(str, ports))
    rules = f"""\
# Rendered for this site: changes here are lost.
table inet mlops-{name}
delete table inet mlops-{name}
table inet mlops-{name} {{
    chain input {{
        type filter hook input priority filter; policy accept;
        iif lo accept
        tcp dport {{ {served} }} ip saddr {{ {allowed} }} accept
        tcp dport {{ {served} }} drop
    }}
}}
"""
    unit = f"""\
[Unit]
Description=Ports of {name} are reached from the site's network only
DefaultDependencies=no
Before=network-pre.target
Wants=network-pre.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft --file {FOLDER}/{name}.nft

[Install]
WantedBy=multi-user.target
"""
    return (
        File(FOLDER / f"{name}.nft", rules),
        File(PurePosixPath(f"/etc/systemd/system/mlops-firewall-{name}.service"), unit),
    )


def firewall_facts(name: str, files: Sequence[File]) -> tuple[Fact, ...]:
    """Ask for the rules, the unit, and whether the kernel has the table."""
    return (*map(file_fact, files), unit_fact(_unit(name)), _table(name))


def firewall_changes(name: str, files: Sequence[File], facts: Facts) -> tuple[list[Change], dict[str, bool]]:
    """Return what writes the firewall's files, and for :func:`infra.site.reading.units_changes` the unit by them."""
    changes = [change for file in files for change in file_changes(file, facts, restarts=(_unit(name),))]
    return changes, {_unit(name): bool(changes) or not facts[_table(name)].ok}


def _unit(name: str) -> str:
    return f"mlops-firewall-{name}.service"


def _table(name: str) -> Fact:
    return Fact(("nft", "list", "table", "inet", f"mlops-{name}"))
