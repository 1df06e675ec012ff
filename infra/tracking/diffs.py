"""The uncommitted changes of a training as an artifact: enough to make it again, nothing that is nobody's business."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Mapping

MAX_CHARACTERS = 200_000
SECRET_FILES = (
    ".env*", "*.env", "*.pem", "*.key", "*.p12", "*.pfx", "*.kdbx", "id_*", ".netrc", ".pgpass", ".htpasswd",
    "config.local", "kubeconfig*", "*secret*", "*credential*", "*password*", "*token*",
)  # fmt: skip
SECRET_NAMES = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE)", re.IGNORECASE)


def presentable_diff(diff: str, environment: Mapping[str, str] | None = None) -> str:
    """``git diff`` text without files that look like secrets, without secrets of the environment, of bounded length.

    Args:
        diff: output of ``git diff HEAD`` (which leaves out what is untracked or ignored).
        environment: variables whose secret-looking values are masked; this process's by default.

    What is left out is said in its place.
    """
    environment = os.environ if environment is None else environment
    parts = re.split(r"(?m)^(?=diff --git )", diff)
    kept, length = [], 0
    for part in parts:
        name = _path(part)
        if name and any(fnmatch.fnmatch(name.rsplit("/", 1)[-1].lower(), pattern) for pattern in SECRET_FILES):
            part = f"# {name}: changed, left out because its name says that it holds secrets\n"
        elif length + len(part) > MAX_CHARACTERS:
            part = f"# {name or 'a file'}: {len(part)} characters of changes, left out for their length\n"
        kept.append(part)
        length += len(part)
    return masked("".join(kept), environment)


def masked(text: str, environment: Mapping[str, str]) -> str:
    """``text`` with the values of secret-looking environment variables replaced by stars."""
    values = {value for name, value in environment.items() if SECRET_NAMES.search(name) and len(value) >= 6}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "***")
    return text


def _path(part: str) -> str:
    match = re.match(r'diff --git "?a/.*? "?b/(.*?)"?\n', part)
    return match.group(1) if match else ""
