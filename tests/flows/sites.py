"""A checkout with its stack up, as the tests of the flows use it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from checkouts import check
from servers import free_port

from infra.stack.connection import Connection, logins_file, save_connection
from infra.stack.environment import put_dotenv_back, write_dotenv_of
from infra.stack.state import Part, Stack, load_stack


class Site:
    """A checkout with its stack up, as the tests of the flows use it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / ".mlops"

    @property
    def stack(self) -> Stack:
        stack = load_stack(self.home)
        assert stack is not None
        return stack

    def train(self, *options: str) -> str:
        """Run the main job to its end and return what the terminal showed."""
        return check(self.root, "mlops", "train", *options)

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Lead the commands of this checkout to a platform on a cluster, whose servers do not answer."""
        part = Part(os.getpid(), psutil.Process().create_time())
        connection = Connection(self.root, "mlops", free_port(), free_port(), part)
        logins = {"prefect_auth": "mlops:secret", "mlflow_user": "mlops", "mlflow_password": "secret"}
        logins_file(self.home, "mlops").parent.mkdir(exist_ok=True)
        logins_file(self.home, "mlops").write_text(json.dumps(logins))
        save_connection(self.home, connection)
        write_dotenv_of(self.home, connection)
        try:
            yield
        finally:
            save_connection(self.home, None)
            put_dotenv_back(self.home, self.root)

    def prefect(self, path: str, /, **body: object) -> object:
        """Ask the Prefect server."""
        answer = httpx.post(f"{self.stack.prefect_api_url}/{path}", json=body, timeout=30)
        answer.raise_for_status()
        return answer.json()

    def mlflow(self, path: str, /, **query: str) -> dict[str, object]:
        """Ask the MLflow server."""
        answer = httpx.get(f"{self.stack.mlflow_url}/api/2.0/mlflow/{path}", params=query, timeout=30)
        answer.raise_for_status()
        return dict(answer.json())

    def search(self, experiment: str, condition: str) -> list[dict[str, Any]]:
        """Return the MLflow runs of an experiment that meet the condition."""
        url = f"{self.stack.mlflow_url}/api/2.0/mlflow/runs/search"
        answer = httpx.post(url, json={"experiment_ids": [experiment], "filter": condition}, timeout=30)
        answer.raise_for_status()
        return list(answer.json().get("runs", []))

    def aliases(self) -> dict[str, str]:
        """Return the aliases of the model ``forklift``."""
        model = self.mlflow("registered-models/get", name="forklift")["registered_model"]
        assert isinstance(model, dict)
        return {item["alias"]: item["version"] for item in model.get("aliases", [])}
