"""A bundle: all packages that a site's steps install, and all that these need, for machines without a network.

It is made on a machine that has a network, of the same release as those it is for, and changes nothing there. apt is
asked as on a machine that has no package yet, so that it names everything. The archive is a repository of one folder:
packages, ``Packages``, ``Release``, and ``SHA256SUMS`` over them; and ``release``, which says what it is for. The same
packages make the same archive, byte by byte.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from configs.kubernetes import Kubernetes
from configs.problems import Problem, UserError
from infra.kubeadm.releases import parts
from infra.machines.commands import Command
from infra.machines.transfer import digest_of
from infra.site.facts import Fact, Facts
from infra.site.step import Step
from infra.site.steps import kubernetes

_SHOW_RELEASE = '. /etc/os-release; echo "$ID ${VERSION_CODENAME:-?} $(dpkg --print-architecture)"'
RELEASE_FACT = Fact(("sh", "-c", _SHOW_RELEASE))
BUNDLE = PurePosixPath("/var/lib/mlops/packages")
"""Where the machines that it is for have it, unpacked."""
PLACE = PurePosixPath("/var/cache/mlops-bundle")
"""Where a bundle is made: a folder of ours alone, removed before and after."""
ARCHIVE = PLACE / "bundle.tar"
_MAKE_S = 3600

_SCRIPT = f"""\
set -eu
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
community=$1; shift
rm -rf {PLACE}
umask 022
mkdir -p {PLACE}/lists/partial {PLACE}/archives/partial {PLACE}/sources {PLACE}/bundle
cd {PLACE}
: >status
parts=$(apt-config shell dir Dir::Etc::sourceparts/d | sed "s/^dir='\\(.*\\)'$/\\1/")
list=$(apt-config shell file Dir::Etc::sourcelist/f | sed "s/^file='\\(.*\\)'$/\\1/")
take() {{
  for file in "$parts"/*.sources "$parts"/*.list; do
    case "$file" in
      */mlops-kubernetes.* | *'*'*) ;;
      # A bundle that this machine itself was provisioned by is none of its sources.
      *.sources) awk -v RS= -v ORS='\\n\\n' '!index($0, "URIs: file:{BUNDLE}\\n")' "$file" >"sources/${{file##*/}}" ;;
      *) cp "$file" sources/ ;;
    esac
  done
}}
take
if [ "$list" = /dev/null ] && ! grep -qs '^URIs:' sources/*; then
  # Nothing else is what the site has led it to: it is asked for what it had itself.
  list=/etc/apt/sources.list parts=/etc/apt/sources.list.d
  take
fi
if [ -n "$community" ]; then
  curl -fsSL --proto =https --max-time 60 --output kubernetes.asc "$community/Release.key"
  echo "deb [signed-by={PLACE}/kubernetes.asc] $community/ /" >sources/kubernetes.list
fi
cat >apt.conf <<END
Dir::State::lists "{PLACE}/lists";
Dir::State::status "{PLACE}/status";
Dir::Cache "{PLACE}";
Dir::Etc::sourcelist "$list";
Dir::Etc::sourceparts "{PLACE}/sources";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Debug::NoLocking "true";
END
apt-get -q -c {PLACE}/apt.conf update
apt-get -q -y -c {PLACE}/apt.conf --no-install-recommends --simulate install "$@" >plan
sed -n 's/^Inst \\([^ ]*\\) (\\([^ ]*\\) .*/\\1=\\2/p' plan | sort >wanted
[ -s wanted ]
cd bundle
xargs -n 50 apt-get -q -c {PLACE}/apt.conf download <../wanted
for file in *.deb; do
  dpkg-deb --field "$file"
  echo "Filename: ./$file"
  stat -c 'Size: %s' "$file"
  sha256sum "$file" | sed 's/^\\([0-9a-f]*\\) .*/SHA256: \\1/'
  echo
