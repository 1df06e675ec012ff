"""Step ``restore``: a cluster's CAs and its etcd's data on a machine, for step ``control-plane`` to go on with.

Only the CAs and the key of service accounts come back: certificates that they signed are made anew, so that the machine
may have another address. To the control plane's own step the result looks like a ``kubeadm init`` that was cut off:
kubeadm takes the CAs and the data that are there. Nodes know the same CA, and go on by themselves.

Sources: https://kubernetes.io/docs/tasks/administer-cluster/configure-upgrade-etcd/#restoring-an-etcd-cluster and
https://etcd.io/docs/v3.6/op-guide/recovery/.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from infra.kubeadm.etcd import OFFLINE, TOOLS, TOOLS_SCRIPT, tools_file
from infra.kubeadm.joining import FOLDER
from infra.machines.commands import Command, File, Removal
from infra.site.facts import Fact, Facts
from infra.site.reading import MARKERS, absent_fact, file_fact
from infra.site.step import Change, Step
from infra.site.steps.control_plane import BEGUN, CONFIGURATION, RESTORING

DATA = PurePosixPath("/var/lib/etcd")
CAME = PurePosixPath("/var/lib/mlops/restore/snapshot.db")
KEYS = ("ca", "front-proxy-ca", "etcd/ca")
_PKI = "etc/kubernetes/pki"
_PIECE = 3 << 20
"""Bytes that are sent at once."""
_PULL_S = 1200
_ASIDE_S = 300
# Both ask the machine itself: what its administrator's configuration names may be another machine by now.
_ALIVE = """\
code=$(curl --insecure --silent --max-time 10 --output /dev/null --write-out '%{http_code}' https://127.0.0.1:6443/livez)
case $code in 200 | 401 | 403) echo "$code"; exit 0;; esac
exit 1
"""
_LIVES = Fact(("sh", "-c", _ALIVE))
_THERE = Fact(("sh", "-c", f"ls -d {FOLDER}/*.conf {FOLDER}/manifests/*.yaml {DATA}/member 2>/dev/null"))
# Whoever watches from before must not take what is written from now on for what it knows already. So revisions go on at
# the milliseconds since 1970: further than any before, however often and from however old a snapshot it is restored.
_RESTORE = f"""\
set -eu
image=$(kubeadm config images list --config {CONFIGURATION} 2>/dev/null | grep /etcd:)
[ -x {OFFLINE} ] && [ "$(cat {TOOLS}/image 2>/dev/null)" = "$image" ] ||
  ctr -n k8s.io images list -q | grep -qxF "$image" ||
  kubeadm config images pull --config {CONFIGURATION}
{TOOLS_SCRIPT} "$image"
jump=
if {OFFLINE} snapshot restore --help 2>&1 | grep -q -e --bump-revision; then
  at=$({OFFLINE} snapshot status {CAME} --write-out=json 2>/dev/null | sed 's/.*"revision":\\([0-9]*\\).*/\\1/')
  ahead=$(($(date +%s%3N) - at))
  [ "$ahead" -gt 1000000000 ] || ahead=1000000000
  jump="--bump-revision $ahead --mark-compacted"
fi
rm -rf {DATA}.new
{OFFLINE} snapshot restore {CAME} --data-dir {DATA}.new --name "$1" \\
  --initial-cluster "$1=https://$2:2380" --initial-advertise-peer-urls "https://$2:2380" $jump
chmod 0700 {DATA}.new
# An empty folder, or what this came to before it was cut off.
rmdir {DATA} 2>/dev/null || [ ! -e {DATA} ] || mv {DATA} "{DATA}.before-$(date -u +%Y%m%dT%H%M%SZ)"
sync -f {DATA}.new
mv {DATA}.new {DATA}
"""
_REFRESH = """\
systemctl restart kubelet.service
for space in kube-system kube-flannel; do
  for task in $(ctr -n k8s.io containers list -q "labels.\\"io.kubernetes.pod.namespace\\"==$space"); do
    ctr -n k8s.io tasks kill --signal SIGTERM "$task" 2>/dev/null || true
  done
done
"""
# Moved, not removed: what was there is there still, with the time in its name.
_ASIDE = f"""\
set -eu
systemctl disable --now kubelet.service 2>/dev/null || true
for task in $(ctr -n k8s.io tasks list -q 2>/dev/null); do
  ctr -n k8s.io tasks kill --all --signal SIGKILL "$task" 2>/dev/null || true
done
now=$(date -u +%Y%m%dT%H%M%SZ)
for folder in {DATA} {FOLDER}; do
  [ ! -e "$folder" ] || mv "$folder" "$folder.before-$now"
