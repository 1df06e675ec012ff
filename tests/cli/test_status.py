"""`mlops status`: with a stack and without."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from stack_fixtures import client_variables, comes_to, make_checkout, mlops, start_run

from infra.stack.environment import client_environment
from infra.stack.state import Stack


def test_with_everything_down(tmp_path: Path) -> None:
    shown = mlops(make_checkout(tmp_path / "checkout"), "status")
    assert shown.returncode == 0
    assert "`mlops up` starts it" in shown.stdout


def test_shows_parts_runs_and_champion(stack: Stack) -> None:
    run = start_run(stack)
    comes_to(stack, run, "Completed")
    script = (
        "import mlflow; c = mlflow.MlflowClient()\n"
        "with mlflow.start_run() as run: mlflow.log_metric('mAP50', 0.75)\n"
        "c.create_registered_model('forklift')\n"
        "v = c.create_model_version('forklift', run.info.artifact_uri, run.info.run_id)\n"
        "c.set_registered_model_alias('forklift', 'champion', v.version)\n"
    )
    python = str(Path(client_environment(stack.home)["PATH"].split(":")[0], "python"))
    subprocess.run([python, "-c", script], cwd=stack.checkout, env=client_variables(stack), check=True)

    shown = mlops(stack.checkout, "status")
    assert shown.returncode == 0
    assert stack.prefect_url in shown.stdout
    assert "mAP50 0.750" in shown.stdout

    seen = json.loads(mlops(stack.checkout, "status", "--json").stdout)
    assert {part["name"]: part["state"] for part in seen["parts"]} == dict.fromkeys(
        ("prefect", "mlflow", "worker"), "running"
    )
    assert all(part["memory"] > 2**20 for part in seen["parts"])
    assert (seen["runs"][0]["flow"], seen["runs"][0]["state"]) == ("demo", "Completed")
    assert seen["champions"] == [{"model": "forklift", "version": "1", "metrics": {"mAP50": 0.75}}]
