"""Is the share there, can it be read, written and renamed in, and how full, fast and punctual is it? For ``doctor``.

Asked in a process of its own (:mod:`infra.repository.share_probe`): a share that hangs cannot be given up on from
within. Leaves nothing in the share, and nothing in the checkout.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.problems import UserError
from configs.storage import MountStorage, SmbStorage
from infra.findings import Finding
from infra.repository import share_probe
from infra.repository.share import Origin, Share, open_share

LIMIT_S = 12
SLOW = 5.0  # MB/s
LATE_S = 10.0
GIB = 2**30


def check(checkout: Path, home: Path) -> list[Finding]:
    """Look at the share that ``checkout`` uses; the first result says whether it works, the others how well."""
    if not (checkout / ".dvc").is_dir():
        return [_broken("this is no DVC repository", "run this in the root of the checkout")]
    try:
        share = open_share(checkout, home)
    except UserError as error:
        problem = error.problems[0]
        return [_broken(f"{problem.where}: {problem.what}", problem.remedy or "`mlops up --share ...` chooses another")]
    if not share.address:
        return [_broken("none is set as the default", "`mlops up --share ...` chooses one")]
    steps, said = _ask(share)
    told = {key: value for step in steps for key, value in step.items()}
    shown = f"{share.remote} at {share.address}"
    if "failed" in told:
        return [_failure(share, shown, told)]
    if "read" not in told:
        why = f"no answer within {LIMIT_S} s while {told['step']}" if "step" in told else f"cannot be asked: {said}"
        return [_broken(f"{shown}: {why}", "is the share's machine on and reachable?")]
    made = "" if told["made"] else "; its folder is made at the first push"
    results = [Finding("DVC remote", "good", f"{shown}, read, written and renamed in{made}")]
    return [*results, _space(told), _speed(told), _clock(told)]


def _ask(share: Share) -> tuple[list[dict[str, Any]], str]:
    """Return what the probe said until it ended or the time was over, and its last error line."""
    # Without the script's own folder, whose `dvc` is ours, on the path.
    command = [sys.executable, "-P", share_probe.__file__]
    question: dict[str, Any] = {
        "checkout": str(share.root),
        "remote": share.remote,
        "settings": dict(share.settings),
        "code": str(Path(__file__).parents[2]),
    }
    if isinstance(share.storage, MountStorage):
        question["mount"] = [str(share.storage.path), share.storage.sentinel, share.storage.source]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **share.environment, "DVC_NO_ANALYTICS": "true"},
        cwd=share.root,
        text=True,
    )
    try:
        output, errors = process.communicate(json.dumps(question), timeout=LIMIT_S)
    except subprocess.TimeoutExpired as expired:
        # Not waited for: in a mount that hangs it may not even end by a kill.
        process.kill()
        output, errors = _text(expired.stdout), ""
    steps = []
    for line in output.splitlines():
        with contextlib.suppress(ValueError):
            steps.append(dict(json.loads(line)))
    return steps, (errors.strip().splitlines() or ["no reason given"])[-1]


def _text(output: object) -> str:
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else str(output or "")


def _failure(share: Share, shown: str, told: Mapping[str, Any]) -> Finding:
    what, _, todo = str(told["failed"]).rpartition(": ")
    if told["remedy"]:
        what, todo = str(told["failed"]), str(told["remedy"])
    remedy = todo if what else "is it mounted, are the credentials right, may this user write there?"
    if told["denied"] and told["step"] == share_probe.REACHING and isinstance(share.storage, SmbStorage):
        keep = f"MLOPS_SHARE_PASSWORD=... mlops up --share {share.storage.url}"
        remedy += f"; to keep another password: {keep}" if share.origin is Origin.CHOSEN else ""
    return _broken(f"{shown}, while {told['step']}: {what or told['failed']}", remedy)


def _broken(detail: str, remedy: str) -> Finding:
    return Finding("DVC remote", "broken", detail, remedy)


def _space(told: Mapping[str, Any]) -> Finding:
    if told.get("free") is None:
        return Finding("share space", "good", "not limited, as far as can be seen")
    free, total = told["free"] / GIB, told["total"] / GIB
    detail = f"{free:.1f} of {total:.1f} GiB free"
    if free >= 5:
        return Finding("share space", "good", detail)
    remedy = "`dvc gc --cloud --all-commits` drops what no commit uses; or ask for space"
    return Finding("share space", "broken" if free < 0.1 else "warning", detail, remedy)


def _speed(told: Mapping[str, Any]) -> Finding:
    size = share_probe.SPEED_BYTES / 1e6
    if told["free"] is not None and told["free"] < share_probe.SPARE_BYTES:
        return Finding("share speed", "warning", "not measured: there is too little space", "free some space first")
    if "down" not in told:
        detail = f"{size:.1f} MB could not be sent and fetched in the {LIMIT_S} s that this check has"
        return Finding("share speed", "warning", detail, "look at the network between, or at what else uses it")
    up, down = size / told["up"], size / told["down"]
    detail = f"{up:.0f} MB/s up, {down:.0f} MB/s down ({size:.1f} MB)"
    if min(up, down) >= SLOW:
        return Finding("share speed", "good", detail)
    remedy = "look at the network between (a cable is faster than a radio), or at what else uses it"
    return Finding("share speed", "warning", detail, remedy)


def _clock(told: Mapping[str, Any]) -> Finding:
    apart = told.get("ahead")
    if apart is None:
        return Finding("share clock", "good", "not told by this kind of share")
    if abs(apart) < LATE_S:
        return Finding("share clock", "good", "as this machine's")
    detail = f"{abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} this machine's"
    return Finding("share clock", "warning", detail, "`timedatectl set-ntp true` on both machines")
