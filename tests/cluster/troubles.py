"""Jobs that go wrong on a real cluster, each in one way, with what has to be told of it."""

from __future__ import annotations

import base64
import json
import os
import textwrap
from typing import Any

IMAGE = os.environ.get("MLOPS_TEST_IMAGE", "localhost/mlops-env:1")
"""An image with Python that all nodes have."""
Manifest = dict[str, Any]

BUS = """
    import mmap, os
    file = os.open("/dev/shm/batch", os.O_CREAT | os.O_RDWR)
    os.ftruncate(file, 64 << 20)
    print("loading a batch into shared memory", flush=True)
    memory = mmap.mmap(file, 64 << 20)
    memory[:] = bytes(64 << 20)
"""
EAT = """
    print("reading everything at once", flush=True)
    hoard = []
    while True:
        hoard.append(bytearray(8 << 20))
"""
RAISE = """
    import sys
    print("epoch 1 of 3", flush=True)
    print("Traceback (most recent call last):\\n  File 'train.py', line 3\\nValueError: no images below data/train",
          file=sys.stderr)
    sys.exit(3)
"""


def job(run: str, name: str, code: str = "import time; time.sleep(600)", **spec: Any) -> Manifest:
    """A Job as Prefect's worker makes it: no retries, labelled by its flow run; ``spec`` goes into the pod."""
    container: Manifest = {
        "name": "prefect-job",
        "image": spec.pop("image", IMAGE),
        "imagePullPolicy": spec.pop("pull", "IfNotPresent"),
        "command": spec.pop("command", ["python3", "-c", textwrap.dedent(code)]),
        "resources": spec.pop("resources", {}),
        "volumeMounts": spec.pop("mounts", []),
        **spec.pop("container", {}),
    }
    labels = {"prefect.io/flow-run-id": run}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            **spec.pop("job", {}),
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 1,
                    "containers": [container],
                    **spec,
                },
            },
        },
    }


def claim(name: str, size: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "resources": {"requests": {"storage": size}},
        },
    }


def quota(name: str, **hard: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": hard}}


def login(name: str, registry: str, user: str, password: str) -> Manifest:
    text = json.dumps({"auths": {registry: {"username": user, "password": password}}})
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": name},
        "data": {".dockerconfigjson": base64.b64encode(text.encode()).decode()},
    }


def memory_shm(size: str) -> Manifest:
    """Fields of :func:`job` for a memory volume at /dev/shm."""
    return {
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}}],
        "mounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }


def volume(name: str, source: Manifest) -> Manifest:
    """Fields of :func:`job` for one volume."""
    return {"volumes": [{"name": name, **source}], "mounts": [{"name": name, "mountPath": f"/{name}"}]}
