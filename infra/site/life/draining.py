"""A drain of a node, and why one came to no end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from infra.machines.commands import Command
from infra.machines.trouble import last_lines
from infra.site.steps.control_plane import ADMIN

_KUBECTL = f"kubectl --kubeconfig={ADMIN}"
_BUDGETS = (
    "{range .items[?(@.status.disruptionsAllowed==0)]}"
    'budget {.metadata.namespace}/{.metadata.name} lets no pod go{"\\n"}{end}'
)
# The same reason comes every five seconds: once is enough. Which budget it is kubectl does not say.
_SCRIPT = f"""\
({_KUBECTL} drain "$@" 2>&1; echo "ended with $?") |
  awk '/^ended with / {{ status = $3; next }} !said[$0]++ {{ print; fflush() }} END {{ exit status }}'
status=$?
[ $status = 0 ] || {_KUBECTL} --request-timeout=15s get poddisruptionbudgets -A -o jsonpath='{_BUDGETS}'
exit $status
"""
_REFUSED = r"""pods/"([^"]+)" -n "([^"]+)".*: Cannot evict pod as it would violate the pod's disruption budget"""
_LEFT = r'pods/"([^"]+)" -n "([^"]+)": global timeout reached'
_BUDGET = r"(?m)^budget ([^/\s]+)/(\S+) lets no pod go$"


def drain(node: str, options: Sequence[str], timeout_s: float) -> Command:
    """Return the command for the control plane that has the pods of ``node`` end.

    Args:
        options: of ``kubectl drain``, its own time limit of ``timeout_s`` among them.
    """
    words = ("sh", "-c", _SCRIPT, "sh", node, *options)
    return Command(words, timeout_s=timeout_s + 60, explain=partial(why_not_drained, node))


def why_not_drained(node: str, said: str) -> tuple[str, str]:
    """Return what kept the pods of ``node`` from ending: with disruption budgets which, and what to do about them.

    Args:
        said: what the drain printed, and what comes after it.
    """
    refused = sorted(set(re.findall(_REFUSED, said)) & set(re.findall(_LEFT, said)))
    if not refused:
        return f"node {node} cannot be drained{last_lines(said)}", "mend what it says, and run it again"
    spaces = {space for _, space in refused}
    budgets = sorted({(space, name) for space, name in re.findall(_BUDGET, said) if space in spaces})
    pods = ", ".join(f"{space}/{pod}" for pod, space in refused)
    told = ", ".join(f"{space}/{name}" for space, name in budgets) or "which has changed meanwhile"
    look = "; ".join(f"`kubectl -n {space} edit pdb {name}`" for space, name in budgets) or "`kubectl get pdb -A`"
    return (
        f"node {node} cannot be drained: {pods} may not end by its disruption budget ({told})",
        f"have another replica of it ready on another node, or change the budget ({look}), and run it again",
    )
