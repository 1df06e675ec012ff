"""What the cluster says of its nodes while they are upgraded: all of them in one reading."""

from __future__ import annotations

from dataclasses import dataclass

from infra.site.facts import Fact, Facts
from infra.site.steps.applied import KUBECTL

UPGRADE = "mlops/upgrade"
"""Annotation of a node whose upgrade has begun: to which release, and whether it was closed to new pods before."""
CLOSED = "was closed before"
_ROW = (
    "{.metadata.name}",
    "{.status.nodeInfo.kubeletVersion}",
    '{.status.conditions[?(@.type=="Ready")].status}',
    "{.spec.unschedulable}",
    f"{{.metadata.annotations.{UPGRADE}}}",
    '{.status.conditions[?(@.type=="Ready")].message}',
)
NODES = Fact((*KUBECTL, "get", "nodes", "--output=jsonpath={range .items[*]}" + '{"\\t"}'.join(_ROW) + '{"\\n"}{end}'))


@dataclass(frozen=True)
class Node:
    """A node.

    Attributes:
        version: of its kubelet, without ``v``. message: why it is not ready. closed: it takes no new pods.
        upgrade: what :data:`UPGRADE` says.
    """

    version: str
    ready: bool
    closed: bool
    upgrade: str
    message: str

    def begun(self, version: str) -> bool:
        """Return whether its upgrade to ``version`` has begun and not ended."""
        return self.upgrade.split(" ")[0] == version


def read_nodes(facts: Facts) -> dict[str, Node]:
    """Return all nodes by name; none where the API server does not answer."""
    found = {}
    lines = facts[NODES].text.splitlines() if facts[NODES].ok else []
    for line in (line for line in lines if line.count("\t") >= len(_ROW) - 1):
        name, version, ready, closed, upgrade, message = line.split("\t", len(_ROW) - 1)
        found[name] = Node(version.removeprefix("v"), ready == "True", closed == "true", upgrade, message)
    return found


def annotate(node: str, upgrade: str) -> tuple[str, ...]:
    """Return the command that sets :data:`UPGRADE`, or removes it where ``upgrade`` is empty."""
    value = f"{UPGRADE}={upgrade}" if upgrade else f"{UPGRADE}-"
    return (*KUBECTL, "annotate", "node", node, "--overwrite", value)
