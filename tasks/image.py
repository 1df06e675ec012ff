"""Making the image that pods run, as tasks of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from configs.home import home_folder
from infra.image.making import Making, open_making
from infra.image.record import ImageRecord
from infra.repository.git import find_root
from tasks.verbs import log, say_errors_once, verb


@contextmanager
def open_image(*, dirty: bool) -> Iterator[Making]:
    """Plan the image of this checkout.

    Raises:
        UserError: a dirty checkout, mistakes in the site file, or no registry there.
    """
    say_errors_once()
    root = find_root(Path.cwd())
    with open_making(root, home_folder(root), dirty=dirty) as making:
        log().info("image %s", making.plan.name)
        yield making


@verb("find-image")
def find_image(making: Making) -> bool:
    """Ask the registry whether it has the very image already.

    Raises:
        RegistryAwayError: it does not answer (tried again).
        RegistryError: it refuses.
    """
    found = making.find()
    log().info("%s", "the registry has it: nothing changed, nothing is built" if found else "it is not in the registry")
    return found


@verb("build-image")
def build(making: Making) -> None:
    """Build it from exactly the files of its commit.

    Raises:
        UserError: no builder works, or the build failed.
    """
    making.build(lambda line: log().info("%s", line))


@verb("push-image")
def push_image(making: Making) -> None:
    """Push it to the site's registry.

    Raises:
        RegistryAwayError: it does not answer (tried again).
        RegistryError: it refuses, or has no space left.
    """
    making.push(lambda line: log().info("%s", line))


@verb("record-image")
def record_image(making: Making) -> ImageRecord:
    """Make it the image of the deployments, by its digest."""
    record = making.record()
    log().info("deployments now use %s", record.reference)
    rows = {
        "image": record.reference,
        "tag": record.tag,
        "commit": record.commit + (" with uncommitted changes" if record.dirty else ""),
        "lock": record.lock_sha256,
        "torch": record.torch,
    }
    lines = [f"| {key} | `{value}` |" for key, value in rows.items()]
    create_markdown_artifact("\n".join(["| | |", "|---|---|", *lines]), key="image", description=record.tag)
    return record
