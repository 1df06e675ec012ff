"""The platform on a real cluster, from an empty namespace to an empty one; the tests build on each other, in order.

``MLOPS_TEST_PLATFORM_IMAGE`` names an image of this code that all nodes have, ``MLOPS_TEST_POSTGRES_IMAGE`` one that
does what the official image of Postgres documents. ``MLOPS_TEST_STATE`` (``node:/folder``) is where the data goes on a
cluster without a default storage class. ``MLOPS_TEST_NAMESPACE`` goes on with a platform that is there already.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from checkouts import ROOT
from lightkube import Client

from configs.cluster import Cluster, Images, State
from configs.problems import UserError
from configs.site import Site
from configs.storage import DirectoryStorage
from infra.kubernetes.apply import Change, read
from infra.kubernetes.client import connect as connect_api
from infra.kubernetes.manifests import manifest
from infra.kubernetes.platform.connect import connect, disconnect
from infra.kubernetes.platform.credentials import read_logins
from infra.kubernetes.platform.delete import delete
from infra.kubernetes.platform.install import Installed, install, wait_ready
from infra.kubernetes.platform.plan import platform_manifests
from infra.kubernetes.platform.status import component_states
from infra.kubernetes.platform.wanted import Wanted
from infra.stack.connection import Connection, connection_variables, load_connection, logins_file

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]
LIMIT_S = 900.0


def _quiet(part: str, state: str, detail: str) -> None:
    """Nobody watches."""


@dataclass
class Platform:
    """A platform, the state folder of its user, and the checkout that is connected to it."""

    site: Site
    client: Client
    home: Path
    checkout: Path

    @property
    def cluster(self) -> Cluster:
        assert self.site.cluster is not None
        return self.site.cluster

    def install(self, image: str | None = None) -> Installed:
        return install(self.site, ROOT, self.home, _quiet, image=image)

    def versions(self) -> dict[str, str]:
        """The version of each object, of the passwords' Secret and of the pods."""
        from lightkube.resources.core_v1 import Pod, Secret

        wanted = Wanted(self.cluster, str(self.cluster.images.run))
        found = {}
        for item in platform_manifests(wanted):
            there = read(self.client, item)
            assert there is not None, item["metadata"]["name"]
            # A controller writes a status now and then; what was applied has a generation where that can happen.
            metadata = there["metadata"]
            found[f"{item['kind']}/{metadata['name']}"] = str(metadata.get("generation") or metadata["resourceVersion"])
        for kind in (Pod, Secret):
            for one in self.client.list(kind):
                metadata = one.to_dict()["metadata"]
                found[f"{kind.__name__}/{metadata['name']}"] = metadata["uid"]
        return found

    def connected(self) -> tuple[Connection, Mapping[str, str]]:
        connection = connect(self.site, self.checkout, self.home)
        return connection, connection_variables(self.home, connection)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    missing = [name for name in ("KUBECONFIG", "MLOPS_TEST_PLATFORM_IMAGE") if not os.environ.get(name)]
    if missing:
        pytest.skip(f"not set: {', '.join(missing)}")
    node, _, folder = os.environ.get("MLOPS_TEST_STATE", "").partition(":")
    name = os.environ.get("MLOPS_TEST_NAMESPACE") or f"mlops-test-{uuid.uuid4().hex[:8]}"
    cluster = Cluster(
        namespace=name,
        images=Images(
            postgres=os.environ.get("MLOPS_TEST_POSTGRES_IMAGE") or Images().postgres,
            run=os.environ["MLOPS_TEST_PLATFORM_IMAGE"],
        ),
        state=State(host_path=f"{folder}/{name}", node=node) if node else State(),
    )
    base = tmp_path_factory.mktemp("platform")
    (base / "checkout").mkdir()
    site = Site(storage=DirectoryStorage(), cluster=cluster)
    found = Platform(site, connect_api(cluster), base / "home", base / "checkout")
    try:
        yield found
    finally:
        disconnect(found.home)
        delete(found.client, cluster, _quiet, data=True)


def test_apply_brings_up_everything(platform: Platform) -> None:
    installed = platform.install()
    assert [state.name for state in installed.states] == ["postgres", "prefect", "mlflow", "worker"]
    assert all(state.ready for state in installed.states)
    copy = logins_file(platform.home, platform.cluster.namespace)
    assert copy.stat().st_mode & 0o777 == 0o600


def test_a_second_apply_changes_nothing(platform: Platform) -> None:
    before, logins = platform.versions(), read_logins(platform.client)
    installed = platform.install()
    assert {one.change for one in installed.applied} == {Change.UNCHANGED}
    assert platform.versions() == before
    assert read_logins(platform.client) == logins


def test_what_somebody_else_has_set_is_told_and_left(platform: Platform) -> None:
    from lightkube.resources.core_v1 import ConfigMap

    name, namespace = "mlops-environment", platform.cluster.namespace
    theirs = manifest("v1", "ConfigMap", name, "worker", namespace=namespace, data={"MLFLOW_TRACKING_URI": "http://x"})
    mine = platform.client.get(ConfigMap, name).data
    platform.client.apply(ConfigMap.from_dict(theirs), field_manager="somebody", force=True)
    with pytest.raises(UserError) as raised:
        platform.install()
    (problem,) = raised.value.problems
    assert problem.where == f"ConfigMap {name}"
    assert ".data.MLFLOW_TRACKING_URI" in problem.what
    assert "somebody" in problem.what
    install(platform.site, ROOT, platform.home, _quiet, force=True)
    assert platform.client.get(ConfigMap, name).data == mine


