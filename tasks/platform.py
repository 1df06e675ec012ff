"""The platform on the site's cluster, from a flow."""

from __future__ import annotations

from pathlib import Path

from configs.home import home_folder
from configs.site import SITE_FILE, load_site
from infra.repository.code import find_root
from tasks.verbs import log, say_errors_once, verb


@verb("apply platform")
def bring_up(image: str | None, *, force: bool) -> None:
    """Apply the platform and wait until it works; an API server that is away is asked again.

    Raises:
        UserError: the cluster refuses something, or a component does not become ready: with the reason.
    """
    from infra.kubernetes.platform.install import install, summary

    say_errors_once()
    root = find_root(Path.cwd())
    said: dict[str, tuple[str, str]] = {}

    def report(part: str, state: str, detail: str) -> None:
        # Each component is looked at every second: what stays as it is, is said once.
        if state == "applying" or said.get(part) == (state, detail):
            return
        said[part] = (state, detail)
        log().info("%s: %s %s", part, state, detail)

    installed = install(load_site(root / SITE_FILE), root, home_folder(root), report, image=image, force=force)
    log().info("the platform is up: %s", summary(installed.applied))
