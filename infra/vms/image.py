"""Step ``image``: what a host needs to make VMs: packages, an account, the cloud image that their disks begin as."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from configs.machines import VmImage
from infra.machines.commands import Command
from infra.site.facts import Fact, Facts
from infra.site.reading import package_changes, packages_fact
from infra.site.step import Change, Step
from infra.vms.driver import Driver
from infra.vms.machine import FOLDER
from infra.vms.seed import PACKAGES as SEED_PACKAGES

FETCH_S = 3600
_USERADD = ("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent")
_NO_LOGIN = ("--shell", "/usr/sbin/nologin")

# The image has its name when its checksum is right, so what has the name is whole. What a killed run left is gone on
# with; what turned out to be something else is not.
_FETCH = """\
set -e
umask 022
mkdir -p "$(dirname "$1")"
draft="$1.part"
sum() { sha256sum "$draft" 2>/dev/null | cut -d ' ' -f 1; }
if [ "$(sum)" != "$2" ]; then
    case "$3" in
    /*) cp --reflink=auto "$3" "$draft" ;;
    *) curl --silent --show-error --fail --location --retry 5 --continue-at - --output "$draft" "$3" ;;
    esac
fi
if [ "$(sum)" != "$2" ]; then
    echo "$3 has the checksum $(sum), not $2" >&2
    rm -f "$draft"
    exit 1
fi
sync "$draft"
mv -fT "$draft" "$1"
"""


def image_path(image: VmImage) -> PurePosixPath:
    """Return where a host keeps the image: by its checksum, so another image is another file."""
    return FOLDER / "images" / f"{image.sha256}.img"


def image_step(host: str, image: VmImage, driver: Driver, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step that brings the image to ``host``, which keeps it: VMs that are there do not need it any more."""
    path = image_path(image)
    wanted = (*driver.packages, *SEED_PACKAGES)
    account = Fact(("getent", "group", driver.readers))
    there = Fact(("test", "-e", str(path)))

    def changes(facts: Facts) -> Iterator[Change]:
        yield from package_changes(wanted, facts)
        if not facts[account].ok:
            # Here, once, and not with each VM: two side by side would make two accounts of one name.
            made = Command((*_USERADD, *_NO_LOGIN, driver.readers))
            yield Change(f"make account {driver.readers}", "there is none", (made,))
        if not facts[there].ok:
            fetch = Command(("sh", "-c", _FETCH, "sh", str(path), image.sha256, image.source), timeout_s=FETCH_S)
            yield Change(f"fetch {image.source}", f"there is no {path}", (fetch,))

    return Step("image", host, (packages_fact(wanted), account, there), changes, after)
