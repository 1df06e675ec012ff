"""A control plane that is this machine: its steps run with the kubeconfig of KUBECONFIG, their files in a folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.problems import Problem, UserError
from infra.kubeadm.joining import FOLDER
from infra.machines.batch import Quick
from infra.machines.commands import Command, File, Removal


@dataclass(frozen=True)
class Said:
    status: int
    stdout: str


class Here:
    """Stands where a machine of the site would: ``/etc/kubernetes`` and ``/var/lib/kubelet`` are below ``folder``.

    Attributes:
        pulls: nodes can pull the images; else what waits for pods to run is passed over, and kept in ``waits``.
    """

    def __init__(self, folder: Path, *, pulls: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.pulls, self.waits = folder, pulls, list[str]()
        (folder / "admin.conf").write_bytes(Path(os.environ["KUBECONFIG"]).read_bytes())

    def run(self, command: Command, *, on_line: Callable[[str], None] | None = None) -> Said:
        words = [self._here(word) for word in command.argv]
        if "rollout" in words and not self.pulls:
            self.waits.append(words[-2])
            return Said(0, "")
        done = subprocess.run(
            words,
            input=self._here(command.stdin),
            capture_output=True,
            text=True,
            check=False,
            timeout=command.timeout_s,
        )
        if done.returncode not in command.accepted:
            raise UserError(Problem("here", f"{words[:6]}: {done.stdout[-500:]}{done.stderr[-500:]}"))
        return Said(done.returncode, done.stdout)

    def script(self, text: str, timeout_s: float) -> Said:
        # The path of a machine's root, and not that of whoever runs the tests.
        text = text.replace("PATH=/usr/sbin", f"PATH={os.environ['PATH']}:/usr/sbin")
        return self.run(Command(("sh", "-s"), stdin=text, timeout_s=timeout_s))

    def run_all(
        self, actions: Sequence[Quick], on_begin: Callable[[int], None], on_line: Callable[[str], None]
    ) -> None:
        for index, action in enumerate(actions):
            on_begin(index)
            if isinstance(action, File):
                path = Path(self._here(str(action.path)))
                path.write_text(action.text)
                path.chmod(action.mode)
            elif isinstance(action, Removal):
                Path(self._here(str(action.path))).unlink(missing_ok=True)
            else:
                self.run(action, on_line=on_line)

    def _here(self, text: str) -> str:
        return text.replace(str(FOLDER), str(self.folder)).replace("/var/lib/kubelet", str(self.folder))
