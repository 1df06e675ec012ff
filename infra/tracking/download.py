"""Fetches a model version's files, whole and as they were trained, once."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from configs.problems import Problem, UserError
from infra.tracking.entities import RefusedError, Run, Version
from infra.tracking.lineage import resolve
from infra.tracking.manifest import FOLDER, MANIFEST, Manifest, from_json, hash_file, read_manifest, to_json
from infra.tracking.server import MlflowServer


@dataclass(frozen=True)
class DownloadedModel:
    """``folder`` holds ``model.pt``, ``model.onnx``, ``openvino/`` and ``manifest.json``, as far as registered."""

    version: Version
    folder: Path


def download_model(server: MlflowServer, reference: str, target: Path) -> DownloadedModel:
    """Fetch the version that ``reference`` names into ``target/<name>/<number>/``.

    What is there already and whole is not fetched again. A folder appears only when all its files are there and have
    the sizes and hashes of the manifest; several processes may ask for the same.

    Raises:
        UserError: there is no such version, or its files are incomplete.
        TrackerError: the server does not answer.
        OSError: no room or right to write.
    """
    version, run = resolve(server, reference)
    if version is None:
        raise UserError(Problem(reference, "registered no model", "name a version: forklift@champion"))
    manifest = read_manifest(server, run)
    if not manifest:
        raise UserError(Problem(str(version), f"has no {MANIFEST}: it is incomplete", "name another version"))
    folder = target / version.name / str(version.number)
    if not _is_whole(folder, manifest):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{version.number}-"))
        try:
            _fetch(server, version, run, manifest, temporary)
            temporary.chmod(0o755)
            _put_in_place(temporary, folder, manifest)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return DownloadedModel(version, folder)


def _fetch(server: MlflowServer, version: Version, run: Run, manifest: Manifest, folder: Path) -> None:
    problems = []
    for path, record in manifest.items():
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            problems.append(Problem(f"{version} {path}", "points out of the model's folder", "do not use this version"))
            continue
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with file.open("wb") as opened:
                for chunk in server.read_artifact(run, f"{FOLDER}/{path}"):
                    opened.write(chunk)
        except RefusedError as error:
            problems.append(Problem(f"{version} {path}", f"cannot be had: {error}", "name another version"))
            continue
        if hash_file(file) != record:
            problems.append(Problem(f"{version} {path}", "holds other bytes than were trained", "name another version"))
    if problems:
        raise UserError(problems)
    (folder / MANIFEST).write_text(to_json(manifest), encoding="utf-8")


def _put_in_place(temporary: Path, folder: Path, manifest: Manifest) -> None:
    """Another process may have put the same there in the meantime; anything else there is spoilt."""
    try:
        temporary.rename(folder)
    except OSError:
        if _is_whole(folder, manifest):
            return
        spoilt = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".spoilt-"))
        folder.rename(spoilt)
        shutil.rmtree(spoilt, ignore_errors=True)
        temporary.rename(folder)


def _is_whole(folder: Path, manifest: Manifest) -> bool:
    try:
        if from_json((folder / MANIFEST).read_bytes()) != manifest:
            return False
        return all(hash_file(folder / path) == record for path, record in manifest.items())
    except (OSError, ValueError):
        return False
