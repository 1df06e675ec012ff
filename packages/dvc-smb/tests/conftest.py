"""Real servers, and DVC repositories that know them."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from smb_dvc_process import Repository

import dvc_smb._hook  # noqa: F401 what dvc_smb.pth does where the package is installed
from smb_servers.fixtures import Place, new_proxy, new_smbd, place, smbd

__all__ = ["new_proxy", "new_repository", "new_smbd", "place", "repository", "smbd"]


@pytest.fixture(scope="session")
def empty_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after ``git init`` and ``dvc init``, to be copied."""
    path, home = tmp_path_factory.mktemp("empty-repository"), tmp_path_factory.mktemp("home")
    repository = Repository(path, home, {})
    subprocess.run(["git", "init", "--quiet"], cwd=path, check=True, env=repository.variables)
    repository.run("init", "--quiet")
    return path


@pytest.fixture
def new_repository(tmp_path: Path, empty_repository: Path) -> Callable[..., Repository]:
    """``new_repository(url, password)`` makes a repository whose default remote ``share`` is the URL."""
    count = itertools.count(1)

    def make(url: str | None = None, password: str | None = None) -> Repository:
        number = next(count)
        path, home = tmp_path / f"repository{number}", tmp_path / f"home{number}"
        shutil.copytree(empty_repository, path)
        home.mkdir()
        (home / ".gitconfig").write_text("[user]\nname = Alice\nemail = alice@example.com\n")
        if url:
            (path / ".dvc/config").write_text(f"[core]\n    remote = share\n['remote \"share\"']\n    url = {url}\n")
        return Repository(path, home, {"DVC_SMB_PASSWORD": password} if password else {})

    return make


@pytest.fixture
def repository(new_repository: Callable[..., Repository], place: Place) -> Repository:
    """A repository whose remote is an empty folder of the share; the password comes from the environment."""
    return new_repository(place.url, place.server.password)
