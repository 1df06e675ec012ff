"""Makes a registered model again, from its commit, data and environment, and compares.

Everything happens in a git worktree of its own below the state folder: the user's checkout, its outputs, ``dvc.lock``
and run cache are not touched. The stages are the graph's own, forced to run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from configs.problems import Problem, UserError
from infra.process import run_guarded
from infra.repository import dvc_config, git
from infra.repository.dvc import Dvc, tracked_digest
from infra.repository.share import open_share
from infra.tracking.entities import RefusedError
from infra.tracking.lineage import Lineage, lineage, resolve
from infra.tracking.server import MlflowServer

MODEL = "models/model.pt"
METRICS = "reports/evaluate/metrics.json"
LOCK = "requirements.lock"
DIFF = "code/uncommitted.diff"
HEADLINE = ("mAP50", "mAP50-95", "precision", "recall")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Evidence:
    """One line of the comparison. ``holds``: None where the line only informs."""

    what: str
    original: str
    again: str
    holds: bool | None


@dataclass(frozen=True)
class Reproduction:
    """What came of making a model again.

    Attributes:
        identical: the weights are the same to the bit.
        within: the metrics differ by no more than the tolerance.
        folder: the worktree, None when it was removed.
    """

    model: str
    evidence: tuple[Evidence, ...]
    identical: bool
    within: bool
    tolerance: float
    folder: Path | None

    @property
    def succeeded(self) -> bool:
        """Whether inputs are the same, and the weights identical or the metrics within the tolerance."""
        return (self.identical or self.within) and all(row.holds is not False for row in self.evidence)

    def verdict(self) -> str:
        """Return the outcome in one sentence."""
        if not self.succeeded:
            failed = ", ".join(row.what for row in self.evidence if row.holds is False)
            return f"{self.model} is not reproduced: {failed} differ"
        if self.identical:
            return f"{self.model} is reproduced: the weights are identical to the bit"
        return f"{self.model} is reproduced: other weights, metrics within {self.tolerance:g}"


def reproduce(
    server: MlflowServer,
    reference: str,
    root: Path,
    home: Path,
    *,
    tolerance: float,
    keep: bool = False,
    env: Mapping[str, str] | None = None,
    say: Say = lambda line: None,
    on_tick: Callable[[], None] = lambda: None,
) -> Reproduction:
    """Train the model that ``reference`` names once more and compare.

    Args:
        root: the user's checkout; its repository must hold the commit. home: its state folder.
        tolerance: how far a metric (0 to 1) may be off where the weights are not identical.
        keep: leave the worktree for a look.
        env: variables for the stages, besides those of this process.
        say: is given a line for each step and each line of the stages.

    Raises:
        UserError: no such model; commit, data or changes cannot be had; a stage failed.
        TrackerError: the server does not answer.
    """
    share = open_share(root, home)
    origin = lineage(server, reference)
    name = origin.model or origin.run["id"]
    folder = home / "reproductions" / f"{name.replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    say(f"{name}: commit {origin.commit['commit'][:12]}, data {origin.data['digest']}, into {folder}")
    git.add_worktree(root, origin.commit["commit"], folder)
    try:
        _restore_changes(server, reference, origin, folder)
        _copy_settings(root, folder)
        python = _environment(origin, folder, say)
        stage_env = {**os.environ, **(env or {}), **_isolated(origin, folder)}
        with Dvc(folder, stage_env, python=python) as dvc:
            # Its own cache would be empty, and gone with the worktree.
            dvc.run("config", "--local", "cache.dir", str(dvc_config.cache_folder(root)))
            dvc.connect(share)
            data_file = f"{origin.params['data.path']}.dvc"
            dvc.pull(data_file)
            for stage in ("validate", "train", "evaluate"):
                say(f"stage {stage}")
                dvc.reproduce(stage, force=True, keep_cache=True, on_line=say, on_tick=on_tick)
        rows = list(_compare(origin, folder, data_file, tolerance))
    except BaseException:
        _remove(root, folder)
        raise
    if not keep:
        _remove(root, folder)
    by_name = {row.what: row for row in rows}
    return Reproduction(
        model=name,
        evidence=tuple(rows),
        identical=by_name["weights (sha256)"].original == by_name["weights (sha256)"].again,
        within=all(by_name[metric].holds is not False for metric in HEADLINE),
        tolerance=tolerance,
        folder=folder if keep else None,
    )


def _restore_changes(server: MlflowServer, reference: str, origin: Lineage, folder: Path) -> None:
    if origin.commit.get("dirty") != "yes":
        return
    _, run = resolve(server, reference)
    try:
        patch = b"".join(server.read_artifact(run, DIFF)).decode()
    except RefusedError:
        raise UserError(
            Problem(origin.model, "was trained with uncommitted files that were not kept", "commit before training")
        ) from None
    git.apply_patch(folder, patch)


def _copy_settings(root: Path, folder: Path) -> None:
    """Let the worktree use the checkout's own DVC settings, which are in no commit."""
    own = root / ".dvc" / dvc_config.LOCAL[0]
    if own.exists():
        shutil.copyfile(own, folder / ".dvc" / own.name)


