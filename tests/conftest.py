"""What all tests share: no telemetry, no hub, nothing outside the test's own folders."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from servers import MlflowProcess

os.environ.update(
    DO_NOT_TRACK="true",
    DVC_NO_ANALYTICS="true",
    MLFLOW_DISABLE_TELEMETRY="true",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    ORT_DISABLE_TELEMETRY="1",
    YOLO_OFFLINE="true",
)

# What a shell starts in the background ignores Ctrl-C, and so does all that it starts: some tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["stack_fixtures"]


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowProcess]:
    """A real MLflow server for all tests: each uses names of its own, and who kills it starts it again."""
    server = MlflowProcess(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.kill()
