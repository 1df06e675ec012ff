"""Step ``registry``: Debian's docker-registry with TLS, a login, a limit to its size, and a weekly clean-up.

Keys of its configuration: https://distribution.github.io/distribution/about/configuration/.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import yaml

from infra.machines.commands import Command, File
from infra.site.authority import ServerCertificate
from infra.site.facts import Fact, Facts
from infra.site.reading import (
    file_changes,
    file_fact,
    package_changes,
    packages_fact,
    unit_fact,
    unit_why,
    units_changes,
)
from infra.site.step import Change, Step
from infra.site.steps.firewall import firewall_changes, firewall_facts, firewall_files

PACKAGES = ("docker-registry", "apache2-utils", "curl", "nftables")
UNIT = "docker-registry.service"
TIMERS = ("mlops-registry-clean.timer", "mlops-registry-limit.timer")
FOLDER = PurePosixPath("/etc/docker/registry")
DATA = PurePosixPath("/var/lib/docker-registry")
GROUP = "docker-registry"
HTPASSWD = FOLDER / "htpasswd"
_SCRIPT = PurePosixPath("/usr/local/sbin/mlops-registry-limit")
_UNITS = PurePosixPath("/etc/systemd/system")
_READ_ONLY = _UNITS / "docker-registry.service.d/read-only.conf"


@dataclass(frozen=True)
class RegistryServer:
    """What a site decides about its registry.

    Attributes:
        host: name or address, and port, that clients reach it by.
        user, password: the one login. networks: that may connect.
        limit_gb: above it nothing more can be pushed; pulls go on.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    certificate: ServerCertificate
    ca_pem: str
    networks: tuple[str, ...]
    limit_gb: int


def registry_files(server: RegistryServer) -> tuple[File, ...]:
    """Return all files of the registry but that of its login, which only the machine's htpasswd can write."""
    values = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(DATA), "maxthreads": 100},
            "cache": {"blobdescriptor": "inmemory"},
            "delete": {"enabled": True},
            "maintenance": {"uploadpurging": {"enabled": True, "age": "24h", "interval": "6h", "dryrun": False}},
        },
        "http": {
            "addr": f":{server.port}",
            "tls": {
                "certificate": str(FOLDER / "tls.crt"),
                "key": str(FOLDER / "tls.key"),
                "minimumtls": "tls1.2",
            },
            "headers": {"X-Content-Type-Options": ["nosniff"]},
        },
        "auth": {"htpasswd": {"realm": "registry", "path": str(HTPASSWD)}},
        "health": {"storagedriver": {"enabled": True, "interval": "10s", "threshold": 3}},
    }
    return (
        File(FOLDER / "config.yml", "# Rendered for this site: changes here are lost.\n" + yaml.safe_dump(values)),
        File(FOLDER / "tls.crt", server.certificate.certificate),
        File(FOLDER / "tls.key", server.certificate.key, 0o640, secret=True, group=GROUP),
        File(FOLDER / "ca.crt", server.ca_pem),
        File(_UNITS / "docker-registry.service.d/mlops.conf", _RESTART),
        File(_UNITS / "mlops-registry-clean.service", _CLEAN),
        File(_UNITS / "mlops-registry-clean.timer", _timer("of the registry's clean-up", "Sun 03:30")),
        File(_SCRIPT, _limit_script(server.limit_gb), 0o755),
        File(_UNITS / "mlops-registry-limit.service", _LIMIT),
        File(_UNITS / "mlops-registry-limit.timer", _timer("of the registry's limit", "*:0/10")),
    )


