"""Versions of the registered model: judged, promoted, rolled back.

The alias ``champion`` is the model in use, ``previous`` the one before it. Two aliases cannot be set at once, so a
change is first written down whole as a tag of the registered model, then carried out, then the tag is removed; whoever
comes next finishes a change that was interrupted. Changes from one home take turns by a file lock.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from configs.problems import Problem, UserError
from infra.tracking.entities import RefusedError, Version
from infra.tracking.gate import SHARE, Verdict, judge
from infra.tracking.manifest import missing_files
from infra.tracking.server import MlflowServer
from infra.tracking.training import TEST_SPLIT

log = logging.getLogger(__name__)

CHAMPION = "champion"
PREVIOUS = "previous"
METRICS = "mlops.metrics"
PENDING = "mlops.pending_change"
VERDICT = "promotion.verdict"
REASON = "promotion.reason"
BY = "promotion.by"
AT = "promotion.at"
HISTORY = "promotion.history"


@dataclass(frozen=True)
class Candidate:
    """A version that wants to be champion.

    Attributes:
        metrics: on the test split, per class as ``mAP50/forklift``.
        metric, margin: from the recipe's ``promote``.
        mode: what kind of number the metric is, see :func:`infra.tracking.gate.judge`.
        test_split: what the metrics were taken on: digest of data and evaluate section.
        by: who trains.
        champion: number of a version that was evaluated anew on this test split, and
        champion_metrics: what came out, where its own metrics are from another split.
    """

    name: str
    metrics: Mapping[str, float]
    metric: str
    margin: float
    test_split: str
    by: str
    champion: int | None = None
    champion_metrics: Mapping[str, float] | None = None
    mode: str = SHARE


@dataclass(frozen=True)
class Registration:
    """What became of a candidate. ``champion``: number of the champion it was judged against, None without one."""

    name: str
    number: int
    promoted: bool
    reason: str
    champion: int | None
    url: str


@dataclass(frozen=True)
class _Change:
    """Aliases and tags as they shall be. ``previous`` None: there is none."""

    champion: int
    previous: int | None
    tags: Mapping[str, Mapping[str, str]]


def decide(server: MlflowServer, home: Path, version: Version, candidate: Candidate) -> Registration:
    """Judge a version against the champion and promote it, or note why not. A second time, tells the first verdict.

    Raises:
        UnreachableError, RefusedError: from the server; asked again, it goes on where it stopped.
    """
    name = version.name
    with _turn(home):
        _finish_pending(server, name)
        version = server.version(name, version.number) or version
        old = server.aliases(name).get(CHAMPION)
        url = server.version_url(name, version.number)
        if VERDICT in version.tags:
            against = version.tags.get("promotion.against")
            promoted = version.tags[VERDICT] == "promoted"
            reason = version.tags.get(REASON, "")
            return Registration(name, version.number, promoted, reason, int(against) if against else None, url)
        champion = server.version(name, old) if old else None
        verdict, compared = _judge(server, version, candidate, champion)
        server.describe_version(version, _describe(server, version, candidate, champion, compared, verdict))
        tags = _record(version, candidate.by, verdict.reason, "promoted" if verdict.promote else "refused")
        if champion:
            tags["promotion.against"] = str(champion.number)
        if verdict.promote:
            keep = champion is not None and not missing_files(server, server.run(champion.run_id))
            previous = champion.number if champion and keep else None
            _change(server, name, _Change(version.number, previous, {str(version.number): tags}))
        else:
            server.tag_version(version, tags)
        return Registration(name, version.number, verdict.promote, verdict.reason, old, url)


def rollback_plan(server: MlflowServer, name: str) -> tuple[Version, Version]:
    """The champion and the version that a rollback would put in its place.

    Raises:
        UserError: there is no such model, no previous champion, or its files are incomplete.
    """
    if server.model(name) is None:
        raise unknown_model(server, name)
    aliases = server.aliases(name)
    found = [server.version(name, aliases[alias]) if alias in aliases else None for alias in (CHAMPION, PREVIOUS)]
    champion, previous = found
    if champion is None or previous is None or champion.number == previous.number:
        lacking = "champion" if champion is None else "previous champion"
        raise UserError(Problem(name, f"has no {lacking} to go back to", f"see `mlops lineage {name}@champion`"))
    problems = missing_files(server, server.run(previous.run_id))
    if problems:
        raise UserError(Problem(str(previous), f"is incomplete: {'; '.join(problems)}", "the champion stays"))
    return champion, previous


def rollback(server: MlflowServer, home: Path, plan: tuple[Version, Version], by: str, why: str) -> None:
    """Swap champion and previous, as planned.

    Raises:
        UserError: the plan does not hold any more.
    """
    champion, previous = plan
    name = champion.name
    with _turn(home):
        _finish_pending(server, name)
        now = rollback_plan(server, name)
        if [version.number for version in now] != [champion.number, previous.number]:
            raise UserError(Problem(name, f"its champion is now {now[0]}, not {champion}", "look again and decide"))
        reason = f"rolled back from {champion}" + (f": {why}" if why else "")
        left = f"rolled back to {previous}" + (f": {why}" if why else "")
        tags = {
            str(previous.number): _record(now[1], by, reason, "promoted"),
            str(champion.number): {HISTORY: _history(now[0], by, left)},
        }
        _change(server, name, _Change(previous.number, champion.number, tags))


def settle(server: MlflowServer, home: Path, name: str) -> None:
    """Finish a promotion or rollback that was interrupted, if there is one."""
    if PENDING in server.model_tags(name):
        with _turn(home):
            _finish_pending(server, name)


def version_metrics(version: Version) -> dict[str, float]:
    """The test metrics a version was registered with; empty if it has none that can be read."""
    try:
        return {str(key): float(value) for key, value in json.loads(version.tags.get(METRICS, "{}")).items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def unknown_model(server: MlflowServer, name: str) -> UserError:
    names = server.model_names()
    return UserError(
        Problem(name, "is no registered model", f"there are: {', '.join(names)}" if names else "train one: make train")
    )


def _judge(
    server: MlflowServer, version: Version, candidate: Candidate, champion: Version | None
) -> tuple[Verdict, Mapping[str, float]]:
    """The verdict, and the champion's metrics it rests on."""
    problems = missing_files(server, server.run(version.run_id))
    if problems:
        return Verdict(False, f"refused: incomplete: {'; '.join(problems)}"), {}
    if champion is None:
        return judge(candidate.metrics, None, candidate.metric, candidate.margin, mode=candidate.mode), {}
    same = champion.tags.get(TEST_SPLIT) == candidate.test_split
    metrics: Mapping[str, float] = version_metrics(champion)
    if candidate.champion == champion.number and candidate.champion_metrics is not None:
        same, metrics = True, candidate.champion_metrics
    verdict = judge(candidate.metrics, metrics, candidate.metric, candidate.margin, same, candidate.mode)
    return verdict, metrics if same else {}


