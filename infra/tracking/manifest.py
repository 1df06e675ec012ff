"""The list of a model version's files, with size and hash, and whether they are all there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.tracking.entities import RefusedError, Run
from infra.tracking.server import MlflowServer

FOLDER = "model"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class FileRecord:
    """``size`` in bytes, ``sha256`` in hexadecimal."""

    size: int
    sha256: str


Manifest = Mapping[str, FileRecord]
"""Records by path below the model's folder, with forward slashes."""


def hash_chunks(chunks: Iterable[bytes]) -> FileRecord:
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    return FileRecord(size, digest.hexdigest())


def hash_file(path: Path) -> FileRecord:
    with path.open("rb") as file:
        return hash_chunks(iter(lambda: file.read(1 << 20), b""))


def to_json(manifest: Manifest) -> str:
    files = {path: {"size": record.size, "sha256": record.sha256} for path, record in sorted(manifest.items())}
    return json.dumps({"files": files}, indent=2) + "\n"


def from_json(text: str | bytes) -> Manifest:
    """Raises ``ValueError`` if the text is no manifest."""
    try:
        files = json.loads(text)["files"]
        return {
            str(path): FileRecord(int(record["size"]), str(record["sha256"])) for path, record in sorted(files.items())
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"is no manifest: {error}") from None


def read_manifest(server: MlflowServer, run: Run) -> Manifest | None:
    """The manifest of a run's model, None if it has none that can be read."""
    try:
        return from_json(b"".join(server.read_artifact(run, f"{FOLDER}/{MANIFEST}")))
    except (RefusedError, ValueError):
        return None


def missing_files(server: MlflowServer, run: Run | None) -> list[str]:
    """What keeps a run's model from being complete, one sentence a file; empty if all is there and as it should be.

    Reads every file from the server: that it is listed does not say that it can be had.
    """
    if run is None:
        return ["its run is gone"]
    manifest = read_manifest(server, run)
    if manifest is None:
        return [f"{MANIFEST} is missing or cannot be read"]
    if not manifest:
        return [f"{MANIFEST} names no files"]
    problems = []
    sizes = server.artifact_sizes(run, FOLDER)
    for path, record in manifest.items():
        size = sizes.get(f"{FOLDER}/{path}")
        if size is None:
            problems.append(f"{path} is missing")
        elif size != record.size:
            problems.append(f"{path} has {size} bytes instead of {record.size}")
        else:
            try:
                found = hash_chunks(server.read_artifact(run, f"{FOLDER}/{path}"))
            except RefusedError as error:
                problems.append(f"{path} cannot be read: {error}")
                continue
            if found != record:
                problems.append(f"{path} holds other bytes than were trained")
    return problems
