"""MLflow's REST API, as far as it is used here.

Spoken directly rather than through ``mlflow.MlflowClient``: importing that costs nearly five CPU seconds, which every
flow and every ``mlops lineage`` would pay, and its retries can hold a training for minutes. The paths and bodies are
those of https://mlflow.org/docs/latest/rest-api.html, checked against MLflow 3.17; artifacts go through the server
(``mlflow server --artifacts-destination``, the default).

Lengths, times: sizes in bytes, times in milliseconds since the epoch as in MLflow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import httpx

from infra.tracking.entities import (
    DeniedError,
    RefusedError,
    Run,
    TrackerError,
    UnreachableError,
    Version,
    mapping,
    parse_run,
    parse_version,
)

# Without it MLflow's pages show what language models need: traces, judges, prompts.
VIEW = "?workflowType=machine_learning"
MAX_TAG = 8000
MAX_PARAM = 6000
MAX_DIGEST = 36
MAX_BATCH = 100
MAX_METRICS = 1000
CHUNK = 1 << 20


class MlflowServer:
    """One MLflow server.

    Args:
        uri: http(s) address; a user and password in it are used and never shown.
        username, password: for basic authentication, as in ``MLFLOW_TRACKING_USERNAME`` and ``..._PASSWORD``.
        timeout_s: longest wait for a connection and for each part of an answer.
        pages: where people find the server's pages, if not at ``uri``.

    Every method raises :class:`UnreachableError` or :class:`RefusedError`, and nothing else, on a server's account.
    """

    def __init__(
        self,
        uri: str,
        username: str | None = None,
        password: str | None = None,
        timeout_s: float = 5.0,
        pages: str | None = None,
    ) -> None:
        self.uri = without_password(uri).rstrip("/")
        self._pages = without_password(pages or uri).rstrip("/")
        parts = urlsplit(uri)
        local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
        user, secret = username or parts.username, password or parts.password
        self._http = httpx.Client(
            base_url=self.uri,
            auth=(user, secret or "") if user else None,
            timeout=timeout_s,
            # A company's proxy does not know our loopback.
            trust_env=not local,
        )

    def close(self) -> None:
        self._http.close()

    # -- runs ---------------------------------------------------------------------------------------------------

    def experiment(self, name: str) -> str:
        """Id of the experiment ``name``, made if there is none, restored if it was deleted."""
        found = self.find_experiment(name)
        if found is None:
            try:
                return str(self._call("POST", "experiments/create", {"name": name})["experiment_id"])
            except RefusedError as error:
                if error.code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.find_experiment(name)
                if found is None:
                    raise
        if found["lifecycle_stage"] == "deleted":
            self._call("POST", "experiments/restore", {"experiment_id": found["experiment_id"]})
        return str(found["experiment_id"])

    def find_experiment(self, name: str) -> dict[str, Any] | None:
        answer = self._maybe("experiments/get-by-name", experiment_name=name)
        return answer["experiment"] if answer else None

    def create_run(self, experiment_id: str, name: str, start_ms: int, tags: Mapping[str, str]) -> Run:
        body = {"experiment_id": experiment_id, "run_name": name, "start_time": start_ms, "tags": _pairs(tags, MAX_TAG)}
        return parse_run(self._call("POST", "runs/create", body)["run"])

    def run(self, run_id: str) -> Run | None:
        answer = self._maybe("runs/get", run_id=run_id)
        return parse_run(answer["run"]) if answer else None

    def find_runs(self, experiment_id: str, tags: Mapping[str, str], status: str | None = None) -> list[Run]:
        """Runs with all these tags, the earliest first."""
        clauses = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
        clauses += [f"attributes.status = '{status}'"] if status else []
        body = {
            "experiment_ids": [experiment_id],
            "filter": " and ".join(clauses),
            "order_by": ["attributes.start_time ASC", "attributes.run_id ASC"],
            "max_results": 100,
        }
        return [parse_run(run) for run in self._call("POST", "runs/search", body).get("runs", [])]

    def update_run(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        body: dict[str, Any] = {"run_id": run_id, "status": status}
        if end_ms is not None:
            body["end_time"] = end_ms
        self._call("POST", "runs/update", body)

    def delete_run(self, run_id: str) -> None:
        self._call("POST", "runs/delete", {"run_id": run_id})

    def log_metrics(self, run_id: str, metrics: Mapping[str, float], step: int, at_ms: int) -> None:
        """Sending the same metrics, step and time again changes nothing."""
        rows = [
            {"key": metric_name(key), "value": _number(value), "timestamp": at_ms, "step": step}
            for key, value in metrics.items()
        ]
        for part in _parts(rows, MAX_METRICS):
            self._call("POST", "runs/log-batch", {"run_id": run_id, "metrics": part})

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        for part in _parts(_pairs(params, MAX_PARAM), MAX_BATCH):
            self._call("POST", "runs/log-batch", {"run_id": run_id, "params": part})

    def tag_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        for part in _parts(_pairs(tags, MAX_TAG), MAX_BATCH):
            self._call("POST", "runs/log-batch", {"run_id": run_id, "tags": part})

    def log_dataset(self, run_id: str, name: str, digest: str, source: str, context: str) -> None:
        """``source``: JSON text. Raises ``ValueError`` for a digest longer than MLflow keeps (36 characters)."""
        if len(digest) > MAX_DIGEST:
            raise ValueError(f"dataset digest {digest!r} has more than {MAX_DIGEST} characters")
        dataset = {"name": name, "digest": digest, "source_type": "dvc", "source": source}
        tags = [{"key": "mlflow.data.context", "value": context}]
        self._call("POST", "runs/log-inputs", {"run_id": run_id, "datasets": [{"dataset": dataset, "tags": tags}]})

    # -- artifacts ----------------------------------------------------------------------------------------------

    def put_artifact(self, run: Run, path: str, content: Path | bytes) -> None:
        """Store a file or bytes as artifact ``path`` (with forward slashes) of a run, in place of what was there."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        body = content if isinstance(content, bytes) else _chunks(content)
        self._send("PUT", _artifact(run, path), content=body, headers={"Content-Length": str(size)})

    def artifact_sizes(self, run: Run, folder: str = "") -> dict[str, int]:
        """Sizes by path, of all files below ``folder``; empty if there is none."""
        sizes: dict[str, int] = {}
        answer = self._maybe("artifacts/list", run_id=run.id, **({"path": folder} if folder else {}))
        for item in (answer or {}).get("files", []):
            if item.get("is_dir"):
                sizes |= self.artifact_sizes(run, item["path"])
            else:
                sizes[item["path"]] = int(item.get("file_size", 0))
        return sizes

    def read_artifact(self, run: Run, path: str) -> Iterator[bytes]:
        """Chunks of an artifact."""
        try:
            with self._http.stream("GET", _artifact(run, path)) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise _error(answer)
                yield from answer.iter_bytes(CHUNK)
        except httpx.HTTPError as error:
            raise UnreachableError(f"{self.uri}: {_reason(error)}") from error

    # -- model registry -----------------------------------------------------------------------------------------

    def model_names(self) -> list[str]:
        answer = self._call("GET", "registered-models/search", {"max_results": 1000})
        return sorted(model["name"] for model in answer.get("registered_models", []))

    def model(self, name: str) -> dict[str, Any] | None:
        """The registered model as MLflow gives it, with ``aliases`` and ``tags``."""
        answer = self._maybe("registered-models/get", name=name)
        return answer["registered_model"] if answer else None

    def create_model(self, name: str, description: str) -> None:
        """Nothing happens if there is one."""
        try:
            self._call("POST", "registered-models/create", {"name": name, "description": description})
        except RefusedError as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise

    def aliases(self, name: str) -> dict[str, int]:
        """Version by alias; empty if there is no such model."""
        model = self.model(name) or {}
        return {item["alias"]: int(item["version"]) for item in model.get("aliases", [])}

    def set_alias(self, name: str, alias: str, number: int) -> None:
        self._call("POST", "registered-models/alias", {"name": name, "alias": alias, "version": str(number)})

    def delete_alias(self, name: str, alias: str) -> None:
        self._call("DELETE", "registered-models/alias", {"name": name, "alias": alias})

    def model_tags(self, name: str) -> dict[str, str]:
        return mapping((self.model(name) or {}).get("tags", []))

    def tag_model(self, name: str, key: str, value: str) -> None:
        self._call("POST", "registered-models/set-tag", {"name": name, "key": key, "value": value})

    def untag_model(self, name: str, key: str) -> None:
        self._call("DELETE", "registered-models/delete-tag", {"name": name, "key": key})

    def create_version(self, name: str, run_id: str, folder: str, description: str, tags: Mapping[str, str]) -> Version:
        """A version whose files are the artifacts below ``folder`` of a run."""
        body = {
            "name": name,
            "source": f"runs:/{run_id}/{folder}",
            "run_id": run_id,
            "description": description,
            "tags": _pairs(tags, MAX_TAG),
        }
        return parse_version(self._call("POST", "model-versions/create", body)["model_version"])

    def version(self, name: str, number: int) -> Version | None:
        answer = self._maybe("model-versions/get", name=name, version=str(number))
        return parse_version(answer["model_version"]) if answer else None

    def versions(self, name: str, run_id: str | None = None) -> list[Version]:
        """All versions of a model, or those that came from one run, the first first."""
        clauses = f"name = '{name}'" + (f" and run_id = '{run_id}'" if run_id else "")
        found: list[Version] = []
        query: dict[str, Any] = {"filter": clauses, "max_results": 200}
        while True:
            answer = self._call("GET", "model-versions/search", query)
            found += [parse_version(item) for item in answer.get("model_versions", [])]
            if not answer.get("next_page_token"):
                return sorted(found, key=lambda version: version.number)
            query["page_token"] = answer["next_page_token"]

    def delete_version(self, version: Version) -> None:
        self._call("DELETE", "model-versions/delete", {"name": version.name, "version": str(version.number)})

    def tag_version(self, version: Version, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            body = {"name": version.name, "version": str(version.number), "key": key, "value": value[:MAX_TAG]}
            self._call("POST", "model-versions/set-tag", body)

    def describe_version(self, version: Version, description: str) -> None:
        body = {"name": version.name, "version": str(version.number), "description": description}
        self._call("PATCH", "model-versions/update", body)

    # -- addresses for people -----------------------------------------------------------------------------------

    def experiment_url(self, experiment_id: str) -> str:
        return f"{self._pages}/#/experiments/{experiment_id}/runs{VIEW}"

    def run_url(self, run: Run) -> str:
        return f"{self._pages}/#/experiments/{run.experiment_id}/runs/{run.id}{VIEW}"

    def version_url(self, name: str, number: int) -> str:
        return f"{self._pages}/#/models/{quote(name)}/versions/{number}{VIEW}"

    # -- transport ----------------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, values: Mapping[str, Any]) -> dict[str, Any]:
        url = f"/api/2.0/mlflow/{path}"
        answer = self._send(method, url, params=values) if method == "GET" else self._send(method, url, json=values)
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise UnreachableError(f"{self.uri} is no MLflow server: it answers {path} with {answer.text[:80]!r}")
        return body

    def _maybe(self, path: str, /, **query: Any) -> dict[str, Any] | None:
        try:
            return self._call("GET", path, query)
        except RefusedError as error:
            if error.code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _send(self, method: str, url: str, **request: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, url, **request)
        except httpx.LocalProtocolError as error:
            # A file that changes its size while it is sent: not the server's doing.
            raise RefusedError("CHANGED_WHILE_SENT", str(error)) from error
        except httpx.HTTPError as error:
            raise UnreachableError(f"{self.uri}: {_reason(error)}") from error
        if answer.status_code != 200:
            raise _error(answer)
        return answer


def without_password(uri: str) -> str:
    """``uri`` without the user and password it may hold."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def metric_name(name: str) -> str:
    """``name`` with what MLflow does not allow in a metric's name replaced (``mAP50(B)`` becomes ``mAP50_B_``)."""
    return re.sub(r"[^\w\-./ :]", "_", name)


def artifact_name(path: str) -> str:
    """``path`` with what MLflow does not allow in an artifact's path replaced (``a#1.png`` becomes ``a_1.png``)."""
    return re.sub(r"[#?%\\\x00-\x1f]", "_", path)


def _error(answer: httpx.Response) -> TrackerError:
    """Which failures pass and which do not: only what MLflow itself refused as wrong will never work."""
    if answer.status_code in {401, 403}:
        return DeniedError(f"{without_password(str(answer.url))} answers {answer.status_code}")
    try:
        body = answer.json()
        code, message = str(body["error_code"]), str(body.get("message", ""))
    except (ValueError, KeyError, TypeError):
        return UnreachableError(f"{without_password(str(answer.url))} answers {answer.status_code}")
    if answer.status_code in {400, 404, 409, 413, 422}:
        return RefusedError(code, message)
    return UnreachableError(f"{answer.status_code} {code}: {message}")


def _reason(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    return str(error) or type(error).__name__


def _artifact(run: Run, path: str) -> str:
    return f"/api/2.0/mlflow-artifacts/artifacts/{quote(run.artifacts)}/{quote(path)}"


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _pairs(values: Mapping[str, str], longest: int) -> list[dict[str, str]]:
    return [{"key": key, "value": value[:longest]} for key, value in values.items()]


def _parts(rows: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _number(value: float) -> float | str:
    """JSON has no NaN; MLflow reads it as text."""
    if math.isfinite(value):
        return float(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