done
mkdir -m 0755 {FOLDER}
"""


def restore_step(
    machine: str,
    address: str,
    members: Mapping[str, bytes],
    files: Sequence[File],
    after: tuple[tuple[str, str], ...],
    *,
    replace: bool,
) -> Step:
    """Return the step that restores the control plane ``machine``, up to where its own step goes on.

    Args:
        members: of the cluster in a backup, by their paths there.
        files: of :func:`infra.site.steps.control_plane.control_plane_files`.
        replace: what is left of a cluster on the machine may be moved aside.
    """
    snapshot = members["snapshot.db"]
    digest = hashlib.sha256(snapshot).hexdigest()
    # With the name typed it is done again, by this run, even where the same backup was restored before.
    done = f"{digest} {secrets.token_hex(4)}" if replace else digest
    restored = File(FOLDER / "mlops-restored", f"{done}\n", 0o600)
    came = Fact(("sha256sum", str(CAME)))

    def changes(facts: Facts) -> Iterator[Change]:
        begun = facts[absent_fact(RESTORING.path)].ok
        if facts[file_fact(restored)].ok and not begun and done in facts[file_fact(restored)].text:
            return
        if not begun and facts[_LIVES].ok:
            yield Change(
                "restore the cluster",
                "there is one on this machine, and it is alive",
                by_hand="a living cluster is never written over: stop its kubelet and containers first, if you must",
            )
            return
        if not begun and facts[_THERE].text.strip() and not replace:
            yield Change(
                "restore the cluster",
                f"there is something of one already: {' '.join(facts[_THERE].text.split())}",
                by_hand=f"to have it moved aside, type the machine's name: `--replace {machine}`",
            )
            return
        if not facts[came].ok or digest not in facts[came].text:
            yield Change(f"send {len(snapshot) >> 10} kB of snapshot", "it is not there yet", tuple(_sent(snapshot)))
        if not begun:
            yield Change(
                "make room for the cluster",
                facts[_THERE].text.strip() or "so that no init begins meanwhile",
                (Command(("sh", "-c", _ASIDE), timeout_s=_ASIDE_S), RESTORING),
            )
        command = Command(("sh", "-c", _RESTORE, "sh", machine, address), timeout_s=_PULL_S)
        yield Change(
            "restore the cluster's keys and data",
            "a restore was cut off" if begun else "they are not there",
            # The data last: a folder that is not empty stops every init.
            (*_keys(members), *files, tools_file(), command, BEGUN, restored, Removal(RESTORING.path), Removal(CAME)),
        )

    facts = (file_fact(restored), absent_fact(RESTORING.path), _LIVES, _THERE, came)
    return Step("restore", machine, facts, changes, after, repairable=False)


def refresh_step(worker: str, members: Mapping[str, bytes], after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step that has a worker ask the restored cluster anew for all that it knows; its other pods go on.

    What watches the API server remembers how far it has seen; after a restore that may be further than the cluster is,
    and until the cluster is there again nothing new would be seen.
    """
    digest = hashlib.sha256(members["snapshot.db"]).hexdigest()
    done = MARKERS / f"refreshed-{digest[:16]}"

    def changes(facts: Facts) -> Iterator[Change]:
        if not facts[absent_fact(done)].ok:
            actions = (Command(("sh", "-c", _REFRESH)), Command(("install", "-D", "/dev/null", str(done))))
            yield Change("start kubelet and its helpers anew", "they remember a later state of the cluster", actions)

    return Step("refresh", worker, (absent_fact(done),), changes, after, repairable=False)


def _sent(data: bytes) -> Iterator[Command]:
    yield Command(("install", "-D", "-m", "0600", "/dev/null", str(CAME)))
    for start in range(0, len(data), _PIECE):
        piece = base64.b64encode(data[start : start + _PIECE]).decode()
        yield Command(("sh", "-c", f"base64 -d >>{CAME}"), stdin=piece)


def _keys(members: Mapping[str, bytes]) -> Iterator[File]:
    for name in KEYS:
        yield File(FOLDER / f"pki/{name}.crt", members[f"{_PKI}/{name}.crt"].decode())
        yield File(FOLDER / f"pki/{name}.key", members[f"{_PKI}/{name}.key"].decode(), 0o600, secret=True)
    yield File(FOLDER / "pki/sa.pub", members[f"{_PKI}/sa.pub"].decode())
    yield File(FOLDER / "pki/sa.key", members[f"{_PKI}/sa.key"].decode(), 0o600, secret=True)
