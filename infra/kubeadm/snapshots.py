"""Snapshots of etcd on a schedule: verified, encrypted together with the cluster's CAs, and brought to the share.

What leaves the machine is encrypted to the site's recipient: users of the share see names and times. smbclient brings
it, no mount: a control plane needs none, and a share that is away costs a time limit, not a process that nothing ends.

Source: https://etcd.io/docs/v3.6/op-guide/recovery/.
"""

from __future__ import annotations

import datetime
import re
import shlex
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from infra.kubeadm.configuration import ENCRYPTION
from infra.kubeadm.etcd import OFFLINE, TOOLS, TOOLS_SCRIPT, tools_file
from infra.machines.commands import Command, File

STORE = PurePosixPath("/var/lib/mlops/etcd-snapshots")
SCRIPT = PurePosixPath("/usr/local/sbin/mlops-etcd-snapshot")
UNIT = "mlops-etcd-snapshot.service"
TIMER = "mlops-etcd-snapshot.timer"
MANIFESTS = PurePosixPath("/etc/kubernetes/manifests")
BROUGHT = STORE / "brought"
PREFIX, SUFFIX = "etcd-", ".tar.gz.age"
RELEASE = "kubernetes-version"
"""A snapshot's member that says which release's API server wrote the data; those of before had none."""
HERE = "here"
"""The script's argument that leaves the new snapshot on the machine; the next run brings it."""
HELD_HERE = 2
"""How many stay on the machine itself, besides those that the share does not have yet."""
LIMIT_S = 1800
_SECRETS = PurePosixPath("/etc/mlops/etcd-snapshots.credentials")
_UNITS = PurePosixPath("/etc/systemd/system")
_NAME = re.compile(rf"{PREFIX}(\d{{8}}T\d{{6}}Z){re.escape(SUFFIX)}")


@dataclass(frozen=True)
class SharePlace:
    """Where on the share snapshots go, and as whom.

    Attributes:
        folder: below the share, without slashes at its ends. password: never in ``repr``.
    """

    host: str
    port: int
    share: str
    folder: str
    user: str
    password: str = field(repr=False)
    domain: str | None = None
    encrypt: bool = False


@dataclass(frozen=True)
class SnapshotPlan:
    """What a site decides about its snapshots.

    Attributes:
        recipient: of age; whoever has its identity can read them.
        place: None: they stay on the control plane.
    """

    recipient: str
    every_hours: int
    keep: int
    place: SharePlace | None


def snapshot_files(plan: SnapshotPlan) -> tuple[File, ...]:
    """Return scripts, units and, where there is a share, its credentials."""
    files = (
        tools_file(),
        File(SCRIPT, _script(plan), 0o755),
        File(_UNITS / UNIT, _SERVICE),
        File(_UNITS / TIMER, _timer(plan.every_hours)),
    )
    return files if plan.place is None else (*files, _credentials(plan.place))


def take_snapshot() -> Command:
    """Return the command that takes a snapshot now, and ends when it is verified and on the share.

    It ends with an error, and the script's last lines, when one of both went wrong.
    """
    tell = f"journalctl _SYSTEMD_UNIT={UNIT} --lines=12 --output=cat --no-pager"
    return Command(("sh", "-c", f"systemctl start {UNIT} && exit; {tell}; exit 1"), timeout_s=LIMIT_S + 30)


def snapshot_time(name: str) -> datetime.datetime | None:
    """Return when the snapshot of this file name was taken; None: it is no snapshot's."""
    found = _NAME.fullmatch(name)
    try:
        return datetime.datetime.strptime(found[1] + "+0000", "%Y%m%dT%H%M%SZ%z") if found else None
    except ValueError:  # the 32nd of a month
        return None


