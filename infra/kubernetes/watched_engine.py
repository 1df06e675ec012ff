"""What :mod:`infra.kubernetes.execute` does when it is started: an engine, and the process that watches over it.

The engine is a fork of the watching process, made before that has a thread, a socket or a loop, when all is imported
that both need. Imported by the pod's first process alone: it loads Prefect.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import sys
from typing import TYPE_CHECKING, Any

import anyio._backends._asyncio  # imported for both
import anyio.abc
import anyio.to_thread
import prefect.engine
import prefect.flow_engine
from prefect._internal import metrics  # noqa: F401 - imported for the engine
from prefect.cli import app, flow_run
from prefect.flows import load_flow_from_flow_run
from prefect.runner._hook_runner import HookRunner
from prefect.runner._process_manager import ProcessHandle, create_isolated_termination_scope

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun
    from prefect.runner._control_channel import ControlChannel


class Engine:
    """A process that has Prefect imported and waits for what it is to run; the parent's side.

    Attributes:
        returncode: None until it has ended; below 0: the signal that ended it.
    """

    def __init__(self, pid: int, orders: int) -> None:
        self.pid, self._orders = pid, orders
        self.returncode: int | None = None

    def begin(self, environment: dict[str, str]) -> None:
        """Have it run the flow with these variables added."""
        with os.fdopen(self._orders, "w", encoding="utf-8") as orders:
            json.dump(environment, orders)

    def wait(self) -> None:
        """Wait for its end."""
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Starter:
    """Lets the engine begin; in the place of Prefect's starter, which starts Python twice."""

    def __init__(self, engine: Engine, control_channel: ControlChannel) -> None:
        self._engine, self._channel = engine, control_channel
        self.hook_runner = HookRunner(resolve_flow=load_flow_from_flow_run)

    async def start(
        self, flow_run: FlowRun, task_status: anyio.abc.TaskStatus[ProcessHandle] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Return when the engine has ended."""
        port, token = self._channel.register(flow_run.id)
        variables = {
            "PREFECT__FLOW_RUN_ID": str(flow_run.id),
            "PREFECT__CONTROL_PORT": str(port),
            "PREFECT__CONTROL_TOKEN": token,
            # Whoever watches over the engine runs them: it is there also when the engine was killed.
            "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
        }
        self._engine.begin(variables)
        scope = create_isolated_termination_scope(self._engine.pid)
        task_status.started(ProcessHandle(self._engine, termination_scope=scope))  # type: ignore[arg-type]
        await anyio.to_thread.run_sync(self._engine.wait, abandon_on_cancel=True)

    def close(self) -> None:
        """Nothing is left behind."""


def execute() -> None:
    """Run the flow run of ``PREFECT__FLOW_RUN_ID``, and end as Prefect's command does."""
    gc.freeze()  # what both share stays shared
    gc.enable()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        run_engine(read)
        return
    os.close(read)
    # A signal for the pod's processes must not reach the engine before it is told what it means.
    os.setpgid(pid, pid)
    engine = Engine(pid, write)

    def starter(*, control_channel: ControlChannel, **_: Any) -> Starter:
        return Starter(engine, control_channel)

    # The name by which the command makes its starter; there is no setting for it.
    setattr(flow_run, "WorkspaceResolvingEngineCommandStarter", starter)  # noqa: B010 - it is no attribute to mypy
    sys.argv[1:] = ["flow-run", "execute"]
    app()


def run_engine(orders: int) -> None:
    """Wait for the order, then be ``python -m prefect.engine``; without one, end."""
    # Every flow makes Prefect import it: here it costs no time, as the other process has not yet asked for the run.
    import pydantic.v1  # noqa: F401

    with os.fdopen(orders, encoding="utf-8") as pipe:
        said = pipe.read()
    if not said:  # the run is not to begin, or whoever watches over it is gone
        return
    os.environ.update(json.loads(said))
    sys.modules.pop(prefect.engine.__name__)  # a module that was imported is not run again without a warning
    sys.argv[1:] = []
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
