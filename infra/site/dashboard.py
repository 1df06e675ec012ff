"""The way to the dashboard: a port of this machine's loopback, and a token of minutes for whoever sits before it."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from configs.cluster import Cluster
from configs.problems import Problem, UserError
from infra.addons.dashboard import ADMIN, ADMIN_S, NAME, NAMESPACE, PORT, VIEWER, VIEWER_S
from infra.kubernetes.client import api_errors_for_people, connect
from infra.kubernetes.forward import LOOPBACK, Forwarded, forwarded
from infra.kubernetes.objects import find
from infra.stack import ports

if TYPE_CHECKING:
    from lightkube import Client


@dataclass(frozen=True)
class Token:
    """A token and when it ends; ``repr`` shows no token."""

    text: str = field(repr=False)
    ends: datetime.datetime


def dashboard_cluster(cluster: Cluster | None) -> Cluster:
    """Return how the dashboard's namespace is reached: by the login of the site's cluster."""
    return (cluster or Cluster()).model_copy(update={"namespace": NAMESPACE})


@api_errors_for_people()
def dashboard_token(client: Client, *, admin: bool) -> Token:
    """Return a new token: of the account that reads, for an hour, or of the one that may do all, for ten minutes.

    Raises:
        UserError: the cluster has no dashboard, or this login may not give tokens.
    """
    from lightkube.models.authentication_v1 import TokenRequestSpec
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.core_v1 import ServiceAccount, ServiceAccountToken

    account, seconds = (ADMIN, ADMIN_S) if admin else (VIEWER, VIEWER_S)
    if find(client, ServiceAccount, account, namespace=NAMESPACE) is None:
        remedy = "`kubernetes.addons` of the site's file with `dashboard`, then: mlops site apply"
        raise UserError(Problem("the dashboard", f"is not on this cluster: {NAMESPACE} has no {account}", remedy))
    spec = TokenRequestSpec(audiences=[], expirationSeconds=seconds)
    named = ObjectMeta(name=account, namespace=NAMESPACE)
    given = client.create(ServiceAccountToken(metadata=named, spec=spec), account, namespace=NAMESPACE)
    if given.status is None or given.status.token is None or given.status.expirationTimestamp is None:
        raise UserError(Problem("the API server", "gave no token", "try again"))
    return Token(given.status.token, given.status.expirationTimestamp)


def dashboard_client(cluster: Cluster | None) -> Client:
    """Return a client for the dashboard's namespace.

    Raises:
        UserError: see :func:`infra.kubernetes.client.connect`.
    """
    return connect(dashboard_cluster(cluster))


def lead_to_dashboard(cluster: Cluster | None, on_open: Callable[[str], None]) -> None:
    """Forward the dashboard to a free port until Ctrl-C; ``on_open`` is told the address.

    Raises:
        UserError: the kubeconfig cannot be used.
    """
    port = ports.choose(LOOPBACK, None, PORT, frozenset(), "")

    async def lead() -> None:
        async with forwarded(dashboard_cluster(cluster), [Forwarded(NAME, PORT, port)]):
            on_open(f"https://{LOOPBACK}:{port}")
            await asyncio.Event().wait()

    asyncio.run(lead())
