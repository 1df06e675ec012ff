"""Looks for a site's secrets wherever they could have been left: here, and on the disks of its machines."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab import LabMachine
from lab_sites import LabSite

from infra.site.inventory import site_folder

_PRIVATE = ("*-password", "site/*-key", "site/*-identity", "site/authority/*.key", "site/id_ed25519")
_LOOKED_AT = ("etc", "var", "tmp", "root", "home")


def secrets_of(site: LabSite) -> dict[Path, str]:
    """Return a line of each secret of the site, in the middle where it has several, by the file that it is kept in."""
    found = {}
    for path in (path for pattern in _PRIVATE for path in site.home.glob(pattern)):
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        found[path] = lines[len(lines) // 2]
        assert path.stat().st_mode & 0o077 == 0, path
    assert site_folder(site.home) / "authority/ca.key" in found
    assert len(set(found.values())) == len(found)
    return found


def left_here(site: LabSite, secrets: dict[Path, str]) -> set[str]:
    """Return the secrets' files whose secret was told, or is in another file of the checkout: logs, git, Prefect."""
    told = "\n".join(site.told).encode()
    holders = set()
    for path in site.root.rglob("*"):
        if path.is_file() and path not in secrets:
            text = path.read_bytes()
            holders |= {f"{own.name} in {path}" for own, secret in secrets.items() if secret.encode() in text}
    return holders | {f"{own.name} was told" for own, secret in secrets.items() if secret.encode() in told}


def left_there(machine: LabMachine, secret: str) -> set[str]:
    """Return the files of a machine that hold a secret: looked at from outside, so that looking leaves no trace."""
    folders = [machine.root / top for top in _LOOKED_AT if (machine.root / top).is_dir()]
    found = subprocess.run(
        ["grep", "-rlaF", "--devices=skip", "-f", "-", *map(str, folders)],
        input=secret,
        capture_output=True,
        text=True,
        check=False,
    )
    return {line.removeprefix(str(machine.root)) for line in found.stdout.splitlines()}
