"""The tools that build and push images: which of them works here, and how each is called."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from configs.image import Builder
from configs.problems import Problem, UserError
from infra.registry.login import Access

TRY_S = 30.0


@dataclass(frozen=True)
class Command:
    """A command of a builder, with the variables that it gets besides those of this process."""

    arguments: list[str]
    environment: Mapping[str, str]


def find_builder(wanted: Builder | None) -> Builder:
    """Return the configured builder, or the first of docker, podman and buildah that works.

    Raises:
        UserError: it does not work, or none does; says of each why.
    """
    reasons = {}
    for name in (wanted,) if wanted else get_args(Builder):
        why = _why_not(name)
        if why is None:
            found: Builder = name
            return found
        reasons[name] = why
    remedy = "install one (on Debian and Ubuntu: apt-get install podman), or start its service"
    if wanted:
        remedy = "mend it, or leave `image.builder` out of configs/site.yaml: the first that works is taken then"
    raise UserError(Problem("image builder", "; ".join(f"{name} {why}" for name, why in reasons.items()), remedy))


def build_command(
    builder: Builder,
    context: Path,
    name: str,
    arguments: Mapping[str, str],
    secrets: Mapping[str, Path],
    access: Access | None,
) -> Command:
    """Return the command that builds ``context`` (a folder with its Dockerfile) as ``name``.

    Args:
        secrets: files that the build may read, by their id; they do not get into the image.
        access: for a base image in the site's own registry.
    """
    command = [builder, "build", "--file", str(context / "Dockerfile"), "--tag", name]
    # docker keeps layers, and shows its progress as lines, in ways of its own.
    command += ["--progress", "plain"] if builder == "docker" else ["--layers"]
    for key, value in arguments.items():
        command += ["--build-arg", f"{key}={value}"]
    for key, path in secrets.items():
        command += ["--secret", f"id={key},src={path}"]
    environment = {"DOCKER_BUILDKIT": "1"} if builder == "docker" else {}
    if access is not None:
        command += _certificates(builder, access)
        environment |= _login(builder, access)
    return Command([*command, str(context)], environment)


def push_command(builder: Builder, name: str, access: Access) -> Command:
    """Return the command that pushes the local image ``name`` under its name."""
    return Command([builder, "push", *_certificates(builder, access), name], _login(builder, access))


def remedy_for_tls(builder: Builder, address: str, ca: Path | None) -> str:
    """Return what to do when the builder, other than we ourselves, does not trust the registry."""
    if builder == "docker" and ca is not None:
        place = f"/etc/docker/certs.d/{address}"
        return f"docker's daemon takes CAs from one place only: sudo install -D -m 644 {ca} {place}/ca.crt"
    return "look at `registry.ca` in configs/site.yaml"


def _why_not(builder: str) -> str | None:
    try:
        done = subprocess.run(
            [builder, "info"], capture_output=True, text=True, timeout=TRY_S, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        return "is not installed"
    except subprocess.TimeoutExpired:
        return f"does not answer within {TRY_S:.0f} s"
    if done.returncode == 0:
        return None
    said = [line for line in done.stderr.splitlines() if line.strip()] or [f"ends with status {done.returncode}"]
    return f"does not work: {said[-1].removeprefix('Error: ').removeprefix('ERROR: ')}"


def _certificates(builder: Builder, access: Access) -> list[str]:
    # docker's client has no such option: its daemon reads /etc/docker/certs.d.
    return ["--cert-dir", str(access.certificates)] if access.certificates and builder != "docker" else []


def _login(builder: Builder, access: Access) -> dict[str, str]:
    if builder != "docker":
        return {"REGISTRY_AUTH_FILE": str(access.auth_file)}
    _keep_docker_settings(access)
    return {"DOCKER_CONFIG": str(access.folder)}


def _keep_docker_settings(access: Access) -> None:
    """Let docker find its daemon and its plugins as ever: ``DOCKER_CONFIG`` is more than the logins."""
    usual = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    for name in ("contexts", "cli-plugins", "buildx"):
        if (usual / name).is_dir() and not (access.folder / name).exists():
            (access.folder / name).symlink_to((usual / name).absolute())
    try:
        settings = json.loads((usual / "config.json").read_text(encoding="utf-8"))
        ours = json.loads(access.auth_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    kept = {key: settings[key] for key in ("currentContext", "proxies") if key in settings}
    access.auth_file.write_text(json.dumps({**kept, **ours}), encoding="utf-8")
