"""Section ``cluster`` of the site: what may be left out, and what is refused, with the line and what would be right."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from site_files import SHIPPED, write

from configs.problems import UserError
from configs.quantity import parse_quantity
from configs.site import load_site
from configs.storage import MountStorage


def test_everything_may_be_left_out(tmp_path: Path) -> None:
    cluster = load_site(write(tmp_path, "cluster: {}\n")).cluster
    assert cluster is not None
    assert cluster.namespace == "mlops"
    assert cluster.images.postgres.startswith("docker.io/library/postgres:17.")
    assert str(cluster.cache) == "/var/lib/mlops/cache"
    assert cluster.training.priority_class == "mlops-training"
    assert load_site(write(tmp_path, "")).cluster is None


def test_the_shipped_example_is_a_site(tmp_path: Path) -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    begin = lines.index("# cluster:")
    end = next((i for i, line in enumerate(lines) if i > begin and not line.startswith("#   ")), len(lines))
    text = "\n".join(line.removeprefix("# ") for line in lines[begin:end])
    cluster = load_site(write(tmp_path, f"{text}\n")).cluster
    assert cluster is not None
    assert isinstance(cluster.share, MountStorage)
    assert cluster.quota.gpus == 2
    assert cluster.quota.cpu == "16"


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        ("images: {postgres: postgres}", "images.postgres", "never latest"),
        ("images: {run: 'registry.example:5000/mlops'}", "images.run", "never latest"),
        ("images: {run: 'registry.example/mlops:latest'}", "images.run", "never latest"),
        ("state: {host_path: /var/lib/x}", "state", "belong together"),
        ("state: {host_path: /x, node: n, storage_class: fast}", "state", "not both"),
        ("cache: relative", "cache", "absolute path"),
        ("cache: /", "cache", "absolute path"),
        ("namespace: Big", "namespace", "pattern"),
        ("training: {cpu: two}", "training.cpu", "write a number"),
        ("training: {tolerations: [{key: gpu}]}", "training.tolerations.0", "`Equal` needs"),
        ("share: {kind: mount, path: /mnt/x}", "share.sentinel", "add `sentinel:`"),
        ("concurrencies: 3", "concurrencies", "did you mean `concurrency`?"),
    ],
)
def test_mistakes_are_told_with_their_key(tmp_path: Path, text: str, key: str, remedy: str) -> None:
    with pytest.raises(UserError) as raised:
        load_site(write(tmp_path, f"cluster:\n  {text}\n"))
    (problem,) = raised.value.problems
    assert problem.where.endswith(f":3 cluster.{key}")
    assert remedy in problem.remedy


def test_quantities() -> None:
    assert parse_quantity("500m") == Decimal("0.5")
    assert parse_quantity("1.5Gi") == Decimal(1610612736)
    assert parse_quantity("2k") == 2000
    for wrong in ("", "1g", "-1", "1 Gi", "Gi"):
        with pytest.raises(ValueError, match="write a number"):
            parse_quantity(wrong)
