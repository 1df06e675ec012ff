"""What is said of a component's pod that is not ready, from states as a cluster reports them."""

from __future__ import annotations

from typing import Any

import pytest

from infra.kubernetes.platform.trouble import pod_trouble

IMAGE = "registry.example/mlops:1.2"
PENDING = {"waiting": {"reason": "PodInitializing"}}


def _pod(init: dict[str, Any], main: dict[str, Any], **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "prefect-1", "namespace": "mlops", "uid": "u"},
        "spec": {
            "nodeName": "node1",
            "initContainers": [{"name": "migrate", "image": IMAGE}],
            "containers": [{"name": "prefect", "image": IMAGE}],
        },
        "status": {
            "phase": "Pending",
            "initContainerStatuses": [{"name": "migrate", **init}],
            "containerStatuses": [{"name": "prefect", **main}],
            **status,
        },
    }


def _ended(code: int, **more: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, **more}}


DONE = {"state": _ended(0), "ready": True, "restartCount": 0}
LOG = "Traceback (most recent call last):\n  ...\nalembic.util.exc.CommandError: Can't locate revision 'abc'\n"


@pytest.mark.parametrize(
    ("pod", "told", "lasting"),
    [
        (
            _pod(
                {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}, "restartCount": 0},
                {"state": PENDING},
            ),
            f"cannot start: node node1 has no image {IMAGE} (ImagePullBackOff: not found)",
            True,
        ),
        (
            _pod(
                {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "x" not found'}}},
                {"state": PENDING},
            ),
            'cannot start: secret "x" not found',
            True,
        ),
        (
            _pod(
                {
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": _ended(1, message=LOG),
                    "restartCount": 3,
                },
                {"state": PENDING},
            ),
            "ended with status 1 (migrate): alembic.util.exc.CommandError: Can't locate revision 'abc'",
            True,
        ),
        (
            _pod(DONE, {"state": _ended(137, reason="OOMKilled"), "restartCount": 1}),
            "needs more memory than its limit: prefect was killed for it",
            False,
        ),
        (
            _pod({"state": {"running": {}}, "ready": False, "started": True, "restartCount": 0}, {"state": PENDING}),
            "is starting (migrate)",
            False,
        ),
        (
            _pod(
                DONE,
                {"state": {"running": {}}, "lastState": _ended(137), "ready": False, "started": False},
            ),
            "is starting (prefect), again",
            False,
        ),
        (
            _pod(DONE, {"state": {"running": {}}, "ready": False, "started": True, "restartCount": 0}),
            "runs, but does not answer as it should (prefect)",
            False,
        ),
        (
            _pod(
                {},
                {},
                conditions=[{"type": "PodScheduled", "status": "False", "message": "0/2 nodes: Insufficient cpu."}],
            ),
            "has no node: 0/2 nodes: Insufficient cpu.",
            False,
        ),
    ],
)
def test_trouble_is_one_sentence(pod: dict[str, Any], told: str, lasting: bool) -> None:
    # None of these has to ask the API server.
    found = pod_trouble(None, pod)  # type: ignore[arg-type]
    assert found.what == told
    assert found.lasting is lasting
