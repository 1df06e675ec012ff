"""The login to a registry: in files that only their owner can read, for container tools and for pods."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from configs.problems import Problem, UserError
from configs.registry import Registry
from infra.password import read_password
from infra.repository.dvc_config import absolute
from infra.stack.credentials import write_private


@dataclass(frozen=True)
class Login:
    """Who logs in. The password is not shown by ``repr``."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Access:
    """A folder (0700) with what container tools need to reach the registry; gone when the block is left.

    Attributes:
        folder: holds ``config.json`` (0600) in the form of Docker's.
        certificates: folder with the registry's CA as ``ca.crt``; None where the system's are meant.
    """

    folder: Path
    certificates: Path | None

    @property
    def auth_file(self) -> Path:
        return self.folder / "config.json"


def find_login(registry: Registry, root: Path, home: Path) -> Login | None:
    """Look the site's login up; None where it has none.

    Raises:
        UserError: the password is not where it should be.
    """
    if registry.user is None or registry.password is None:
        return None
    what = f"password of {registry.user} at registry {registry.address}"
    return Login(registry.user, read_password(registry.password, what, root, home))


def ca_path(registry: Registry, root: Path) -> Path | None:
    """Return the absolute path of the CA's file, None where the system's CAs are meant."""
    return None if registry.ca is None else absolute(root, registry.ca)


def docker_config(registry: Registry, login: Login | None) -> str:
    """Return ``config.json`` with the login: for container tools, and as ``.dockerconfigjson`` of a pull secret.

    A Secret of type ``kubernetes.io/dockerconfigjson`` holds it under the key ``.dockerconfigjson``.
    """
    auths = {}
    if login is not None:
        auth = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
        auths[registry.login_key] = {"auth": auth}
    return json.dumps({"auths": auths})


@contextmanager
def access(registry: Registry, login: Login | None, ca: Path | None) -> Iterator[Access]:
    """Write what container tools need into a folder of its own, never into an argument or a variable.

    Raises:
        UserError: the CA's file cannot be read.
    """
    with TemporaryDirectory(prefix="mlops-registry-") as name:
        folder = Path(name)
        write_private(folder / "config.json", docker_config(registry, login))
        certificates = None
        if ca is not None:
            certificates = folder / "certs"
            certificates.mkdir()
            try:
                (certificates / "ca.crt").write_bytes(ca.read_bytes())
            except OSError as error:
                raise UserError(
                    Problem("registry.ca", f"{ca} cannot be read: {error.strerror}", "name the PEM file of the CA")
                ) from None
        yield Access(folder, certificates)
