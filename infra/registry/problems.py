"""What goes wrong between us and a registry, in one sentence each."""

from __future__ import annotations

import errno
import socket
import ssl
from enum import StrEnum

import httpx

from configs.problems import Problem, UserError
from configs.registry import Registry


class Reason(StrEnum):
    """Why a registry could not be used."""

    AWAY = "away"
    TLS = "tls"
    LOGIN = "login"
    DENIED = "denied"
    FULL = "full"
    NONE = "no registry"


class RegistryError(UserError):
    """A registry could not be used; ``reason`` says why for programs."""

    def __init__(self, reason: Reason, problem: Problem) -> None:
        self.reason = reason
        super().__init__(problem)


class RegistryAwayError(RegistryError, ConnectionError):
    """It did not answer, or is overloaded: worth another try."""


_UNTRUSTED = (18, 19, 20, 21)
_NOT_YET, _EXPIRED = 9, 10
_OTHER_NAME = (62, 64)


def of_transport(registry: Registry, error: httpx.TransportError) -> RegistryError:
    """Explain why no answer came."""
    where = f"registry {registry.address}"
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RegistryError(Reason.TLS, Problem(where, *_certificate(registry, cause)))
    if any(isinstance(cause, ssl.SSLError) and "WRONG_VERSION" in str(cause) for cause in causes):
        what = "does not speak TLS there: its certificate is missing, or this is another server's port"
        return RegistryError(Reason.TLS, Problem(where, what, "give the registry a certificate, or mend the port"))
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        told = next(str(cause) for cause in causes if isinstance(cause, ssl.SSLError))
        return RegistryError(Reason.TLS, Problem(where, f"TLS fails: {told}", "look at the registry's certificate"))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        what, remedy = "its name is not known", "mend `address` in configs/site.yaml, or the name service"
    elif any(getattr(cause, "errno", None) == errno.ECONNREFUSED for cause in causes):
        what, remedy = "nothing listens there", "start the registry, or mend `address` in configs/site.yaml"
    elif isinstance(error, httpx.TimeoutException):
        what, remedy = "does not answer in time", "is its machine on and reachable? A firewall between?"
    else:
        what, remedy = f"cannot be reached: {causes[-1]}", "is its machine on and reachable?"
    return RegistryAwayError(Reason.AWAY, Problem(where, what, remedy))


def of_answer(registry: Registry, response: httpx.Response, action: str) -> RegistryError:
    """Explain an answer that is not what was asked for; ``action`` as in ``pull from``."""
    where = f"registry {registry.address}"
    status, told = response.status_code, _told(response)
    if status == 401 and registry.user is None:
        remedy = "add `user:` and `password:` under `registry` in configs/site.yaml"
        return RegistryError(Reason.LOGIN, Problem(where, "asks for a login, and none is configured", remedy))
    if status == 401:
        remedy = "is the password the one that the registry's administrator gave? Try it with `podman login`"
        return RegistryError(Reason.LOGIN, Problem(where, f"refuses the login of {registry.user}", remedy))
    if status == 403:
        what = f"{registry.user or 'nobody'} may not {action} {registry.repository}{told}"
        remedy = f"ask its administrator for the right, or name another `repository` than {registry.repository}"
        return RegistryError(Reason.DENIED, Problem(where, what, remedy))
    if status == 507 or "no space" in told.lower() or '"Err":28' in response.text.replace(" ", ""):
        remedy = "free some space on its machine: delete old images and run `registry garbage-collect`"
        return RegistryError(Reason.FULL, Problem(where, "has no space left on its disk", remedy))
    if status == 429 or status >= 500:
        remedy = "try again; if it stays so, look at the registry's log"
        return RegistryAwayError(Reason.AWAY, Problem(where, f"answers {status}{told}", remedy))
    what = f"answers {status} when we {action} {registry.repository}{told}"
    return RegistryError(Reason.NONE, Problem(where, what, "is this a registry (OCI distribution API)?"))


def _certificate(registry: Registry, error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    host = registry.address.rpartition(":")[0] or registry.address
    if error.verify_code == _EXPIRED:
        return (
            "its certificate has expired",
            "renew the certificate on the registry's machine; is the clock right here?",
        )
    if error.verify_code == _NOT_YET:
        return "its certificate is not valid yet", "are the clocks right, here and on the registry's machine?"
    if error.verify_code in _OTHER_NAME:
        what = f"its certificate is for another name than {host}"
        return what, "name it in `address` as in the certificate, or issue one with this name as subjectAltName"
    if error.verify_code in _UNTRUSTED and registry.ca is None:
        return (
            "its certificate is from a CA that this machine does not trust",
            "name the CA's PEM file as `registry.ca`",
        )
    if error.verify_code in _UNTRUSTED:
        return f"its certificate is not from the CA in {registry.ca}", "put the CA that signed it into that file"
    return f"its certificate is refused: {error.verify_message}", "issue another certificate"


def _told(response: httpx.Response) -> str:
    try:
        errors = response.json()["errors"]
        return f": {errors[0].get('message') or errors[0]['code']}" if errors else ""
    except (ValueError, KeyError, TypeError, IndexError):
        return ""


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found
