"""A client of the OCI distribution API, as far as we need it: is it there, may we push, which digest has a tag.

Protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, tokens as in
https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from pathlib import Path
from typing import Any, Self
from urllib.parse import urljoin

import httpx

from configs.problems import Problem, UserError
from configs.registry import Registry
from infra.registry.login import Login
from infra.registry.problems import Reason, RegistryError, of_answer, of_transport

MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
CONNECT_S, ANSWER_S = 5.0, 30.0


class RegistryClient:
    """One repository of a registry, over HTTPS and nothing else. A context manager.

    Every method raises :class:`RegistryError` where the registry does not do as asked, and
    :class:`~infra.registry.problems.RegistryAwayError`, its subclass, where another try may help.
    """

    def __init__(self, registry: Registry, login: Login | None, ca: Path | None) -> None:
        """Prepare; nothing is sent yet. ``ca`` is the absolute path of ``registry.ca``.

        Raises:
            UserError: the CA's file cannot be used.
        """
        self._registry = registry
        self._login = login
        self._authorization: str | None = None
        self._http = httpx.Client(
            base_url=registry.url, verify=_trust(ca), timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ping(self) -> None:
        """Return if it is a registry that lets us in."""
        response = self._ask("GET", "/v2/", action="pull from")
        if response.status_code != 200:
            raise of_answer(self._registry, response, "pull from")
        if "docker-distribution-api-version" not in response.headers and "json" not in response.headers.get(
            "content-type", ""
        ):
            where = f"registry {self._registry.address}"
            raise RegistryError(Reason.NONE, Problem(where, "is some other web server", "mend `registry.address`"))

    def check_push(self) -> None:
        """Return if we may push, and there is space to begin with: begins an upload and takes it back."""
        path = self._path("blobs/uploads/")
        response = self._ask("POST", path, action="push to")
        if response.status_code != 202:
            raise of_answer(self._registry, response, "push to")
        self._ask("DELETE", urljoin(str(response.url), response.headers["location"]), action="push to")

    def digest(self, reference: str) -> str | None:
        """Return the digest (``sha256:...``) of the manifest that a tag or digest names, None where there is none."""
        accept = {"Accept": ", ".join(MANIFESTS)}
        response = self._ask("GET", self._path(f"manifests/{reference}"), action="pull from", headers=accept)
        if response.status_code == 404:
            return None
        if response.status_code != 200:
            raise of_answer(self._registry, response, "pull from")
        # Computed, not believed: pods will pull by it.
        return f"sha256:{hashlib.sha256(response.content).hexdigest()}"

    def tags(self) -> list[str]:
        """Return all tags of the repository, sorted; none where there is no such repository yet."""
        found: list[str] = []
        url: str | None = self._path("tags/list")
        while url:
            response = self._ask("GET", url, action="pull from")
            if response.status_code == 404:
                return []
            if response.status_code != 200:
                raise of_answer(self._registry, response, "pull from")
            found += response.json().get("tags") or []
            link = response.links.get("next", {}).get("url")
            url = urljoin(str(response.url), link) if link else None
        return sorted(found)

    def _path(self, rest: str) -> str:
        return f"/v2/{self._registry.repository}/{rest}"

    def _ask(self, method: str, url: str, *, action: str, headers: dict[str, str] | None = None) -> httpx.Response:
        response = self._send(method, url, headers)
        if response.status_code == 401 and self._authorize(response.headers.get("www-authenticate", ""), action):
            response = self._send(method, url, headers)
        if response.status_code == 401:
            raise of_answer(self._registry, response, action)
        return response

    def _send(self, method: str, url: str, headers: dict[str, str] | None) -> httpx.Response:
        authorization = {"Authorization": self._authorization} if self._authorization else {}
        try:
            return self._http.request(method, url, headers={**(headers or {}), **authorization})
        except httpx.TransportError as error:
            raise of_transport(self._registry, error) from None

    def _authorize(self, challenge: str, action: str) -> bool:
        """Answer a challenge; whether there is something to answer it with that was not tried before."""
        scheme, _, rest = challenge.partition(" ")
        tried = self._authorization
        basic = httpx.BasicAuth(self._login.user, self._login.password) if self._login else None
        if scheme.lower() == "basic" and basic is not None:
            request = httpx.Request("GET", self._registry.url)
            self._authorization = next(basic.auth_flow(request)).headers["Authorization"]
        elif scheme.lower() == "bearer":
            self._authorization = self._token(dict(re.findall(r'(\w+)="([^"]*)"', rest)), basic, action)
        return self._authorization != tried

    def _token(self, challenge: dict[str, str], basic: httpx.BasicAuth | None, action: str) -> str:
        realm = challenge.pop("realm", "")
        if not realm.startswith("https://"):
            where = f"registry {self._registry.address}"
            raise RegistryError(
                Reason.TLS,
                Problem(where, "wants the login sent without TLS", "its administrator must set an https realm"),
            )
        scope = {"scope": f"repository:{self._registry.repository}:{'pull,push' if action == 'push to' else 'pull'}"}
        try:
            response = self._http.get(realm, params={**challenge, **scope}, auth=basic or httpx.USE_CLIENT_DEFAULT)
        except httpx.TransportError as error:
            raise of_transport(self._registry, error) from None
        if response.status_code != 200:
            raise of_answer(self._registry, response, action)
        answer: dict[str, Any] = response.json()
        return f"Bearer {answer.get('token') or answer['access_token']}"


def _trust(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        reason = "holds no certificate in PEM form" if isinstance(error, ssl.SSLError) else error.strerror
        raise UserError(
            Problem("registry.ca", f"{ca} cannot be used: {reason}", "name the PEM file of the registry's CA")
        ) from None
