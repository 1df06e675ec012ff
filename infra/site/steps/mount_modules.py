"""What mounting the share needs of the kernel. Source: the packages linux-modules and linux-modules-extra of Ubuntu.

The kernel of Ubuntu's cloud images comes without the modules that few virtual machines need, and the table of UTF-8 is
one of them: without it the kernel refuses ``iocharset=utf8`` (mount error 79), and without that option it writes names
with other letters than English ones wrongly. A package of its own has them, one for each release of the kernel: a
scheduled check installs that of the next.
"""

from __future__ import annotations

from collections.abc import Iterator

from infra.site.facts import Fact, Facts
from infra.site.reading import CONTAINED, apt_install
from infra.site.step import Change

_MODULES = ("cifs", "nls_utf8")
# One that is built in is known to modprobe; one that is in use may be of a kernel whose files are gone.
_ASK = """\
uname -r
command -v modprobe >/dev/null || exit 0
for module; do [ -d "/sys/module/$module" ] || modprobe --dry-run --quiet "$module" || echo "$module"; done
"""
_LACKING = Fact(("sh", "-c", _ASK, "sh", *_MODULES))


def mount_modules_facts() -> tuple[Fact, ...]:
    """Ask which of the modules the kernel's packages lack, and whether the kernel is the machine's own."""
    return _LACKING, CONTAINED


def mount_modules_changes(facts: Facts) -> Iterator[Change]:
    """Return what brings the modules that are lacking; a container has the kernel of its host."""
    release, *lacking = facts[_LACKING].text.split() or [""]
    if lacking and not facts[CONTAINED].ok:
        package = f"linux-modules-extra-{release}"
        yield Change(f"install {package}", f"the kernel has no {' and no '.join(lacking)}", apt_install([package]))
