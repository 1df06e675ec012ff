"""A base image in two seconds, with no network: the interpreter that runs the tests, a shell, and their libraries.

Also container tools with a storage of their own, so that tests neither see nor change anybody's images.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

BASE = "localhost/test-base:1"
TOOLS = ("sh", "mkdir", "chown", "cat", "id", "rm", "sleep")
UNUSED = shutil.ignore_patterns(
    "test",
    "tests",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "config-3*",
    "idlelib",
    "lib2to3",
    "tkinter",
    "*.a",
)


class ContainerTools:
    """podman and buildah on one storage of their own, as root in a container: no namespaces, no cgroups of their own.

    Attributes:
        environment: what makes any podman or buildah use them.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        engine = folder / "containers.conf"
        engine.write_text(
            '[containers]\nnetns = "host"\n'
            'default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        )
        self.environment = {
            "CONTAINERS_CONF": str(engine),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "BUILDAH_ISOLATION": "chroot",
            # Not in the folder: a server that a test starts meanwhile may go on after it is removed.
            "TMPDIR": str(folder.parent),
        }
        for driver in ("overlay", "vfs"):
            (folder / "storage.conf").write_text(
                f'[storage]\ndriver = "{driver}"\ngraphroot = "{folder}/{driver}"\nrunroot = "{folder}/run"\n'
            )
            # vfs works everywhere, and copies every layer.
            if self.run("podman", "info", check=False).returncode == 0:
                return
        raise AssertionError(self.run("podman", "info", check=False).stderr)

    def run(self, *command: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command on this storage."""
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
        return done

    def make_base(self) -> str:
        """Make the base image and return its name."""
        root = self._folder / "base"
        make_root(root)
        archive = self._folder / "base.tar"
        subprocess.run(["tar", "--create", "--file", str(archive), "--directory", str(root), "."], check=True)
        shutil.rmtree(root)
        self.run(
            "podman",
            "import",
            "--change",
            f"ENV PATH={Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin",
            str(archive),
            BASE,
        )
        archive.unlink()
        return BASE

    def remove(self) -> None:
        """Remove the storage with all its images."""
        self.run("podman", "system", "reset", "--force", check=False)
        shutil.rmtree(self._folder, ignore_errors=True)


def make_root(root: Path) -> None:
    """Make a root file system that runs this interpreter, with ``python3`` on its path."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    python = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(stdlib, root / stdlib.relative_to("/"), ignore=UNUSED, symlinks=True)
    binaries = [python, *(Path(shutil.which(tool) or tool) for tool in TOOLS)]
    for binary in binaries:
        _copy(binary, root)
    (root / python.relative_to("/")).with_name("python3").symlink_to(python.name)
    wheels = Path("/usr/share/python-wheels")  # where Debian keeps what ensurepip installs
    if wheels.is_dir():
        shutil.copytree(wheels, root / wheels.relative_to("/"))
    extensions = (root / stdlib.relative_to("/") / "lib-dynload").glob("*.so")
    for library in _libraries([*binaries, *extensions]):
        _copy(library, root)
    for folder in ("tmp", "etc", "root", "proc", "dev", "sys", "var/tmp"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "var/tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    for name in ("bin", "lib", "lib64"):  # as Debian has it
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")


def _libraries(binaries: Iterable[Path]) -> set[Path]:
    listed = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True)
    return {Path(found) for found in re.findall(r"(/\S+\.so\S*) \(", listed.stdout)}


def _copy(file: Path, root: Path) -> None:
    """Copy a file to where it is, and to where it is found: /lib is /usr/lib."""
    real = Path(os.path.realpath(file))
    place = Path(os.path.realpath(file.parent)) / file.name
    target = root / place.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(real, target)
