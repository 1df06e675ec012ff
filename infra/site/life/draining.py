"""A drain of a node, and why one came to no end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from infra.machines.commands import Command
from infra.machines.trouble import last_lines
from infra.site.steps.control_plane import ADMIN

_KUBECTL = f"kubectl --kubeconfig={ADMIN}"
_ASK = f"{_KUBECTL} --request-timeout=15s"
# Those that let no pod go, each with what it selects as kubectl is told it: `kubectl get pods` knows who that is.
_BUDGETS = """\
{{range .items}}{{if and (not .status.disruptionsAllowed) (ne (print .spec.selector) "<nil>")}}\
{{.metadata.namespace}} {{.metadata.name}} \
{{range $key, $value := .spec.selector.matchLabels}}{{$key}}={{$value}},{{end}}\
{{range .spec.selector.matchExpressions}}\
{{if eq .operator "DoesNotExist"}}!{{end}}{{.key}}\
{{if .values}} {{if eq .operator "In"}}in{{else}}notin{{end}} \
({{range $at, $value := .values}}{{if $at}},{{end}}{{$value}}{{end}}){{end}},\
{{end}}{{"\\n"}}{{end}}{{end}}"""
# The same reason comes every five seconds: once is enough. Which budget it is kubectl does not say.
_SCRIPT = f"""\
({_KUBECTL} drain "$@" 2>&1; echo "ended with $?") |
  awk 'BEGIN {{ status = 1 }} /^ended with / {{ status = $3; next }} !said[$0]++ {{ print; fflush() }}
    END {{ exit status }}'
status=$?
[ $status = 0 ] || {_ASK} get poddisruptionbudgets -A -o go-template='{_BUDGETS}' |
  while read -r space name selector; do
    {_ASK} get pods -n "$space" --selector="${{selector%,}}" --field-selector="spec.nodeName=$1" -o name |
      sed "s|^pod/|budget $space/$name keeps |"
  done
exit $status
"""
_REFUSED = r"""pods/"([^"]+)" -n "([^"]+)".*: Cannot evict pod as it would violate the pod's disruption budget"""
_LEFT = r'pods/"([^"]+)" -n "([^"]+)": global timeout reached'
_KEEPS = r"(?m)^budget ([^/\s]+)/(\S+) keeps (\S+)\n?"


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
        told = last_lines(re.sub(_KEEPS, "", said))
        return f"node {node} cannot be drained{told}", "mend what it says, and run it again"
    budgets = sorted({(space, name) for space, name, pod in re.findall(_KEEPS, said) if (pod, space) in refused})
    pods = ", ".join(f"{space}/{pod}" for pod, space in refused)
    told = ", ".join(f"{space}/{name}" for space, name in budgets) or "which has changed meanwhile"
    look = "; ".join(f"`kubectl -n {space} edit pdb {name}`" for space, name in budgets) or "`kubectl get pdb -A`"
    return (
        f"node {node} cannot be drained: {pods} may not end by its disruption budget ({told})",
        f"have another replica of it ready on another node, or change the budget ({look}), and run it again",
    )
