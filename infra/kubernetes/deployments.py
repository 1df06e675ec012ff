"""Makes a Prefect server know the pool ``kubernetes`` and the deployments of ``prefect.kubernetes.yaml``.

Prefect itself reads that file; ``MLOPS_IMAGE`` in the environment is the image that it names, by digest: a deployment,
and so each of its runs, says exactly which code it has.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.problems import Problem, UserError
from infra.kubernetes.manifests import WORK_POOL

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

PREFECT_FILE = Path("prefect.kubernetes.yaml")
IMAGE = "MLOPS_IMAGE"
DESCRIPTION = "Runs flows as Jobs of the cluster."


async def ensure_pool_and_deployments(
    client: PrefectClient, template: dict[str, Any], image: str, concurrency: int | None
) -> list[str]:
    """Register the work pool with ``template`` and the deployments of the file in this folder; the same twice is once.

    Args:
        client: of the server that ``PREFECT_API_URL`` names, where the deployments go, too.
        template: see :func:`infra.kubernetes.pool.base_job_template`.
        image: what the deployments run, by digest.
        concurrency: runs at a time, None for as many as fit.

    Returns:
        What was changed or made, a sentence each; empty when all was there.

    Raises:
        UserError: Prefect refuses a deployment; it has printed why.
    """
    said = await _ensure_pool(client, template, concurrency)
    if PREFECT_FILE.is_file():
        await _deploy(image)
    return said


async def _ensure_pool(client: PrefectClient, template: dict[str, Any], concurrency: int | None) -> list[str]:
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    try:
        pool = await client.read_work_pool(WORK_POOL)
    except ObjectNotFound:
        created = WorkPoolCreate(
            name=WORK_POOL,
            type="kubernetes",
            description=DESCRIPTION,
            base_job_template=template,
            concurrency_limit=concurrency,
        )
        await client.create_work_pool(created)
        return [f"work pool {WORK_POOL}: made"]
    if pool.type != "kubernetes":
        raise UserError(Problem(f"work pool {WORK_POOL}", f"is of type {pool.type}", "delete it, and apply again"))
    if pool.base_job_template == template and pool.concurrency_limit == concurrency:
        return []
    # Whether it is paused is a person's decision, and stays.
    update = WorkPoolUpdate(description=DESCRIPTION, base_job_template=template, concurrency_limit=concurrency)
    await client.update_work_pool(WORK_POOL, update)
    return [f"work pool {WORK_POOL}: changed"]


async def _deploy(image: str) -> None:
    from prefect.cli.deploy._commands import deploy

    before = os.environ.get(IMAGE)
    os.environ[IMAGE] = image
    try:
        await deploy(deploy_all=True, prefect_file=PREFECT_FILE)
    except SystemExit as error:
        if error.code:
            raise UserError(Problem(str(PREFECT_FILE), "Prefect refuses a deployment of it", "see above")) from None
    finally:
        os.environ.pop(IMAGE)
        if before is not None:
            os.environ[IMAGE] = before
