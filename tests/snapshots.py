"""Snapshots of a cluster as files: only what concerns one run, with names of examples."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.kubernetes.diagnosis.evidence import facts_of, moment
from infra.kubernetes.diagnosis.facts import Facts, Run
from infra.kubernetes.diagnosis.snapshot import Snapshot

FACTS = Path(__file__).parent / "kubernetes" / "facts"
_DULL = {
    "accessModes", "action", "addresses", "allocatedResources", "apiVersion", "backoffLimit", "capacity",
    "completionMode", "containerID", "daemonEndpoints", "deletionGracePeriodSeconds", "dnsPolicy",
    "enableServiceLinks", "features", "fieldPath", "finalizers", "firstTimestamp", "generateName", "generation",
    "hostIP", "hostIPs", "imageID", "imagePullPolicy", "imagePullSecrets", "images", "lastHeartbeatTime",
    "lastProbeTime", "managedFields", "manualSelector", "namespace", "nodeInfo", "ownerReferences", "parallelism",
    "podIP", "podIPs", "podReplacementPolicy", "preemptionPolicy", "priority", "projected", "qosClass", "readOnly",
    "ready", "recursiveReadOnly", "related", "reportingComponent", "reportingInstance", "resourceVersion",
    "restartCount", "restartPolicy", "runtimeHandlers", "schedulerName", "securityContext", "selector", "selfLink",
    "serviceAccount", "serviceAccountName", "source", "startTime", "started", "startedAt", "suspend", "template",
    "terminating", "terminationGracePeriodSeconds", "terminationMessagePath", "terminationMessagePolicy", "timeAdded",
    "tolerationSeconds", "uid", "uncountedTerminatedPods", "volumeMode",
    # labels that Kubernetes itself sets, and that no trouble of ours is about
    "batch.kubernetes.io/controller-uid", "controller-uid", "job-name", "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os", "kubernetes.io/arch", "kubernetes.io/os",
}  # fmt: skip
"""Fields that ``evidence`` does not read."""


def portable(seen: Snapshot, run: str, kind: str, namespace: str, told: str) -> dict[str, Any]:
    """Return what of ``seen`` concerns ``run``, of which ``told`` was said, to be kept as a file."""
    values = asdict(seen)
    labelled = [
        item for item in values["jobs"] + values["pods"] if run in (item["metadata"].get("labels") or {}).values()
    ]
    nodes = values["nodes"] or []
    names = {item["metadata"]["name"] for item in [*labelled, *nodes, *values["claims"]]}
    jobs = {item["metadata"]["name"] for item in labelled}
    kept = {
        "told": told,
        "kind": kind,
        "now": max(
            (str(moment(e.get("lastTimestamp") or e.get("eventTime")) or "") for e in values["events"]), default=""
        ),
        "jobs": [item for item in values["jobs"] if item in labelled],
        "pods": [item for item in values["pods"] if item in labelled],
        "events": [item for item in values["events"] if item["involvedObject"].get("name") in names],
        "nodes": nodes,
        "requested": values["requested"],
        "quotas": values["quotas"],
        "claims": values["claims"],
        "logs": {name: lines for name, lines in values["logs"].items() if name.split("/")[0] in jobs},
    }
    text = json.dumps(_bright(kept), default=str)
    text = text.replace(run, "00000000-0000-4000-8000-000000000001").replace(namespace, "mlops")
    text = re.sub(r"\b10\.\d+\.\d+\.\d+\b", "192.0.2.10", text)
    found: dict[str, Any] = json.loads(text)
    return found


def save(name: str, kept: dict[str, Any], folder: Path = FACTS) -> None:
    """Keep what :func:`portable` returned: data, on one line."""
    text = json.dumps(kept, separators=(",", ":"), default=str)
    (folder / f"{name}.json").write_text(text + "\n")


def load(name: str) -> tuple[Facts, str]:
    """Return the facts of a kept snapshot, and the sentence that was told of them."""
    return facts_from(json.loads((FACTS / f"{name}.json").read_text()))


def facts_from(kept: dict[str, Any]) -> tuple[Facts, str]:
    parts = {name: kept[name] for name in Snapshot.__dataclass_fields__ if name in kept}
    now = datetime.fromisoformat(kept["now"])
    run = Run("quiet-owl", kept["kind"], kept["kind"].title(), now, pool="kubernetes")
    return facts_of(Snapshot(**parts), "00000000-0000-4000-8000-000000000001", now, run), kept["told"]


def _bright(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bright(item) for key, item in value.items() if key not in _DULL and item not in (None, {}, [])}
    return [_bright(item) for item in value] if isinstance(value, list) else value
