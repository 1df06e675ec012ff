"""Making a user's images the next version of the dataset."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prefect.artifacts import create_markdown_artifact
from prefect.events import emit_event

from configs.problems import Problem, UserError
from infra.repository import git
from infra.repository.code import need_checkout
from infra.repository.dvc import tracked_digest
from tasks.job import Job
from tasks.modules import run_module
from tasks.verbs import log, verb

EVENT = "dataset.published"


@dataclass(frozen=True)
class DatasetVersion:
    """A published dataset. ``tag``: its git tag (``data-v3``); ``new``: False when it had been published before."""

    tag: str
    commit: str
    digest: str
    new: bool


@verb("import")
def import_source(job: Job, source: Path, rename: Mapping[str, str]) -> Path:
    """Read the user's folder or zip and return a new folder in YOLO layout; the source is left as it is.

    Raises:
        UserError: with all that is wrong with it.
    """
    need_checkout(job.root, "publishing a dataset")
    staged = job.folder / "dataset"
    arguments = [str(source), str(staged), "--classes", ",".join(job.recipe.data.classes)]
    for old, new in rename.items():
        arguments += ["--rename", f"{old}={new}"]
    run_module(job, "ml.importing", *arguments)
    return staged


@verb("validate")
def validate_folder(job: Job, folder: Path) -> None:
    """Check a folder as the stage ``validate`` does; stops above the recipe's share of faulty files.

    Raises:
        UserError: with every faulty file.
    """
    run_module(
        job,
        "ml.validate",
        str(folder),
        *("--classes", ",".join(job.recipe.data.classes)),
        *("--max-faulty", str(job.recipe.data.max_faulty)),
        *("--out", str(job.folder / "validate")),
        below=folder,
    )
    report = json.loads((job.folder / "validate" / "report.json").read_text(encoding="utf-8"))
    create_markdown_artifact(f"```json\n{json.dumps(report, indent=2)[:20_000]}\n```", key="validation")


@verb("publish")
def publish(job: Job, staged: Path, source: Path, message: str) -> DatasetVersion:
    """Put the folder in place of the dataset, push it, commit its ``.dvc`` file and tag that.

    Until the share has it, the earlier dataset stays where it was, and it comes back if anything fails.

    Raises:
        UserError: the present dataset has changes that are in no version.
        ShareError: the share does not answer (tried again).
    """
    path = job.recipe.data.path
    current, aside = job.root / path, job.folder / "replaced"
    before = (job.root / job.data_file).read_bytes() if (job.root / job.data_file).exists() else None
    itself = source.resolve() == current.resolve()  # its changes are what is being published
    if before is not None and current.is_dir() and not itself and not job.dvc.is_present(job.data_file):
        raise UserError(
            Problem(
                str(current),
                "holds changes that are in no version and would be lost",
                f"publish them first (source: {path}), or drop them: dvc checkout --force {job.data_file}",
            )
        )
    if current.is_dir():
        current.rename(aside)
    try:
        # A copy, so that a second try finds the staged folder as the first did.
        shutil.copytree(staged, current)
        job.dvc.add(str(path))
        job.dvc.push(job.data_file)
    except BaseException:
        shutil.rmtree(current, ignore_errors=True)
        if aside.is_dir():
            aside.rename(current)
        if before is not None:
            (job.root / job.data_file).write_bytes(before)
        raise
    version = _commit(job, source, message)
    shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(staged, ignore_errors=True)
    log().info("%s is %s", version.tag, version.digest)
    return version


@verb("announce")
def announce(job: Job, version: DatasetVersion) -> None:
    """Emit ``dataset.published``: the server's automation trains on it."""
    emit_event(
        event=EVENT,
        resource={"prefect.resource.id": f"mlops.dataset.{job.recipe.name}", "prefect.resource.name": version.tag},
        payload={"tag": version.tag, "digest": version.digest, "commit": version.commit},
    )


def _commit(job: Job, source: Path, message: str) -> DatasetVersion:
    digest = tracked_digest(job.root, job.data_file)
    known = git.data_tag(job.root, job.data_file, digest)
    if known is not None:
        log().info("the same data was published before")
        return DatasetVersion(known, git.git(job.root, "rev-parse", f"{known}^{{commit}}"), digest, new=False)
    tag = git.next_data_tag(job.root)
    files = [job.data_file, *([".gitignore"] if (job.root / ".gitignore").exists() else [])]
    commit = git.commit_files(job.root, files, f"data: {tag}\n\n{message or f'Published from {source.name}.'}")
    git.git(job.root, "tag", "--annotate", "-m", f"Dataset {digest}", tag, commit)
    return DatasetVersion(tag, commit, digest, new=True)
