"""Section ``packages``: what may be written there, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from site_files import told, write

from configs.site import load_site


def test_mirrors_a_proxy_and_a_bundle(tmp_path: Path) -> None:
    text = """\
packages:
  proxy: http://proxy.example.org:3128
  bundle: site-packages.tar
  sources:
    - {url: "https://mirror.example.org/debian", suites: ["{codename}", "{codename}-updates"]}
    - {url: "https://mirror.example.org/kubernetes", suites: [/], keyring: kubernetes.asc}
"""
    packages = load_site(write(tmp_path, text)).packages
    assert packages is not None
    assert packages.only
    assert packages.sources[0].components == ("main",)


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("packages: {}\n", "2 packages", "names no packages"),
        ("packages: {proxy: 'http://me:s3cret@proxy:3128'}\n", "2 packages.proxy", "leave user and password out"),
        ("packages: {proxy: proxy:3128}\n", "2 packages.proxy", "write http://"),
        ("packages: {bundle: a.tar, sources: [{url: 'ftp://a'}]}\n", "2 packages.sources.0.url", "write http://"),
        (
            "packages: {bundle: a.tar, sources: [{url: 'http://a', suites: ['a b']}]}\n",
            "2 packages.sources.0.suites.0",
            "",
        ),
        ("packages: {bundle: a.tar}\nkubernetes: {version: 1.33.5}\n", "3 kubernetes.packages", "`system`"),
    ],
)
def test_mistakes_are_told_with_what_would_be_right(tmp_path: Path, text: str, key: str, said: str) -> None:
    found = told(write(tmp_path, text))
    assert said in found[key]
    assert "s3cret" not in str(found)
