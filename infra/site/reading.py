"""Questions about files, packages, units and the like, and what their answers mean. Pure: no machine is asked here."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from infra.machines.commands import Command, File, Removal
from infra.site.facts import Fact, Facts
from infra.site.step import Action, Change

CONTAINED = Fact(("systemd-detect-virt", "--container", "--quiet"))
"""Whether the machine is a container, whose kernel and clock are its host's."""
MARKERS = PurePosixPath("/run/mlops-site")
"""A marker here means that a unit has yet to be restarted: its file was written, and the run was killed then."""
_LASTING = ("enabled", "static", "alias", "generated", "indirect")
# Each would have systemd read all units anew, which takes longer than all else here: once is enough, and only where it
# knows one of them, or what a timer or automount starts, by another text: what it does not know yet it reads when that
# starts. What a unit has to say comes from its start.
_ENABLE = f"""\
for unit; do
  case $(systemctl is-enabled "$unit" 2>/dev/null) in
    {"|".join(_LASTING)}) continue ;;
    masked*) systemctl --no-reload unmask "$unit" ;;
  esac
  systemctl --no-reload enable "$unit"
done
for unit; do
  for kind in service timer mount automount; do set -- "$@" "${{unit%.*}}.$kind"; done
done
case $(systemctl show --property NeedDaemonReload --value "$@") in *yes*) systemctl daemon-reload ;; esac
"""


def file_fact(file: File) -> Fact:
    """Ask for a file: mode, group, digest, and its text where that is no secret."""
    show = "" if file.secret else '; cat "$1"'
    script = f'stat -Lc "%a %G" "$1" && sha256sum <"$1"{show}'
    return Fact(("sh", "-c", script, "sh", str(file.path)), quick=str(file.path))


def file_changes(file: File, facts: Facts, *, restarts: tuple[str, ...] = ()) -> list[Change]:
    """Return the change that makes a file as wanted, none when it is.

    Args:
        restarts: systemd units that read the file only when they start. They are restarted by
            :func:`restart_changes`, also if whoever wrote the file was killed before it came to that.
    """
    reading = facts[file_fact(file)]
    head, _, rest = reading.text.partition("\n")
    digest, _, text = rest.partition("\n")
    wanted = hashlib.sha256(file.text.encode()).hexdigest()
    same_text = reading.ok and digest.split(" ")[0] == wanted
    same_mode = reading.ok and head == f"{file.mode:o} {file.group}"
    if same_text and same_mode:
        return []
    if not reading.ok:
        what, why, text = f"write {file.path}", "is not there", ""
    elif not same_text:
        what, why = f"write {file.path}", "its text is another one"
    else:
        what, why = f"set {file.path} to {file.mode:04o} {file.group}", f"is {head}"
    marked = replace(file, marks=tuple(MARKERS / unit for unit in restarts))
    lines: list[str] = []
    if not file.secret and not same_text:
        lines = list(
            difflib.unified_diff(text.splitlines(), file.text.splitlines(), f"{file.path}", f"{file.path}", lineterm="")
        )
    return [Change(what, why, (marked,), "\n".join(lines))]


def file_text(file: File, facts: Facts) -> str:
    """Return the text of a file that is no secret as it is on the machine; empty when it is not there."""
    reading = facts[file_fact(file)]
    return reading.text.split("\n", 2)[-1] if reading.ok else ""


def absent_fact(path: PurePosixPath) -> Fact:
    """Ask whether a path is there."""
    return Fact(("test", "-e", str(path)), quick=str(path))


def absent_changes(path: PurePosixPath, facts: Facts, why: str) -> list[Change]:
    """Return the change that removes a file that must not be there."""
    return [Change(f"remove {path}", why, (Removal(path),))] if facts[absent_fact(path)].ok else []


def packages_fact(names: tuple[str, ...]) -> Fact:
    """Ask for Debian packages: state, version and hold of each."""
    show = ("dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Abbrev} ${Version}\\n")
    return Fact((*show, *names), quick="the list of packages")


def installed_packages(names: tuple[str, ...], facts: Facts) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    rows = [line.split() for line in facts[packages_fact(names)].text.splitlines()]
    return {row[0]: row[2] for row in rows if len(row) == 3 and row[1][1:2] == "i" and row[0] in names}


def package_changes(names: tuple[str, ...], facts: Facts) -> list[Change]:
    """Return the change that installs the packages that are missing; those that are there stay as they are."""
    there = installed_packages(names, facts)
    missing = [name for name in names if name not in there]
    if not missing:
        return []
    return [Change(f"install {' '.join(missing)}", "not installed", apt_install(missing))]


