"""Everything to have the site again in one encrypted file: the cluster's keys and data, the site's own, its file."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.site_life import back_up


@flow(name="backup-site", description=__doc__)
def backup_site(
    to: Annotated[str, Field(description="A new file, or a folder for it")],
    recipients: Annotated[list[str], Field(description="Public keys of age (age1...) that may open it")] = [],  # noqa: B006
    passphrase_file: Annotated[str, Field(description="File (0600) with the passphrase, instead of recipients")] = "",
) -> None:
    """Take a snapshot, and write it with all keys into one file that is read back."""
    back_up(to, recipients, passphrase_file)
