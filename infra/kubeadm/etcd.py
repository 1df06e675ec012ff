"""etcd of a control plane: the tools that go with it, and what is in the way of its next minor version.

The tools come out of the image that etcd itself runs from: it is on every control plane, also while nothing runs there,
and has etcd's own version, which no package of a distribution has. From 3.6 on etcdctl only takes snapshots. They are
read and restored by etcdutl, which Kubernetes' images do not have, or by the etcdctl of 3.5, which those of 3.6 have
beside their own.

Sources: https://etcd.io/docs/v3.6/upgrades/upgrade_3_6/, https://etcd.io/blog/2025/zombie_members_upgrade/ and
https://github.com/kubernetes/kubernetes/blob/v1.34.1/cluster/images/etcd/Makefile.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from infra.kubeadm.releases import parts
from infra.machines.commands import File

TOOLS = PurePosixPath("/usr/local/lib/mlops-etcd")
OFFLINE = TOOLS / "offline"
"""What reads and restores a snapshot without a server: etcdutl, or an etcdctl that can do it still."""
TOOLS_SCRIPT = PurePosixPath("/usr/local/sbin/mlops-etcd-tools")
ASK = """\
pki=/etc/kubernetes/pki/etcd at=https://127.0.0.1:2379
ask() {
  curl --silent --show-error --fail --max-time 10 --cacert $pki/ca.crt --cert $pki/healthcheck-client.crt \\
    --key $pki/healthcheck-client.key "$@" && echo
}
ask $at/version && ask --data '{}' $at/v3/cluster/member/list
"""
"""Has etcd say its version and its members, a line of JSON each: for :func:`why_not_3_6`."""
_BROUGHT_BY = (1, 34)
"""The first minor version of Kubernetes whose kubeadm brings etcd 3.6."""
_MENDED = (3, 5, 26)
"""The first release of 3.5 that mends at its start what 3.6 takes for the truth: who is a member."""


def why_not_3_6(said: str, wanted: str) -> tuple[str, str]:
    """Return why a Kubernetes with etcd 3.6 must not follow yet, and what would be right; both empty: it may.

    One member knows itself: that was tried. Of several, 3.6 may take one that was removed long ago for a member again.

    Args:
        said: what :data:`ASK` printed. wanted: the release of Kubernetes.
    """
    try:
        version, members = (json.loads(line) for line in said.splitlines()[:2])
        running, told = (
            str(version["etcdserver"]),
            [(item.get("name"), item["peerURLs"]) for item in members["members"]],
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return "", ""
    # One that never came has no name.
    names = sorted(str(name) for name, _ in told if name) + sorted(str(urls[0]) for name, urls in told if not name)
    if parts(wanted)[:2] < _BROUGHT_BY or parts(running) >= _MENDED or len(names) == 1:
        return "", ""
    return (
        f"etcd is {running} and has {len(names)} members ({', '.join(names)}): with 3.6, which it brings, members that "
        "were removed may be back",
        "bring them all to 3.5.26 or newer first, as https://etcd.io/blog/2025/zombie_members_upgrade/ says, or remove "
        "all but the control plane's: `etcdctl member remove`",
    )


def tools_file() -> File:
    """Return the script that takes etcd's tools out of its image, whose name is its argument."""
    return File(TOOLS_SCRIPT, _TOOLS_TEXT, 0o755)


_TOOLS_TEXT = f"""\
#!/bin/sh
# Out of the image that etcd runs from: etcdctl, which takes snapshots, and what reads and restores them.
set -eu
image=$1 tools={TOOLS} offline={OFFLINE} root=/run/mlops-etcd-image
[ ! -x "$offline" ] || [ "$(cat "$tools/image" 2>/dev/null)" != "$image" ] || exit 0
forget() {{
  ctr -n k8s.io images unmount --rm "$root" >/dev/null 2>&1 || umount "$root" 2>/dev/null || true
}}
forget  # what a killed run left
trap forget EXIT
mkdir -p "$root" "$tools"
ctr -n k8s.io images mount "$image" "$root" >/dev/null
rm -f "$tools/image" "$offline"
bin=$root/usr/local/bin
[ -x "$bin/etcdctl" ] || {{ echo "there is no etcdctl in $image" >&2; exit 1; }}
install -m 0755 "$bin/etcdctl" "$tools/etcdctl"
# An etcdctl that cannot do it any more shows its help, and ends as if it could.
for tool in "$bin/etcdutl" "$bin/etcdctl" $(ls "$bin"/etcdctl-* 2>/dev/null | sort -rV) "$(command -v etcdutl)"; do
  "$tool" snapshot restore --help 2>/dev/null | grep -q -e --data-dir || continue
  install -m 0755 "$tool" "$offline"
  break
done
[ -x "$offline" ] || {{
  echo "nothing in $image reads snapshots: put etcdutl of the same release of etcd into /usr/local/bin" >&2
  exit 1
}}
printf %s "$image" >"$tools/image"
"""