def _script(plan: SnapshotPlan) -> str:
    bring = "" if plan.place is None else _bring(plan.place)
    return f"""\
#!/bin/sh
# Rendered for this site: changes here are lost.
set -eu
umask 077
store={STORE} keep={plan.keep} tools={TOOLS}
mkdir -p "$store"
exec 9>"$store/lock"
flock 9
work=$store/work
rm -rf "$work"  # of a run that was killed
mkdir "$work"
trap 'rm -rf "$work"' EXIT

# Take it.
{TOOLS_SCRIPT} "$(sed -n 's/^ *image: *//p' {MANIFESTS}/etcd.yaml | head -n 1)"
pki=/etc/kubernetes/pki/etcd
"$tools/etcdctl" --endpoints=https://127.0.0.1:2379 --cacert=$pki/ca.crt --cert=$pki/healthcheck-client.crt \\
  --key=$pki/healthcheck-client.key --command-timeout=600s snapshot save "$work/snapshot.db"

# Verify it: by the digest that etcd has put at its end, and by reading all of it.
length=$(($(stat -c %s "$work/snapshot.db") - 32))
digest=$(head -c "$length" "$work/snapshot.db" | sha256sum | cut -c -64)
if [ "$digest" != "$(tail -c 32 "$work/snapshot.db" | od -An -v -tx1 | tr -d ' \\n')" ]; then
  echo 'the snapshot is damaged' >&2
  exit 1
fi
{OFFLINE} snapshot status "$work/snapshot.db" --write-out=json >"$work/status.json" 2>"$work/said" || {{
  cat "$work/said" >&2
  exit 1
}}

# Encrypt it with what it is useless without. The name appears with all of its content, or not at all.
name={PREFIX}$(date -u +%Y%m%dT%H%M%SZ){SUFFIX}
sed -n 's/^ *image: .*kube-apiserver:v//p' {MANIFESTS}/kube-apiserver.yaml >"$work/{RELEASE}" 2>/dev/null || true
tar -czf "$work/all.tar.gz" -C "$work" snapshot.db status.json {RELEASE} \\
  -C / etc/kubernetes/pki {str(ENCRYPTION).lstrip("/")}
age --recipient {plan.recipient} --output "$work/done" "$work/all.tar.gz"
sync "$work/done"
mv "$work/done" "$store/$name"
rm -f "$work"/*
echo "$name is taken"
[ "${{1:-}}" != {HERE} ] || exit 0
here() {{ find "$store" -maxdepth 1 -name '{PREFIX}*{SUFFIX}' -printf '%f\\n' | sort; }}
{bring or _KEEP_HERE}"""


_KEEP_HERE = """\
here | head -n "-$keep" | while read -r old; do rm -f "$store/$old"; done
"""


def _bring(place: SharePlace) -> str:
    where = shlex.quote(f"//{place.host}/{place.share}")
    options = f"--port={place.port} --authentication-file={_SECRETS}"
    options += " --client-protection=encrypt" if place.encrypt else ""
    folders = [place.folder[:index] for index in range(len(place.folder)) if place.folder[index] == "/"]
    make = "; ".join(f'mkdir "{folder}"' for folder in (*folders, place.folder))
    return f"""\

# Bring to the share what it does not have yet: this one, and those of hours when it was away.
share() {{ (cd "$work" && timeout 900 smbclient {where} {options} "$@"); }}
share --command='{make}' >"$work/made" 2>&1 || true  # they may be there
share --directory='{place.folder}' --command='ls' >"$work/listed" 2>&1 || {{
  cat "$work/listed"
  echo "the share is away: $(here | wc -l) snapshots wait on this machine" >&2
  here | head -n "-$keep" | while read -r old; do rm -f "$store/$old"; done
  exit 1
}}
sed -n 's/^ *\\({PREFIX}[0-9TZ]*{re.escape(SUFFIX)}\\(\\.part\\)\\{{0,1\\}}\\) .*/\\1/p' "$work/listed" |
  sort >"$work/there"
{{ here; grep -v 'part$' "$work/there" || true; }} | sort -u | tail -n "$keep" >"$work/wanted"
here | while read -r name; do
  grep -qxF "$name" "$work/wanted" && ! grep -qxF "$name" "$work/there" || continue
  share --directory='{place.folder}' --command="put $store/$name $name.part; get $name.part back" >"$work/said" 2>&1 &&
    cmp -s "$store/$name" "$work/back" &&
    share --directory='{place.folder}' --command="rename $name.part $name" >"$work/said" 2>&1 || {{
    cat "$work/said"
    echo "$name could not be brought to the share" >&2
    exit 1
  }}
  rm -f "$work/back"
  printf '%s\\n' "$name" >>"$work/there"
  echo "$name is on the share"
done
here | tail -n 1 >"$work/newest"
mv "$work/newest" {BROUGHT}

# Only now, with the newest in its place, the oldest go.
grep -vxF -f "$work/wanted" "$work/there" | while read -r old; do
  share --directory='{place.folder}' --command="del $old" >/dev/null || true  # it may be gone
done
here | head -n -{HELD_HERE} | while read -r old; do rm -f "$store/$old"; done
"""


def _credentials(place: SharePlace) -> File:
    lines = [f"username={place.user}", f"password={place.password}"]
    lines += [f"domain={place.domain}"] if place.domain else []
    return File(_SECRETS, "\n".join(lines) + "\n", 0o600, secret=True)


_SERVICE = f"""\
[Unit]
Description=Snapshot of etcd, to the share
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart={SCRIPT}
TimeoutStartSec={LIMIT_S}
Nice=10
IOSchedulingClass=idle
NoNewPrivileges=yes
ProtectHome=yes
"""


def _timer(every_hours: int) -> str:
    return f"""\
[Unit]
Description=Time of etcd's snapshots

[Timer]
OnCalendar=*-*-* 00/{every_hours}:23:00
Persistent=yes

[Install]
WantedBy=timers.target
"""
