"""What the platform costs at rest: processor and memory of each of its pods, from the kubelets' own figures.

KUBECONFIG=... python -m benchmarks.kubernetes_rest --namespace mlops --seconds 60
"""

from __future__ import annotations

import argparse
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.kubernetes_lab import need_cluster
from configs.cluster import Cluster
from configs.problems import Problem, UserError, run_main

if TYPE_CHECKING:
    from lightkube import Client


SAMPLE = re.compile(
    r"pod_(?P<metric>cpu_usage_seconds_total|memory_working_set_bytes)"
    r'\{namespace="(?P<namespace>[^"]*)",pod="(?P<pod>[^"]*)"\} (?P<value>\S+) (?P<at>\d+)'
)


@dataclass(frozen=True)
class Usage:
    """Of one pod: processor seconds since it began, when they were read, and the memory it works with, in bytes."""

    cpu_s: float
    at_s: float
    memory: float


def main() -> None:
    """Read the command line, look twice, print a markdown table."""
    from infra.kubernetes.client import connect

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--namespace", default="mlops")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    need_cluster()
    client = connect(Cluster(namespace=options.namespace))
    first = usage(client, options.namespace)
    time.sleep(options.seconds)
    last = usage(client, options.namespace)
    both = sorted(first.keys() & last.keys())
    if not both:
        remedy = "`mlops platform apply` installs the platform"
        raise UserError(Problem(f"namespace {options.namespace}", "has no pods that run", remedy))
    print("| pod, at rest | milli-CPUs | memory, MiB |\n|---|---|---|")
    total_cpu = total_memory = 0.0
    for name in both:
        cpu = 1000 * (last[name].cpu_s - first[name].cpu_s) / (last[name].at_s - first[name].at_s)
        memory = last[name].memory / 2**20
        total_cpu, total_memory = total_cpu + cpu, total_memory + memory
        print(f"| {name} | {cpu:.0f} | {memory:.0f} |")
    print(f"| together | {total_cpu:.0f} | {total_memory:.0f} |")


def usage(client: Client, namespace: str) -> dict[str, Usage]:
    """Of every pod of the namespace, by name."""
    from lightkube.resources.core_v1 import Node

    cpu: dict[str, tuple[float, float]] = {}
    memory: dict[str, float] = {}
    for node in client.list(Node):
        assert node.metadata
        for line in metrics(client, str(node.metadata.name)).splitlines():
            if found := SAMPLE.fullmatch(line):
                if found["namespace"] != namespace:
                    continue
                if found["metric"] == "cpu_usage_seconds_total":
                    cpu[found["pod"]] = (float(found["value"]), float(found["at"]) / 1000)
                else:
                    memory[found["pod"]] = float(found["value"])
    return {name: Usage(*read, memory[name]) for name, read in cpu.items() if name in memory}


def metrics(client: Client, node: str) -> str:
    """The kubelet's resource metrics, through the API server."""
    answer = client._client._client.get(f"/api/v1/nodes/{node}/proxy/metrics/resource")
    answer.raise_for_status()
    return str(answer.text)


if __name__ == "__main__":
    run_main(main)
