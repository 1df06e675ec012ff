"""A distributed training as it is launched, whatever launches it: a gang of workers, and what becomes of it.

Two modules launch one: :mod:`infra.ddp.torchrun` on this machine, :mod:`infra.kubernetes.gang.launch` on a cluster;
each has a function ``open_launcher(root, home)`` (the code's root, the state folder) that returns a :class:`Launcher`.
Both give each process of the gang this environment besides torchrun's own:

- ``MLOPS_DATA``: the dataset's folder, if there is one; read only
- ``MLOPS_CHECKPOINTS``: a folder that all workers share and that outlives restarts
- ``MLOPS_OUTPUT``: a folder in which rank 0 leaves what is to be registered: files, ``metrics.json``
- ``MLOPS_EVENTS``: a file to which rank 0 may append JSON lines, as :mod:`ml.events` does
- ``MLOPS_BACKEND``: ``gloo`` or ``nccl``
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from configs.ddp import Kueue, Plain, Volcano
from configs.problems import Problem


@dataclass(frozen=True)
class Dataset:
    """The version of the data a gang trains on.

    Attributes:
        file: the ``.dvc`` file, relative to the code's root.
        folder: what it tracks, relative to the code's root.
        digest: its md5, ``.dir`` at the end for a folder.
    """

    file: str
    folder: str
    digest: str


@dataclass(frozen=True)
class Gang:
    """One distributed training, resolved: nothing in it is left to decide.

    Attributes:
        name: lowercase letters, digits and dashes, at most 50 characters; the same for every attempt of the same flow
            run, so that a controller that starts again finds what it launched: ``<config's name>-<8 of the run's id>``.
        flow_run_id: whose training this is.
        program: torchrun's last arguments: a script with its arguments, or ``-m``, a module and its arguments. Paths
            are relative to the code's root, which is the working directory.
        least, most: workers; fewer than ``least`` do not train.
        processes: ranks of a worker.
        cpu: cores of a worker.
        memory: bytes of a worker.
        gpus: of a worker.
        environment: for every rank, besides what launchers set.
        backend: ``gloo`` or ``nccl``.
        data: None where the script needs none.
        checkpoints: folder below the state folder or the share, for trainings of the same inputs the same:
            ``checkpoints/<name>-<hash>``.
        scheduler: of the cluster; one machine needs none.
        max_restarts: how often all ranks start again after one failed.
        rendezvous_s: seconds in which the workers must find each other.
        below_least_s: seconds with fewer than ``least`` workers before the gang has failed.
    """

    name: str
    flow_run_id: str
    program: tuple[str, ...]
    least: int
    most: int
    processes: int
    cpu: float
    memory: int
    gpus: int
    backend: str
    checkpoints: PurePosixPath
    max_restarts: int
    rendezvous_s: int
    below_least_s: int
    environment: Mapping[str, str] = field(default_factory=dict)
    data: Dataset | None = None
    scheduler: Plain | Volcano | Kueue = field(default_factory=Plain)


@dataclass(frozen=True)
class Outcome:
    """What became of a gang that has ended.

    Attributes:
        failure: why it failed, with the last words of the rank that failed first; None: it succeeded.
        restarts: how often the ranks were started again.
    """

    failure: Problem | None
    restarts: int


@dataclass(frozen=True)
class Watch:
    """Who is told how a gang goes on, from the thread that follows it.

    Attributes:
        event: gets each event of rank 0 (see :mod:`ml.events`), from the first on also after adopting.
        note: gets one line for the run's log: workers placed, lost, replaced, ranks restarted.
        line: gets each line of the ranks' output, for the run's log at level debug.
        tick: called a few times a second; what it raises (a cancel) ends the following, not the gang.
    """

    event: Callable[[Mapping[str, Any]], None]
    note: Callable[[str], None]
    line: Callable[[str], None] = lambda line: None
    tick: Callable[[], None] = lambda: None


class Launcher(Protocol):
    """Starts gangs somewhere and looks after them."""

    def launch(self, gang: Gang) -> None:
        """Start the gang, or adopt the one that an earlier attempt of the same flow run has started.

        Raises:
            UserError: it cannot be started (no script, no image, no permission, more than the machine has).
        """

    def follow(self, gang: Gang, watch: Watch) -> Outcome:
        """Follow a launched gang to its end. An outage of the API server in between is waited out."""

    def collect(self, gang: Gang, folder: Path) -> None:
        """Bring all ranks' logs to ``folder/logs`` and what rank 0 left to ``folder/output``, of an ended gang too."""

    def leave(self, gang: Gang) -> None:
        """Stop looking after a gang that another process of the same flow run may adopt; where none can: remove it."""

    def remove(self, gang: Gang) -> None:
        """End the gang if it runs and remove all that was launched, but not its checkpoints; gone already: nothing."""

    def clear(self, gang: Gang) -> None:
        """Remove the checkpoints of a gang that has succeeded."""
