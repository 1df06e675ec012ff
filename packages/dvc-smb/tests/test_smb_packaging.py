"""Installed as its users install it: from a wheel and editable, then gone without a trace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from smb_dvc_process import Repository

from smb_servers.fixtures import Place

PACKAGE = Path(__file__).parent.parent
PIP = ["-m", "pip", "--disable-pip-version-check", "--no-cache-dir"]
BUILD = ["--no-deps", "--no-build-isolation", "--no-index"]


def run(*command: str | Path, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done


def clean_variables(repository: Repository) -> dict[str, str]:
    return {name: value for name, value in repository.variables.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: an editable build or a stale file of this checkout cannot help it."""
    source, out = tmp_path_factory.mktemp("source") / "dvc-smb", tmp_path_factory.mktemp("wheels")
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__", "tests", "dist"))
    run(
        sys.executable,
        *PIP,
        "wheel",
        "--quiet",
        *BUILD,
        "--wheel-dir",
        out,
        source,
        folder=out,
        variables={**os.environ},
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The python of a fresh environment that sees the locked packages, but no dvc-smb."""
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment, folder=tmp_path, variables={**os.environ})
    locked = [path for path in sys.path if path.endswith("site-packages")]
    # A .pth of theirs is not read through ours: what is installed editable there stays there.
    (site_packages(environment) / "zz_locked.pth").write_text("\n".join(locked) + "\n")
    return environment / "bin" / "python"


def site_packages(environment: Path) -> Path:
    (found,) = environment.glob("lib/python3*/site-packages")
    return found


def content(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_the_wheel_holds_the_package_and_the_hook_beside_it(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert "dvc_smb.pth" in names
    assert "dvc_smb/_hook.py" in names
    assert "dvc_smb/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "smb_servers"))]
    assert [name for name in names if name.endswith("/LICENSE")]


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_install_use_uninstall(
    kind: str,
    request: pytest.FixtureRequest,
    python: Path,
    new_repository: Callable[..., Repository],
    place: Place,
):
    site = site_packages(python.parent.parent)
    before = content(site)
    repository = new_repository(place.url, place.server.password)
    variables = clean_variables(repository)
    (repository.path / "data").write_text("from an installed package\n")

    def dvc(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run(python, "-m", "dvc", *arguments, folder=repository.path, variables=variables)

    source = [request.getfixturevalue("wheel")] if kind == "wheel" else ["--editable", PACKAGE]
    run(python, *PIP, "install", "--quiet", *BUILD, *source, folder=repository.path, variables=variables)

    dvc("add", "--quiet", "data")
    assert "1 file pushed" in dvc("push").stdout
    (repository.path / "data").unlink()
    shutil.rmtree(repository.path / ".dvc/cache")
    assert "1 file fetched" in dvc("pull").stdout
    assert (repository.path / "data").read_text() == "from an installed package\n"

    # Processes that this one starts, in each way that Python starts them, know it as well.
    program = repository.path / "children.py"
    program.write_text(
        "import multiprocessing, sys\n"
        "def read(_):\n"
        "    import dvc.api\n"
        f"    return dvc.api.read('data', remote='share', repo={str(repository.path)!r})\n"
        "if __name__ == '__main__':\n"
        "    for method in ('spawn', 'fork'):\n"
        "        with multiprocessing.get_context(method).Pool(1) as pool:\n"
        "            print(pool.map(read, [0])[0], end='')\n"
    )
    (repository.path / "data").unlink()
    shutil.rmtree(repository.path / ".dvc/cache")
    printed = run(python, program, folder=repository.path, variables=variables).stdout
    assert printed == "from an installed package\n" * 2

    run(python, *PIP, "uninstall", "--quiet", "--yes", "dvc-smb", folder=repository.path, variables=variables)
    assert content(site) - before <= {"__pycache__"}
    after = subprocess.run(
        [python, "-W", "error", "-m", "dvc", "push"],
        cwd=repository.path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert after.returncode != 0
    assert "Unsupported URL type smb://" in after.stderr
    assert "dvc_smb" not in after.stderr


def test_a_half_removed_package_stops_no_interpreter(wheel: Path, python: Path, tmp_path: Path):
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run(python, *PIP, "install", "--quiet", *BUILD, wheel, folder=tmp_path, variables=variables)
    shutil.rmtree(site_packages(python.parent.parent) / "dvc_smb")
    done = run(python, "-c", "print('started')", folder=tmp_path, variables=variables)
    assert done.stdout == "started\n"
