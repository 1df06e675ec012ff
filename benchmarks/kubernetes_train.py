"""The stage ``train`` in a pod against the same stage on its node, in interleaved pairs.

    KUBECONFIG=... python -m benchmarks.kubernetes_train --node node1 --image registry.example/mlops:1 --data data

Runs on a node: the pod mounts this checkout and the data, so both sides run the same files, each with its own
environment made from the same lock. The pod has the limits that a run has by default. What is compared is the stage's
process, start to exit, not the pod's start, which ``kubernetes_start`` measures.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.commands import Cost, run
from benchmarks.kubernetes_lab import Namespace
from benchmarks.train_stage import link_subset
from configs.cluster import Cluster
from configs.problems import run_main

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ("-m", "ml.train", "--recipe", "recipe.yaml")
IN_POD = (
    "import dataclasses, json, os, sys; from benchmarks.commands import run; "
    "cost = run([sys.executable, *sys.argv[1:]], os.environ); "
    "print(json.dumps(dataclasses.asdict(cost)))"
)


def main() -> None:
    """Read the command line, measure, print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True, help="with this project's environment, on the node")
    parser.add_argument("--node", required=True, help="the node's name; it is this machine")
    parser.add_argument("--recipe", type=Path, default=ROOT / "configs/forklift.yaml")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder in YOLO layout with a test split")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--images", type=int, default=0, help="train images, 0 for all")
    parser.add_argument("--epochs", type=int, default=0, help="0 for the recipe's")
    options = parser.parse_args()
    recipe = yaml.safe_load(options.recipe.read_text(encoding="utf-8"))
    recipe["data"]["path"] = "data"
    recipe["train"]["epochs"] = options.epochs or recipe["train"].get("epochs", 7)
    costs: dict[str, list[Cost]] = {"host": [], "pod": []}
    with Namespace() as namespace, tempfile.TemporaryDirectory(prefix="bench-pod-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        link_subset(options.data, folder / "data", options.images, recipe["data"]["classes"])
        for pair in range(options.pairs):
            for side in ("host", "pod") if pair % 2 == 0 else ("pod", "host"):
                work = prepare(folder, f"{side}-{pair}", recipe)
                if side == "host":
                    cost = run([sys.executable, *TRAIN], {**os.environ, **variables(work)}, work)
                else:
                    cost = in_pod(namespace, options.image, options.node, folder, work)
                costs[side].append(cost)
                print(f"{side}: {cost}", file=sys.stderr, flush=True)
    print("| stage `train` | host | pod | ratio |\n|---|---|---|---|")
    for title, field in (("wall, s", "wall_s"), ("processor, s", "cpu_s"), ("peak memory, MiB", "memory_mib")):
        host, pod = ([getattr(cost, field) for cost in costs[side]] for side in ("host", "pod"))
        ratio = statistics.median(theirs / ours for ours, theirs in zip(host, pod, strict=True))
        print(f"| {title} | {statistics.median(host):.1f} | {statistics.median(pod):.1f} | {ratio:.3f} |")


def prepare(folder: Path, name: str, recipe: dict[str, Any]) -> Path:
    """A folder with the recipe and the data, in which nothing has been trained."""
    work = folder / name
    work.mkdir()
    work.chmod(0o777)
    (work / "data").symlink_to(folder / "data")
    (work / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return work


def variables(work: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "MLOPS_HOME": str(work / "state"), "YOLO_OFFLINE": "true"}


def in_pod(namespace: str, image: str, node: str, folder: Path, work: Path) -> Cost:
    """Run the stage in a pod to its end."""
    from lightkube.resources.core_v1 import Pod

    from infra.kubernetes.client import connect

    cluster = Cluster(namespace=namespace)
    client = connect(cluster)
    limits = {"cpu": cluster.training.cpu, "memory": cluster.training.memory}
    mounts = [(str(ROOT), True), (str(folder), False)]
    container = {
        "name": "train", "image": image, "imagePullPolicy": "IfNotPresent", "workingDir": str(work),
        "command": ["python", "-c", IN_POD, *TRAIN],
        "env": [{"name": key, "value": value} for key, value in variables(work).items()],
        "resources": {"limits": limits, "requests": {"cpu": "1", "memory": "1Gi"}},
        "volumeMounts": [
            *({"name": f"host-{index}", "mountPath": path, "readOnly": fixed} for index, (path, fixed) in
              enumerate(mounts)),
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }  # fmt: skip
    volumes = [{"name": f"host-{index}", "hostPath": {"path": path}} for index, (path, _) in enumerate(mounts)]
    volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": cluster.training.shm}})
    spec = {"restartPolicy": "Never", "nodeName": node, "containers": [container], "volumes": volumes}
    pod = Pod.from_dict({"metadata": {"name": work.name, "namespace": namespace}, "spec": spec})
    client.create(pod)
    while True:
        status = client.get(Pod, work.name, namespace=namespace).status
        if status and status.phase in ("Succeeded", "Failed"):
            break
        time.sleep(1)
    lines = list(client.log(work.name, namespace=namespace))
    if status.phase == "Failed":
        raise RuntimeError("".join(lines[-30:]))
    return Cost(**json.loads(lines[-1]))


if __name__ == "__main__":
    run_main(main)
