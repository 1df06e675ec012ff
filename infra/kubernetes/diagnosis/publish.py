"""Puts a diagnosis into the run: a line of its log and an artifact, once each."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from infra.kubernetes.diagnosis.record import Diagnosis
from infra.kubernetes.diagnosis.runs import LOGGER

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import Artifact

KEY = "diagnosis"
"""Key of the artifacts: one a trouble, each with its run."""


async def published(client: PrefectClient, run: UUID) -> set[str]:
    """Return the marks of what was published of a run before, by whomever."""
    return {(artifact.metadata_ or {}).get("mark", "") for artifact in await _artifacts(client, run)}


async def newest(client: PrefectClient, run: UUID) -> str | None:
    """Return the newest diagnosis in the log of a run, as it was published; None where there is none."""
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import LogSort

    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
    logs = await client.read_logs(wanted, limit=200, sort=LogSort.TIMESTAMP_DESC)
    return next((entry.message for entry in logs if entry.name == LOGGER), None)


async def publish(client: PrefectClient, run: UUID, found: Diagnosis, mark: str) -> None:
    """Write ``found`` into the log of ``run`` and make its artifact.

    Args:
        mark: what tells this trouble from others of the run, to know it again.
    """
    from prefect.client.schemas.actions import ArtifactCreate, LogCreate

    level = logging.WARNING if found.passing else logging.ERROR
    await client.create_artifact(
        ArtifactCreate(
            key=KEY,
            type="markdown",
            description=f"{found.category}: {found.what}",
            data=found.markdown(),
            metadata_={"category": found.category.value, "mark": mark},
            flow_run_id=run,
        )
    )
    now = datetime.now(UTC)
    await client.create_logs(
        [LogCreate(name=LOGGER, level=level, message=found.text(), timestamp=now, flow_run_id=run)]
    )


async def _artifacts(client: PrefectClient, run: UUID) -> list[Artifact]:
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterFlowRunId,
        ArtifactFilterKey,
    )

    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[KEY]), flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    return await client.read_artifacts(artifact_filter=wanted)
