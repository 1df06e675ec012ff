"""Whose server it is: a client of a stack names the stack in the path of each request, and only its servers know it.

A port of the loopback belongs to whoever comes first. When a server dies, that of another checkout or user may take its
port, and whoever holds the address would go on with the wrong one. So the address of a stack's clients begins with the
stack's id (``/stack-0123456789abcdef/api/health``). Its own servers take that off; those of another stack answer as one
that is away does, with 503, which clients wait out; and a server that is no stack's has nothing below such a path.
Pages for people are below ``/`` everywhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

ANOTHERS = "this port is now another stack's"
TRY_AGAIN_LATER = 1013
"""Of the close codes of websockets (https://www.iana.org/assignments/websocket)."""
_NAMED = re.compile(r"/stack-([0-9a-f]{16})(?=/|$)")


def path_of(identity: str) -> str:
    """What the paths of the stack ``identity`` begin with."""
    return f"/stack-{identity}"


def for_people(url: str) -> str:
    """The address without the stack's id, as one opens it in a browser."""
    return _NAMED.sub("", url, count=1)


def owned(application: Application, identity: str | None) -> Application:
    """The ASGI application as a server of the stack ``identity``.

    None: it is no stack's. On a cluster its address is that of a Service, which is nobody else's.
    """
    if identity is None:
        return application

    async def ask(scope: Scope, receive: Receive, send: Send) -> None:
        named = _NAMED.match(scope.get("path", ""))
        if named is None:
            await application(scope, receive, send)
        elif named[1] == identity:
            raw = scope.get("raw_path") or b""
            shorter = {"path": scope["path"][named.end() :] or "/", "raw_path": raw[named.end() :] or b"/"}
            await application({**scope, **shorter}, receive, send)
        else:
            await _refuse(scope, receive, send)

    return ask


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        # Prefect's clients take a refused handshake for final, and a closed connection for one to make again.
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": ANOTHERS})
        return
    # `detail` is read by clients of Prefect, the rest by those of MLflow.
    body = {"detail": ANOTHERS, "error_code": "TEMPORARILY_UNAVAILABLE", "message": ANOTHERS}
    await send({"type": "http.response.start", "status": 503, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
