"""`mlops doctor`: what is broken is named with a remedy, and nothing is left behind by looking."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from stack_fixtures import ROOT, make_checkout, mlops

from infra.stack.state import Stack


def _findings(checkout: Path, expected: int) -> dict[str, dict[str, Any]]:
    examined = mlops(checkout, "doctor", "--json")
    assert examined.returncode == expected, examined.stdout + examined.stderr
    return {finding["name"]: finding for finding in json.loads(examined.stdout)}


def _with_dvc(checkout: Path, url: str) -> Path:
    (checkout / ".dvc").mkdir()
    (checkout / ".dvc" / "config").write_text(f"[core]\n    remote = share\n['remote \"share\"']\n    url = {url}\n")
    return checkout


def test_a_sound_checkout_is_not_broken_and_is_left_as_it_was(tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.mkdir()
    checkout = _with_dvc(make_checkout(tmp_path / "checkout"), str(share))
    lock = "psutil==" + subprocess.check_output(["python", "-c", "import psutil; print(psutil.__version__)"], text=True)
    (checkout / "requirements.lock").write_text(lock)
    found = _findings(checkout, 0)
    assert found["packages"]["level"] == "good"
    assert found["DVC remote"]["level"] == "good"
    assert found["Prefect"]["level"] == "warning", "a stack that is down is not broken"
    assert not any(share.iterdir())
    assert not (checkout / ".mlops").exists()


def test_every_broken_thing_is_told_with_its_remedy(tmp_path: Path) -> None:
    share = tmp_path / "share"
    share.write_text("a file where the folder should be")
    checkout = _with_dvc(make_checkout(tmp_path / "checkout"), str(share))
    (checkout / "requirements.lock").write_text(
        "psutil==0.1\nno-such-package==1.0\ncolorama==99 ; sys_platform == 'win32'\n"
    )
    found = _findings(checkout, 1)
    broken = {name for name, finding in found.items() if finding["level"] == "broken"}
    assert broken == {"packages", "DVC remote"}
    assert "no-such-package is missing" in found["packages"]["detail"]
    assert "colorama" not in found["packages"]["detail"], "not wanted on this platform"
    assert all(finding["remedy"] for finding in found.values() if finding["level"] != "good")
    shown = mlops(checkout, "doctor")
    assert "Broken: packages, DVC remote." in shown.stdout


def test_a_running_stack_is_seen(stack: Stack) -> None:
    examined = json.loads(mlops(stack.checkout, "doctor", "--json").stdout)
    found = {finding["name"]: finding for finding in examined}
    assert [found[name]["level"] for name in ("Prefect", "MLflow", "worker")] == ["good"] * 3
    assert stack.prefect_url in found["Prefect"]["detail"]


def test_the_locked_environment_of_this_checkout_is_complete() -> None:
    examined = mlops(ROOT, "doctor", "--json", MLOPS_HOME=str(ROOT / ".mlops"))
    found = {finding["name"]: finding for finding in json.loads(examined.stdout)}
    assert found["packages"]["level"] == "good", found["packages"]