def apt_install(packages: list[str], *, held: bool = False) -> tuple[Action, ...]:
    """Return the commands that install packages without a question; an apt of somebody else is waited for.

    Args:
        held: also those that are held as they are; apt forgets that they were.
    """
    changed = ("--allow-change-held-packages",) if held else ()
    return (
        apt_update(),
        Command((*_QUIET, "sh", "-c", _MEND, "sh", *_APT, "--no-remove", "--fix-broken", "install"), timeout_s=1800),
        Command((*_APT_GET, "--no-install-recommends", "install", *changed, *packages), timeout_s=1800),
    )


def apt_update() -> Command:
    """Return the command by which apt learns what its sources offer now."""
    return Command((*_APT_GET, "update"), timeout_s=300)


_QUIET = ("env", "DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_MODE=l", "LC_ALL=C.UTF-8")
_APT = ("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Options::=--force-confold")
_APT_GET = (*_QUIET, *_APT)
# dpkg killed in the middle leaves packages half configured, and some whose dependencies are not there yet: apt refuses
# everything until both are mended.
_MEND = 'dpkg --force-confold --configure -a || exec "$@"'


def fetch_key(path: PurePosixPath, url: str) -> tuple[Action, ...]:
    """Return the commands that write the public key of a package repository: the whole key, or nothing."""
    draft = f"{path}.new"
    fetch = ("curl", "--fail", "--silent", "--show-error", "--location", "--proto", "=https", "--max-time", "60")
    return (
        Command(("install", "-d", "-m", "0755", str(path.parent))),
        Command((*fetch, "--output", draft, url)),
        Command(("mv", draft, str(path))),
    )


@dataclass(frozen=True)
class Unit:
    """A systemd unit's state, as ``systemctl show`` tells it."""

    load: str = ""
    file: str = ""
    active: str = ""
    reload: bool = False
    marked: bool = False

    @property
    def lasts(self) -> bool:
        """Return whether it is started at a boot."""
        return self.file in _LASTING


def unit_fact(name: str) -> Fact:
    """Ask for a unit: whether it is there, enabled, active, and waits for a restart."""
    script = 'systemctl show -p LoadState,UnitFileState,ActiveState,NeedDaemonReload "$1"; test -e "$2"; echo Marked=$?'
    return Fact(("sh", "-c", script, "sh", name, str(MARKERS / name)), quick=name)


def read_unit(name: str, facts: Facts) -> Unit:
    """Return a unit's state."""
    values = dict(line.split("=", 1) for line in facts[unit_fact(name)].text.splitlines() if "=" in line)
    return Unit(
        values.get("LoadState", ""),
        values.get("UnitFileState", ""),
        values.get("ActiveState", ""),
        values.get("NeedDaemonReload") == "yes",
        values.get("Marked") == "0",
    )


def unit_changes(name: str, facts: Facts, *, changed: bool = False) -> list[Change]:
    """Return what makes a unit enabled, active and started by its newest configuration.

    Args:
        changed: a file that it reads is about to be written by a change before this one.
    """
    return units_changes({name: changed}, facts)


def units_changes(changed: Mapping[str, bool], facts: Facts) -> list[Change]:
    """Return the change of :func:`unit_changes` for several units: those of them that need it, in this order."""
    whys = {name: unit_why(name, facts, changed=differs) for name, differs in changed.items()}
    names = [name for name, why in whys.items() if why]
    if not names:
        return []
    reasons = {whys[name] for name in names}
    why = reasons.pop() if len(reasons) == 1 else "; ".join(f"{name}: {whys[name]}" for name in names)
    starts = ((Command(("systemctl", _start(name, facts, changed), name)), Removal(MARKERS / name)) for name in names)
    actions = (Command(("sh", "-ec", _ENABLE, "sh", *names)), *(action for pair in starts for action in pair))
    return [Change(f"start {', '.join(names)}, now and at every boot", why, actions)]


def _start(name: str, facts: Facts, changed: Mapping[str, bool]) -> str:
    """Return how to start a unit: one that was not there is started by its package, with what was written before."""
    return "restart" if changed[name] or read_unit(name, facts).load != "not-found" else "start"


def unit_why(name: str, facts: Facts, *, changed: bool = False) -> str:
    """Return why a unit has to be started anew, empty when it has not; arguments as of :func:`unit_changes`."""
    unit = read_unit(name, facts)
    if changed or unit.marked or unit.reload:
        return "what it reads has changed"
    if not unit.lasts:
        return f"is {unit.file or 'not there'}, so that it would not come back after a reboot"
    return "" if unit.active == "active" else f"is {unit.active or 'not there'}"
