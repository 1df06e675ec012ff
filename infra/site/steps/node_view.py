"""What a node says of itself while its cluster calls it not ready, and what follows from both.

The control plane knows since when it hears nothing. Why, only the machine knows: it has just started, its kubelet ends
again and again, or does not reach the control plane. So both are asked; pure, nobody is asked here.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, replace

from infra.kubeadm.configuration import PORT
from infra.kubeadm.joining import FOLDER
from infra.site.facts import TIMED_OUT, Fact, Facts, Reading
from infra.site.steps.moved import NODE_IP
from infra.site.steps.starting import STARTS_S, just_started, runs_at

CLOCK = "%Y-%m-%d %H:%M UTC"
KUBELET_LOG = "`journalctl -u kubelet`"
# A kubelet that systemd has started so many times will end once more, until it has run for a while.
_LOOPS = 3
_SETTLES_S = 60
# Of kubectl: what may pass, as after a power cut, and says nothing about the node.
_NO_WAY = r"(?is)^(?!.*x509).*(unable to connect|refused|timed? ?out|no route|InternalError|ServiceUnavailable)"
# Its state, the seconds since its start, and its last error without the head that klog gives a line.
_KUBELET = r"""
systemctl show --property=ActiveState,NRestarts,MainPID kubelet.service
echo "Seconds=$(ps -o etimes= -p "$(systemctl show --property=MainPID --value kubelet.service)" 2>/dev/null)"
journalctl --boot --unit=kubelet --output=cat --lines=400 | sed -n 's/^[EF][0-9]\{4\} [^]]*\] /Error=/p' | tail -n 1
"""


def asks_as_node(machine: str) -> Fact:
    """Ask the cluster, as the node ``machine``, for that node: it may read itself."""
    words = ("kubectl", f"--kubeconfig={FOLDER}/kubelet.conf", "--request-timeout=10s", "get", "node", machine)
    return Fact((*words, "-o=name"))


def has_no_way(asked: Reading) -> bool:
    """Return whether kubectl did not come to the API server, by what it said or did not say in time."""
    return asked.status == TIMED_OUT or (asked.status == 1 and bool(re.search(_NO_WAY, asked.text)))


def own_facts(machine: str) -> tuple[Fact, Fact, Fact, Fact]:
    """Return what the node ``machine`` is asked, for a step of another machine."""
    kubelet = Fact(("sh", "-c", _KUBELET), at=machine)
    return runs_at(machine), kubelet, replace(NODE_IP, at=machine), replace(asks_as_node(machine), at=machine)


@dataclass(frozen=True)
class Described:
    """A node as the site describes it, and where it looks for the control plane."""

    name: str
    address: str
    endpoint: str


@dataclass(frozen=True)
class Verdict:
    """Why a node is not ready.

    Attributes:
        remedy: what a person has to do; empty: it is starting, or a step of its own machine mends it.
    """

    why: str
    remedy: str = ""


def judge(node: Described, lost: str, now: datetime.datetime, facts: Facts, *, new: bool) -> Verdict:
    """Return why a node is not ready.

    Args:
        lost: what the cluster knows of it. now: by the control plane's clock. facts: of :func:`own_facts`.
        new: the control plane has just started, or the node was lost just now: it may need its time.
    """
    runs, kubelet, _, asked = (facts[fact] for fact in own_facts(node.name))
    if kubelet.unreached is not None:
        why = f"{lost}, and cannot be asked itself: {kubelet.unreached.what}"
        return Verdict(why) if new else Verdict(why, kubelet.unreached.remedy)
    boots = just_started(facts, runs_at(node.name))
    since = f"{lost}; it was started at {_before(now, runs.text)}" if boots else lost
    trouble = _kubelet_trouble(node, since, facts, boots=boots)
    if trouble is not None:
        return trouble
    # Before its last words kubectl says each try.
    said = asked.text.strip().rpartition("\n")[2] or "no answer"
    endpoint = f"the control plane at {node.endpoint}:{PORT}"
    if has_no_way(asked):
        if boots or new:
            return Verdict(f"{since}, and does not reach {endpoint} yet: {said}")
        found = f"does `getent hosts {node.endpoint}` say the control plane's address, and is no firewall between?"
        remedy = f"on {node.name}: {found}"
        return Verdict(f"{since}, and does not reach {endpoint}: {said}", remedy)
    if not asked.ok:
        return Verdict(f"{since}, and asking {endpoint} from there fails: {said}", _look(node))
    seconds = _values(kubelet.text).get("Seconds") or "0"
    works = f"its kubelet has run since {_before(now, seconds)} and reaches {endpoint}"
    if boots or new or int(seconds) < STARTS_S:
        return Verdict(f"{since}; {works}: it is expected soon")
    return Verdict(f"{since}, though {works}", _look(node))


def _kubelet_trouble(node: Described, since: str, facts: Facts, *, boots: bool) -> Verdict | None:
    """Return what is wrong with its kubelet itself; None: it is up and where it should be."""
    _, kubelet, told, _ = own_facts(node.name)
    values = _values(facts[kubelet].text)
    state = values.get("ActiveState") or "not there"
    if state in ("inactive", "failed"):
        return Verdict(f"{since}; its kubelet is {state}, and {node.name}'s step `kubernetes` or `join` starts it")
    error = f": {values['Error']}" if "Error" in values else ""
    loops = int(values.get("NRestarts") or 0) >= _LOOPS
    if loops and state != "active" and not boots:
        return Verdict(f"{since}; its kubelet ends again and again{error}", _look(node))
    if state != "active":
        return Verdict(f"{since}; its kubelet is not up yet")
    # By hand as well as by systemd, which does not count them apart: whether it stays is still to be seen.
    if loops and int(values.get("Seconds") or 0) < _SETTLES_S:
        return Verdict(f"{since}; its kubelet has been started again just now, before that it had ended{error}")
    address = facts[told].text.strip().partition("=")[2]
    if facts[told].ok and address and address != node.address:
        return Verdict(f"{since}; its kubelet is still at {address}, which {node.name}'s step `join` mends")
    return None


def _values(text: str) -> dict[str, str]:
    rows = (line.partition("=") for line in text.splitlines())
    return {key: value.strip() for key, _, value in rows}


def _look(node: Described) -> str:
    return f"look why: {KUBELET_LOG} on {node.name}"


def _before(now: datetime.datetime, seconds: str) -> str:
    return f"{now - datetime.timedelta(seconds=int(seconds)):{CLOCK}}"
