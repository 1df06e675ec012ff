"""Troubles of a real cluster, kept as its objects, are told in the same words again; and what no test cluster makes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from snapshots import FACTS, load

from infra.kubernetes.decisions import Action, decide
from infra.kubernetes.diagnosis.causes import diagnose
from infra.kubernetes.diagnosis.facts import (
    Condition,
    Container,
    Ended,
    Event,
    Facts,
    Job,
    Node,
    Pod,
    Run,
)
from infra.kubernetes.diagnosis.masking import clean_line
from infra.kubernetes.diagnosis.quantities import GIB, told
from infra.kubernetes.diagnosis.record import Category, Diagnosis

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NODES = (
    Node("node1", True, {"cpu": 2.0, "memory": 8 * GIB, "pods": 110.0}, {"cpu": 1.2}),
    Node("node2", True, {"cpu": 2.0, "memory": 8 * GIB, "pods": 110.0}, {"cpu": 0.8}),
)


@pytest.mark.parametrize("name", sorted(path.stem for path in FACTS.glob("*.json")))
def test_kept_troubles_are_told_again(name: str) -> None:
    facts, sentence = load(name)
    found = diagnose(facts)
    assert found is not None
    assert found.what == sentence
    assert found.evidence
    assert found.remedy


@pytest.mark.parametrize(
    ("name", "kind", "action"),
    [("power_cut", "CRASHED", Action.RETRY), ("share_not_mounted", "PENDING", Action.SHOW)],
)
def test_what_passes_with_its_node_or_share_fails_no_run(name: str, kind: str, action: Action) -> None:
    found = diagnose(load(name)[0])
    assert found is not None
    assert decide(found, kind, timedelta(hours=1), starts=0, retries=3) is action


def test_kept_troubles_hold_no_values_of_variables() -> None:
    for path in FACTS.glob("*.json"):
        assert '"env"' not in path.read_text(), path
        assert "hush" not in path.read_text(), path


def facts(*, pod: Pod | None = None, kind: str = "PENDING", message: str = "", log: tuple[str, ...] = ()) -> Facts:
    run = Run("quiet-owl", kind, kind.title(), NOW - timedelta(minutes=1), message, log=log, pool="kubernetes")
    return Facts(NOW, run, (Job("train", NOW),), (pod,) if pod else (), NODES)


def pulling(said: str, secrets: str = "") -> Diagnosis:
    events = (Event(NOW, "FailedToRetrieveImagePullSecret", secrets),) if secrets else ()
    container = Container("prefect-job", "registry.example/mlops:1", "ImagePullBackOff", "Back-off pulling image")
    pod = Pod("train-x", "Pending", NOW, "train", node="node1", containers=(container,))
    failed = Event(NOW, "Failed", f'Failed to pull image "registry.example/mlops:1": {said}', 2)
    found = diagnose(facts(pod=Pod(**{**pod.__dict__, "events": (*events, failed)})))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("said", "category", "word", "passing"),
    [
        # containerd, remotes/docker; CRI-O says the registry's own words
        ("failed to resolve reference: registry.example/mlops:1: not found", Category.IMAGE_NOT_FOUND, "exist", False),
        ("reading manifest 1 in registry.example/mlops: manifest unknown", Category.IMAGE_NOT_FOUND, "exist", False),
        (
            "pull access denied, repository does not exist or may require authorization: server message: "
            "insufficient_scope: authorization failed",
            Category.PULL_DENIED,
            "refuses the login",
            False,
        ),
        ("unexpected status from HEAD request to https://x/v2/: 403 Forbidden", Category.PULL_DENIED, "login", False),
        (
            "tls: failed to verify certificate: x509: certificate is valid for a.example, not registry.example",
            Category.REGISTRY_TLS,
            "another name",
            False,
        ),
        (
            "x509: certificate has expired or is not yet valid: current time 2026-03-01T12:00:00Z is after 2025",
            Category.REGISTRY_TLS,
            "expired",
            False,
        ),
        ("http: server gave HTTP response to HTTPS client", Category.REGISTRY_TLS, "plain HTTP", False),
        ("dial tcp: lookup registry.example: no such host", Category.REGISTRY_AWAY, "does not answer", True),
        ("429 Too Many Requests - toomanyrequests", Category.REGISTRY_AWAY, "does not answer", True),
        ("write /var/lib/containerd/x: no space left on device", Category.DISK_PRESSURE, "disk of node1 is full", True),
        ("no match for platform in manifest: not found", Category.IMAGE_UNUSABLE, "processor", False),
    ],
)
def test_pulls(said: str, category: Category, word: str, passing: bool) -> None:
    found = pulling(said)
    assert (found.category, found.passing) == (category, passing)
    assert word in found.what


def test_a_missing_pull_secret_is_the_cause_of_a_denied_pull() -> None:
    secrets = "Unable to retrieve some image pull secrets (mlops-registry); attempting to pull may not succeed."
    found = pulling("unexpected status from HEAD request: 401 Unauthorized", secrets)
    assert "pull secret mlops-registry is missing" in found.what


CSI = (
    'MountVolume.MountDevice failed for volume "mlops-share" : rpc error: code = Internal desc = volume(share) mount '
    '"//storage.example/mlops" on "/var/lib/kubelet/globalmount" failed with mount failed: exit status 32 '
    "Mounting command: mount Mounting arguments: -t cifs -o dir_mode=0777,<masked> //storage.example/mlops Output: "
)


@pytest.mark.parametrize(
    ("said", "word", "passing"),
    [
        # mount.cifs(8) as csi-driver-smb passes it on
        (f"{CSI}mount error(13): Permission denied", "refuses user or password", False),
        (f"{CSI}mount error(2): No such file or directory", "no such share", False),
        (f"{CSI}mount error(112): Host is down", "does not answer", True),
        (f"{CSI}mount error(113): could not connect to 192.0.2.1Unable to find suitable address.", "not answer", True),
        (f"{CSI}mount error(115): Operation now in progress", "does not answer", True),
        (f"{CSI}mount error: could not resolve address for storage.example: Unknown error", "does not answer", True),
        (f"{CSI}mount error(95): Operation not supported", "no SMB version", False),
        # the kernel: cifs_mount failed w/return code
        (
            'MountVolume.SetUp failed for volume "s" : CIFS: VFS: cifs_mount failed w/return code = -13',
            "refuses",
            False,
        ),
        (
            "MountVolume.SetUp failed for volume \"s\" : mount: unknown filesystem type 'cifs'",
            "cannot mount SMB",
            False,
        ),
        ('MountVolume.MountDevice failed for volume "s" : rpc error: code = DeadlineExceeded desc = x', "hangs", True),
        (
            'MountVolume.MountDevice failed for volume "s" : rpc error: code = Aborted desc = An operation with the '
            "given Volume ID s already exists",
            "hangs",
            True,
        ),
    ],
)
def test_mounts(said: str, word: str, passing: bool) -> None:
    pod = Pod("train-x", "Pending", NOW, "train", node="node1", events=(Event(NOW, "FailedMount", said),))
    found = diagnose(facts(pod=pod))
    assert found is not None
    assert found.category is Category.MOUNT_FAILED
    assert word in found.what
    assert "node1 cannot mount volume" in found.what
    assert found.passing is passing


def ended(code: int, *log: str, reason: str = "Error", **pod: object) -> Pod:
    container = Container(
        "prefect-job", "mlops:1", ended=Ended(code, reason, "", NOW), memory_limit=2 * GIB, memory_request=GIB, log=log
    )
    return Pod("train-x", "Failed", NOW, "train", node="node1", containers=(container,), **pod)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pod", "category", "word"),
    [
        (ended(137, reason="OOMKilled"), Category.OUT_OF_MEMORY, "limit of 2 GiB"),
        (ended(137), Category.USER_CODE, "not by its memory limit"),
        (ended(143), Category.POD_DELETED, "143, SIGTERM"),
        (ended(126), Category.USER_CODE, "may not be executed"),
        (ended(132), Category.USER_CODE, "instruction"),
        (ended(134), Category.USER_CODE, "SIGABRT"),
        (
            ended(1, "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that "
                  "dataloader's workers are out of shared memory. Please try to raise your shared memory limit."),
            Category.SHM,
            "/dev/shm of 64 MiB",
        ),
        (
            ended(1, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"),
            Category.OUT_OF_MEMORY,
            "GPU's memory is full",
        ),
        (
            ended(1, "RuntimeError: [enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
            Category.OUT_OF_MEMORY,
            "limit of 2 GiB",
        ),
        (
            ended(1, "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1691, unhandled system "
                  "error (run with NCCL_DEBUG=INFO for details), NCCL version 2.27.5 ncclSystemError"),
            Category.NETWORK,
            "NCCL",
        ),
        (
            ended(1, "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:598] Connection closed by peer "
                  "[192.0.2.1]:28048"),
            Category.NETWORK,
            "Gloo",
        ),
    ],
)  # fmt: skip
def test_ends(pod: Pod, category: Category, word: str) -> None:
    found = diagnose(facts(pod=pod, kind="CRASHED"))
    assert found is not None
    assert found.category is category, found.text()
    assert word in found.what


def test_a_process_that_only_prefects_runner_saw_end() -> None:
    message = "Flow run process exited with non-zero status code 3."
    found = diagnose(facts(kind="CRASHED", message=message, log=("leaving 3",)))
    assert found is not None
    assert (found.category, found.passing) == (Category.USER_CODE, False)
    assert "exit code 3" in found.what
    assert "leaving 3" in found.evidence


EVICTIONS = [
    # pkg/kubelet/eviction
    (
        "The node was low on resource: ephemeral-storage. Threshold quantity: 1, available: 0.",
        Category.DISK_PRESSURE,
        "disk of node1 is nearly full",
        True,
    ),
    ("The node was low on resource: memory. Container x was using 3Gi", Category.EVICTED, "short of memory", True),
    (
        'Usage of EmptyDir volume "tmp" exceeds the limit "1Gi". ',
        Category.DISK_PRESSURE,
        "its limit of 1Gi (volume tmp)",
        False,
    ),
    (
        "Pod ephemeral local storage usage exceeds the total limit of containers 2Gi. ",
        Category.DISK_PRESSURE,
        "limit of 2Gi",
        False,
    ),
]


@pytest.mark.parametrize(("said", "category", "word", "passing"), EVICTIONS)
def test_evictions_by_the_kubelet(said: str, category: Category, word: str, passing: bool) -> None:
    found = diagnose(facts(pod=ended(137, **{"reason": "Error"}, message=said), kind="CRASHED"))
    assert found is not None
    pod = Pod(**{**ended(137, message=said).__dict__, "reason": "Evicted"})
    found = diagnose(facts(pod=pod, kind="CRASHED"))
    assert found is not None
    assert (found.category, found.passing) == (category, passing)
    assert word in found.what


def test_a_spot_machine_that_is_taken_back_is_passing_and_avoided() -> None:
    # pkg/kubelet/nodeshutdown
    pod = Pod(**{**ended(143, message="Pod was terminated in response to imminent node shutdown.").__dict__,
                 "reason": "Terminated"})  # fmt: skip
    found = diagnose(facts(pod=pod, kind="CRASHED"))
    assert found is not None
    assert found.category is Category.NODE_SHUTDOWN
    assert found.passing
    assert found.avoid == ("node1",)


def gang(*pods: Pod) -> Facts:
    return Facts(NOW, None, (Job("gang", NOW, gang=True, completions=3),), pods, NODES)


def member(rank: int, phase: str = "Running", *log: str, **pod: object) -> Pod:
    container = Container("worker", "mlops:1", running=phase == "Running", log=log)
    return Pod(f"gang-{rank}", phase, NOW, "gang", rank, containers=(container,), **pod)  # type: ignore[arg-type]


def test_a_rendezvous_names_the_missing_ranks_and_why() -> None:
    waited = "torch.distributed.elastic.rendezvous.api.RendezvousTimeoutError"
    unschedulable = Condition("False", "Unschedulable", "0/2 nodes are available: 2 Insufficient cpu.", NOW)
    found = diagnose(
        gang(
            member(0, "Running", waited, node="node1"),
            member(1, "Pending", conditions={"PodScheduled": unschedulable}, requests={"cpu": 4.0}),
        )
    )
    assert found is not None
    # The root cause is the pod that finds no node.
    assert found.category is Category.UNSCHEDULABLE
    assert found.what == ("No node has room: rank 1 wants 4 CPU; node1 has 0.8 of 2 free, node2 has 1.2 of 2 free.")
    lost = diagnose(gang(member(0, "Running", waited, node="node1"), member(2, "Running", node="node2")))
    assert lost is not None
    assert lost.category is Category.RENDEZVOUS
    assert lost.what == "1 of 3 workers of gang did not come to the rendezvous in time: rank 1 has no pod."


def test_where_other_namespaces_may_not_be_read_only_ours_is_told() -> None:
    said = Condition("False", "Unschedulable", "0/1 nodes are available: 1 Insufficient memory.", NOW)
    pod = Pod("train-x", "Pending", NOW, "train", conditions={"PodScheduled": said}, requests={"memory": 6 * GIB})
    node = Node("node1", True, {"cpu": 2.0, "memory": 8 * GIB, "pods": 110.0}, {"memory": GIB}, partial=True)
    found = diagnose(Facts(NOW, None, (Job("train", NOW),), (pod,), (node,)))
    assert found is not None
    assert found.what == (
        "No node has room: the run wants 6 GiB of memory; node1 has 8 GiB of memory, 1 GiB of it ours."
    )


def test_the_rank_that_failed_by_itself_comes_before_those_that_lost_it() -> None:
    broken = Pod(**{**ended(1, "ValueError: labels out of range").__dict__, "job": "gang", "rank": 1})
    peer = Pod(**{**ended(1, "gloo/transport/tcp/pair.cc:598] Connection closed by peer [192.0.2.1]:2").__dict__,
                  "job": "gang", "rank": 0})  # fmt: skip
    found = diagnose(gang(peer, broken))
    assert found is not None
    assert found.category is Category.USER_CODE, found.text()
    assert "Rank 1" in found.what
    assert "labels out of range" in found.what


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("connecting to smb://alice:tr0ub4dor@storage/share", "tr0ub4dor"),
        ("PREFECT_API_AUTH_STRING=mlops:correct-horse password=correct-horse", "correct-horse"),
        ("Authorization: Bearer abcdef0123456789", "abcdef0123456789"),
        ('{"password": "battery staple"}', "battery staple"),
        ("token eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJydW4ifQ.c2lnbmF0dXJl", "eyJzdWIi"),
    ],
)
def test_secrets_are_masked(line: str, secret: str) -> None:
    assert secret not in clean_line(line)


def test_a_record_reads_the_same_in_text_and_markdown() -> None:
    found = Diagnosis(Category.QUOTA, "Quota q is used up.", ("12:00:00 FailedCreate: no",), "wait", passing=True)
    assert found.text() == "quota exceeded: Quota q is used up.\n    12:00:00 FailedCreate: no\n    -> wait"
    assert "### Quota exceeded" in found.markdown()
    assert "12:00:00 FailedCreate: no" in found.markdown()


def test_amounts_are_told_as_a_person_would() -> None:
    assert told("cpu", 0.5) == "0.5 CPU"
    assert told("memory", 1.5 * GIB) == "1.5 GiB of memory"
    assert told("nvidia.com/gpu", 2) == "2 nvidia.com/gpu"


@pytest.mark.parametrize(
    ("changes", "category", "word"),
    [
        ({"pool_status": "paused"}, Category.POOL_PAUSED, "is paused"),
        ({"queue_paused": "urgent"}, Category.POOL_PAUSED, "Queue urgent"),
        ({"pool_status": "missing"}, Category.NO_WORKER, "does not exist"),
        ({"workers_online": 0, "workers_seen": None}, Category.NO_WORKER, "none was ever heard"),
        ({"waits_for": ("a", "b", "c", "d"), "limit": "one at a time"}, Category.QUEUED, "a, b, c and 1 more"),
    ],
)
def test_runs_that_do_not_begin(changes: dict[str, object], category: Category, word: str) -> None:
    late = NOW - timedelta(minutes=1)
    values = {"workers_seen": NOW, "pool": "kubernetes", "due": late, **changes}
    found = diagnose(Facts(NOW, Run("quiet-owl", "SCHEDULED", "Late", late, **values)))  # type: ignore[arg-type]
    assert found is not None
    assert found.category is category
    assert word in found.what
    early = Facts(NOW, Run("quiet-owl", "SCHEDULED", "Scheduled", NOW, **{**values, "due": NOW}))  # type: ignore[arg-type]
    assert diagnose(early) is None, "a run has a few seconds to begin"


def test_kept_files_are_of_real_objects() -> None:
    for path in FACTS.glob("*.json"):
        assert json.loads(path.read_text())["jobs"], path


@pytest.mark.parametrize(
    ("cpu", "sentence", "remedy"),
    [
        (0.8, "there is room for 2: each wants 0.8 CPU; node1 has 0.8 of 2 free, node2 has 1.2 of 2 free", "wait"),
        (1.5, "there is room for 0: each wants 1.5 CPU; node1 has 0.8 of 2 free, node2 has 1.2 of 2 free", "lower"),
        (0.3, "Volcano does not place them although they have room: its queue may be full", "look at the queue"),
    ],
)
def test_a_gang_that_volcano_places_whole_or_not_at_all(cpu: float, sentence: str, remedy: str) -> None:
    known = {
        0: ("Schedulable", "Pod ml/lin-1-0 can possibly be assigned to node1"),
        1: ("Unschedulable", "all nodes are unavailable: 2 node(s) resource fit failed."),
    }
    wait = [{"PodScheduled": Condition("False", *known[rank], NOW)} if rank in known else {} for rank in range(3)]
    pods = tuple(
        Pod(f"lin-1-{rank}", "Pending", NOW, "lin-1", rank, conditions=wait[rank], requests={"cpu": cpu},
            scheduler="volcano")
        for rank in range(3)
    )  # fmt: skip
    gang = Job("lin-1", NOW, gang=True, completions=3)
    found = diagnose(Facts(NOW, jobs=(gang,), pods=pods, nodes=NODES))
    assert found is not None
    assert found.category is Category.UNSCHEDULABLE
    assert sentence in found.what
    assert found.what.startswith("The 3 workers of lin-1 are placed together or not at all, and ")
    assert found.remedy.startswith(remedy)
    fresh = tuple(Pod(pod.name, "Pending", NOW, "lin-1", pod.rank, scheduler="volcano") for pod in pods)
    assert diagnose(Facts(NOW, jobs=(gang,), pods=fresh, nodes=NODES)) is None, "nothing is said of them yet"
    later = Facts(NOW + timedelta(seconds=20), jobs=(gang,), pods=fresh, nodes=NODES)
    assert diagnose(later) is not None
