"""Which answers of a cluster's API pass by themselves, and how long a run waits for that."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from datetime import datetime
from enum import Enum, auto

import aiohttp
from kubernetes_asyncio.client.exceptions import ApiException

REFUSAL_LIMIT_S = 60.0
"""An API server that has just started may refuse what it allows a little later, while it still reads its roles."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
REMIND_S = 300.0


class Answer(Enum):
    """What the API made of a request that did not succeed."""

    AWAY = auto()
    FULL = auto()
    EXISTS = auto()
    REFUSED = auto()
    WRONG = auto()


def judge(error: BaseException) -> tuple[Answer, str]:
    """Return the kind of a failed request and what the API said, for a log line."""
    refusal = _refusal(error)
    if refusal is None:
        if isinstance(error, aiohttp.ClientError | OSError):  # TimeoutError is an OSError
            return Answer.AWAY, str(error) or type(error).__name__
        return Answer.WRONG, str(error) or type(error).__name__
    status, reason, message = refusal
    if status in (403, 429) and "exceeded quota" in message:
        return Answer.FULL, message
    if status in (408, 429) or status >= 500 or (status == 409 and reason != "AlreadyExists"):
        return Answer.AWAY, f"{status}: {message}"
    if status == 409:
        return Answer.EXISTS, message
    if status in (401, 403):
        return Answer.REFUSED, f"{status}: {message}"
    return Answer.WRONG, f"{status}: {message}"


def _refusal(error: BaseException | None) -> tuple[int, str, str] | None:
    """Status, reason and message of the API's answer below ``error``; None when there was no answer."""
    while error is not None and not isinstance(error, ApiException):
        error = error.__cause__ or error.__context__
    if error is None or not error.status:
        return None
    try:
        body = json.loads(error.body or "")
        return int(error.status), str(body.get("reason", "")), str(body.get("message", ""))
    except (ValueError, AttributeError):  # a proxy, or a server that has not finished starting, answers in plain text
        return int(error.status), "", str(error.body or error.reason or "").strip()[:200]


class Patience:
    """One wait for the API: says once that it waits, reminds now and then, and ends after a limit.

    Args:
        limit_s: seconds after which :meth:`pause` gives up; from the first failure in a row.
        say: gets the lines for people.
    """

    def __init__(self, limit_s: float, say: Callable[[str], None]) -> None:
        self._limit_s = limit_s
        self._say = say
        self._since: tuple[float, datetime] | None = None
        self._said = 0.0
        self._kind: Answer | None = None
        self._pause_s = FIRST_PAUSE_S

    async def pause(self, kind: Answer, said: str) -> None:
        """Wait a moment before the next try.

        Raises:
            TimeoutError: this has been going on for longer than the limit; tells what was said last.
        """
        now = time.monotonic()
        if self._since is None or kind is not self._kind:
            self._since, self._kind, self._said = (now, datetime.now().astimezone()), kind, 0.0
        began, at = self._since
        limit = min(self._limit_s, REFUSAL_LIMIT_S) if kind is Answer.REFUSED else self._limit_s
        if now - began > limit:
            raise TimeoutError(f"{_told(kind, at)}: given up after {now - began:.0f} s ({said})")
        if not self._said or now - self._said > REMIND_S:
            self._say(f"{_told(kind, at)}: waiting ({said})")
            self._said = now
        await asyncio.sleep(self._pause_s * random.uniform(0.7, 1.3))  # noqa: S311 - only spreads the requests
        self._pause_s = min(self._pause_s * 1.5, LONGEST_PAUSE_S)

    def over(self) -> None:
        """Say that the wait is over, if there was one."""
        if self._since is not None:
            self._say(f"the cluster goes on after {time.monotonic() - self._since[0]:.0f} s")
            self._since, self._pause_s = None, FIRST_PAUSE_S


def _told(kind: Answer, since: datetime) -> str:
    what = {
        Answer.FULL: "the namespace's quota is used up",
        Answer.REFUSED: "the cluster's API server refuses this",
    }.get(kind, "the cluster's API server does not answer")
    return f"{what} since {since:%H:%M:%S}"
