"""kubeadm's upgrade of a control plane, begun when the cluster can show that it works.

For that kubeadm starts a Job, and gives it 15 seconds. Whoever has lost the API server just now, as after an upgrade
that was killed, comes back later than it: controller manager and scheduler have to lead again, and they and each
kubelet look for pods again only at their next try, which client-go puts off by up to a minute.
"""

from __future__ import annotations

import shlex
from functools import partial

from infra.machines.commands import Command
from infra.machines.trouble import last_lines
from infra.site.steps.applied import KUBECTL

LED_S, APPLY_S, TRIES = 300, 2400, 6
_LED = f"""\
good=0
for i in $(seq {LED_S // 3}); do
  led=0
  for name in kube-controller-manager kube-scheduler; do
    at=$({" ".join(KUBECTL)} -n kube-system get lease $name -o 'jsonpath={{.spec.renewTime}}' 2>&1)
    then=$(date -d "$at" +%s 2>/dev/null || echo 0)
    [ $(($(date +%s) - then)) -gt 10 ] || led=$((led + 1))
  done
  [ $led = 2 ] && good=$((good + 1)) || good=0
  [ $good -lt 3 ] || exit 0
  sleep 3
done
echo "controller manager and scheduler do not both work: $at"
exit 1
"""
# The Job comes before anything is changed. Nothing else that kubeadm refuses passes by itself.
_APPLY = f"""\
for i in $(seq {TRIES}); do
  {{ "$@" 2>&1; echo "ended with $?"; }} |
    awk 'BEGIN {{ status = 1 }} /^ended with / {{ status = $3; next }} {{ print; fflush() }}
      /\\[ERROR CreateJob\\]/ {{ late = 1 }} END {{ exit late && status ? 75 : status }}'
  status=$?
  [ $status = 75 ] || exit $status
done
exit 1
"""


def apply_commands(version: str, options: tuple[str, ...]) -> tuple[Command, Command]:
    """Return the commands for the control plane that bring it to ``version``.

    Args:
        options: more of ``kubeadm upgrade apply``.
    """
    words = ("kubeadm", "upgrade", "apply", f"v{version}", "--yes", *options)
    return (
        Command(("sh", "-c", _LED), timeout_s=LED_S * 5),
        Command(("sh", "-c", _APPLY, "sh", *words), timeout_s=APPLY_S, explain=partial(_why_not, shlex.join(words))),
    )


def _why_not(words: str, said: str) -> tuple[str, str]:
    return f"`{words}` did not succeed{last_lines(said)}", "mend what it says, and run it again"
