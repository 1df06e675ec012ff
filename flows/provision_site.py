"""From bare machines to the site of configs/site.yaml: whatever differs is changed, and nothing else."""

from __future__ import annotations

from prefect import flow

from tasks.site import provision


@flow(name="provision-site", description=__doc__)
def provision_site() -> None:
    """Run every step on every machine, side by side where they do not wait for each other."""
    provision()
