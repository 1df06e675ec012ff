"""Makes the platform's Prefect server know the work pool, the deployments and our automations; a child of ``install``.

    PREFECT_API_URL=... python -m infra.kubernetes.platform.provision < REQUEST

A process of its own, because Prefect reads where its server is once, when it is imported. Runs in the checkout.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from configs.problems import run_main
from infra.kubernetes.deployments import ensure_pool_and_deployments
from infra.kubernetes.platform.wanted import Wanted
from infra.kubernetes.pool import base_job_template
from infra.stack.automations import apply_automations
from infra.stack.waiting import server_is_up

TRAINING = "train-forklift/kubernetes"


def request(wanted: Wanted) -> str:
    """Return what the child reads; holds no secret.

    Raises:
        UserError: the site's resources of runs contradict each other.
    """
    return json.dumps(
        {
            "template": base_job_template(wanted),
            "image": wanted.image,
            "concurrency": wanted.cluster.concurrency,
        }
    )


def main() -> None:
    """Do what standard input asks for."""
    asyncio.run(_provision(json.load(sys.stdin)))


async def _provision(asked: dict[str, Any]) -> None:
    from prefect.client.orchestration import get_client

    await server_is_up()
    async with get_client() as client:
        for line in await ensure_pool_and_deployments(client, asked["template"], asked["image"], asked["concurrency"]):
            print(line)
        for name in await apply_automations(client, TRAINING):
            print(f"automation: {name}")


if __name__ == "__main__":
    run_main(main)
