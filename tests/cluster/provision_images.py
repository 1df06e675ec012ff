"""What a site's platform runs from, made of this machine: an environment to build on, and Postgres.

Building the image from the project's own lock takes a quarter of an hour and gigabytes. So the lock of these tests is
small, and the packages that the project needs lie in the base image: the Dockerfile, the builder, the push and the
record are the real ones, and the pods run the real Prefect, MLflow and torch.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import base_images
import images
from base_images import ContainerTools
from package_index import PackageIndex

TORCH = os.environ.get("MLOPS_TEST_TORCH", "")
"""A wheel of torch without CUDA, for this Python."""
PACKAGES = "/opt/environment"
COMMANDS = ("prefect", "dvc", "mlflow")
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*"), reverse=True)), Path("/usr/lib/postgresql/none"))
# What gives torch its CUDA, what only tests and videos need: gigabytes.
_LEFT_OUT = ("nvidia*", "cuda*", "triton*", "torch", "torch-*", "torchvision*", "openvino*", "onnx*", "cv2", "opencv*")
_LEFT_OUT += (
    "av",
    "av.*",
    "polars*",
    "_polars*",
    "kubernetes_validate*",
    "mypy*",
    "*mypyc*",
    "ruff*",
    "pytest*",
    "_pytest",
)
_TOOLS = ("chgrp", "date", "stat", "ls", "cp", "mv", "touch", "env", "chmod", "uname")
# Does what the official image documents: https://hub.docker.com/_/postgres
_ENTRY = """\
#!/bin/sh
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username=postgres --pwfile="$POSTGRES_PASSWORD_FILE" --auth-host=scram-sha-256 --auth-local=trust \\
    --locale=C --encoding=UTF8 -D "$PGDATA"
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  pg_ctl -D "$PGDATA" -o '-c listen_addresses= -k /var/run/postgresql' -w start
  for script in /docker-entrypoint-initdb.d/*.sh; do sh "$script"; done
  pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec postgres -D "$PGDATA" -c 'listen_addresses=*' -k /var/run/postgresql
"""


def make_base(tools: ContainerTools, folder: Path, name: str) -> str:
    """Make a base image with the project's packages beside its own Python."""
    root = folder / "base"
    base_images.make_root(root)
    packages = root / PACKAGES.lstrip("/")
    there = Path(sysconfig.get_path("purelib"))
    left_out = shutil.ignore_patterns(*_LEFT_OUT)
    # Packages of these names only, and no parts of others that have the same.
    shutil.copytree(
        there, packages, ignore=lambda at, names: left_out(at, names) if at == str(there) else (), symlinks=True
    )
    manager = "torch/bin/torch_shm_manager"
    unused = ("torch/test/", "torch/include/", "torch/bin/")
    with zipfile.ZipFile(TORCH) as wheel:
        kept = [item for item in wheel.namelist() if item == manager or not item.startswith(unused)]
        wheel.extractall(packages, kept)
    (packages / manager).chmod(0o755)
    programs = [Path(shutil.which(name) or name) for name in _TOOLS]
    for file in (*programs, *_system_libraries([*programs, *packages.rglob("*.so*")])):
        base_images._copy(file, root)
    archive = folder / "base.tar"
    subprocess.run(["tar", "--create", "--file", str(archive), "--directory", str(root), "."], check=True)
    shutil.rmtree(root)
    path = f"ENV PATH={Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin"
    tools.run("podman", "import", "--change", path, str(archive), name, timeout=600)
    archive.unlink()
    return name


def add_environment(index: PackageIndex) -> str:
    """Put the package into the index that leads to those of the base image; returns its line of a lock."""
    commands = {item.name: item.value for item in entry_points(group="console_scripts") if item.name in COMMANDS}
    listed = "".join(f"{name} = {value}\n" for name, value in commands.items())
    files = {"environment.pth": f"{PACKAGES}\n"}
    index.add(
        "environment", "1.0", files | {"environment-1.0.dist-info/entry_points.txt": f"[console_scripts]\n{listed}"}
    )
    return images.locked_line(index, "environment", "1.0")


def postgres_files(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the files and the links of an image of Postgres, the entry first."""
    for name, text in (
        ("entry", _ENTRY),
        ("passwd", "postgres:x:999:999::/:/bin/sh\n"),
        ("group", "postgres:x:999:\n"),
    ):
        (folder / name).write_text(text)
    files = {"usr/local/bin/entry": folder / "entry", "etc/passwd": folder / "passwd", "etc/group": folder / "group"}
    share = Path("/usr/share/postgresql") / POSTGRES.name
    places = [path for base in (POSTGRES, share) for path in base.rglob("*") if path.is_file()]
    files |= {str(path).lstrip("/"): path for path in places if "bitcode" not in path.parts}
    programs = [path for path in files.values() if os.access(path, os.X_OK) and path.parent == POSTGRES / "bin"]
    files |= {str(path).lstrip("/"): path for path in _system_libraries([*programs, *POSTGRES.rglob("*.so")])}
    box = Path(shutil.which("busybox") or "busybox")
    links = {f"bin/{name}": "busybox" for name in ("sh", "chown", "mkdir", "cat", "sleep", "ls")}
    links |= {f"usr/local/bin/{program.name}": str(program) for program in programs}
    return files | {"bin/busybox": box}, links


def _system_libraries(binaries: list[Path]) -> set[Path]:
    """Return what all of these load from the system, not from packages."""
    found: set[Path] = set()
    for at in range(0, len(binaries), 200):
        said = subprocess.run(["ldd", *binaries[at : at + 200]], capture_output=True, text=True, check=False).stdout
        found |= {Path(path) for path in re.findall(r"(?m)(?:=> |^\t)(/(?:usr/)?lib\S*) \(", said)}
    return found
