"""`mlops train` as far as it gets without servers; with them it is in tests/flows."""

from __future__ import annotations

import json
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from stack_fixtures import ROOT, free_ports, make_checkout, mlops

from infra.stack.state import PREFECT, Part, Stack, save_stack


def test_a_server_that_does_not_answer_is_told_in_a_sentence(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    shutil.copytree(ROOT / "configs", checkout / "configs")
    ports = free_ports(2)
    save_stack(Stack(checkout / ".mlops", checkout, "127.0.0.1", *ports, parts={PREFECT: Part(os.getpid(), 0.0)}))
    failed = mlops(checkout, "train")
    assert failed.returncode == 1
    assert "Prefect: does not answer" in failed.stderr
    assert "-> start it: mlops up" in failed.stderr
    assert "Traceback" not in failed.stderr


class _Refuses(BaseHTTPRequestHandler):
    """Answers as Prefect does: no such deployment, or one that refuses every run."""

    deployed = False

    def do_GET(self) -> None:
        self._answer(200 if self.deployed else 404, {"id": "0695e8fd"} if self.deployed else {"detail": "not found"})

    def do_POST(self) -> None:
        self._answer(409, {"detail": "Validation failed for field 'force'."})

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Deployed(_Refuses):
    deployed = True


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (_Refuses, "train-forklift/local: is not deployed"),
        (_Deployed, "train-forklift/local: is refused: Validation failed for field 'force'."),
    ],
)
def test_a_server_that_refuses_is_told_in_a_sentence(
    tmp_path: Path, handler: type[BaseHTTPRequestHandler], said: str
) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    shutil.copytree(ROOT / "configs", checkout / "configs")
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        stack = Stack(
            checkout / ".mlops", checkout, "127.0.0.1", server.server_port, 1, parts={PREFECT: Part(os.getpid(), 0.0)}
        )
        save_stack(stack)
        failed = mlops(checkout, "train")
    finally:
        server.shutdown()
        server.server_close()
    assert failed.returncode == 1
    assert said in " ".join(failed.stderr.split())
    assert "Traceback" not in failed.stderr
