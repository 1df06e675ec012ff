"""A Deployment of one pod on the worker, with a budget that keeps the pod where it is."""

from __future__ import annotations

import json

from kube_site import BOX, KubeSite, eventually


def image(site: KubeSite) -> str:
    """Of a shell, in the site's registry."""
    return f"{site.machines['registry'].address}:5000/kubernetes/{BOX}"


def keep_one(site: KubeSite, *, command: str = "sleep 100000", grace_s: int = 1, scratch: bool = False) -> None:
    """Apply it, and wait until its pod runs. ``scratch``: with a volume that is lost with the pod."""
    main = {"name": "main", "image": image(site), "command": ["/bin/sh", "-c", command]}
    if scratch:
        main["volumeMounts"] = [{"name": "scratch", "mountPath": "/scratch"}]
    selector = {"matchLabels": {"app": "kept"}}
    pod = {
        "terminationGracePeriodSeconds": grace_s,
        "nodeSelector": {"kubernetes.io/hostname": "worker"},
        "volumes": [{"name": "scratch", "emptyDir": {}}] if scratch else [],
        "containers": [main],
    }
    template = {"metadata": {"labels": {"app": "kept"}}, "spec": pod}
    for api, kind, spec in (
        ("apps/v1", "Deployment", {"replicas": 1, "selector": selector, "template": template}),
        ("policy/v1", "PodDisruptionBudget", {"minAvailable": 1, "selector": selector}),
    ):
        described = {"apiVersion": api, "kind": kind, "metadata": {"name": "kept"}, "spec": spec}
        site.kubectl("apply", given=json.dumps(described))
    eventually(lambda: available(site), 300)


def available(site: KubeSite) -> bool:
    """Whether the kept pod runs, and no other of it."""
    path = "jsonpath={.status.availableReplicas}/{.status.replicas}"
    return site.kubectl("get", "deployment", "kept", "-o", path) == "1/1"