def test_a_checkout_is_connected(platform: Platform) -> None:
    connection, variables = platform.connected()
    for url in (f"{connection.prefect_url}/api/flows/filter", f"{connection.mlflow_url}/api/2.0/mlflow/users/get"):
        assert httpx.post(url, json={}, timeout=60, trust_env=False).status_code == 401
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))}
    # Prefect finds the server by the checkout's .env alone.
    command = [sys.executable, "-m", "prefect", "deployment", "ls"]
    listed = subprocess.run(
        command,
        cwd=platform.checkout,
        env={**inherited, "COLUMNS": "200", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "train-forklift/kubernetes" in listed.stdout
    assert (platform.checkout / ".env").stat().st_mode & 0o777 == 0o600
    assert _log_run(connection, variables, "first") == ["first"]


def test_killed_pods_come_back_with_their_data(platform: Platform) -> None:
    from lightkube.resources.core_v1 import Pod

    connection, variables = platform.connected()
    before = {state.name: state.pod for state in component_states(platform.client)}
    for name in ("postgres", "prefect", "mlflow", "worker"):
        platform.client.delete(Pod, before[name], grace_period=0)
    wait_ready(platform.client, _quiet, LIMIT_S)
    # The same connection goes on: nobody has called `connect` again.
    assert load_connection(platform.home) == connection
    runs = _retried(lambda: _log_run(connection, variables, "second"))
    assert sorted(runs) == ["first", "second"]
    flows = httpx.post(
        f"{connection.prefect_url}/api/deployments/filter",
        json={},
        auth=_login(variables["PREFECT_API_AUTH_STRING"]),
        timeout=60,
        trust_env=False,
    ).json()
    assert "kubernetes" in {flow["name"] for flow in flows}


def test_a_wrong_image_is_told(platform: Platform) -> None:
    wrong = "localhost/no-such-image:1"
    with pytest.raises(UserError) as raised:
        platform.install(image=wrong)
    told = {problem.where: problem.what for problem in raised.value.problems}
    assert wrong in told["prefect"]
    assert "has no image" in told["prefect"]
    shown = subprocess.run(
        [sys.executable, "-m", "cli", "platform", "status", "--json"],
        cwd=_checkout_of(platform),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert shown.returncode == 1, shown.stderr
    states = {state["name"]: state for state in json.loads(shown.stdout)}
    assert wrong in states["mlflow"]["trouble"]["what"]
    assert states["postgres"]["ready"]
    platform.install()


def test_delete_keeps_the_data_and_apply_finds_it(platform: Platform) -> None:
    from lightkube.resources.core_v1 import PersistentVolumeClaim, Pod, Secret
    from lightkube.resources.rbac_authorization_v1 import ClusterRole

    logins = read_logins(platform.client)
    disconnect(platform.home)
    assert not (platform.checkout / ".env").exists()
    delete(platform.client, platform.cluster, _quiet)
    assert not list(platform.client.list(Pod))
    assert {one.to_dict()["metadata"]["name"] for one in platform.client.list(PersistentVolumeClaim)} == {
        "mlops-postgres",
        "mlops-artifacts",
    }
    assert [one.to_dict()["metadata"]["name"] for one in platform.client.list(Secret)] == ["mlops-credentials"]
    rights = {str(one.metadata and one.metadata.name) for one in platform.client.list(ClusterRole)}
    assert not [name for name in rights if name.startswith(platform.cluster.namespace)]
    platform.install()
    assert read_logins(platform.client) == logins
    connection, variables = platform.connected()
    assert sorted(_log_run(connection, variables, "third")) == ["first", "second", "third"]


def _log_run(connection: Connection, variables: Mapping[str, str], name: str) -> list[str]:
    """Log a run with an artifact through the server, read the artifact back, and return the names of all runs."""
    auth = httpx.BasicAuth(variables["MLFLOW_TRACKING_USERNAME"], variables["MLFLOW_TRACKING_PASSWORD"])
    with httpx.Client(base_url=f"{connection.mlflow_url}/api/2.0", auth=auth, timeout=120, trust_env=False) as client:

        def post(path: str, body: Mapping[str, Any]) -> Any:
            answer = client.post(f"/mlflow/{path}", json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        now = int(time.time() * 1000)
        run = post("runs/create", {"experiment_id": "0", "run_name": name, "start_time": now})["run"]
        post("runs/log-metric", {"run_id": run["info"]["run_id"], "key": "loss", "value": 0.5, "timestamp": now})
        path = f"/mlflow-artifacts/artifacts/{run['info']['experiment_id']}/{run['info']['run_id']}/weights.bin"
        content = os.urandom(3_000_000)
        assert client.put(path, content=content).status_code == 200
        assert client.get(path).content == content
        found = post("runs/search", {"experiment_ids": ["0"]})["runs"]
    return [one["info"]["run_name"] for one in found]


def _retried(ask: Any) -> Any:
    """Readiness is looked at every few seconds: a connection may still have ended in a pod that is gone."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return ask()
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def _login(text: str) -> httpx.BasicAuth:
    return httpx.BasicAuth(*text.split(":", 1))


def _checkout_of(platform: Platform) -> Path:
    """The connected folder with a site file, so that the command itself can be run there."""
    path = platform.checkout / "configs" / "site.yaml"
    path.parent.mkdir(exist_ok=True)
    site = {"storage": {"kind": "directory"}, "cluster": platform.cluster.model_dump(mode="json", exclude_none=True)}
    path.write_text(json.dumps(site), encoding="utf-8")
    return platform.checkout
