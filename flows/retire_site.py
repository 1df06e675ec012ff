"""The end of a site: a last backup, pods drained, all services stopped for good. Data stays unless told otherwise."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.site_life import back_up, stop_all


@flow(name="retire-site", description=__doc__)
def retire_site(
    names: Annotated[list[str], Field(description="The names of all machines with a role, typed")],
    backup_to: Annotated[str, Field(description="File of the last backup; empty: none is taken")],
    recipients: Annotated[list[str], Field(description="Public keys of age (age1...) that may open it")] = [],  # noqa: B006
    passphrase_file: Annotated[str, Field(description="File (0600) with the passphrase, instead of recipients")] = "",
    data: Annotated[bool, Field(description="Remove the share's and the registry's data, for good")] = False,
    reset: Annotated[bool, Field(description="Run kubeadm reset on every node: the cluster is lost")] = False,
    force: Annotated[bool, Field(description="End also pods that nobody starts again, or that lose files")] = False,
    timeout_s: Annotated[int, Field(ge=1, description="Seconds to wait for the pods of a node to end")] = 300,
) -> None:
    """Back up, then drain and stop."""
    if backup_to:
        back_up(backup_to, recipients, passphrase_file)
    stop_all(names, data=data, reset=reset, force=force, timeout_s=timeout_s)
