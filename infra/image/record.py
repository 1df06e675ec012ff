"""Which images were built from this checkout: deployments name the newest by its digest."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from configs.problems import Problem, UserError
from infra.stack.credentials import write_private

KEPT = 100


@dataclass(frozen=True)
class ImageRecord:
    """One image in a registry.

    Attributes:
        reference: ``registry/repository@sha256:...``, what pods name.
        tag: its tag there, for people.
        identity: what it was made from, as :class:`infra.image.plan.Plan` computes it.
        commit: full hash. dirty: whether the commit alone does not tell what is in it.
        lock_sha256: of ``requirements.lock``. torch: ``cuda`` or ``cpu``.
        when: when it was pushed or found in the registry, ISO 8601.
    """

    reference: str
    tag: str
    identity: str
    commit: str
    dirty: bool
    lock_sha256: str
    torch: str
    when: str

    @property
    def digest(self) -> str:
        """Return the manifest's digest, ``sha256:...``."""
        return self.reference.partition("@")[2]


def current_image(home: Path) -> ImageRecord:
    """Return the image that deployments are to use: the one that ``mlops build-image`` made or found last.

    Raises:
        UserError: there is none yet, or the record cannot be used.
    """
    records = read_records(home)
    if not records:
        raise UserError(Problem("image", "none was built from this checkout yet", "mlops build-image"))
    return records[-1]


def read_records(home: Path) -> list[ImageRecord]:
    """Return all records, the current one last; none where nothing was built.

    Raises:
        UserError: the file is there but cannot be used.
    """
    path = records_file(home)
    try:
        return [ImageRecord(**item) for item in json.loads(path.read_text(encoding="utf-8"))["images"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(Problem(str(path), "cannot be used", "remove it, and build again: mlops build-image")) from None


def add_record(home: Path, record: ImageRecord) -> None:
    """Make ``record`` the current image.

    Raises:
        UserError: the earlier records cannot be read, or the state folder cannot be written.
    """
    others = [item for item in read_records(home) if item.reference != record.reference]
    path = records_file(home)
    try:
        home.mkdir(parents=True, exist_ok=True)
        write_private(
            path, json.dumps({"images": [asdict(item) for item in [*others, record][-KEPT:]]}, indent=2) + "\n"
        )
    except OSError as error:
        raise UserError(Problem(str(path), f"cannot be written: {error.strerror}", "make it writable")) from None


def records_file(home: Path) -> Path:
    """Where the records are kept."""
    return home / "images.json"


def now() -> str:
    """Return the time as records have it: UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
