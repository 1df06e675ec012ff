"""What the cluster carries besides its nodes, on a real one: taken as it is, unchanged when applied again, and safe.

Needs kubectl on the path. Images need not be pulled: what is looked at is what the API server does with the objects.
"""

from __future__ import annotations

import base64
import json
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml
from here import Here

from configs.cluster import Cluster
from configs.kubernetes import Kubernetes
from infra.addons.dashboard import ADMIN, ADMIN_S, NAMESPACE, VIEWER, VIEWER_S
from infra.kubernetes.client import connect, load_config
from infra.site.authority import Authority
from infra.site.dashboard import dashboard_token
from infra.site.engine import Outcome, State, problems_of, run_steps
from infra.site.step import Step
from infra.site.steps.addons import addon_steps

pytestmark = pytest.mark.cluster
Outcomes = dict[str, Outcome]
NAMES = ["metrics-server", "dashboard", "device-plugin"]


@pytest.fixture(scope="module")
def control_plane(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on PATH")
    machine = Here(tmp_path_factory.mktemp("control-plane"))
    yield machine
    # A dead API beside the real one would keep every namespace from going.
    kubectl("delete", "apiservice", "v1beta1.metrics.k8s.io", "--ignore-not-found")
    kubectl("delete", "namespace", NAMESPACE, "--wait=false", "--ignore-not-found")


def kubectl(*words: str) -> tuple[int, str]:
    done = subprocess.run(("kubectl", *words), capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def addons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Step]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    return {step.name: step for step in addon_steps(Kubernetes(version="1.33.5"), "master", authority, Path())}


@pytest.fixture(scope="module")
def applied(control_plane: Here, addons: dict[str, Step]) -> list[Outcomes]:
    """Outcomes of a first and of a second run."""
    runs = [run_steps(list(addons.values()), {"master": control_plane}, lambda *_: None, apply=True) for _ in range(2)]
    assert [problems_of(outcomes) for outcomes in runs] == [[], []]
    waits = ["daemonset/nvidia-device-plugin", "deployment/dashboard", "deployment/metrics-server"]
    assert sorted(control_plane.waits) == waits
    return [{key[1]: outcome for key, outcome in outcomes.items()} for outcomes in runs]


def test_every_object_is_taken_and_a_second_run_changes_nothing(applied: list[Outcomes]) -> None:
    first, second = ({name: outcome.state for name, outcome in outcomes.items()} for outcomes in applied)
    assert first == dict.fromkeys(NAMES, State.CHANGED)
    assert second == dict.fromkeys(NAMES, State.FITS)


def test_what_somebody_has_changed_is_found_and_set_back(
    applied: list[Outcomes], control_plane: Here, addons: dict[str, Step]
) -> None:
    words = ("-n", NAMESPACE, "deployment", "dashboard", "-o=jsonpath={.spec.replicas}")
    assert kubectl("scale", "-n", NAMESPACE, "deployment/dashboard", "--replicas=0")[0] == 0
    assert kubectl("get", *words) == (0, "0")
    outcomes = run_steps([addons["dashboard"]], {"master": control_plane}, lambda *_: None, apply=True)
    outcome = outcomes[("master", "dashboard")]
    assert outcome.state is State.CHANGED
    assert kubectl("get", *words) == (0, "1")


def test_no_key_of_a_server_is_shown(applied: list[Outcomes], control_plane: Here) -> None:
    manifest = yaml.safe_load_all((control_plane.folder / "mlops-dashboard.yaml").read_text())
    (secret,) = (item for item in manifest if item["kind"] == "Secret")
    shown = "".join(change.diff + change.what + change.why for change in applied[0]["dashboard"].changes)
    assert secret["data"]["tls.key"] not in shown
    assert base64.b64decode(secret["data"]["tls.key"]).decode().splitlines()[1] not in shown


@pytest.mark.parametrize(
    ("account", "verb", "what", "answer"),
    [
        (VIEWER, "list", "pods", "yes"),
        (VIEWER, "get", "pods/log", "yes"),
        (VIEWER, "list", "nodes", "yes"),
        (VIEWER, "list", "secrets", "no"),
        (VIEWER, "get", "secrets", "no"),
        (VIEWER, "create", "pods", "no"),
        (VIEWER, "create", "pods/exec", "no"),
        (VIEWER, "delete", "jobs.batch", "no"),
        (VIEWER, "create", "serviceaccounts/token", "no"),
        (VIEWER, "impersonate", "serviceaccounts", "no"),
        (ADMIN, "list", "secrets", "yes"),
        (ADMIN, "delete", "nodes", "yes"),
        ("dashboard", "list", "pods", "no"),
        ("default", "list", "pods", "no"),
    ],
)
def test_what_each_account_may_do(applied: list[Outcomes], account: str, verb: str, what: str, answer: str) -> None:
    user = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
    _, said = kubectl("auth", "can-i", verb, what, "--all-namespaces", user)
    assert said.split()[-1] == answer


@pytest.mark.parametrize(("admin", "seconds", "secrets"), [(False, VIEWER_S, 403), (True, ADMIN_S, 200)])
def test_a_token_ends_when_it_should_and_opens_no_more_than_it_should(
    applied: list[Outcomes], admin: bool, seconds: int, secrets: int
) -> None:
    client = connect(Cluster(namespace=NAMESPACE))
    token = dashboard_token(client, admin=admin)
    assert token.text not in repr(token)
    body = token.text.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert claims["exp"] - claims["iat"] == seconds
    assert abs(claims["exp"] - time.time() - seconds) < 30
    assert token.ends.timestamp() == claims["exp"]
    config, _ = load_config(Cluster())
    data = config.cluster.certificate_auth_data
    assert data is not None
    with httpx2.Client(verify=trusting(base64.b64decode(data).decode()), base_url=config.cluster.server) as asking:
        login = {"Authorization": f"Bearer {token.text}"}
        assert asking.get("/api/v1/pods", headers=login).status_code == 200
        assert asking.get("/api/v1/namespaces/kube-system/secrets", headers=login).status_code == secrets
        wrong = {"Authorization": f"Bearer {token.text[:-8]}AAAAAAAA"}
        assert asking.get("/api/v1/pods", headers=wrong).status_code == 401


def trusting(ca_pem: str) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=ca_pem)
