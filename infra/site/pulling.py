"""Step ``pulling``: containerd trusts the site's registry by its CA, and nothing else under its name."""

from __future__ import annotations

from collections.abc import Iterator

from configs.registry import Registry
from infra.machines.commands import File
from infra.registry.containerd import containerd_files
from infra.site.facts import Facts
from infra.site.reading import file_changes, file_fact
from infra.site.step import Change, Step


def pulling_step(machine: str, registry: Registry, ca_pem: str, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step for ``machine``; containerd reads these files at every pull, so nothing is restarted."""
    files = tuple(File(path, text) for path, text in containerd_files(registry, ca_pem).items())

    def changes(facts: Facts) -> Iterator[Change]:
        for file in files:
            yield from file_changes(file, facts)

    return Step("pulling", machine, tuple(map(file_fact, files)), changes, after)
