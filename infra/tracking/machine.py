"""What a training ran on: the facts that explain its speed and, with the lock, its bits."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

PACKAGES = ("torch", "torchvision", "ultralytics", "openvino", "onnx", "numpy", "dvc", "mlflow", "prefect")


@dataclass(frozen=True)
class Machine:
    """``cores``: those this process may use. ``memory_gb``: 10^9 bytes. ``gpus``: names, empty without one.

    ``hostname``: in a pod that of its node; ``pod``: the pod's name, empty elsewhere.
    """

    hostname: str
    system: str
    cpu: str
    cores: int
    memory_gb: float
    gpus: tuple[str, ...]
    python: str
    versions: dict[str, str]
    pod: str = ""


def machine_facts() -> Machine:
    """The facts of this machine and this interpreter. Never fails: what cannot be found out is named as unknown."""
    return Machine(
        hostname=os.environ.get("MLOPS_NODE") or platform.node() or "unknown",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=_cpu(),
        cores=cores(),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        gpus=gpus(),
        python=platform.python_version(),
        versions=_versions(),
        pod=os.environ.get("MLOPS_POD", ""),
    )


def cores() -> int:
    """Return the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> tuple[str, ...]:
    """Return the names of the NVIDIA GPUs, by NVIDIA's own tool: importing torch for this would take seconds."""
    if shutil.which("nvidia-smi") is None:
        return ()
    # Several GPUs that nobody uses wake up one after the other.
    names = _output(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"], timeout_s=30)
    return tuple(line.strip() for line in names.splitlines() if line.strip())


def _cpu() -> str:
    if platform.system() == "Darwin":
        return _output(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.machine()
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        info = ""
    match = re.search(r"(?m)^(?:model name|Model)\s*:\s*(.+)$", info)
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _output(command: list[str], timeout_s: float = 5) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
