"""containerd as a pure step: where the sandbox's image comes from, and a login that nobody is shown."""

from __future__ import annotations

from pathlib import PurePosixPath

from infra.machines.commands import File
from infra.site.facts import Reading
from infra.site.step import Change
from infra.site.steps.runtime import runtime_step

HOSTS = PurePosixPath("/etc/containerd/certs.d/registry:5000/hosts.toml")


def found(images: str | None = None, *, logged_in: bool = False) -> dict[str, Change]:
    """What a bare machine needs, by what it is."""
    step = runtime_step("one", {HOSTS: "canary-5e1f"}, (), images=images, logged_in=logged_in)
    return {item.what: item for item in step.changes({fact: Reading(1, "") for fact in step.facts})}


def configuration(changes: dict[str, Change]) -> str:
    (written,) = (item for item in changes["write /etc/containerd/config.toml"].actions if isinstance(item, File))
    return written.text


def test_the_sandbox_comes_from_where_the_other_images_do() -> None:
    assert 'sandbox_image = "registry.k8s.io/pause:3.10"' in configuration(found())
    assert 'sandbox_image = "registry:5000/kubernetes/pause:3.10"' in configuration(found("registry:5000/kubernetes"))


def test_a_login_is_for_root_only_and_not_shown() -> None:
    (file,) = (item for item in found()[f"write {HOSTS}"].actions if isinstance(item, File))
    assert (file.mode, file.secret) == (0o644, False)
    change = found(logged_in=True)[f"write {HOSTS}"]
    (file,) = (item for item in change.actions if isinstance(item, File))
    assert (file.mode, file.secret) == (0o600, True)
    assert "canary" not in repr(change)
