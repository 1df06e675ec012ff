"""Step ``node``: what a machine is in the cluster once it has joined: its serving certificate, its role, its labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from configs.problems import Problem, UserError
from infra.addons.device_plugin import GPU_LABEL
from infra.kubeadm.joining import FOLDER
from infra.kubeadm.serving import SIGNER, approvable
from infra.machines.commands import Command
from infra.site.facts import Fact, Facts
from infra.site.inventory import SiteMachine
from infra.site.step import Action, Change, Relay, Step
from infra.site.steps.applied import KUBECTL
from infra.site.steps.gpu import DRIVER, GPU, has_gpu

WORKER_ROLE = "node-role.kubernetes.io/worker"
SET = "mlops/labels"
"""Annotation of a node: the labels that this site has given it, and so may take away again."""
SERVING = "/var/lib/kubelet/pki/kubelet-server-current.pem"
LEFT_DAYS = 30
"""Kubelet asks for a new certificate when 10 to 30 % of its year are left: with fewer days it has long been asking."""
_WAIT_S = 90
_TRIES = 3


def node_step(described: SiteMachine, control_plane: str, after: tuple[tuple[str, str], ...], *, gpu: bool) -> Step:
    """Return the step for a machine, which asks the cluster as the node that it is.

    Args:
        control_plane: the machine that approves and labels.
        gpu: its GPU, where there is one, is for pods.
    """
    machine, address = described.name, described.address
    works = "worker" in described.roles
    serving = Fact(("sh", "-c", _SERVING, "sh", SERVING, str(LEFT_DAYS * 86400)))
    node = Fact(
        ("kubectl", f"--kubeconfig={FOLDER}/kubelet.conf", "--request-timeout=10s", "get", "node", machine, "-o=json")
    )

    def changes(facts: Facts) -> Iterator[Change]:
        wanted = dict(described.labels)
        if works:
            wanted[WORKER_ROLE] = ""
        if gpu and has_gpu(facts) and facts[DRIVER].ok:
            wanted[GPU_LABEL] = "true"
        # First: meanwhile a kubelet that has just started asks for its certificate.
        yield from _label_changes(machine, wanted, control_plane, facts[node].text if facts[node].ok else "{}")
        named = re.search(rf"IP Address:{re.escape(address)}(,|\s|$)", facts[serving].text)
        if not facts[serving].ok or not named:
            why = "it is for another address" if facts[serving].ok else _short(facts[serving].text)
            yield _serving_change(machine, address, control_plane, why)

    return Step("node", machine, (serving, node, GPU, DRIVER), changes, after)


# Its names, and whether it lasts long enough; openssl says both on the same output.
_SERVING = 'openssl x509 -in "$1" -noout -ext subjectAltName -checkend "$2"'


def _serving_change(machine: str, address: str, control_plane: str, why: str) -> Change:
    def wait(seconds: int, *accepted: int) -> Command:
        words = ("sh", "-c", _COMES, "sh", SERVING, address, str(seconds * 2))
        return Command(words, accepted=frozenset({0, *accepted}), timeout_s=seconds * 2)

    def approve(said: str, tries: int = _TRIES) -> tuple[Action, ...]:
        try:
            good, bad = approvable(said, machine, address)
        except ValueError as error:
            raise UserError(Problem(f"{control_plane}, asked for requests", str(error), "run it again")) from None
        if bad and not good:
            remedy = f"look at {machine}: another machine may be asking in its name; `kubectl describe csr` shows it"
            raise UserError([Problem(f"certificate request of {machine}", item, remedy) for item in bad])
        if not good and tries < _TRIES:
            return (wait(_WAIT_S),)
        if not good:
            remedy = f"look why: journalctl -u kubelet | grep -i certificate. A node of an older site: {_OLD}"
            raise UserError(Problem(machine, "its kubelet asks for no serving certificate", remedy))
        command = Command((*KUBECTL, "certificate", "approve", *good))
        approved = Relay(control_plane, command, _nothing)
        if tries == 1:
            return approved, wait(_WAIT_S)

        # A kubelet that was started anew has another key, and a request of its own: that one may have come after this.
        def again(said: str) -> tuple[Action, ...]:
            return (
                () if "came" in said.split() else (Relay(control_plane, asked, lambda said: approve(said, tries - 1)),)
            )

        return approved, Relay(machine, wait(_WAIT_S // _TRIES, 1), again)

    asked = Command(("sh", "-c", _ASKED, "sh", f"system:node:{machine}", *KUBECTL), timeout_s=_WAIT_S * 4)
    return Change("approve its serving certificate", why, (Relay(control_plane, asked, approve),))


_OLD = "write `serverTLSBootstrap: true` into /var/lib/kubelet/config.yaml and restart kubelet"
# A kubelet that has just started asks within seconds.
_ASKED = f"""\
user=$1; shift
for i in $(seq {_WAIT_S * 2}); do
  all=$("$@" get csr --field-selector=spec.signerName={SIGNER} --no-headers) || exit
  printf '%s\\n' "$all" | grep -F " $user " | grep -q Pending && break
  sleep 0.5
done
"$@" get csr --field-selector=spec.signerName={SIGNER} -o json
"""
# The one of before is there until then, and may be good for months.
_COMES = f"""\
for i in $(seq $3); do
  said=$(openssl x509 -in "$1" -noout -ext subjectAltName -checkend {LEFT_DAYS * 86400} 2>&1) &&
    printf '%s\\n' "$said" | grep -qwF "IP Address:$2" && echo came && exit
  sleep 0.5
done
printf '%s\\n' "$said" >&2
exit 1
"""


def _label_changes(machine: str, wanted: Mapping[str, str], control_plane: str, said: str) -> Iterator[Change]:
    metadata = json.loads(said).get("metadata", {})
    there, mine = metadata.get("labels", {}), metadata.get("annotations", {}).get(SET, "")
    given = {key: value for key, value in wanted.items() if there.get(key) != value}
    taken = [key for key in filter(None, mine.split(",")) if key not in wanted and key in there]
    listed = ",".join(sorted(wanted))
    if not given and not taken and mine == listed:
        return
    told = ", ".join([*(f"{key}={value}".rstrip("=") for key, value in given.items()), *(f"no {key}" for key in taken)])
    # Labels and their list at once: they never contradict each other.
    metadata = {"labels": {**given, **dict.fromkeys(taken)}, "annotations": {SET: listed}}
    patch = json.dumps({"metadata": metadata})
    command = Command((*KUBECTL, "patch", "node", machine, "--type=merge", f"--patch={patch}"))
    what = f"label it {told}" if told else "list its labels"
    yield Change(what, "its node has others", (Relay(control_plane, command, _nothing),))


def _nothing(_: str) -> tuple[Action, ...]:
    return ()


def _short(text: str) -> str:
    return " ".join(text.split())[-200:] or "there is none"