def registry_step(machine: str, server: RegistryServer, after: tuple[tuple[str, str], ...]) -> Step:
    """Return the step that makes ``machine`` the site's registry."""
    files = registry_files(server)
    firewall = firewall_files("registry", (server.port,), server.networks)
    login = Fact(("htpasswd", "-v", "-i", str(HTPASSWD), server.user), stdin=f"{server.password}\n")
    owner = Fact(("stat", "-c", "%a %U %G", str(HTPASSWD)))
    others = Fact(("grep", "--invert-match", "--count", f"^{server.user}:", str(HTPASSWD)))
    # By a file, never by an argument: a configuration of curl on its standard input.
    url = f"https://{server.host}:{server.port}/v2/"
    answers = Fact(
        ("curl", "--config", "-"),
        stdin=f'url = "{url}"\nuser = "{server.user}:{_quoted(server.password)}"\ncacert = "{FOLDER}/ca.crt"\n'
        "silent\nshow-error\nfail\nmax-time = 10\noutput = /dev/null\n",
    )

    def changes(facts: Facts) -> Iterator[Change]:
        yield from package_changes(PACKAGES, facts)
        changed: dict[str, list[Change]] = {}
        for file in files:
            unit = _reader(file)
            found = file_changes(file, facts, restarts=(unit,) if unit else ())
            changed.setdefault(unit, []).extend(found)
            yield from found
        why = ""
        if not facts[login].ok:
            why = f"{server.user} has another password there, or none"
        elif facts[owner].text.strip() != f"640 root {GROUP}":
            why = f"its file is {facts[owner].text.strip()}, not 640 root {GROUP}"
        elif facts[others].text.strip() not in ("", "0"):
            why = "others can log in as well"
        if why:
            yield Change(f"give {server.user} the site's password", why, _login_commands(server))
        firewall_files_changed, guarded = firewall_changes("registry", firewall, facts)
        yield from firewall_files_changed
        served = {UNIT: bool(changed[UNIT]) or bool(why), **{timer: bool(changed[timer]) for timer in TIMERS}}
        yield from units_changes({**guarded, **served}, facts)
        if not unit_why(UNIT, facts, changed=served[UNIT]) and not facts[answers].ok:
            restart = Command(("systemctl", "restart", UNIT))
            yield Change(f"restart {UNIT}", f"does not answer: {facts[answers].text.strip()}", (restart, _WAIT))

    facts = (
        packages_fact(PACKAGES),
        *map(file_fact, files),
        login,
        owner,
        others,
        unit_fact(UNIT),
        *map(unit_fact, TIMERS),
        answers,
        *firewall_facts("registry", firewall),
    )
    return Step("registry", machine, facts, changes, after)


def _reader(file: File) -> str:
    """Return the unit that reads a file when it starts; none reads the script before each of its runs."""
    if file.path.name.startswith("mlops-registry-"):
        return f"{file.path.stem}.timer" if file.path.suffix else ""
    return UNIT


_WAIT = Command(("sh", "-c", "for i in 1 2 3 4 5; do systemctl is-active -q docker-registry && break; sleep 1; done"))

_RESTART = """\
[Unit]
# Tried again for as long as it takes: a registry that gave up after five crashes was down for good.
StartLimitIntervalSec=0

[Service]
Restart=always
RestartSec=2
# A leak ends the registry, not the machine.
MemoryMax=75%
LimitNOFILE=65536
NoNewPrivileges=yes
PrivateTmp=yes
ProtectHome=yes
"""

_LIMIT = f"""\
[Unit]
Description=Refuse pushes to the registry when it is too large

[Service]
Type=oneshot
ExecStart={_SCRIPT}
"""

_CLEAN = f"""\
[Unit]
Description=Remove what no image of the registry needs any more
# Before the first push there is nothing to clean, and the registry takes that for an error.
ConditionPathExists={DATA}/docker/registry/v2/repositories

[Service]
Type=oneshot
# What is pushed while it looks for garbage would be taken for some, so the registry stands still meanwhile. Manifests
# stay, also those whose tag has moved on: deployments name their image by its digest.
ExecStart=/usr/bin/systemctl stop {UNIT}
ExecStart=/usr/sbin/runuser -u docker-registry -- \
/usr/bin/docker-registry garbage-collect {FOLDER}/config.yml
ExecStopPost=/usr/bin/systemctl start {UNIT}
"""


def _limit_script(limit_gb: int) -> str:
    return f"""\
#!/bin/sh
# Above {limit_gb} GB the registry becomes read-only, so that it never fills the disk; below, pushes are taken again.
set -eu
used=$(du -s --block-size=1M {DATA} | cut -f1)
if [ "$used" -gt {limit_gb * 1024} ]; then want=yes; else want=no; fi
if [ -e {_READ_ONLY} ]; then has=yes; else has=no; fi
[ $want != $has ] || exit 0
if [ $want = yes ]; then
  printf '%s\\n' '[Service]' 'Environment="REGISTRY_STORAGE_MAINTENANCE_READONLY={{enabled: true}}"' >{_READ_ONLY}
  echo "$used MB are more than {limit_gb} GB: pushes are refused" >&2
else
  rm -f {_READ_ONLY}
fi
systemctl daemon-reload
systemctl restart {UNIT}
"""


def _timer(what: str, when: str) -> str:
    return f"""\
[Unit]
Description=Time {what}

[Timer]
OnCalendar={when}
Persistent=yes

[Install]
WantedBy=timers.target
"""


def _login_commands(server: RegistryServer) -> tuple[Command, ...]:
    draft = f"{HTPASSWD}.new"
    return (
        Command(("install", "-D", "-m", "0640", "-o", "root", "-g", GROUP, "/dev/null", draft)),
        Command(("htpasswd", "-i", "-B", "-C", "10", draft, server.user), stdin=f"{server.password}\n"),
        Command(("mv", draft, str(HTPASSWD))),
    )


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
