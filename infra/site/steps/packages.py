"""Step ``packages``: where apt gets packages from, when the site says it. Sources: sources.list(5), apt.conf(5).

What the machine has of its own is left as it is: a line of configuration leads apt past it, and without that line, as
when the section is taken out of the site's file and the file by hand from the machine, all is as before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from configs.packages import Packages, Source
from configs.problems import Problem, UserError
from configs.site import SITE_FILE
from infra.machines.commands import Command, File, Upload
from infra.site.bundle import BUNDLE, RELEASE_FACT, Bundle, open_bundle, read_release
from infra.site.facts import Fact, Facts
from infra.site.reading import absent_changes, absent_fact, file_changes, file_fact
from infra.site.step import Change, Step

_TAR = BUNDLE.with_name("packages.tar")
_DIGEST = BUNDLE / "digest"
_OWN = PurePosixPath("/etc/apt/mlops.sources.d/site.sources")
_BESIDE = PurePosixPath("/etc/apt/sources.list.d/mlops-site.sources")
_APT = PurePosixPath("/etc/apt/apt.conf.d/95mlops-site")
_PIN = File(
    PurePosixPath("/etc/apt/preferences.d/mlops-site"),
    "# Rendered for this site: changes here are lost.\nPackage: *\nPin: release o=mlops-bundle\nPin-Priority: 990\n",
)
_SAID = Fact(("cat", str(_DIGEST)))
# A new bundle takes the old one's place at once, and only if every file in it is what its list says.
_UNPACK = f"""\
set -eu
new={BUNDLE}.new
rm -rf "$new"
mkdir -m 0755 "$new"
trap 'rm -rf "$new"' EXIT
tar --extract --no-same-owner --file {_TAR} --directory "$new"
(cd "$new" && sha256sum --check --quiet SHA256SUMS)
chmod -R u=rwX,go=rX "$new"
printf '%s\\n' "$1" >"$new/digest"
rm -rf {BUNDLE}.old
[ ! -e {BUNDLE} ] || mv {BUNDLE} {BUNDLE}.old
mv "$new" {BUNDLE}
rm -rf {BUNDLE}.old {_TAR}
"""
_UNPACK_S = 900


@dataclass(frozen=True)
class PackageSources:
    """What a site says of packages, with the files that it names.

    Attributes:
        keyrings: texts by the sources that name them.
    """

    wanted: Packages
    keyrings: dict[Path, str] = field(default_factory=dict)
    bundle: Bundle | None = None


def package_sources(wanted: Packages, root: Path) -> PackageSources:
    """Return the section with what is in the files that it names, relative to the checkout ``root``.

    Raises:
        UserError: one is not there, or is not what it should be.
    """
    texts, problems = {}, []
    for path in dict.fromkeys(source.keyring for source in wanted.sources if source.keyring):
        try:
            texts[path] = (root / path.expanduser()).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            texts[path] = ""
        if "BEGIN PGP PUBLIC KEY BLOCK" not in texts[path]:
            remedy = "give the key in ASCII armour: `gpg --enarmor <KEYRING`, or `gpg --armor --export`"
            problems.append(
                Problem(f"{SITE_FILE} packages.sources", f"{path} is no public key that can be read", remedy)
            )
    if problems:
        raise UserError(problems)
    bundle = open_bundle(root / wanted.bundle.expanduser()) if wanted.bundle else None
    return PackageSources(wanted, texts, bundle)


def sole_bundle(wanted: Packages, root: Path) -> Bundle | None:
    """Return the bundle of a section by which machines get packages from nothing else; None: they may.

    Raises:
        UserError: it is not there, or is none.
    """
    alone = wanted.bundle is not None and wanted.only and not wanted.sources
    return package_sources(wanted, root).bundle if alone else None


def packages_step(machine: str, given: PackageSources, after: tuple[tuple[str, str], ...] = ()) -> Step:
    """Return the step for ``machine``."""
    wanted = given.wanted
    only = wanted.only and bool(wanted.sources or given.bundle)
    place, other = (_OWN, _BESIDE) if only else (_BESIDE, _OWN)
    keys = [
        File(_keyring(source.keyring), given.keyrings[source.keyring]) for source in wanted.sources if source.keyring
    ]
    configuration = File(_APT, _apt_text(wanted, only=only))
    described = File(place, "")  # its text depends on the release; what is asked of it does not

    def changes(facts: Facts) -> Iterator[Change]:
        distribution, codename, _ = release = read_release(facts)
        if given.bundle is not None and given.bundle.release != release:
            yield _wrong_release(given.bundle, release)
            return
        if given.bundle is not None and facts[_SAID].text.strip() != given.bundle.digest:
            yield _carry(given.bundle, facts)
        for key in keys:
            yield from file_changes(key, facts)
        yield from file_changes(File(place, _sources_text(given, distribution, codename)), facts)
        yield from absent_changes(other, facts, "it says where packages came from before")
        yield from file_changes(configuration, facts)
        if given.bundle is not None:
            yield from file_changes(_PIN, facts)
        else:
            yield from absent_changes(_PIN.path, facts, "there is no bundle any more")

    facts = (
        RELEASE_FACT,
        _SAID,
        *map(file_fact, keys),
        file_fact(described),
        absent_fact(other),
        file_fact(configuration),
        *((file_fact(_PIN),) if given.bundle is not None else (absent_fact(_PIN.path),)),
    )
    return Step("packages", machine, facts, changes, after)


def _carry(bundle: Bundle, facts: Facts) -> Change:
    why = "it has another one" if facts[_SAID].ok else "it is not there"
    unpack = Command(("sh", "-c", _UNPACK, "sh", bundle.digest), timeout_s=_UNPACK_S)
    return Change(f"carry {bundle.path.name} there", why, (Upload(_TAR, bundle.path, bundle.digest), unpack))


def _wrong_release(bundle: Bundle, release: tuple[str, str, str]) -> Change:
    return Change(
        f"have the packages of {bundle.path.name}",
        f"they are for {' '.join(bundle.release)}, and the machine is {' '.join(release)}",
        by_hand="make a bundle on a machine of that release: `mlops site bundle MACHINE`",
    )


def _sources_text(given: PackageSources, distribution: str, codename: str) -> str:
    parts = ["# Rendered for this site: changes here are lost.\n"]
    if given.bundle is not None:
        # Whole by its digest, which the site's own machine has made: a signature would be that machine's as well.
        parts.append(f"Types: deb\nURIs: file:{BUNDLE}\nSuites: ./\nTrusted: yes\n")
    for source in given.wanted.sources:
        if source.distribution in (None, distribution):
            parts.append(_source_text(source, codename))
    return "\n".join(parts)


def _source_text(source: Source, codename: str) -> str:
    suites = [suite.replace("{codename}", codename) for suite in source.suites]
    lines = ["Types: deb", f"URIs: {source.url}", f"Suites: {' '.join(suites)}"]
    if not any(suite.endswith("/") for suite in suites):
        lines.append(f"Components: {' '.join(source.components)}")
    if source.keyring is not None:
        lines.append(f"Signed-By: {_keyring(source.keyring)}")
    return "\n".join(lines) + "\n"


def _keyring(path: Path) -> PurePosixPath:
    return PurePosixPath("/etc/apt/keyrings") / f"mlops-site-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}.asc"


def _apt_text(wanted: Packages, *, only: bool) -> str:
    lines = ["// Rendered for this site: changes here are lost."]
    if only:
        lines += ['Dir::Etc::SourceList "/dev/null";', f'Dir::Etc::SourceParts "{_OWN.parent}";']
    if wanted.proxy is not None:
        lines += [f'Acquire::{kind}::Proxy "{wanted.proxy}";' for kind in ("http", "https")]
    return "\n".join(lines) + "\n"
