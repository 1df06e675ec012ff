"""Releases of Kubernetes: which may follow which, and what apt offers of one that is not installed yet.

Source: https://kubernetes.io/releases/version-skew-policy/.
"""

from __future__ import annotations

import re

from infra.machines.commands import Command

LIST_S = 900
# apt is asked in a folder of its own, so that the machine's sources stay as they are until the upgrade comes to them.
_ASIDE = """\
set -eu
version=$1 place=$2 key=$3
work=$(mktemp -d -p /var/tmp)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir -p lists/partial cache/archives/partial
set --
if [ -n "$place" ]; then
  echo "deb [signed-by=$key] $place /" >one.list
  set -- -o Dir::Etc::SourceList="$work/one.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$work/lists"
  set -- "$@" -o Dir::Cache="$work/cache" -o APT::Update::Error-Mode=any -o Acquire::Retries=0
fi
set -- "$@" -q -o APT::Sandbox::User=root
"""
_OFFERED = f"""\
{_ASIDE}
[ -z "$place" ] || apt-get "$@" update >said 2>&1 || {{ cat said; exit 1; }}
apt-cache "$@" madison kubeadm kubectl kubelet
"""
_IMAGES = f"""\
{_ASIDE}
list() {{ "$1" config images list --kubernetes-version "v$version"; }}
if [ "$(kubeadm version -o short 2>&1)" = "v$version" ]; then list kubeadm; exit; fi
apt-get "$@" update >said 2>&1 && apt-get "$@" download "kubeadm=$version-*" >said 2>&1 || {{ cat said >&2; exit 1; }}
dpkg-deb --extract kubeadm_*.deb root
list root/usr/bin/kubeadm
"""


def parts(version: str) -> tuple[int, int, int]:
    """Return the numbers of a release: of ``1.33.5`` 1, 33 and 5; zeros where it is none."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2]), int(found[3])) if found else (0, 0, 0)


def why_not(running: str, wanted: str) -> tuple[str, str]:
    """Return why a cluster cannot be upgraded so, and what would be right; both empty: it can."""
    old, new = parts(running), parts(wanted)
    if new < old:
        remedy = f"Kubernetes has no way back: write {running}, or a newer one, at `kubernetes.version`"
        return f"is older than {running}, which runs", remedy
    if new[0] != old[0] or new[1] > old[1] + 1:
        step = f"{old[0]}.{old[1] + 1}"
        return f"is more than one minor version newer than {running}, which runs", f"upgrade to a {step} first"
    return "", ""


def offered_words(version: str, place: str, key: str) -> tuple[str, ...]:
    """Return the command by which apt says which versions of the packages there are; it changes nothing.

    Args:
        place: the release's own repository, signed by ``key``; empty: the machine's sources, as apt knows them.
    """
    return "sh", "-c", _OFFERED, "sh", version, place, key


def images_command(version: str, place: str, key: str) -> Command:
    """Return the command that prints the images of a release, by its own kubeadm, which need not be installed.

    Args:
        place, key: as of :func:`offered_words`.
    """

    def explain(said: str) -> tuple[str, str] | None:
        if "was not found" not in said:
            return None
        remedy = "name a release that there is; a bundle that has it is brought by `mlops site apply --step packages`"
        return f"no source of the machine has kubeadm {version}, which says what its images are", remedy

    return Command(("sh", "-c", _IMAGES, "sh", version, place, key), timeout_s=LIST_S, explain=explain)
