"""`mlops diagnose` as a user calls it, with a real server."""

from __future__ import annotations

import shutil

from stack_fixtures import comes_to, mlops, start_run

from infra.stack import rest
from infra.stack.state import Stack


def test_a_failed_run_is_told_by_name_and_nothing_of_a_pool_without_trouble(stack: Stack) -> None:
    run = start_run(stack, folder="/nowhere/at/all")
    comes_to(stack, run, "Failed")
    name = rest.prefect(stack, f"/flow_runs/{run}")["name"]
    told = mlops(stack.checkout, "diagnose", name)
    assert told.returncode == 1, told.stderr
    assert f"Run {name} ({run}) is Failed" in told.stdout
    assert "the code failed: The flow failed: FileNotFoundError" in told.stdout
    assert "-> read the last lines" in told.stdout
    site = stack.checkout / "configs" / "site.yaml"
    site.parent.mkdir()
    site.write_text("storage: {kind: directory}\ncluster: {kubeconfig: /nowhere}\n")
    quiet = mlops(stack.checkout, "diagnose", "--pool", "nobodys")
    shutil.rmtree(site.parent)
    assert quiet.returncode == 0, quiet.stderr
    assert "The cluster is not asked: " in quiet.stdout
    assert "not the platform on the cluster: mlops platform connect leads there" in quiet.stdout
    assert "No run of work pool nobodys is in trouble" in quiet.stdout
    unknown = mlops(stack.checkout, "diagnose", "no-such-run")
    assert unknown.returncode == 1
    assert "there is no such run" in unknown.stderr
