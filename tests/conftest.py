"""What all tests share: no telemetry, no hub, nothing outside the test's own folders."""

from __future__ import annotations

import os

os.environ.update(
    DO_NOT_TRACK="true",
    DVC_NO_ANALYTICS="true",
    MLFLOW_DISABLE_TELEMETRY="true",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    YOLO_OFFLINE="true",
)

pytest_plugins = ["stack_fixtures"]
