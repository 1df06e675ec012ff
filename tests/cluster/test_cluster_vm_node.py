"""A VM as a node that the site's own steps made, and pods that use the share through that node's real mount of it.

The kernel is the VM's own, and so are its cifs, automount and network. ``KUBE_BIN``, ``ETCD_BIN`` and ``FLANNEL_BIN``
name the binaries (see ``kube_site``). Emulated, all of it takes some ten minutes: ``pytest -m "cluster and
hypervisor"``, as root.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kube_site import ETCD_BIN, FLANNEL_BIN, KUBE_BIN, eventually, skip_without
from lightkube import Client
from lightkube.resources.batch_v1 import Job
from lightkube.types import CascadeType
from stand_ins import stand_in
from vm_site import SHARE, STORE, VM, VmSite, open_site
from watching import Watched

from configs.problems import UserError
from infra.kubernetes.apply import apply
from infra.kubernetes.client import connect
from infra.kubernetes.diagnosis.record import Category
from infra.kubernetes.gang.pod import CONTAINER, GANG
from infra.kubernetes.gang.space import space_for
from infra.kubernetes.platform import limits, plan, share
from infra.kubernetes.platform.choice import choose
from infra.kubernetes.platform.secrets import site_secrets
from infra.samba.sentinel import SENTINEL
from infra.site.access import fetch_kubeconfig
from infra.site.engine import Key, Outcome, State

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.machine,
    pytest.mark.hypervisor,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(
        not (KUBE_BIN and ETCD_BIN and FLANNEL_BIN), reason="needs KUBE_BIN, ETCD_BIN and FLANNEL_BIN: see kube_site"
    ),
]
BOTH = {"master": True, VM: True}
SLOW_S = 600
"""What is done in a second elsewhere may take a minute in an emulated machine that shares two processors."""
UNITS = ("mnt-sambashare.automount", "mnt-sambashare.mount")
# The share's own check, a file that is read, and a line each second.
WRITES = """\
import os, time
from pathlib import Path
from configs.problems import UserError
from infra.repository.share import open_share
share = open_share(Path.cwd(), Path(os.environ["MLOPS_HOME"]))
folder = share.storage.path / share.storage.folder
count = 0
while True:
    count += 1
    try:
        share.check()
        read = (folder / "given").read_text() if "given" in os.listdir(folder) else ""
        with (folder / os.environ["POD"]).open("a") as file:
            print(count, file=file, flush=True)
            os.fsync(file.fileno())
        print(count, "wrote", read, flush=True)
    except UserError as error:
        print(count, "refused:", *str(error).split(), flush=True)
    except OSError as error:
        print(count, "failed:", error, flush=True)
    time.sleep(1)
"""


class Writer:
    """A worker of a training that writes a line to the share each second, or says why it does not."""

    def __init__(self, site: VmSite, client: Client, name: str) -> None:
        self.site, self.client, self.name, self.run = site, client, name, str(uuid.uuid4())
        self.namespace = str(client.namespace)
        wanted = choose(site.kube.site, client, site.home)
        apply(client, [stand_in(name, self.run, space_for(wanted), ["python", "-c", WRITES], cpu=0.5)])

    @property
    def pod(self) -> str:
        """Name of its newest pod."""
        words = ("-n", self.namespace, "-l", f"{GANG}={self.name}", "--sort-by=.metadata.creationTimestamp")
        return str(self.site.kube.objects("pods", *words)[-1]["metadata"]["name"])

    @property
    def log(self) -> list[str]:
        """What the newest pod has said."""
        return self.site.kube.kubectl("-n", self.namespace, "logs", self.pod, "-c", CONTAINER).splitlines()

    def says(self, word: str) -> str:
        """Wait for a word in what is said from now on; returns the line."""
        before = len(self.log)
        return str(eventually(lambda: next((line for line in self.log[before:] if word in line), ""), SLOW_S))

    def written(self, pod: str) -> int:
        """How many of a pod's lines the storage machine has."""
        path = self.site.storage.root / STORE / "dvc" / pod
        return len(path.read_text().split()) if path.exists() else 0

    def goes_on(self) -> bool:
        """Whether more is written within a minute; nothing that was done before that counts."""
        pod = self.pod
        before, end = self.written(pod), time.monotonic() + 60
        while time.monotonic() < end:
            if self.written(pod) > before + 2:
                return True
            time.sleep(0.5)
        return False

    def remove(self) -> None:
        self.client.delete(Job, self.name, namespace=self.namespace, cascade=CascadeType.BACKGROUND)


def errors(outcomes: dict[Key, Outcome]) -> dict[Key, str]:
    """What went wrong, but that a VM's clock is its own, and nobody in the laboratory tells the time."""
    found = {key: str(outcome.error) for key, outcome in outcomes.items() if outcome.error}
    assert "set the clock" in found.pop((VM, "health"), "set the clock")
    return found


def states(outcomes: dict[Key, Outcome]) -> set[State]:
    return {outcome.state for key, outcome in outcomes.items() if key != (VM, "health")}


def boot(site: VmSite) -> str:
    """Return the id of the VM's present start; empty while it does not answer."""
    try:
        return site.said("cat", "/proc/sys/kernel/random/boot_id")
    except UserError:
        return ""


def connection(site: VmSite) -> Client:
    """Return the administrator's way to the cluster."""
    cluster = site.kube.site.cluster
    assert cluster is not None
    return connect(cluster.model_copy(update={"kubeconfig": fetch_kubeconfig(site.kube.site, site.home)}))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VmSite]:
    skip_without("qemu-img", "gpg")
    binaries, etcd, flannel = (Path(str(name)) for name in (KUBE_BIN, ETCD_BIN, FLANNEL_BIN))
    with open_site(tmp_path_factory.mktemp("vm"), binaries, etcd, flannel) as made:
        made.begin()
        assert errors(made.run(apply=True)) == {}
        yield made


