"""A worker that outlives the Prefect server: Prefect's own loops end it after a few minutes, and with it its runs."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun
    from prefect.workers.base import BaseWorker

    Base = BaseWorker[Any, Any, Any]
else:  # known to Prefect as a worker of no type of its own
    Base = object

Result = TypeVar("Result")


def passes(error: httpx.HTTPError) -> bool:
    """Whether a failed request may succeed later, unchanged."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code in (408, 429)
    return True


class OutlivesServer(Base):
    """To be named before a class of Prefect's workers."""

    _server_away = False

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        return await self._while_server_answers(super().get_and_submit_flow_runs, [])

    async def _sync_and_initialize(self) -> None:
        await self._while_server_answers(super()._sync_and_initialize, None)

    async def _while_server_answers(self, call: Callable[[], Awaitable[Result]], otherwise: Result) -> Result:
        try:
            result = await call()
        except Exception as error:
            if not self._waits_out(error):
                raise
            if not self._server_away:
                self._logger.warning("The Prefect server does not answer: waiting (%s)", _said(error))
            self._server_away = True
            return otherwise
        if self._server_away:
            self._logger.info("The Prefect server answers again")
        self._server_away = False
        return result

    def _waits_out(self, error: Exception) -> bool:
        return isinstance(error, httpx.HTTPError) and passes(error)

    async def _submit_run(self, flow_run: FlowRun) -> None:
        try:
            await super()._submit_run(flow_run)
        except httpx.HTTPError as error:  # would end the worker; the run is found again by whoever looks for lost ones
            self._logger.warning("Flow run %s could not be taken: %s", flow_run.name, _said(error))
            self._release_limit_slot(flow_run.id)
        finally:
            self._submitting_flow_run_ids.discard(flow_run.id)


def watch_for_cancels_for_ever() -> None:
    """Let Prefect's watch for cancelled runs outlive the server, too: it ends for good after three failed looks.

    For a worker's own process. The watch is that of ``FlowRunExecutor``, one for each run.
    """
    from prefect._internal.observers import FlowRunCancellingObserver

    look = FlowRunCancellingObserver._check_for_cancelled_flow_runs

    async def look_again_later(observer: FlowRunCancellingObserver) -> None:
        with contextlib.suppress(Exception):
            await look(observer)  # type: ignore[no-untyped-call]

    FlowRunCancellingObserver._check_for_cancelled_flow_runs = look_again_later  # type: ignore[method-assign]


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
