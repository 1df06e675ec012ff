"""Real servers, and DVC repositories that know them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from smb_dvc_process import Repository

import dvc_smb._hook  # noqa: F401 what dvc_smb.pth does where the package is installed
from smb_servers.fixtures import Place, new_proxy, new_smbd, place, smbd

__all__ = ["new_proxy", "new_repository", "new_smbd", "place", "repository", "smbd"]


@pytest.fixture
def new_repository(tmp_path: Path) -> Callable[..., Repository]:
    """``new_repository(url, password)`` makes a repository whose default remote ``share`` is the URL."""
    count = 0

    def make(url: str | None = None, password: str | None = None) -> Repository:
        nonlocal count
        count += 1
        path, home = tmp_path / f"repository{count}", tmp_path / f"home{count}"
        path.mkdir()
        home.mkdir()
        (home / ".gitconfig").write_text("[user]\nname = Alice\nemail = alice@example.com\n")
        repository = Repository(path, home, {"DVC_SMB_PASSWORD": password} if password else {})
        subprocess.run(["git", "init", "--quiet"], cwd=path, check=True, env=repository.variables)
        repository.run("init", "--quiet")
        if url:
            repository.run("remote", "add", "--default", "share", url)
        return repository

    return make


@pytest.fixture
def repository(new_repository: Callable[..., Repository], place: Place) -> Repository:
    """A repository whose remote is an empty folder of the share; the password comes from the environment."""
    return new_repository(place.url, place.server.password)
