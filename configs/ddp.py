"""A distributed training: what ``configs/ddp.yaml`` may say.

Any script or module that runs under ``torchrun`` can be trained, unchanged. It finds its folders in the environment:
``MLOPS_DATA``, ``MLOPS_CHECKPOINTS`` (kept between restarts) and ``MLOPS_OUTPUT`` (what is to be registered).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, field_validator, model_validator
from pydantic_core import PydanticCustomError

from configs.loading import HIDDEN, Section, load_model
from configs.problems import Problem, UserError
from configs.quantity import Quantity, parse_quantity

MOST_WORKERS = 1024
_RANGE = re.compile(r"(\d+)(?::(\d+))?")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE)
_OURS = re.compile(
    r"MLOPS_.*|PREFECT_.*|TORCHELASTIC_.*|(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|OMP_NUM_THREADS"
)


@dataclass(frozen=True)
class Workers:
    """How many workers a training has: it starts with ``least`` and takes up to ``most``."""

    least: int
    most: int

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least}:{self.most}"


def _workers(value: Any) -> Workers:
    if isinstance(value, Workers):
        return value
    match = _RANGE.fullmatch(str(value)) if not isinstance(value, bool) else None
    if match is None:
        raise ValueError("write a number, as 2, or the least and the most, as 1:4")
    least, most = int(match[1]), int(match[2] or match[1])
    if not 1 <= least <= most <= MOST_WORKERS:
        raise ValueError(f"the least is 1 or more, the most not below it and at most {MOST_WORKERS}")
    return Workers(least, most)


def _memory(text: str) -> str:
    if parse_quantity(text) < 1:
        raise ValueError("write a size as 512Mi or 2Gi")
    return text


def _script(text: str) -> str:
    path = PurePosixPath(text)
    if path.suffix == ".py" and not path.is_absolute() and ".." not in path.parts:
        return text
    if path.suffix != ".py" and _MODULE.fullmatch(text):
        return text
    raise ValueError("name a script below the checkout, as ml/ddp/linear.py, or a module, as ml.ddp.linear")


def _below(folder: PurePosixPath) -> PurePosixPath:
    if folder.is_absolute() or ".." in folder.parts or folder == PurePosixPath():
        raise ValueError("name a folder below the state folder, as checkpoints")
    return folder


def _data_file(path: PurePosixPath) -> PurePosixPath:
    if path.suffix != ".dvc" or path.is_absolute() or ".." in path.parts:
        raise ValueError("name a .dvc file of the checkout, as fashion-mnist.dvc")
    return path


class Worker(Section):
    """What one worker has: on one machine a share of it, on Kubernetes a pod."""

    cpu: float = Field(1.0, gt=0, le=1024, description="cores, shared by the worker's processes")
    memory: Annotated[Quantity, AfterValidator(_memory)] = Field("2Gi", description="as 512Mi or 2Gi")
    gpus: int = Field(0, ge=0, le=64)


class Plain(Section):
    """Kubernetes' own scheduler."""

    kind: Literal["plain"] = "plain"


