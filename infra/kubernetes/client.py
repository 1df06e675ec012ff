"""The way to a cluster's API server, and what its errors mean."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from configs.cluster import Cluster
from configs.home import home_folder
from configs.problems import Problem, UserError

if TYPE_CHECKING:
    from lightkube import Client
    from lightkube.config.kubeconfig import KubeConfig, SingleConfig

FIELD_MANAGER = "mlops"
TIMEOUT_S = 10.0
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PASSING = (408, 429, 500, 502, 503, 504)


def connect(cluster: Cluster) -> Client:
    """Return a client whose default namespace is the cluster's, after one question to the API server.

    Raises:
        UserError: the kubeconfig, its context, the address, TLS or the login is wrong: one sentence, and what to do.
    """
    import httpx2
    from lightkube import Client
    from lightkube.core.exceptions import ApiError, ConfigError

    config, source = load_config(cluster)
    server = config.cluster.server
    try:
        timeout = httpx2.Timeout(TIMEOUT_S)
        client = Client(config, namespace=cluster.namespace, timeout=timeout, field_manager=FIELD_MANAGER)
        _ask(client)
    except ApiError as error:
        raise UserError(_refused(error, source, server)) from None
    except (httpx2.HTTPError, ssl.SSLError, ConfigError, OSError, ValueError, AssertionError) as error:
        raise UserError(_unreachable(error, source, server)) from None
    return client


def is_away(error: BaseException) -> bool:
    """Whether the API server could not be asked now and may answer later: no connection, a timeout, 429 or 5xx."""
    import httpx2

    if isinstance(error, httpx2.HTTPStatusError):
        return status_code(error) in _PASSING
    return isinstance(error, httpx2.TransportError | ConnectionError | TimeoutError) and not _tls_refused(error)


def status_code(error: BaseException) -> int | None:
    """Return the HTTP status of an error of the API server, None where there was no answer."""
    from httpx2 import HTTPStatusError

    if not isinstance(error, HTTPStatusError):
        return None
    # An error inside a watch has a Status object and no response.
    status = getattr(error, "status", None)
    response = getattr(error, "response", None)
    return response.status_code if response is not None else getattr(status, "code", None)


class ApiAwayError(UserError, ConnectionError):
    """The API server did not answer, or not now: worth another try."""


@contextmanager
def api_errors_for_people() -> Iterator[None]:
    """Turn what the API server fails with into a ``UserError``, an :class:`ApiAwayError` where that can pass."""
    from httpx2 import HTTPError

    try:
        yield
    except HTTPError as error:
        told = str(error) or type(error).__name__
        if is_away(error):
            raise ApiAwayError(Problem("the API server", f"does not answer any more: {told}", "try again")) from None
        remedy = "use an administrator's kubeconfig" if status_code(error) == 403 else "see its reason"
        raise UserError(Problem("the API server", f"refuses: {told}", remedy)) from None


def load_config(cluster: Cluster) -> tuple[SingleConfig, str]:
    """Return the context to use and where it was read.

    Raises:
        UserError: there is no such file or context, or it cannot be read.
    """
    import yaml
    from lightkube import KubeConfig
    from lightkube.core.exceptions import ConfigError

    in_pod = cluster.kubeconfig is None and "KUBECONFIG" not in os.environ and (SERVICE_ACCOUNT / "token").exists()
    if in_pod:
        return _chosen(KubeConfig.from_service_account(), None), str(SERVICE_ACCOUNT)
    own = site_kubeconfig(home_folder())
    usual = own if own.is_file() else "~/.kube/config"
    named = cluster.kubeconfig or os.environ.get("KUBECONFIG") or usual
    # KUBECONFIG may be a list of files for kubectl to merge; one is read here, the first that is there.
    candidates = [Path(part).expanduser() for part in str(named).split(os.pathsep) if part]
    path = next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
    try:
        known = KubeConfig.from_file(path)
        context = _chosen(known, cluster.context)
    except ConfigError:
        if not path.is_file():
            remedy = "name the file: `kubeconfig:` in section cluster of the site, or KUBECONFIG"
            raise UserError(Problem(str(path), "there is no such kubeconfig", remedy)) from None
        names = ", ".join(sorted(known.contexts)) or "none"
        what = f"has no context {cluster.context}" if cluster.context else "has no current context"
        raise UserError(Problem(str(path), what, f"name one in section cluster of the site; it has: {names}")) from None
    except (OSError, yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        told = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: it is no kubeconfig"
        raise UserError(Problem(str(path), f"cannot be read: {told}", "let kubeadm or kubectl write it")) from None
    return context, f"{path} (context {context.context_name})"


def site_kubeconfig(home: Path) -> Path:
    """Return where the kubeconfig of a cluster is that the site itself has made.

    Args:
        home: the checkout's state folder.
    """
    return home / "site" / "kubeconfig"


def _chosen(known: KubeConfig, context: str | None) -> SingleConfig:
    from lightkube.core.exceptions import ConfigError

    found = known.get(context)
    if found is None:
        raise ConfigError("no current context")
    return found


def _ask(client: Client) -> None:
    """Ask what every login may ask: whether it may list pods. Fails where network, TLS or login are wrong."""
    from lightkube.models.authorization_v1 import ResourceAttributes, SelfSubjectAccessReviewSpec
    from lightkube.resources.authorization_v1 import SelfSubjectAccessReview

    attributes = ResourceAttributes(verb="list", resource="pods", namespace=client.namespace)
    client.create(SelfSubjectAccessReview(spec=SelfSubjectAccessReviewSpec(resourceAttributes=attributes)))


def _refused(error: Exception, source: str, server: str) -> Problem:
    code = status_code(error)
    if code == 401:
        return Problem(source, f"{server} does not accept its login", "get a new kubeconfig: this one may have expired")
    if code == 403:
        return Problem(source, f"{server} lets this login do nothing", "have an administrator bind a role to it")
    return Problem(source, f"{server} answered {code}: {error}", "look at the API server, or try again")


def _unreachable(error: Exception, source: str, server: str) -> Problem:
    from lightkube.core.exceptions import ConfigError

    told = str(error) or type(error).__name__
    if _tls_refused(error):
        remedy = "the kubeconfig's certificate-authority is not this cluster's, or the name is not in its certificate"
        return Problem(source, f"{server} could not prove who it is: {told}", remedy)
    if isinstance(error, ConfigError | ValueError | AssertionError):
        return Problem(source, f"holds a login that cannot be used: {told}", "let kubeadm or kubectl write it")
    return Problem(source, f"{server} does not answer: {told}", "is the control plane up, and is this its address?")


def _tls_refused(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
