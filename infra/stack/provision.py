"""Makes the server know the work pool, the deployments of ``prefect.yaml``, and our automations. Run in the checkout.

One process for what would be several ``prefect`` commands: each of them imports Prefect anew. It imports the flows
while the server still starts.
"""

from __future__ import annotations

import asyncio
import hashlib
from importlib.metadata import version
from pathlib import Path

from infra.stack.waiting import ensure_work_pool, server_is_up

PREFECT_FILE = Path("prefect.yaml")
# What a deployment is made of: its entry, the flow's signature, and the models in that signature.
SOURCES = ("flows/**/*.py", "tasks/**/*.py", "configs/*.py")


def fingerprint(checkout: Path) -> str:
    """Changes whenever deploying again would change something."""
    digest = hashlib.sha256(f"{checkout}\0{version('prefect')}\0{version('kubernetes-mlops')}".encode())
    files = [checkout / PREFECT_FILE, *(path for pattern in SOURCES for path in checkout.glob(pattern))]
    files += [Path(__file__).with_name("automations.py"), Path(__file__)]
    for path in sorted(files):
        if path.is_file():
            digest.update(f"{path}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    asyncio.run(_provision())


async def _provision() -> None:
    # Imported first, so that it happens while the server starts.
    import prefect.cli.deploy._commands
    import prefect.cli.deploy._core
    import prefect.workers.process  # noqa: F401
    from prefect.client.orchestration import get_client

    from infra.stack.automations import apply_automations

    await server_is_up()
    async with get_client() as client:
        await ensure_work_pool(client)
        if PREFECT_FILE.is_file():
            await _deploy_all()
        for name in await apply_automations(client):
            print(f"automation: {name}")


async def _deploy_all() -> None:
    """What ``prefect --no-prompt deploy --all`` does, without its start.

    Raises:
        SystemExit: a deployment is wrong; Prefect has printed why.
    """
    from prefect.cli.deploy._commands import deploy

    await deploy(deploy_all=True, prefect_file=PREFECT_FILE)


if __name__ == "__main__":
    main()
