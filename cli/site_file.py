"""What all commands of ``mlops site`` begin and end with: the site's file, and what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from configs.site import Site
    from infra.site.engine import Outcome


def described_site() -> Site:
    """Return the site of this checkout's file.

    Raises:
        UserError: with every mistake in it.
    """
    from configs.site import SITE_FILE, load_site

    return load_site(SITE_FILE)


def raise_problems(outcomes: dict[tuple[str, str], Outcome]) -> None:
    """End the command with what went wrong in any step, if anything did.

    Raises:
        UserError: with all of it.
    """
    from configs.problems import UserError
    from infra.site.engine import problems_of

    problems = problems_of(outcomes)
    if problems:
        raise UserError(problems)
