"""What ``up`` is to bring up: host and ports, from what runs, what was used last, and what the user asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from configs.problems import Problem, UserError
from infra.stack import ports, processes
from infra.stack.state import LOOPBACK, MLFLOW, PREFECT, Stack, read_stack


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; None leaves the choice to ``up``."""

    host: str | None = None
    prefect_port: int | None = None
    mlflow_port: int | None = None


def settle(checkout: Path, home: Path, wanted: Wanted) -> Stack:
    """The stack as it is to be, with what of it runs; a server that is gone moves if its port is another's now.

    Raises:
        UserError: a port is taken, or what runs contradicts ``wanted``.
    """
    last = read_stack(home)
    stack = replace(last, checkout=checkout) if last else Stack(home=home, checkout=checkout)
    for name, part in stack.parts.items():
        if not processes.is_running(part):
            stack = stack.with_part(name, None)
    if last and stack.parts and last.checkout != checkout:
        raise UserError(
            Problem(str(home), f"serves another checkout, {last.checkout}", "run `mlops down` there, or set MLOPS_HOME")
        )
    _no_strays(stack)
    host = wanted.host or (stack.host if stack.parts else LOOPBACK)
    if stack.parts:
        _same_as_running(stack, wanted)
    stack = replace(stack, host=host)
    keep = PREFECT in stack.parts, MLFLOW in stack.parts
    prefect_port = stack.prefect_port if keep[0] else _port(stack, wanted.prefect_port, stack.prefect_port or 4200, 0)
    stack = replace(stack, prefect_port=prefect_port)
    mlflow_port = stack.mlflow_port if keep[1] else _port(stack, wanted.mlflow_port, stack.mlflow_port or 5000, 1)
    stack = replace(stack, mlflow_port=mlflow_port)
    if last:
        _no_run_left_behind(last, stack)
    return stack


def _no_strays(stack: Stack) -> None:
    """A second server of one database would do harm.

    Raises:
        UserError: parts of this stack run that it does not know, as when its folder was removed.
    """
    known = {part.pid for part in stack.parts.values()}
    strays = [process for process in processes.marked(stack.home) if processes.is_part(process)]
    pids = ", ".join(str(process.pid) for process in strays if process.pid not in known)
    if pids:
        what = f"was changed or removed while the stack ran: pid {pids} is of it"
        raise UserError(Problem(str(stack.home), what, "`mlops down` ends that, then `mlops up`"))


def _no_run_left_behind(last: Stack, now: Stack) -> None:
    """A worker can be started again with new addresses; a run that goes on has the old ones to its end.

    Raises:
        UserError: a server would move away from a run.
    """
    servers = (
        (PREFECT, last.prefect_port, last.prefect_api_url, now.prefect_api_url),
        (MLFLOW, last.mlflow_port, last.mlflow_api_url, now.mlflow_api_url),
    )
    moved = [(name, port) for name, port, before, after in servers if before != after]
    runs = processes.flow_run_ids(processes.marked(now.home)) if moved else set()
    if not runs:
        return
    problems = []
    for name, port in moved:
        taken = ports.stranger(last.host, port)
        what = f"cannot move: run {', '.join(sorted(runs))} goes on and knows it at port {port}"
        first = "stop that, then `mlops up`" if taken else "leave the port out"
        remedy = f"{first}; or `mlops down`, which stops the run with its checkpoint, then `mlops up`"
        problems.append(Problem(name, f"{what}; {taken}" if taken else what, remedy))
    raise UserError(problems)


def _port(stack: Stack, named: int | None, usual: int, server: int) -> int:
    option = ("--prefect-port", "--mlflow-port")[server]
    other = stack.prefect_port if server else (stack.mlflow_port if MLFLOW in stack.parts else 0)
    return ports.choose(stack.host, named, usual, frozenset({other} - {0}), option)


def _same_as_running(stack: Stack, wanted: Wanted) -> None:
    told = (
        ("--host", wanted.host, stack.host, bool({PREFECT, MLFLOW} & set(stack.parts))),
        ("--prefect-port", wanted.prefect_port, stack.prefect_port, PREFECT in stack.parts),
        ("--mlflow-port", wanted.mlflow_port, stack.mlflow_port, MLFLOW in stack.parts),
    )
    problems = [
        Problem(f"{option} {asked}", f"the stack is already running with {now}", "run `mlops down` first")
        for option, asked, now, running in told
        if running and asked is not None and asked != now
    ]
    if problems:
        raise UserError(problems)