def _describe(
    server: MlflowServer,
    version: Version,
    candidate: Candidate,
    champion: Version | None,
    compared: Mapping[str, float],
    verdict: Verdict,
) -> str:
    """A version's page in Markdown."""
    run = server.run(version.run_id)
    versus = f"champion v{champion.number}" if champion and compared else ""
    lines = [
        f"{'Promoted' if verdict.promote else 'Not promoted'}, {verdict.reason}.",
        "",
        f"| on the test split | this version |{f' {versus} | |' if versus else ''}",
        f"|---|---:|{'---:|---:|' if versus else ''}",
    ]
    for key, value in candidate.metrics.items():
        row = f"| {key} | {value:.4f} |"
        if versus:
            old = compared.get(key)
            row += f" {old:.4f} | {value - old:+.4f} |" if old is not None else " | |"
        lines.append(row)
    if run:
        tags = run.tags
        data = tags.get("data.tag") or "data"
        dirty = " with uncommitted changes" if tags.get("git.dirty") == "yes" else ""
        lines += [
            "",
            f"From commit `{tags.get('git.commit', 'unknown')[:12]}`{dirty} and {data} "
            f"(md5 `{tags.get('data.digest', 'unknown')}`), in [run {run.name}]({server.run_url(run)}).",
        ]
    lines += ["", f"All about it: `mlops lineage {version}`. Make it again: `mlops reproduce {version}`."]
    return "\n".join(lines)


def _record(version: Version, by: str, reason: str, verdict: str) -> dict[str, str]:
    return {BY: by, AT: _now(), REASON: reason, HISTORY: _history(version, by, reason), VERDICT: verdict}


def _history(version: Version, by: str, what: str) -> str:
    """The version's history with one more line, the latest first (long ones lose their end)."""
    return f"{_now()} {by}: {what}\n{version.tags.get(HISTORY, '')}"[:2000].rstrip()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _change(server: MlflowServer, name: str, change: _Change) -> None:
    server.tag_model(name, PENDING, json.dumps(asdict(change)))
    _carry_out(server, name, change)


def _finish_pending(server: MlflowServer, name: str) -> None:
    text = server.model_tags(name).get(PENDING)
    if text is None:
        return
    try:
        change = _Change(**json.loads(text))
        version = server.version(name, change.champion)
        problems = missing_files(server, server.run(version.run_id)) if version else ["it is gone"]
        if not problems:
            _carry_out(server, name, change)
            return
        log.warning("%s/%s is not promoted after all: %s", name, change.champion, "; ".join(problems))
    except (ValueError, TypeError, RefusedError) as error:
        log.warning("an interrupted promotion of %s cannot be finished: %s", name, error)
    server.untag_model(name, PENDING)


def _carry_out(server: MlflowServer, name: str, change: _Change) -> None:
    """Every step may have been done before."""
    if change.previous is not None:
        server.set_alias(name, PREVIOUS, change.previous)
    elif PREVIOUS in server.aliases(name):
        server.delete_alias(name, PREVIOUS)
    server.set_alias(name, CHAMPION, change.champion)
    for number, tags in change.tags.items():
        version = server.version(name, int(number))
        if version:
            server.tag_version(version, tags)
    server.untag_model(name, PENDING)


@contextlib.contextmanager
def _turn(home: Path) -> Iterator[None]:
    """One change at a time from this home; goes with the process that holds it."""
    folder = home / "tracking"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "registry.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
