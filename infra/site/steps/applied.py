"""Objects of the cluster that a machine with its administrator's kubeconfig applies: written there, compared, applied.

https://kubernetes.io/docs/reference/using-api/server-side-apply/: the API server itself says what differs, and fields
that others have set stay theirs, but for those that the site says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from infra.kubeadm.joining import FOLDER
from infra.machines.commands import Command, File
from infra.site.facts import Fact, Facts
from infra.site.reading import file_changes, file_fact
from infra.site.step import Change, Step
from infra.site.steps.control_plane import ADMIN

KUBECTL = ("kubectl", f"--kubeconfig={ADMIN}", "--request-timeout=15s")
APPLY_S = 120
"""Seconds that one answer may take: after a manifest of many new kinds, the API server thinks for a while."""
ROLLOUT_S = 600
Rollouts = Sequence[tuple[str, str]]
"""Workloads: namespace, and kind with name, as ``daemonset/kube-flannel-ds``."""
_HOW = ("--server-side", "--field-manager=mlops")


def applied_step(
    name: str,
    machine: str,
    what: str,
    text: str,
    rollouts: Rollouts,
    after: tuple[tuple[str, str], ...],
    *,
    secret: bool = False,
) -> Step:
    """Return the step ``name`` that applies manifests by the control plane ``machine``.

    Args:
        what: as people call it; its file is named after it.
        text: YAML documents.
        rollouts: what is waited for after a change.
        secret: the text is shown to nobody.
    """
    manifest = manifest_file(what, text, secret=secret)

    def changes(facts: Facts) -> Iterator[Change]:
        yield from applied_changes(what, manifest, rollouts, facts)

    return Step(name, machine, applied_facts(manifest), changes, after)


def manifest_file(what: str, text: str, *, secret: bool = False) -> File:
    """Return the file of a manifest on the control plane; only root reads it."""
    return File(FOLDER / f"mlops-{what.lower().replace(' ', '-')}.yaml", text, 0o600, secret=secret)


def applied_facts(manifest: File) -> tuple[Fact, ...]:
    """Ask whether the file is as wanted, and the cluster as the file says."""
    return file_fact(manifest), _differs(manifest)


def applied_changes(what: str, manifest: File, rollouts: Rollouts, facts: Facts) -> Iterator[Change]:
    """Return what writes and applies the manifest, and waits until what it describes runs."""
    written = file_changes(manifest, facts)
    yield from written
    differs = facts[_differs(manifest)]
    if not written and differs.ok:
        return
    if written:
        why = "it is described anew"
    elif differs.status == 1:
        why = "the cluster has another one, or none"
    else:
        why = " ".join(differs.text.split())
    path = str(manifest.path)
    waits = (
        Command((*KUBECTL[:-1], "rollout", "status", "-n", space, item, f"--timeout={ROLLOUT_S}s"), timeout_s=_LONG_S)
        for space, item in rollouts
    )
    apply = (*KUBECTL[:-1], f"--request-timeout={APPLY_S}s", "apply", *_HOW, "--force-conflicts", "-f", path)
    actions = (Command(apply, timeout_s=APPLY_S * 3), *waits)
    yield Change(f"apply {what}", why, actions, "" if written or manifest.secret else differs.text)


_LONG_S = ROLLOUT_S + 30


def _differs(manifest: File) -> Fact:
    # 0: as in the file; 1: it differs, and the output says how; more: the API server does not answer, or refuses.
    return Fact((*KUBECTL, "diff", *_HOW, "-f", str(manifest.path)))
