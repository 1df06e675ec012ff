"""From a site's file to its steps, and the keys and passwords that are made on the way."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

import pytest

from configs.problems import UserError
from configs.site import Site, load_site
from infra.machines.commands import File
from infra.machines.ssh import make_key
from infra.site.authority import Authority
from infra.site.facts import Reading
from infra.site.images import mirrored
from infra.site.inventory import machines_of
from infra.site.plan import select, site_steps
from infra.site.step import Change, Step

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def thesis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return load_site(CHECKOUT / "configs/site-thesis.yaml")


def test_the_example_site_has_the_steps_of_its_roles(thesis: Site, tmp_path: Path) -> None:
    steps = site_steps(thesis, tmp_path, tmp_path / ".mlops")
    by_machine: dict[str, list[str]] = {}
    for step in steps:
        by_machine.setdefault(step.machine, []).append(step.name)
    vm = ("vm", "ready", "pending")
    assert by_machine == {
        "mainserver": ["image", "base", "health"],
        "research": ["base", "mounts", "runtime", "kubernetes", "gpu", "join", "node", "services", "health"],
        "storage": [*vm, "base", "storage", "health"],
        "master": [
            *(*vm, "base", "runtime", "kubernetes", "control-plane", "pod-network", "node", "services"),
            *("metrics-server", "dashboard", "device-plugin", "cluster-health", "snapshots", "health"),
        ],
        "registry": [*vm, "base", "registry", "health"],
        "worker": [*vm, "base", "mounts", "runtime", "kubernetes", "gpu", "join", "node", "services", "health"],
    }
    base = next(step for step in steps if step.name == "base")
    known = {fact: Reading(0, "") for fact in base.facts}
    # The control plane is known by a name of its own everywhere.
    assert any("192.168.10.50 cluster" in change.diff for change in base.changes(known))
    mounts = next(step for step in steps if (step.machine, step.name) == ("worker", "mounts"))
    assert set(mounts.after) == {("storage", "storage"), ("worker", "base")}


def test_images_from_the_sites_own_registry_wait_for_it_and_come_by_its_login(thesis: Site, tmp_path: Path) -> None:
    assert thesis.kubernetes is not None
    mirrored = thesis.kubernetes.model_copy(update={"images": "192.168.10.60:5000/kubernetes", "network": "none"})
    steps = site_steps(thesis.model_copy(update={"kubernetes": mirrored}), tmp_path, tmp_path / ".mlops")
    by_key = {(step.machine, step.name): step for step in steps}
    assert ("registry", "registry") in by_key["master", "control-plane"].after
    assert ("master", "pod-network") not in by_key
    assert by_key["master", "metrics-server"].after == (("master", "control-plane"),)
    assert by_key["master", "cluster-health"].after[0] == ("master", "control-plane")
    # Nothing can be waited for that needs the network: the administrator brings it after the first run.
    (apply,) = (change for change in written(by_key["master", "metrics-server"]) if change.what.startswith("apply"))
    assert len(apply.actions) == 1
    password = (tmp_path / "home/.config/mlops/registry-password").read_text().strip()
    basic = base64.b64encode(f"mlops:{password}".encode()).decode()
    step = by_key["worker", "runtime"]
    files = [item for change in written(step) for item in change.actions if isinstance(item, File)]
    (hosts,) = (file for file in files if basic in file.text)
    assert (hosts.mode, hosts.secret) == (0o600, True)
    # Images from elsewhere need no login on the nodes.
    step = next(item for item in site_steps(thesis, tmp_path, tmp_path / ".mlops") if item.name == "runtime")
    files = [item for change in written(step) for item in change.actions if isinstance(item, File)]
    assert not any(basic in file.text or file.secret for file in files)


def written(step: Step) -> list[Change]:
    """What a step wants on a machine that has nothing."""
    return list(step.changes({fact: Reading(1, "") for fact in step.facts}))


def test_a_mirror_has_all_images_by_their_last_names() -> None:
    listed = ["registry.k8s.io/kube-proxy:v1.33.5", "registry.k8s.io/coredns/coredns:v1.12.0"]
    assert list(mirrored(listed, "registry:5000/kubernetes")) == [
        (listed[0], "registry:5000/kubernetes/kube-proxy:v1.33.5"),
        (listed[1], "registry:5000/kubernetes/coredns:v1.12.0"),
    ]


def test_passwords_and_keys_are_made_once_and_for_their_owner_only(thesis: Site, tmp_path: Path) -> None:
    home = tmp_path / ".mlops"
    site_steps(thesis, tmp_path, home)
    made = [*(tmp_path / "home").rglob("*-password"), *home.rglob("*.key"), *home.rglob("*-key")]
    made += home.rglob("*-identity")
    assert sorted(path.name for path in made) == [
        "backup-identity",
        "ca.key",
        "dashboard.key",
        "encryption-key",
        "metrics-server.key",
        "registry-password",
        "registry.key",
        "share-password",
    ]
    assert {path.stat().st_mode & 0o777 for path in made} == {0o600}
    before = {path: path.read_bytes() for path in made}
    assert len(set(before.values())) == len(made)
    site_steps(thesis, tmp_path, home)
    assert {path: path.read_bytes() for path in made} == before


def test_a_worker_joins_when_the_control_plane_is_there(thesis: Site, tmp_path: Path) -> None:
    steps = site_steps(thesis, tmp_path, tmp_path / ".mlops")
    joins = [step for step in steps if step.name == "join"]
    assert [step.machine for step in joins] == ["research", "worker"]
    assert {("master", "control-plane"), ("worker", "kubernetes")} == set(joins[1].after)
    # Nor does it get another release than the control plane has.
    packages = {step.machine: step.after for step in steps if step.name == "kubernetes"}
    assert packages == {
        "research": (("research", "runtime"), ("master", "kubernetes")),
        "master": (("master", "runtime"),),
        "worker": (("worker", "runtime"), ("master", "kubernetes")),
    }
    # A check on a schedule makes no clusters.
    assert not any(step.repairable for step in joins)


def test_no_step_shows_a_secret(thesis: Site, tmp_path: Path) -> None:
    home = tmp_path / ".mlops"
    shown = repr(site_steps(thesis, tmp_path, home))
    for path in (tmp_path / "home").rglob("*-password"):
        assert path.read_text().strip() not in shown
    for step in site_steps(thesis, tmp_path, home):
        for fact in step.facts:
            for path in (tmp_path / "home").rglob("*-password"):
                assert path.read_text().strip() not in " ".join(fact.argv)


def test_machines_have_their_logins(thesis: Site, tmp_path: Path) -> None:
    machines = machines_of(thesis, tmp_path)
    assert machines["research"].user == "root"
    assert machines["worker"].user == "mlops"
    key = machines["worker"].key
    assert key == tmp_path / "site/id_ed25519"
    site_steps(thesis, tmp_path, tmp_path)
    assert key.stat().st_mode & 0o777 == 0o600
    assert make_key(key, "again") == " ".join(key.with_name("id_ed25519.pub").read_text().split()[:2]) + " mlops"


def test_what_is_asked_for_and_not_there_is_told(thesis: Site, tmp_path: Path) -> None:
    steps = site_steps(thesis, tmp_path, tmp_path / ".mlops")
    assert [(step.machine, step.name) for step in select(steps, ["worker"], ["mounts"])] == [("worker", "mounts")]
    with pytest.raises(UserError) as caught:
        select(steps, ["wroker"], ["mount"])
    assert [problem.where for problem in caught.value.problems] == ["machine 'wroker'", "step 'mount'"]
    assert "worker" in caught.value.problems[0].remedy


def test_a_site_without_machines_is_told_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="names no machines"):
        site_steps(load_site(CHECKOUT / "configs/site.yaml"), tmp_path, tmp_path / ".mlops")


def test_a_certificate_is_kept_until_it_names_others(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    first = authority.server("registry", ("192.168.10.60", "registry"))
    assert Authority(tmp_path).server("registry", ("192.168.10.60", "registry")) == first
    assert Authority(tmp_path).pem == authority.pem
    assert first.key not in repr(first)
    assert authority.server("registry", ("192.168.10.61", "registry")) != first
    context = ssl.create_default_context(cafile=str(authority.path))
    assert context.cert_store_stats()["x509_ca"] == 1


def test_a_certificate_of_an_earlier_ca_is_made_anew(tmp_path: Path) -> None:
    old = Authority(tmp_path).server("registry", ("registry",))
    for half in ("ca.crt", "ca.key"):
        (tmp_path / half).unlink()
    assert Authority(tmp_path).server("registry", ("registry",)) != old


def test_half_a_ca_is_never_taken_for_none(tmp_path: Path) -> None:
    Authority(tmp_path)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(UserError, match="bring it back from a backup"):
        Authority(tmp_path)
    assert not (tmp_path / "ca.key").exists()


def test_a_vm_is_made_by_its_host_and_ready_before_anything_is_done_on_it(thesis: Site, tmp_path: Path) -> None:
    main = thesis.hosts["mainserver"].model_copy(update={"vms": "qemu"})
    site = thesis.model_copy(update={"hosts": {**thesis.hosts, "mainserver": main}})
    steps = {(step.machine, step.name): step for step in site_steps(site, tmp_path, tmp_path / ".mlops")}
    assert [name for machine, name in steps if machine == "worker"][:4] == ["vm", "ready", "pending", "base"]
    assert (steps["worker", "vm"].where, steps["worker", "ready"].where) == ("mainserver", "worker")
    assert steps["mainserver", "image"].after == (("mainserver", "base"),)
    assert steps["worker", "vm"].after == (("mainserver", "image"),)
    assert steps["worker", "base"].after == (("worker", "ready"),)
    assert steps["research", "base"].after == ()
    # Nothing waits for what a person has to do while the machine is stopped.
    assert not any(("worker", "pending") in step.after for step in steps.values() if step.name != "health")
