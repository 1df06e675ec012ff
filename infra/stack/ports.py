"""Finding a port to listen on, and saying who holds one that is taken."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import psutil

from configs.problems import Problem, UserError


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen on ``host:port`` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def holder(port: int) -> str:
    """Who listens on ``port``: pid, command and folder, as far as this user may know."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if _listens(connection, port):
                return "a process of another user" if connection.pid is None else _told(psutil.Process(connection.pid))
    except psutil.AccessDenied:  # macOS shows all connections to root alone, but everybody those of his own processes
        found = next((process for process in psutil.process_iter() if listens(process.pid, port)), None)
        return _told(found) if found else "a process of another user"
    except psutil.Error:
        pass
    return "a process that has just ended or is not visible"


def listens(pid: int, port: int) -> bool:
    """Whether a process of this user listens on ``port``."""
    try:
        return any(_listens(connection, port) for connection in psutil.Process(pid).net_connections(kind="tcp"))
    except psutil.Error:
        return False


def stranger(host: str, port: int) -> str:
    """Who has taken the port of a server of ours that is gone, as a sentence without its end; empty for nobody."""
    return "" if is_free(host, port) else f"port {port} is held by {holder(port)}"


def _listens(connection: Any, port: int) -> bool:
    return bool(connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port)


def _told(process: psutil.Process) -> str:
    command, folder = "", ""
    with contextlib.suppress(psutil.Error):
        command = " ".join(process.cmdline())
        folder = f" in {process.cwd()}"
    return f"pid {process.pid} ({command[:80] or 'no command'}{folder})"


def choose(host: str, named: int | None, usual: int, taken: frozenset[int], option: str) -> int:
    """The port to use: the ``named`` one, else the ``usual`` one, else any that is free and not in ``taken``.

    Raises:
        UserError: the named port is taken (says by whom), or the host is not an address of this machine.
    """
    if named is not None:
        if named in taken:
            raise UserError(Problem(f"{option} {named}", "is given to both servers", "give each its own port"))
        if is_free(host, named):
            return named
        _check_host(host)
        raise UserError(
            Problem(f"{option} {named}", f"port {named} is held by {holder(named)}", "stop that, or leave the port out")
        )
    if usual not in taken and is_free(host, usual):
        return usual
    _check_host(host)
    while True:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
            port: int = probe.getsockname()[1]
        if port not in taken:
            return port


def _check_host(host: str) -> None:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
    except OSError as error:
        remedy = "give an address of this machine, 0.0.0.0 for all, or leave --host out"
        raise UserError(
            Problem(f"--host {host}", f"cannot be listened on: {error.strerror or error}", remedy)
        ) from None


def own_names(host: str) -> list[str]:
    """The names and addresses by which other machines may call a server here that listens on ``host``."""
    names = [host, socket.gethostname(), socket.getfqdn(), "localhost", "127.0.0.1"]
    if host in ("0.0.0.0", "::"):  # noqa: S104 the wildcard is compared, not bound
        families = (socket.AF_INET, socket.AF_INET6)
        for addresses in psutil.net_if_addrs().values():
            names += [a.address.split("%")[0] for a in addresses if a.family in families]
    return list(dict.fromkeys(f"[{name}]" if ":" in name else name for name in names))
