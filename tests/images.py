"""A checkout whose image is built in seconds: this project, with a lock of a few small packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from checkouts import ROOT, copy_project, git
from package_index import PackageIndex
from registries import PASSWORD, USER, DockerRegistry

from infra.image.lock import build_tools, read_lock

TOOLS = [entry.name for entry in build_tools(read_lock((ROOT / "requirements.lock").read_text()))]
PROJECT = "kubernetes-mlops (pyproject.toml)"


def fill(index: PackageIndex) -> str:
    """Put a few packages into the index and return a lock of them.

    Two that run, one that only tests need, and a torch that needs CUDA; also one without, in the same version.
    """
    index.add("tiny", "1.0", {"tiny.py": "import tinier\nANSWER = tinier.ANSWER\n"})
    index.add("tinier", "1.1", {"tinier.py": "ANSWER = 42\n"})
    index.add("pytest", "9.0", {"pytest.py": "raise SystemExit('only for tests')\n"})
    index.add("pluggish", "2.0", {"pluggish.py": ""})
    index.add("torch", "2.15.0", {"torch.py": "import nvidia_cublas\nVARIANT = 'cuda'\n"})
    index.add("nvidia-cublas", "13.0", {"nvidia_cublas.py": ""})
    needed_by = {
        "tiny": ("1.0", PROJECT),
        "tinier": ("1.1", "tiny"),
        "pytest": ("9.0", PROJECT),
        "pluggish": ("2.0", "pytest"),
        "torch": ("2.15.0", PROJECT),
        "nvidia-cublas": ("13.0", "torch"),
    }
    locked = fill_tools(index) + "".join(locked_line(index, name, *found) for name, found in needed_by.items())
    index.add("torch", "2.15.0+cpu", {"torch.py": "VARIANT = 'cpu'\n"})  # which the lock does not know
    return locked


def fill_tools(index: PackageIndex) -> str:
    """Put what builds the project's own package into the index, and return a lock of it."""
    locked = ""
    for name in TOOLS:
        index.add_installed(name)
        version = index._wheels(name)[0].name.split("-")[1]
        locked += locked_line(index, name, version, PROJECT if name == "hatchling" else "hatchling")
    return locked


def locked_line(index: PackageIndex, name: str, version: str, via: str = PROJECT) -> str:
    """Return what a lock says of a package of the index."""
    hashes = " \\\n".join(f"    --hash=sha256:{digest}" for digest in index.hashes(name))
    return f"{name}=={version} \\\n{hashes}\n    # via {via}\n"


def make_checkout(folder: Path, lock: str, site: dict[str, object]) -> Path:
    """Make a checkout of this project, committed, with another lock and site."""
    copy_project(folder)
    (folder / "requirements.lock").write_text(lock)
    write_site(folder, site)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "A small lock")
    return folder


def make_site(registry: DockerRegistry, ca: Path, folder: Path, index: PackageIndex, **image: str) -> dict[str, Any]:
    """Return a site whose images are pushed to ``registry``, with files of its secrets in ``folder``.

    Args:
        ca: of the registry and of the index. image: more of the section of that name.
    """
    password = folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    return {
        "registry": {
            "address": registry.address,
            "repository": "mlops/test",
            "ca": str(ca),
            "user": USER,
            "password": {"file": str(password)},
        },
        "image": {
            "torch_index": index.url,
            "pip_conf": str(index.pip_conf(folder / "pip.conf")),
            "ca": str(ca),
            **image,
        },
    }


def write_site(folder: Path, site: dict[str, object]) -> None:
    """Write the site file; storage is the folder that it ships with."""
    text = yaml.safe_dump({"storage": {"kind": "directory"}, **site})
    (folder / "configs" / "site.yaml").write_text(text)