def _environment(origin: Lineage, folder: Path, say: Say) -> Path:
    """Return the interpreter of the version's own environment: this one if it is the same, else one made from its lock.

    Raises:
        UserError: it cannot be made here.
    """
    wanted = f"{origin.environment.get('python', '')}".rpartition(".")[0]
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    own = Path(__file__).parents[1] / LOCK
    if own.exists() and _sha256(own) == _sha256(folder / LOCK) and wanted in ("", here):
        return Path(sys.executable)
    say(f"making the environment of that version: Python {wanted or here}, {LOCK} {_sha256(folder / LOCK)[:12]}")
    python = folder / ".venv" / "bin" / "python"
    lines: list[str] = []
    for arguments in (
        ["venv", "--quiet", "--python", wanted or here, str(folder / ".venv")],
        ["pip", "sync", "--quiet", "--python", str(python), "--require-hashes", str(folder / LOCK)],
        # That version's own packages, the smb:// remote, are not in the lock: `make setup` installs them beside it.
        *(
            ["pip", "install", "--quiet", "--python", str(python), "--no-deps", "--no-build-isolation", str(package)]
            for package in sorted((folder / "packages").glob("*/"))
            if (package / "pyproject.toml").is_file()
        ),
    ):
        uv = str(Path(sys.executable).parent / "uv")
        if run_guarded([uv, *arguments], cwd=folder, on_line=lines.append):
            raise UserError(
                Problem(
                    f"uv {arguments[0]}", "\n".join(lines[-3:]), f"install Python {wanted or here}, or check the index"
                )
            )
    return python


def _isolated(origin: Lineage, folder: Path) -> dict[str, str]:
    """Variables that keep the stages in their worktree, and give them the thread count of the original."""
    threads = origin.params.get("threads", "")
    state = {"MLOPS_HOME": str(folder / ".mlops"), "MLOPS_EVENTS": ""}
    return state | ({"MLOPS_THREADS": threads} if threads.isdigit() else {})


def _compare(origin: Lineage, folder: Path, data_file: str, tolerance: float) -> list[Evidence]:
    digest = tracked_digest(folder, data_file)
    lock = _sha256(folder / LOCK)
    trained = json.loads((folder / "reports" / "train" / "metrics.json").read_text(encoding="utf-8"))
    rows = [
        Evidence("commit", origin.commit["commit"][:12], git.git(folder, "rev-parse", "HEAD")[:12], None),
        _same("data (md5)", origin.data["digest"], digest),
        _same("environment (lock)", origin.environment.get(LOCK, "")[:16], lock[:16]),
    ]
    # Not to be confused with the metric called precision, which is a row of its own.
    for what, shown in (("device", "device"), ("precision", "numeric precision"), ("threads", "threads")):
        rows.append(Evidence(shown, origin.params.get(what, "?"), str(trained["world"][what]), None))
    record = origin.files.get("model.pt")
    # Other weights are no failure by themselves: the metrics decide then.
    rows.append(Evidence("weights (sha256)", record.sha256 if record else "?", _sha256(folder / MODEL), None))
    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    for name in HEADLINE:
        old, new = origin.metrics.get(name), float(metrics[name])
        rows.append(
            Evidence(
                name,
                "?" if old is None else f"{old:.4f}",
                f"{new:.4f}",
                old is not None and abs(new - old) <= tolerance,
            )
        )
    return rows


def _same(what: str, original: str, again: str) -> Evidence:
    return Evidence(what, original, again, original == again)


def _remove(root: Path, folder: Path) -> None:
    git.remove_worktree(root, folder)
    shutil.rmtree(folder, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
