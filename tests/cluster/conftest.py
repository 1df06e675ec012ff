"""A namespace of the tests' own on the cluster of KUBECONFIG."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from watching import Watched

from configs.cluster import Cluster
from infra.kubernetes.client import connect


@pytest.fixture(scope="session")
def namespace() -> Iterator[str]:
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.core_v1 import Namespace
    from lightkube.types import CascadeType

    if not os.environ.get("KUBECONFIG"):
        pytest.skip("no cluster: KUBECONFIG is not set")
    name = f"mlops-test-{uuid.uuid4().hex[:8]}"
    client = connect(Cluster())
    # Of pods that mount folders of their node: a hardened cluster takes them nowhere else.
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    client.create(Namespace(metadata=ObjectMeta(name=name, labels=labels)))
    try:
        yield name
    finally:
        client.delete(Namespace, name, cascade=CascadeType.BACKGROUND)


@pytest.fixture
def watched(namespace: str, tmp_path: Path) -> Iterator[Watched]:
    """The namespace, whose objects of this test are deleted after it."""
    with contextlib.closing(Watched(connect(Cluster(namespace=namespace)), namespace)) as found:
        yield found
