"""Host keys: which ones are pinned, which one a machine shows, and what to say when the two differ."""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from configs.problems import Problem, UserError
from infra.machines.trouble import TRY_AGAIN, ConnectionLost, Login, MachineError

KINDS = ("ed25519", "ecdsa", "rsa")
"""Of host keys, as ``ssh-keyscan`` names them; the best first."""
_SCAN_S = 10


def known_hosts(folder: Path) -> Path:
    """Return the file of pinned keys in a site's state folder, in the format of sshd(8)."""
    return folder / "known_hosts"


def pin(folder: Path, name: str, public_keys: Sequence[str]) -> None:
    """Trust these keys for machine ``name`` from now on, and no others; other machines' keys stay.

    Args:
        folder: of the site's state; made when it is not there.
        public_keys: each as in ``ssh_host_ed25519_key.pub``; a comment is dropped.

    Raises:
        UserError: there is no key, or a line is none.
    """
    problems = [Problem(f"host key of {name}", f"{key!r} is none", "as `ssh-ed25519 AAAA...`") for key in public_keys]
    problems = [problem for key, problem in zip(public_keys, problems, strict=True) if _blob(key) is None]
    if problems or not public_keys:
        raise UserError(problems or Problem(f"host key of {name}", "is missing", "give one public key or more"))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    path = known_hosts(folder)
    with (folder / "known_hosts.lock").open("w") as lock:  # machines are made side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        old = path.read_text().splitlines() if path.exists() else []
        lines = [line for line in old if line.split(" ")[0] != name]
        lines += [f"{name} {' '.join(key.split()[:2])}" for key in public_keys]
        new = path.with_name("known_hosts.new")
        new.touch(0o600)
        new.chmod(0o600)
        new.write_text("".join(f"{line}\n" for line in lines))
        new.replace(path)


def pinned_keys(folder: Path, name: str) -> list[str]:
    """Return the keys that are pinned for a machine, each as ``ssh-ed25519 AAAA...``."""
    path = known_hosts(folder)
    rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [" ".join(row[1:3]) for row in rows if row[:1] == [name] and len(row) >= 3]


def offered_keys(address: str, port: int, *, all_kinds: bool = False) -> list[str]:
    """Return host keys that whoever answers there shows, each as ``ssh-ed25519 AAAA...``. They prove nothing.

    Args:
        all_kinds: False: the first of ed25519, ECDSA and RSA that there is. Each kind is a connection without a login,
            and sshd (since 9.8) refuses for a while whoever comes with some of these.

    Raises:
        ConnectionLost: nobody answers.
    """
    keys: list[str] = []
    for kind in KINDS:
        scan = ("ssh-keyscan", "-T", str(_SCAN_S), "-t", kind, "-p", str(port), "--", address)
        try:
            done = subprocess.run(scan, capture_output=True, text=True, timeout=3 * _SCAN_S, check=False)
        except subprocess.TimeoutExpired:
            break
        rows = [line.split() for line in done.stdout.splitlines() if not line.startswith("#")]
        keys += [" ".join(row[1:3]) for row in rows if len(row) >= 3]
        # Its name comes before its keys: who does not say it has no keys of other kinds.
        if (keys and not all_kinds) or "SSH-2.0" not in done.stdout + done.stderr:
            break
    if not keys:
        remedy = f"switch the machine on, and look at its address, ssh server and firewall; {TRY_AGAIN}"
        raise ConnectionLost(Problem(f"{address}, port {port}", "shows no host key", remedy))
    return keys


def fingerprint(key: str) -> str:
    """Return a public key's fingerprint as ``ssh-keygen -l`` prints it: ``SHA256:...``.

    Raises:
        ValueError: it is no public key.
    """
    blob = _blob(key)
    if blob is None:
        raise ValueError(f"{key!r} is no public key")
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def host_key_error(folder: Path, login: Login) -> MachineError:
    """Return what to say of a machine whose host key is not as pinned: not known yet, or another one."""
    shown = "(not shown again)"
    for _ in range(2):  # a busy server may drop one
        with contextlib.suppress(ConnectionLost):
            shown = fingerprint(_best(offered_keys(login.address, login.port)))
            break
    compare = "compare on the machine with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`"
    trust = f"then `mlops site trust {login.name}`"
    pinned = pinned_keys(folder, login.name)
    if not pinned:
        return MachineError(Problem(f"host key of {login.name}", f"is not known: {shown}", f"{compare}, {trust}"))
    what = f"has changed: pinned is {fingerprint(_best(pinned))}, {login.address} shows {shown}"
    remedy = f"another machine may have its address, or stand between. Was it set up anew? {compare}, {trust}"
    return MachineError(Problem(f"host key of {login.name}", what, remedy))


def _best(keys: Sequence[str]) -> str:
    return next((key for key in keys if key.startswith("ssh-ed25519 ")), keys[0])


def _blob(key: str) -> bytes | None:
    """Return a public key's bytes, which begin with the name of its kind (RFC 4253, 6.6); None: it is no key."""
    kind, _, rest = key.strip().partition(" ")
    try:
        blob = base64.b64decode(rest.split(" ")[0], validate=True)
    except binascii.Error:
        return None
    named = len(kind).to_bytes(4, "big") + kind.encode()
    return blob if kind and "\n" not in key.strip() and blob.startswith(named) else None
