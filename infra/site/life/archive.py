"""What a backup of a site is made of: named files and a manifest with the digest of each, in one tar archive."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import PurePosixPath

FORMAT = 1
MANIFEST = "manifest.json"


class ArchiveError(ValueError):
    """An archive is none of ours, or not what was written."""


def pack(members: Mapping[str, bytes], about: Mapping[str, str], made: datetime.datetime) -> bytes:
    """Return an archive of ``members``, by name.

    Args:
        about: what else the manifest says.
    """
    manifest = {
        "format": FORMAT,
        "made": made.isoformat(timespec="seconds"),
        **about,
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in members.items()
        },
    }
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz", compresslevel=3) as tar:
        for name, data in {MANIFEST: json.dumps(manifest, indent=2).encode(), **members}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(made.timestamp())
            tar.addfile(entry, io.BytesIO(data))
    return written.getvalue()


def unpack(archive: bytes) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the members of :func:`pack`, and what its manifest says besides.

    Raises:
        ArchiveError: it is no such archive, or a file of it is missing, another one, or too much.
    """
    members = read_tar(archive)
    try:
        manifest = json.loads(members.pop(MANIFEST))
        files, kind = manifest.pop("files"), manifest.pop("format")
    except (KeyError, ValueError):
        raise ArchiveError("it holds no manifest: it is no backup of a site") from None
    if kind != FORMAT:
        raise ArchiveError(f"it is of format {kind}; this version reads {FORMAT}")
    wrong = [
        name
        for name in sorted({*files, *members})
        if name not in members or files.get(name, {}).get("sha256") != hashlib.sha256(members[name]).hexdigest()
    ]
    if wrong:
        raise ArchiveError(f"not as its manifest says: {', '.join(wrong)}")
    return members, {key: str(value) for key, value in manifest.items()}


def read_tar(archive: bytes) -> dict[str, bytes]:
    """Return all plain files of a compressed tar archive, by their names.

    Raises:
        ArchiveError: it is none, or a name leads out of it.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for entry in tar:
                path = PurePosixPath(entry.name)
                if path.is_absolute() or ".." in path.parts:
                    raise ArchiveError(f"a name leads out of it: {entry.name!r}")
                data = tar.extractfile(entry) if entry.isfile() else None
                if data is not None:
                    found[str(path)] = data.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ArchiveError(f"it cannot be read: {error}") from None
    return found
