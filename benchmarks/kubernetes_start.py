"""From ``prefect deployment run`` to the first line of user code in a pod, against ``kubectl create job`` of its image.

    KUBECONFIG=... python -m benchmarks.kubernetes_start --image registry.example/mlops:1 --pairs 5

The image is on every node already. Both sides take turns, each begins with the command on this machine and ends with
the pod's own clock, which must agree with this machine's. Prints medians, and where the time of ours went.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from benchmarks.kubernetes_lab import POOL, Lab, Namespace, at
from configs.problems import Problem, UserError, run_main

FLOW = """
import time

began = time.time()

from prefect import flow, get_run_logger


@flow
def lab():
    get_run_logger().info("module %.3f flow %.3f", began, time.time())
"""
STEPS = ("command to scheduled", "taken", "Job asked for", "pod's process", "module", "flow")


def main() -> None:
    """Read the command line, measure, print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True, help="with this project's environment and code, on every node")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    if not shutil.which("kubectl"):
        raise UserError(Problem("kubectl", "is not on the PATH", "put it there: it is what this is measured against"))
    bare, ours, plain = [], [], []
    with (
        Namespace() as namespace,
        tempfile.TemporaryDirectory(prefix="bench-start-") as folder,
        Lab(Path(folder), namespace, options.image, FLOW) as lab,
    ):
        lab.start_worker()
        lab.wait(lab.run())  # every cache is warm for both
        for number in range(options.pairs):
            bare.append(create_job(lab, number))
            ours.append(deployment_run(lab))
            plain.append(sum(deployment_run(lab, "--job-variable", "command=prefect flow-run execute")))
            took = f"bare {bare[-1]:.2f} s, ours {sum(ours[-1]):.2f} s, with Prefect's command {plain[-1]:.2f} s"
            print(f"{took}: {ours[-1]}", file=sys.stderr, flush=True)
    peer, mine = statistics.median(bare), statistics.median(sum(steps) for steps in ours)
    print("| to the first line of user code, median | s |\n|---|---|")
    print(f"| `kubectl create job` | {peer:.2f} |\n| `prefect deployment run` | {mine:.2f} |")
    print(f"| the same with Prefect's own command in the pod | {statistics.median(plain):.2f} |")
    print(f"| at most 1.5 times and 5 s | {1.5 * peer + 5:.2f} |")
    for index, name in enumerate(STEPS):
        print(f"| of ours: {name} | {statistics.median(steps[index] for steps in ours):.2f} |")


def create_job(lab: Lab, number: int) -> float:
    """Seconds from the command to the first line of a bare Job."""
    name = f"bare-{number}"
    code = "import time; print(time.time())"
    start = time.time()
    command = ["kubectl", "--namespace", lab.namespace, "create", "job", name, f"--image={lab.image}"]
    subprocess.run([*command, "--", "python", "-c", code], check=True, stdout=subprocess.DEVNULL)

    def printed() -> str:
        logs = ["kubectl", "--namespace", lab.namespace, "logs", f"job/{name}"]
        return subprocess.run(logs, capture_output=True, text=True, check=False).stdout.strip()

    return float(lab.until("the bare Job", printed, 120)) - start


def deployment_run(lab: Lab, *options: str) -> list[float]:
    """Seconds of each of :data:`STEPS`, one after the other."""
    start = time.time()
    prefect = str(Path(sys.executable).with_name("prefect"))
    command = [prefect, "deployment", "run", f"lab/{POOL}", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=lab.environment, cwd=lab.folder)
    newest = {"sort": "EXPECTED_START_TIME_DESC", "limit": 1}
    run = lab.ask("/flow_runs/filter", newest)[0]["id"]
    assert lab.wait(run)["name"] == "Completed"
    line = lab.until("its log", lambda: [line for line in lab.logs(run).splitlines() if line.startswith("module")], 60)
    module, flow = (float(line[0].split()[index]) for index in (1, 3))
    states = {
        state["name"]: at(state["timestamp"]) for state in reversed(lab.ask(f"/flow_run_states/?flow_run_id={run}"))
    }
    logs = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}
    told = {entry["message"]: at(entry["timestamp"]) for entry in lab.ask("/logs/filter", logs)}
    asked = next(when for what, when in told.items() if what.startswith("Creating"))
    begun = next((when for what, when in told.items() if "Opening process" in what or "Beginning" in what), module)
    moments = [start, states["Scheduled"], states["Pending"], asked, min(begun, module), module, flow]
    return [round(later - earlier, 2) for earlier, later in pairwise(moments)]


if __name__ == "__main__":
    run_main(main)
