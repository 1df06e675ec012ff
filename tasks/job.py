"""A job: one run of a flow, with all that its tasks share."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prefect.runtime import flow_run

from configs.home import home_folder
from configs.problems import Problem, UserError
from configs.recipe import Recipe, load_recipe
from infra.repository import node_cache
from infra.repository.code import code_version, find_root, is_checkout
from infra.repository.dvc import Dvc
from infra.repository.git import CodeVersion
from infra.repository.share import Share, open_share
from tasks.verbs import say_errors_once

PARAMS = "params.yaml"


@dataclass(frozen=True)
class Place:
    """Where a run works, and with what.

    Attributes:
        root: the checkout.
        home: its state folder (``.mlops``).
        folder: this run's own folder below ``home``: stage events, summary.
        code: the code as it was when the run began.
        share: where data and results are shared; None where the run needs none.
        run_id: the flow run's id.
    """

    root: Path
    home: Path
    folder: Path
    code: CodeVersion
    dvc: Dvc
    share: Share | None
    run_id: str

    @property
    def events(self) -> Path:
        """Where the stages of this run write their events."""
        return self.folder / "events.jsonl"

    def process_environment(self) -> dict[str, str]:
        """The whole environment of a process that this run starts."""
        return dict(os.environ) | self.stage_environment()

    def stage_environment(self) -> dict[str, str]:
        """Variables that stages get besides those of the process."""
        return {"MLOPS_EVENTS": str(self.events), "MLOPS_HOME": str(self.home)}


@dataclass(frozen=True)
class Job(Place):
    """One run of the main job.

    Attributes:
        recipe_path: the recipe file, relative to ``root``.
    """

    recipe_path: str
    recipe: Recipe

    @property
    def data_file(self) -> str:
        """The ``.dvc`` file of the recipe's dataset, relative to ``root``."""
        return f"{self.recipe.data.path}.dvc"


@contextmanager
def open_job(recipe_path: str, *, select: bool = True, share: bool = True) -> Iterator[Job]:
    """Read the recipe, note the code's version and start DVC; on leaving, end whatever is still at work.

    Args:
        select: make the recipe that of the graph (params.yaml); only for a run of the graph.
        share: the run reads from the share or writes to it, as every run in a pod does, whose disk goes with it.

    Raises:
        UserError: no checkout, a recipe with mistakes (all of them), or a share that cannot be used as configured.
    """
    say_errors_once()
    root = find_root(Path.cwd())
    recipe = load_recipe(root / recipe_path)
    with open_place(root, share=share) as place:
        if select:
            select_recipe(root, recipe_path)
        yield Job(**vars(place), recipe_path=recipe_path, recipe=recipe)


@contextmanager
def open_place(root: Path, *, share: bool) -> Iterator[Place]:
    """Note the code's version, start DVC and reach the share; on leaving, end whatever is still at work.

    Raises:
        UserError: a share that cannot be used as configured.
    """
    node_cache.set_up(root)
    with Dvc(root) as dvc:
        home = home_folder(root)
        shared = open_share(root, home) if share or not is_checkout(root) else None
        if shared is not None:
            dvc.connect(shared)
        run_id = str(flow_run.id or "manual")
        folder = home / "runs" / run_id
        folder.mkdir(parents=True, exist_ok=True)
        yield Place(root, home, folder, code_version(root), dvc, shared, run_id)


def select_recipe(root: Path, recipe_path: str) -> None:
    """Make ``recipe_path`` the recipe of the graph, as ``dvc exp run --set-param`` would: one line of params.yaml.

    Raises:
        UserError: params.yaml has no such line.
    """
    path = root / PARAMS
    text = path.read_text(encoding="utf-8")
    changed, count = re.subn(r"(?m)^recipe:.*$", f"recipe: {recipe_path}", text)
    if count != 1:
        raise UserError(Problem(str(path), "does not name the recipe once", "add the line `recipe: FILE`"))
    if changed != text:
        path.write_text(changed, encoding="utf-8")
