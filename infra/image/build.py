"""Builds a planned image and pushes it; says what it does line by line, and what failed in one sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from configs.image import Builder
from configs.problems import Problem, UserError
from infra.image.builders import Command, build_command, push_command, remedy_for_tls
from infra.image.plan import Plan
from infra.image.source import export
from infra.process import run_guarded
from infra.registry.client import RegistryClient
from infra.registry.login import Login, access, ca_path
from infra.repository.dvc_config import absolute

Say = Callable[[str], None]
_LAST, _WIDTH = 12, 120
_STEP = re.compile(r"^(?:\[\d+/\d+\] )?STEP \d+/\d+: (?:FROM|COPY|RUN)\b|^#\d+ \[.*\d+/\d+\] (?:FROM|COPY|RUN)\b")
_PIP = re.compile(r"^(?:#\d+ [\d.]+ )?(?:Collecting|Installing collected packages|Successfully installed)\b")


def build(plan: Plan, builder: Builder, login: Login | None, say: Say) -> None:
    """Build the image; it is then on this machine, under the plan's name.

    Raises:
        UserError: the build failed, with its last lines.
    """
    root = plan.source.root
    for name in plan.source.left_out:
        say(f"not in the image, as git does not track it: {name}")
    with (
        TemporaryDirectory(prefix="mlops-image-") as place,
        access(plan.registry, login, ca_path(plan.registry, root)) as way,
    ):
        context = Path(place)
        context.chmod(0o755)  # it becomes the folder of the code in the image
        export(plan.source, context)
        of_ours = plan.arguments.get("BASE", "").startswith(f"{plan.registry.address}/")
        command = build_command(
            builder, context, plan.name, plan.arguments, _secrets(plan, root), way if of_ours else None
        )
        say(f"{builder} builds {plan.name}")
        status, lines = _run(command, root, say, lambda line: bool(_STEP.match(line) or _PIP.match(line)))
    if status:
        said = "\n".join(f"      {line}" for line in lines[-_LAST:])
        remedy = "the last lines say what; `mlops doctor` looks at the base image's registry and the disk"
        raise UserError(Problem(f"{builder} build", f"ended with status {status}:\n{said}", _hint(lines) or remedy))


def push(plan: Plan, builder: Builder, login: Login | None, client: RegistryClient, say: Say) -> str:
    """Push the image that :func:`build` made and return its digest, as the registry has it.

    Raises:
        RegistryError: the registry refused or failed; RegistryAwayError where another try may help.
        UserError: the builder failed by itself.
    """
    root = plan.source.root
    ca = ca_path(plan.registry, root)
    with access(plan.registry, login, ca) as way:
        say(f"{builder} pushes {plan.name}")
        status, lines = _run(push_command(builder, plan.name, way), root, say, lambda line: False)
    if status:
        # The registry itself says better than the builder what it has against us.
        client.check_push()
        said = "\n".join(f"      {line}" for line in lines[-_LAST:])
        tls = any("x509" in line or "certificate" in line for line in lines)
        remedy = remedy_for_tls(builder, plan.registry.address, ca) if tls else "try again; if it stays so, see its log"
        raise UserError(Problem(f"{builder} push", f"ended with status {status}:\n{said}", remedy))
    digest = client.digest(plan.tag)
    if digest is None:
        raise UserError(
            Problem(plan.name, "was pushed, but the registry does not have it", "look at the registry's log")
        )
    return digest


def _run(command: Command, root: Path, say: Say, worth_saying: Callable[[str], bool]) -> tuple[int, list[str]]:
    lines: list[str] = []

    def on_line(line: str) -> None:
        if line.strip():
            lines.append(line.strip()[:_WIDTH])
        if worth_saying(line):
            say(" ".join(line.split())[:_WIDTH])

    status = run_guarded(command.arguments, cwd=root, env={**os.environ, **command.environment}, on_line=on_line)
    return status, lines


def _secrets(plan: Plan, root: Path) -> dict[str, Path]:
    """Return the files of the site's package index that the build may read."""
    named = {"pip.conf": plan.settings.pip_conf, "ca.pem": plan.settings.ca}
    found = {key: absolute(root, path) for key, path in named.items() if path is not None}
    for key, path in found.items():
        where = f"configs/site.yaml image.{'ca' if key == 'ca.pem' else 'pip_conf'}"
        if not path.is_file():
            raise UserError(Problem(where, f"{path} is no file", "name the file, or leave the key out"))
    return found


def _hint(lines: list[str]) -> str:
    text = "\n".join(lines)
    if "No space left on device" in text or "no space left on device" in text:
        return "free some space on this machine: an image with CUDA needs about 25 GB while it is built"
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in text:
        return "the index has other files than those that were locked: ask whoever runs it, or `make lock` anew"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "name the package index's CA as `image.ca` in configs/site.yaml"
    if "No matching distribution found for torch==" in text:
        return "`image.torch_index` has no torch without CUDA of the locked version, or cannot be reached"
    if "Temporary failure in name resolution" in text or "Name or service not known" in text:
        return "the build has no network, or no name service: look at the builder's network settings"
    return ""