class Volcano(Section):
    """Volcano: all workers are placed at once, or none."""

    kind: Literal["volcano"]
    queue: str = Field("default", pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")


class Kueue(Section):
    """Kueue: the training waits in a queue until there is room for all its workers."""

    kind: Literal["kueue"]
    queue: str = Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", description="the LocalQueue's name")


class PromoteRule(Section):
    """When a new model takes the champion's place: by which number of the script's ``metrics.json``."""

    metric: str = Field(pattern=r"^[\w./-]{1,100}$")
    mode: Literal["min", "max"] = Field("max", description="min: less is better")
    margin: float = Field(0.0, ge=0, description="the challenger must be better by more than this")


class DdpConfig(Section):
    """A whole file."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,40}$")] = Field(description="experiment and model name")
    script: Annotated[str, AfterValidator(_script)] = Field(description="a .py file of the checkout, or a module")
    arguments: tuple[Annotated[str, BeforeValidator(str)], ...] = Field((), description="of the script")
    workers: Annotated[Workers, BeforeValidator(_workers), PlainSerializer(str)] = Workers(1, 1)
    processes: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = Field(
        "auto", description="a worker; auto: one a GPU, and one on a worker without GPUs"
    )
    worker: Worker = Worker()
    environment: Mapping[str, Annotated[str, BeforeValidator(str)]] = Field(default_factory=dict)
    data: Annotated[PurePosixPath, AfterValidator(_data_file)] | None = Field(
        None, description="the .dvc file of the dataset; none: the script needs no data"
    )
    backend: Literal["gloo", "nccl"] = "gloo"
    scheduler: Annotated[Plain | Volcano | Kueue, Field(discriminator="kind")] = Plain()
    checkpoints: Annotated[PurePosixPath, AfterValidator(_below)] = Field(
        PurePosixPath("checkpoints"), description="below the state folder, on Kubernetes below the share"
    )
    max_restarts: int = Field(3, ge=0, le=1000, description="times that all workers start again after one failed")
    rendezvous_s: int = Field(300, ge=10, le=86_400, description="seconds in which the workers must find each other")
    below_min_s: int = Field(600, ge=0, le=86_400, description="seconds with too few workers before the run fails")
    promote: PromoteRule

    @field_validator("environment", mode="before")
    @classmethod
    def _plain_names(cls, value: Any) -> Any:
        for name in value if isinstance(value, dict) else ():
            if not re.fullmatch(r"[A-Za-z_]\w*", str(name)):
                raise ValueError(f"{name!r} is no name of an environment variable")
            if _SECRET.search(str(name)):
                said = "leave {name} out: secrets are never in a file of the project; if it was committed, change it"
                raise PydanticCustomError(HIDDEN, said, {"name": str(name)})
            if _OURS.fullmatch(str(name)):
                raise ValueError(f"leave {name} out: it is set for the script")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.backend == "nccl" and not self.worker.gpus:
            raise ValueError("backend nccl needs GPUs: set worker.gpus, or backend: gloo")
        if self.processes != "auto" and self.worker.gpus and self.processes > self.worker.gpus:
            raise ValueError("worker.gpus is below processes: give each process a GPU of its own")
        return self

    @property
    def worker_processes(self) -> int:
        """Processes of one worker."""
        return max(1, self.worker.gpus) if self.processes == "auto" else self.processes

    @property
    def program(self) -> tuple[str, ...]:
        """What torchrun starts: ``ml/ddp/linear.py --steps 10``, or ``-m ml.ddp.linear --steps 10``."""
        is_file = self.script.endswith(".py")
        return (*(() if is_file else ("-m",)), self.script, *self.arguments)


def load_ddp(path: str | Path, root: Path) -> DdpConfig:
    """Read the file ``path`` of a checkout ``root``.

    Raises:
        UserError: with every mistake in the file, each with line, key and what would be right.
    """
    config = load_model(root / path, DdpConfig)
    problems = []
    script = config.script if config.script.endswith(".py") else f"{config.script.replace('.', '/')}.py"
    package = root / script.removesuffix(".py") / "__main__.py"
    if not (root / script).is_file() and not package.is_file() and _is_of_checkout(root, config.script):
        problems.append(Problem(_at(root / path, "script"), f"there is no {script}", "name a script of the checkout"))
    if config.data is not None and not (root / config.data).is_file():
        near = ", ".join(sorted(item.name for item in root.glob("*.dvc") if item.is_file())) or "none"
        problems.append(Problem(_at(root / path, "data"), f"there is no {config.data}", f"datasets here: {near}"))
    if problems:
        raise UserError(problems)
    return config


def _is_of_checkout(root: Path, script: str) -> bool:
    """Whether a script must be in the checkout: a module may also be an installed package's."""
    return script.endswith(".py") or (root / script.partition(".")[0]).is_dir()


def _at(path: Path, key: str) -> str:
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)  # noqa: S101 - load_model has read it
    line = next(node.start_mark.line + 1 for node, _ in root.value if node.value == key)
    return f"{path}:{line} {key}"
