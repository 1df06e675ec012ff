"""Step ``join``: ``kubeadm join`` of a worker, by a token of minutes and the control plane's own CA."""

from __future__ import annotations

from collections.abc import Iterator

from configs.problems import Problem, UserError
from infra.kubeadm.configuration import Cluster, join_configuration
from infra.kubeadm.hardening import KUBELET_CONFIG
from infra.kubeadm.joining import FOLDER, read_token, token_command
from infra.machines.commands import Command, File, Removal
from infra.site.facts import Fact, Facts
from infra.site.life.leaving import REMOVED
from infra.site.reading import absent_changes, absent_fact, file_fact, unit_changes, unit_fact
from infra.site.step import Change, Relay, Step
from infra.site.steps.control_plane import BEGUN, ENABLE, KUBELET, MADE, foreign_node, ignored
from infra.site.steps.modes import make_private, mode_fact, private_changes
from infra.site.steps.moved import NODE_IP, moved_kubelet
from infra.site.steps.node_view import asks_as_node, has_no_way
from infra.site.steps.starting import RUNS_S, just_started, runs_at

JOIN = FOLDER / "mlops-join.yaml"
LEFT_BY_JOIN = (
    "FileAvailable--etc-kubernetes-kubelet.conf",
    "FileAvailable--etc-kubernetes-bootstrap-kubelet.conf",
    "FileAvailable--etc-kubernetes-pki-ca.crt",
    "Port-10250",
)
_KUBELET_CONF = FOLDER / "kubelet.conf"
_JOIN_S = 600
_WAIT_S = 180
_TIMED_OUT = 124
_ANSWERED = 'until "$0" "$@"; do sleep 1; done'
_THERE = Fact(("ls", str(_KUBELET_CONF)))
# Whatever becomes of it, the token does not stay on the disk.
_RUN = f"trap 'rm -f {JOIN}' EXIT; kubeadm join --config {JOIN} \"$@\""
_CHECK = f"kubeadm join phase preflight --config {JOIN} || {{ rm -f {JOIN}; exit 1; }}"


def join_step(
    machine: str, address: str, cluster: Cluster, control_plane: str, after: tuple[tuple[str, str], ...]
) -> Step:
    """Return the step that makes ``machine`` a node.

    Args:
        control_plane: the machine that is asked for the token.
    """
    # The cluster's own name for it is the machine's.
    listed, server = asks_as_node(machine), runs_at(control_plane)

    def asks(facts: Facts) -> Iterator[Fact]:
        if facts[file_fact(MADE)].ok and has_no_way(facts[listed]):
            yield server

    def changes(facts: Facts) -> Iterator[Change]:
        if facts[file_fact(REMOVED)].ok:
            yield Change(
                "be a node of the cluster",
                "it was taken out",
                by_hand=f"remove {machine} from the site's file, or let it in again: `mlops site add-worker {machine}`",
            )
            return
        begun, made = facts[file_fact(BEGUN)].ok, facts[file_fact(MADE)].ok
        if not made:
            if facts[_THERE].ok and not begun:
                yield foreign_node(facts[_THERE].text)
                return
            yield _join(machine, address, cluster, control_plane, begun=begun)
            return
        yield from private_changes(KUBELET_CONFIG, facts)
        yield from absent_changes(JOIN, facts, "a join was cut off, and its token is in there")
        yield from moved_kubelet(facts, address)
        started = unit_changes(KUBELET, facts)
        yield from started
        if not started and has_no_way(facts[listed]):
            starting = just_started(facts) or just_started(facts, server)
            words = ("timeout", str(_WAIT_S), "sh", "-c", _ANSWERED, *listed.argv)
            wait = Command(words, accepted=frozenset({0, _TIMED_OUT}), timeout_s=_WAIT_S + 30)
            what = f"reach {control_plane}'s API server from here (`journalctl -u {KUBELET}` says what keeps kubelet)"
            yield Change(what, "it does not answer", (wait,), note=starting)
        elif not started and not facts[listed].ok:
            told = " ".join(facts[listed].text.split())
            yield Change(
                "be a node of the cluster",
                f"the cluster does not say that it is one: {told}",
                by_hand="if the node was deleted on purpose, remove the machine from the site's file; else look at the "
                f"control plane, and at `journalctl -u {KUBELET}` here",
            )

    facts = (
        *map(file_fact, (BEGUN, MADE, REMOVED)),
        _THERE,
        absent_fact(JOIN),
        mode_fact(KUBELET_CONFIG),
        NODE_IP,
        unit_fact(KUBELET),
        listed,
        RUNS_S,
    )
    return Step("join", machine, facts, changes, after, repairable=False, asks=asks)


def _join(machine: str, address: str, cluster: Cluster, control_plane: str, *, begun: bool) -> Change:
    def then(said: str) -> tuple[Command | File | Removal, ...]:
        try:
            token, digest = read_token(said)
        except ValueError as error:
            where = f"{control_plane}, asked for a token"
            raise UserError(Problem(where, str(error), "look there: `kubeadm token list`")) from None
        text = join_configuration(cluster, machine, address, token, digest)
        first = (Command(("sh", "-c", _CHECK), timeout_s=_JOIN_S), BEGUN)
        return (
            File(JOIN, text, 0o600, secret=True),
            *(() if begun else first),
            ENABLE,
            Command(("sh", "-c", _RUN, "sh", ignored(LEFT_BY_JOIN)), timeout_s=_JOIN_S),
            *make_private(KUBELET_CONFIG),
            MADE,
        )

    why = "kubeadm join was cut off" if begun else "it is no node yet"
    return Change(f"join the cluster of {control_plane}", why, (Relay(control_plane, token_command(machine), then),))