@pytest.fixture(scope="module")
def client(site: VmSite) -> Iterator[Client]:
    """With what pods of trainings need of the platform."""
    with closing(connection(site)) as found:
        wanted = choose(site.kube.site, found, site.home)
        apply(found, [plan.namespace(wanted), *limits.priorities(), *share.manifests(wanted)])
        apply(found, site_secrets(site.kube.site, wanted, site.kube.root, site.home))
        yield found


@pytest.fixture(scope="module")
def writer(site: VmSite, client: Client) -> Writer:
    (site.storage.root / STORE / "dvc/given").write_text("given-5b3f")
    made = Writer(site, client, "writer")
    eventually(lambda: made.written(made.pod) > 0, SLOW_S)
    return made


def test_a_vm_becomes_a_node_by_the_site_s_own_steps(site: VmSite) -> None:
    assert site.kube.ready() == BOTH
    assert site.said("systemd-detect-virt", "--vm") == "qemu"
    (node,) = [item for item in site.kube.objects("nodes") if item["metadata"]["name"] == VM]
    assert node["status"]["nodeInfo"]["kernelVersion"] == site.said("uname", "-r")
    assert site.said("uname", "-r") != Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert {"type": "InternalIP", "address": f"{site.lab.network}.101"} in node["status"]["addresses"]


def test_a_second_run_changes_nothing(site: VmSite) -> None:
    assert states(site.run(apply=True)) == {State.FITS}


def test_a_pod_on_it_reads_and_writes_the_share(site: VmSite, writer: Writer) -> None:
    mounted = site.said("findmnt", "--noheadings", "--types", "cifs", "--output", "SOURCE", SHARE)
    assert mounted == f"//{site.storage.address}/sambashare"
    assert site.said("stat", "--format=%a %u %g", f"{SHARE}/dvc") == "2770 10001 10001"
    (pod,) = site.kube.objects("pods", "-n", writer.namespace, "-l", f"{GANG}={writer.name}")
    assert pod["spec"]["nodeName"] == VM
    assert writer.says("wrote").endswith("given-5b3f")
    assert writer.goes_on()


def test_a_new_password_of_the_share_reaches_pods_that_run(site: VmSite, writer: Writer) -> None:
    pod = writer.pod
    (site.home / "share-password").write_text("another-9c51\n")
    outcomes = site.run(apply=True, names=["storage", "mounts"])
    assert [str(outcome.error) for outcome in outcomes.values() if outcome.error] == []
    # By what it was mounted with before, nobody gets in any more.
    site.storage.run("systemctl", "restart", "smbd")
    assert writer.goes_on()
    (found,) = site.kube.objects("pods", "-n", writer.namespace, "-l", f"{GANG}={writer.name}")
    assert found["metadata"]["name"] == pod
    assert found["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_pod_keeps_the_share_whatever_becomes_of_the_node_s_mount(site: VmSite, writer: Writer) -> None:
    # As somebody may by hand, or the step where the share has other options now.
    site.said("systemctl", "stop", "mnt-sambashare.mount")
    assert writer.goes_on()
    site.said("systemctl", "stop", *UNITS)
    outcome = site.run(apply=True, machines=[VM], names=["mounts"], checks=True)[VM, "mounts"]
    assert (outcome.state, outcome.error) == (State.CHANGED, None)
    assert writer.goes_on()
    assert {line.split()[1] for line in writer.log} == {"wrote"}


def test_where_the_server_is_away_pods_say_so_and_write_nowhere_else(site: VmSite, writer: Writer) -> None:
    site.storage.run("systemctl", "stop", "smbd")
    try:
        assert "does not answer: Host is down" in writer.says("refused")
        before = writer.written(writer.pod)
        waits = Writer(site, writer.client, "waits")
        with closing(Watched(connection(site), waits.namespace)) as watched:
            watched.run = waits.run
            told = watched.told(Category.MOUNT_FAILED, f"{VM} has no share at {SHARE}", limit_s=180)
        assert told.passing
        outcome = site.run(apply=False, machines=[VM], names=["mounts"])[VM, "mounts"]
        assert outcome.state is State.DIFFERS
        assert f"{SENTINEL} cannot be read" in outcome.changes[-1].why
        # The node's own folder below the mount, which nobody but root could write to.
        below = f"mount --bind / /media && stat --format='%a %U' /media{SHARE} && ls -A /media{SHARE}; umount /media"
        assert site.said("sh", "-c", below) == "0 root"
        assert writer.written(writer.pod) == before
    finally:
        site.storage.run("systemctl", "start", "smbd")
    # Both by themselves: what runs, and what waits.
    assert writer.goes_on()
    eventually(lambda: waits.written(waits.pod) > 0, SLOW_S)
    waits.remove()


def test_after_a_power_cut_node_mount_and_training_are_there_again(site: VmSite, writer: Writer) -> None:
    pod, said = writer.pod, [int(line.split()[0]) for line in writer.log if re.search("wrote", line)]
    booted = boot(site)
    site.cut_power()
    site.power_on()
    eventually(lambda: boot(site) not in (booted, ""), SLOW_S)
    eventually(lambda: site.kube.ready() == BOTH, SLOW_S)
    eventually(lambda: writer.pod != pod and writer.written(writer.pod) > 0, SLOW_S)
    # What a pod was told to be on the share is there.
    assert writer.written(pod) >= len(said)
    assert writer.goes_on()
    assert errors(site.run(apply=True)) == {}
    assert states(site.run(apply=True)) == {State.FITS}