done >Packages
{{
  printf 'Origin: mlops-bundle\\nLabel: mlops-bundle\\nSHA256:\\n'
  printf ' %s %s Packages\\n' "$(sha256sum Packages | cut -d' ' -f1)" "$(stat -c %s Packages)"
}} >Release
sh -c '{_SHOW_RELEASE}' >release
sha256sum *.deb Packages Release release >SHA256SUMS
tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rw,go=r --file {ARCHIVE} *
cd {PLACE}
ls bundle/*.deb | wc -l
sha256sum {ARCHIVE}
"""


@dataclass(frozen=True)
class Bundle:
    """A bundle that is there.

    Attributes:
        digest: SHA-256 of the archive. release: distribution, codename and architecture that it is for.
        kubernetes: releases that it has all packages of.
    """

    path: Path
    digest: str
    release: tuple[str, str, str]
    kubernetes: tuple[str, ...] = ()


def open_bundle(path: Path) -> Bundle:
    """Return what a bundle is for, and its digest.

    Raises:
        UserError: it is not there, or is none.
    """
    remedy = "make it on a machine with a network: `mlops site bundle MACHINE`"
    try:
        with tarfile.open(path, "r:") as archive:
            member = archive.extractfile("release")
            said = member.read(200).decode("ascii").split() if member else []
            index = archive.extractfile("Packages")
            packages = index.read().decode() if index else ""
    except FileNotFoundError:
        raise UserError(Problem(str(path), "is not there", remedy)) from None
    except (OSError, tarfile.TarError, KeyError, UnicodeDecodeError) as error:
        raise UserError(Problem(str(path), f"is no bundle of packages: {error}", remedy)) from None
    if len(said) != 3:
        raise UserError(Problem(str(path), "does not say which release it is for", remedy))
    return Bundle(path, digest_of(path), (said[0], said[1], said[2]), _releases(packages))


def read_release(facts: Facts) -> tuple[str, str, str]:
    """Return distribution, codename and architecture of a machine; :data:`RELEASE_FACT` must have been read."""
    said = facts[RELEASE_FACT].text.split()
    return (said[0], said[1], said[2]) if len(said) == 3 else ("?", "?", "?")


def wanted_packages(steps: Sequence[Step], wanted: Kubernetes | None) -> list[str]:
    """Return the names of all packages that these steps install, as apt takes them: those whose presence they ask for.

    Those of GPUs are left out: not every site's sources have them.
    """
    names = {
        word
        for step in steps
        if step.name != "gpu"
        for fact in step.facts
        if fact.argv[:2] == ("dpkg-query", "--show")
        for word in fact.argv[4:]
    }
    pins = {name: f"{name}={wanted.version}-*" for name in kubernetes.PACKAGES} if wanted else {}
    return sorted(pins.get(name, name) for name in names)


def bundle_command(packages: Sequence[str], community: str = "") -> Command:
    """Return the command that makes :data:`ARCHIVE`; it prints how many packages are in it, and its digest.

    Args:
        packages: of :func:`wanted_packages`, and more. community: the repository of Kubernetes, where the machine's own
            sources do not have it.
    """
    return Command(("sh", "-c", _SCRIPT, "sh", community.rstrip("/"), *packages), timeout_s=_MAKE_S)


def _releases(index: str) -> tuple[str, ...]:
    """Return the releases of Kubernetes that all packages of are in an index as apt reads it, the newest last."""
    there = re.findall(r"^Package: (\S+)\n(?:.+\n)*?Version: (\S+)$", index, re.MULTILINE)
    found = [
        {kubernetes.release_of(version) for name, version in there if name == wanted} for wanted in kubernetes.PACKAGES
    ]
    return tuple(sorted(set.intersection(*found), key=parts))


def read_made(said: str) -> tuple[int, str]:
    """Return number of packages and digest from the output of :func:`bundle_command`."""
    *_, count, digest = said.strip().splitlines()
    return int(count), digest.split()[0]
