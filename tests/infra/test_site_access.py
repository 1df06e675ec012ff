"""The way to the cluster that a site has made: by its address, and to no other one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from configs.problems import UserError
from configs.site import load_site
from infra.site.access import by_address, refuse_another

KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{name: cluster, cluster: {server: "https://cluster:6443", certificate-authority-data: YQ==}}]
contexts: []
"""


def test_the_api_server_is_called_by_its_address() -> None:
    (item,) = yaml.safe_load(by_address(KUBECONFIG, "10.0.0.5"))["clusters"]
    assert item["cluster"]["server"] == "https://10.0.0.5:6443"


@pytest.mark.parametrize(
    "text", ["", "just text", "clusters: [{}]", KUBECONFIG.replace("certificate-authority-", "x-")]
)
def test_what_is_no_kubeconfig_with_a_ca_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no kubeconfig|says of no CA"):
        by_address(text, "10.0.0.5")


@pytest.mark.parametrize(
    ("named", "section", "refused"),
    [
        ("", "{}", False),
        ("{own}", "{}", False),
        ("/elsewhere/config", "{}", True),
        ("/elsewhere/config", "{kubeconfig: /elsewhere/config}", False),
    ],
)
def test_the_platform_goes_to_no_other_cluster_than_the_sites_own(
    named: str, section: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "kubeconfig"
    (tmp_path / "site.yaml").write_text(f"storage: {{kind: directory}}\ncluster: {section}\n")
    site = load_site(tmp_path / "site.yaml")
    monkeypatch.setenv("KUBECONFIG", named.format(own=own))
    if not refused:
        refuse_another(site, own)
        return
    with pytest.raises(UserError, match="KUBECONFIG") as raised:
        refuse_another(site, own)
    assert str(own) in raised.value.problems[0].remedy
