"""Steps of the cluster's add-ons: what differs is applied and waited for; a named manifest is the very file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from configs.kubernetes import Kubernetes, NamedManifest
from configs.problems import UserError
from infra.machines.commands import Command, File
from infra.site.authority import Authority
from infra.site.facts import Fact, Reading
from infra.site.step import Change, Step
from infra.site.steps.addons import addon_steps
from infra.site.steps.applied import applied_step
from infra.site.steps.named import read_manifest
from infra.site.steps.pod_network import named_network_step

STEP = applied_step("thing", "master", "a thing", "kind: Thing\n", (("space", "deployment/thing"),), ())
SMB = """\
apiVersion: v1
kind: ServiceAccount
metadata: {name: csi-smb, namespace: kube-system}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: csi-smb-node, namespace: kube-system}
---
"""


def readings(step: Step, *, there: str | None = None, differs: Reading | None = None) -> dict[Fact, Reading]:
    file, difference = step.facts
    same = Reading(1)
    if there is not None:
        same = Reading(0, f"600 root\n{hashlib.sha256(there.encode()).hexdigest()}  -\n{there}")
    return {file: same, difference: differs or Reading(0)}


def commands(change: Change) -> list[str]:
    return [" ".join(action.argv) for action in change.actions if isinstance(action, Command)]


def test_a_manifest_is_written_applied_and_waited_for() -> None:
    write, apply = STEP.changes(readings(STEP))
    assert write.what == "write /etc/kubernetes/mlops-a-thing.yaml"
    applied, waited = commands(apply)
    assert "apply --server-side --field-manager=mlops --force-conflicts" in applied
    assert "rollout status -n space deployment/thing" in waited


def test_what_the_cluster_has_already_is_left_alone() -> None:
    assert list(STEP.changes(readings(STEP, there="kind: Thing\n"))) == []


def test_what_somebody_has_changed_is_shown_and_applied_again() -> None:
    (change,) = STEP.changes(readings(STEP, there="kind: Thing\n", differs=Reading(1, "-replicas: 0\n")))
    assert (change.why, change.diff) == ("the cluster has another one, or none", "-replicas: 0\n")
    (change,) = STEP.changes(readings(STEP, there="kind: Thing\n", differs=Reading(2, "connection\nrefused")))
    assert change.why == "connection refused"


def test_the_sites_addons_are_applied_when_pods_have_a_network(tmp_path: Path) -> None:
    (tmp_path / "smb.yaml").write_text(SMB)
    digest = hashlib.sha256(SMB.encode()).hexdigest()
    wanted = Kubernetes.model_validate({"version": "1.33.5", "csi_smb": {"manifest": "smb.yaml", "sha256": digest}})
    authority = Authority(tmp_path / "authority")
    steps = list(addon_steps(wanted, "master", authority, tmp_path))
    assert [step.name for step in steps] == ["metrics-server", "dashboard", "device-plugin", "csi-driver-smb"]
    assert {step.after for step in steps} == {(("master", "pod-network"),)}
    last = list(steps[-1].changes(readings(steps[-1])))
    assert "rollout status -n kube-system daemonset/csi-smb-node" in commands(last[-1])[-1]
    bare = Kubernetes.model_validate({"version": "1.33.5", "addons": []})
    assert list(addon_steps(bare, "master", authority, tmp_path)) == []


def test_keys_of_servers_are_shown_to_nobody(tmp_path: Path) -> None:
    wanted = Kubernetes(version="1.33.5")
    authority = Authority(tmp_path / "authority")
    for step in addon_steps(wanted, "master", authority, tmp_path):
        changes = list(step.changes(readings(step, differs=Reading(1, "+ tls.key: secret"))))
        files = [action for change in changes for action in change.actions if isinstance(action, File)]
        assert all(file.mode == 0o600 for file in files)
        if step.name != "device-plugin":
            assert all(file.secret for file in files)
            assert not any(change.diff for change in changes)


def test_another_file_than_the_named_one_is_refused(tmp_path: Path) -> None:
    named = NamedManifest(manifest=Path("calico.yaml"), sha256="0" * 64)
    with pytest.raises(UserError, match=r"kubernetes.network.manifest: .*calico.yaml cannot be read"):
        named_network_step("master", named, tmp_path, ())
    (tmp_path / "calico.yaml").write_text(SMB)
    with pytest.raises(UserError, match="is another file than that"):
        named_network_step("master", named, tmp_path, ())


@pytest.mark.parametrize("text", ["just words", "kind: [", "kind: DaemonSet\n", "- a\n- b\n"])
def test_a_file_without_objects_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    named = NamedManifest(manifest=Path("x.yaml"), sha256=hashlib.sha256(text.encode()).hexdigest())
    with pytest.raises(UserError, match="holds no objects of Kubernetes"):
        read_manifest(named, "kubernetes.csi_smb", tmp_path)
