"""The same work on a share and on a local directory ends with the same bytes under the same names, and the same words.

Two teams do the same seeded things, one with its remote in a share, one with its remote in a directory. After each step
the two remotes are compared, byte for byte. At the end the share's folder serves as a plain ``local`` remote.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from smb_dvc_process import Repository

from smb_servers.fixtures import Place
from smb_servers.objects import others, wrong

STEPS = 8


class Team:
    """A repository, a clone of it, and their remote."""

    def __init__(self, repository: Repository, clone: Repository, remote: Path) -> None:
        self.repository = repository
        self.clone = clone
        self.remote = remote
        self.data = repository.path / "data"

    def change(self, seed: int) -> None:
        """Add, alter and remove some files of the dataset, in the same way for the same seed."""
        generator = random.Random(seed)
        for _ in range(generator.randint(1, 8)):
            path = self.data / f"part{generator.randrange(3)}" / f"image {generator.randrange(12)} é.jpg"
            if path.exists() and generator.random() < 0.3:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(generator.randbytes(generator.choice([0, 10, 5_000, 70_000, 1_200_000])))
        (self.data / "always.txt").write_text("there")
        self.repository.run("add", "--quiet", "data")
        self._share_pointers()

    def _share_pointers(self) -> None:
        for name in ("data.dvc", "dvc.yaml", "dvc.lock"):
            if (self.repository.path / name).exists():
                shutil.copy(self.repository.path / name, self.clone.path / name)

    def train(self, seed: int) -> None:
        """Run a stage, so that there is a run cache."""
        (self.repository.path / "dvc.yaml").write_text(
            f"stages:\n  train:\n    cmd: 'echo {seed} > model.txt'\n    deps: [data]\n    outs: [model.txt]\n"
        )
        self.repository.run("repro", "--quiet")
        self._share_pointers()

    def lose_an_object(self, seed: int) -> None:
        """Remove the list of one directory behind DVC's back; where it is, DVC takes the files for present unseen."""
        found = sorted((self.remote / "files/md5").rglob("*.dir"))
        if found:
            random.Random(seed).choice(found).unlink()

    def tree(self) -> dict[str, bytes]:
        """Return all files of the remote."""
        return {
            path.relative_to(self.remote).as_posix(): path.read_bytes()
            for path in self.remote.rglob("*")
            if path.is_file()
        }

    def workspace(self) -> dict[str, bytes]:
        """Return the clone's dataset."""
        root = self.clone.path / "data"
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def do(self, step: str, seed: int) -> Any:
        """Do one step; return what it says that both teams must say the same."""
        repository, clone = self.repository, self.clone
        if step == "change":
            return self.change(seed)
        if step == "train":
            return self.train(seed)
        if step == "lose":
            return self.lose_an_object(seed)
        if step == "forget":
            # DVC remembers what a remote has: without that it looks.
            return shutil.rmtree(repository.home / "dvc_site_cache_dir", ignore_errors=True)
        if step == "status":
            return repository.json("status", "--cloud")
        if step == "push":
            return repository.run("push")
        if step == "push --run-cache":
            return repository.run("push", "--run-cache", "--quiet")
        if step == "gc":
            return repository.run("gc", "--workspace", "--cloud", "--force", "--quiet")
        if step == "pull":
            return bool(clone.dvc("pull", "--force", "--quiet").status)
        if step == "fetch":
            shutil.rmtree(clone.path / ".dvc/cache", ignore_errors=True)
            return bool(clone.dvc("fetch", "--quiet", "--run-cache").status)
        raise ValueError(step)


@pytest.mark.parametrize("seed", range(2))
def test_the_same_steps_end_with_the_same_trees(
    seed: int, place: Place, tmp_path: Path, new_repository: Callable[..., Repository]
) -> None:
    password = place.server.password
    directory = tmp_path / "directory"
    directory.mkdir()
    share = Team(new_repository(place.url, password), new_repository(place.url, password), place.path)
    local = Team(new_repository(str(directory)), new_repository(str(directory)), directory)
    generator = random.Random(seed)
    kinds = ["change", "train", "lose", "status", "push", "push --run-cache", "gc", "pull", "fetch"]
    weights = [4, 1, 1, 3, 3, 1, 2, 3, 1]
    steps = ["change", "push", *generator.choices(kinds, weights, k=STEPS)]
    # In the end everything is there, whatever was lost on the way.
    steps += ["forget", "push", "push --run-cache", "status", "pull"]
    for number, step in enumerate(steps):
        said = [team.do(step, seed * 1000 + number) for team in (share, local)]
        assert said[0] == said[1], (steps[: number + 1], said)
        assert share.tree() == local.tree(), steps[: number + 1]
    assert wrong(place.path) == []
    assert others(place.path) == others(directory)
    assert said == [False, False]
    assert share.workspace() == local.workspace() != {}

    # The same share, mounted.
    mounted = Team(new_repository(str(place.path)), new_repository(str(place.path)), place.path)
    for name in ("data.dvc", "dvc.yaml", "dvc.lock"):
        if (share.repository.path / name).exists():
            shutil.copy(share.repository.path / name, mounted.clone.path / name)
    mounted.clone.run("pull", "--quiet", "--run-cache")
    assert mounted.workspace() == share.workspace()
