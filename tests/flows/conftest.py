"""One stack in one small checkout for all tests of the flows: real Prefect, MLflow, DVC and git, real trainings."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from checkouts import check, run, small_checkout
from servers import free_port
from sites import Site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A small checkout with the stack up; everything is stopped at the end."""
    root = small_checkout(tmp_path_factory.mktemp("site") / "checkout")
    try:
        # Ports of its own: where a server is killed, that of another stack is not to come to its place.
        check(root, "mlops", "up", "--prefect-port", str(free_port()), "--mlflow-port", str(free_port()))
        yield Site(root)
    finally:
        run(root, "mlops", "down")
