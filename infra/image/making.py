"""The way from a commit to an image in the registry, step by step: for the flow and for the command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from configs.image import Builder
from infra.image.build import Say, build, push
from infra.image.builders import find_builder
from infra.image.plan import Plan, make_plan
from infra.image.record import ImageRecord, add_record
from infra.registry.client import RegistryClient
from infra.registry.login import Login, ca_path, find_login


@dataclass
class Making:
    """One image on its way; made by :func:`open_making`.

    Attributes:
        home: the checkout's state folder.
        digest: the image in the registry, once it is known to be there.
    """

    plan: Plan
    home: Path
    _login: Login | None
    _client: RegistryClient
    digest: str | None = None

    @cached_property
    def builder(self) -> Builder:
        """Return the site's builder, or the first that works: each is asked once, which takes a while.

        Raises:
            UserError: none works.
        """
        return find_builder(self.plan.settings.builder)

    def find(self) -> bool:
        """Whether the registry has the very image already: nothing is to be built then.

        Raises:
            RegistryError: the registry cannot be used; it is asked before anything is built.
        """
        self._client.check_push()
        self.digest = self._client.digest(self.plan.tag)
        return self.digest is not None

    def build(self, say: Say) -> None:
        """Build it.

        Raises:
            UserError: no builder works, or the build failed.
        """
        build(self.plan, self.builder, self._login, say)

    def push(self, say: Say) -> None:
        """Push what was built.

        Raises:
            RegistryError: the registry refused it; RegistryAwayError where another try may help.
            UserError: the builder failed.
        """
        self.digest = push(self.plan, self.builder, self._login, self._client, say)

    def record(self) -> ImageRecord:
        """Make it the image that deployments use.

        Raises:
            UserError: the record cannot be written.
        """
        assert self.digest is not None, "neither found nor pushed"  # noqa: S101 - a mistake of the program
        record = self.plan.record(self.digest)
        add_record(self.home, record)
        return record


@contextmanager
def open_making(root: Path, home: Path, *, dirty: bool) -> Iterator[Making]:
    """Plan the image of the checkout ``root`` as it is now.

    Raises:
        UserError: see :func:`infra.image.plan.make_plan`; the login or the CA is not where the site says.
    """
    plan = make_plan(root, dirty=dirty)
    login = find_login(plan.registry, root, home)
    with RegistryClient(plan.registry, login, ca_path(plan.registry, root)) as client:
        yield Making(plan, home, login, client)
