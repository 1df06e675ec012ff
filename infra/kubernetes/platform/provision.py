"""Makes the platform's Prefect server know the work pool, the deployments and our automations; a child of ``install``.

    PREFECT_API_URL=... python -m infra.kubernetes.platform.provision

A process of its own, because Prefect reads where its server is once, when it is imported.
"""

from __future__ import annotations

import asyncio

from infra.stack.automations import apply_automations
from infra.stack.waiting import server_is_up

TRAINING = "train-forklift/kubernetes"


def main() -> None:
    asyncio.run(_provision())


async def _provision() -> None:
    from prefect.client.orchestration import get_client

    await server_is_up()
    async with get_client() as client:
        for name in await apply_automations(client, TRAINING):
            print(f"automation: {name}")


if __name__ == "__main__":
    main()
