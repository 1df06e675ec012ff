"""DVC knows smb:// in every way it is started, and no interpreter is harmed by it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import dvc_smb

PACKAGE = Path(dvc_smb.__file__).parent.parent
KNOWN = """
from dvc.fs import get_cloud_fs
cls, config, path = get_cloud_fs({}, url="smb://alice@storage:1445/share/dvc", sign="true")
assert (cls.protocol, path) == ("smb", "/share/dvc"), (cls, path)
assert config == {"host": "storage", "port": 1445, "user": "alice", "sign": True}, config
"""


def python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter that finds all packages, but has not read dvc_smb.pth (``-S``)."""
    paths = [str(PACKAGE), *(path for path in sys.path if path)]
    return subprocess.run(
        [sys.executable, "-I", "-S", *options, "-c", f"import sys\nsys.path[:] = {paths!r}\n{code}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("import dvc_smb._hook" + KNOWN, id="before DVC"),
        pytest.param("import dvc.fs, dvc.config\nimport dvc_smb._hook" + KNOWN, id="after DVC"),
        pytest.param(
            "import dvc.config\ndvc.config.get_compiled_schema()\nimport dvc_smb._hook\n"
            "dvc.config.Config.validate({'remote': {'x': {'url': 'smb://h/s', 'sign': 'true'}}})",
            id="after DVC has compiled its schema",
        ),
        pytest.param("import dvc_objects.fs\nimport dvc_smb._hook" + KNOWN, id="after half of DVC"),
        pytest.param(
            "import dvc_smb._hook, importlib\nimport dvc_objects.fs\nimportlib.reload(dvc_objects.fs)" + KNOWN,
            id="reloaded",
        ),
        pytest.param(
            "import dvc_smb._hook, os\npid = os.fork()\n"
            "if pid:\n sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n" + KNOWN,
            id="forked",
        ),
    ],
)
def test_dvc_knows_smb_however_it_is_loaded(code):
    done = python(code, "-W", "error")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_dvcs_own_modules_keep_their_loaders():
    done = python(
        "import dvc_smb._hook, dvc_objects.fs, dvc.config_schema, inspect\n"
        "for module in (dvc_objects.fs, dvc.config_schema):\n"
        "    assert type(module.__loader__).__module__.startswith('_frozen_importlib'), module.__loader__\n"
        "    assert module.__spec__.loader is module.__loader__\n"
        "    assert 'schema' in inspect.getsource(module) or 'known' in inspect.getsource(module)\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_hook_loads_nothing_but_itself():
    done = python("before = set(sys.modules)\nimport dvc_smb._hook\nprint(sorted(set(sys.modules) - before))")
    assert done.stdout.strip() == "['dvc_smb', 'dvc_smb._hook']", done.stderr


def test_an_smb_of_dvcs_own_is_left_alone():
    done = python(
        "import dvc_objects.fs\ndvc_objects.fs.known_implementations['smb'] = theirs = {'class': 'dvc_objects.fs.X'}\n"
        "import dvc_smb._hook\nassert dvc_objects.fs.known_implementations['smb'] is theirs"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param("import dvc_objects.fs\ndel dvc_objects.fs.known_implementations", id="no table of filesystems"),
        pytest.param("import dvc.config_schema\ndel dvc.config_schema.REMOTE_COMMON", id="no table of options"),
    ],
)
def test_another_dvc_is_told_about_and_still_runs(broken):
    done = python(f"{broken}\nimport dvc_smb._hook\nfrom dvc.cli import main\nsys.exit(main(['--help']))")
    assert done.returncode == 0, done.stderr
    assert "dvc-smb cannot add smb:// to this version of DVC" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_module_that_fails_to_load_fails_as_it_would_without_the_hook(tmp_path: Path):
    package = tmp_path / "dvc_objects" / "fs"
    package.mkdir(parents=True)
    (tmp_path / "dvc_objects" / "__init__.py").touch()
    (package / "__init__.py").write_text("raise ImportError('broken install')\n")
    done = python(f"sys.path.insert(0, {str(tmp_path)!r})\nimport dvc_smb._hook\nimport dvc_objects.fs")
    assert done.returncode == 1
    assert "ImportError: broken install" in done.stderr
    assert "dvc-smb cannot" not in done.stderr


def test_fsspecs_smb_changes_only_when_a_program_asks():
    done = python(
        "import dvc_smb, dvc_smb._hook, fsspec\n"
        "theirs = fsspec.get_filesystem_class('smb')\n"
        "dvc_smb.register()\n"
        "ours = fsspec.get_filesystem_class('smb')\n"
        "assert theirs is not ours and ours is dvc_smb.SMB, (theirs, ours)\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_entry_points_name_what_upstream_asks_for():
    import tomllib

    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    module, name = project["entry-points"]["dvc.fs"]["smb"].split(":")
    assert (module, name) == ("dvc_smb", "SMBFileSystem")
    assert set(dvc_smb.SMBFileSystem.REMOTE_CONFIG) >= {"user", "password", "port", "encrypt", "sign", "guest"}
