"""One of several supervisors acts: whoever holds the Lease in the namespace."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from infra.kubernetes.client import is_away, status_code
from infra.kubernetes.objects import find

if TYPE_CHECKING:
    from lightkube import Client

NAME = "mlops-supervisor"
STALE = timedelta(seconds=20)
"""A holder that has not renewed for this long is gone."""


class Leader:
    """A candidate for the Lease ``mlops-supervisor``."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self._me = f"{socket.gethostname()}_{os.getpid()}_{uuid4().hex[:8]}"
        self._leads = False
        self._refused = False

    def leads(self) -> bool:
        """Take or renew the Lease; whether it is ours now.

        While the API is away the last answer holds. Where leases may not be written there is taken to be no other.
        """
        import httpx2

        try:
            self._leads = self._renew()
        except httpx2.HTTPError as error:
            if is_away(error):
                return self._leads
            code = status_code(error)
            if code == 403 and not self._refused:
                print(f"no right to hold Lease {NAME}: two supervisors would say everything twice")
                self._refused = True
            if code not in (403, 409):
                raise
            self._leads = code == 403  # 409: somebody else was faster
        return self._leads

    def give_up(self) -> None:
        """Let the next one have the Lease at once."""
        import httpx2
        from lightkube.resources.coordination_v1 import Lease

        if not self._leads or self._refused:
            return
        try:
            lease = self._client.get(Lease, NAME, namespace=self._namespace)
            if lease.spec and lease.spec.holderIdentity == self._me:
                lease.spec.holderIdentity = ""
                self._client.replace(lease)
        except httpx2.HTTPError as error:
            print(f"Lease {NAME} was not given up: {error}")
        self._leads = False

    def _renew(self) -> bool:
        from lightkube.models.coordination_v1 import LeaseSpec
        from lightkube.models.meta_v1 import ObjectMeta
        from lightkube.resources.coordination_v1 import Lease

        now = datetime.now(UTC)
        mine = LeaseSpec(holderIdentity=self._me, leaseDurationSeconds=int(STALE.total_seconds()), renewTime=now)
        lease = find(self._client, Lease, NAME, namespace=self._namespace)
        if lease is None:
            self._client.create(Lease(metadata=ObjectMeta(name=NAME, namespace=self._namespace), spec=mine))
            return True
        held = lease.spec
        if held and held.holderIdentity not in ("", None, self._me) and held.renewTime and now - held.renewTime < STALE:
            return False
        lease.spec = mine
        self._client.replace(lease)  # with the version that was read: refused when somebody was faster
        return True
