"""From a backup to the site: what the checkout has lost, and the cluster on a machine that has none."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.site_life import restore


@flow(name="restore-site", description=__doc__)
def restore_site(
    file: Annotated[str, Field(description="Of backup-site")],
    passphrase_file: Annotated[str, Field(description="File (0600) with the passphrase that it was closed by")] = "",
    identity_file: Annotated[str, Field(description="File (0600) of age-keygen that it was closed for")] = "",
    snapshot: Annotated[str, Field(description="A newer snapshot, from the share, instead of the backup's")] = "",
    replace: Annotated[str, Field(description="Control plane's name: what is left there is moved aside")] = "",
) -> None:
    """Restore the state folder, then keys, data and control plane; a living cluster is refused."""
    restore(file, passphrase_file, identity_file, snapshot, replace)
