"""Images of the real control plane, made of its binaries alone, and pushed to a registry: a mirror as a user has it."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import httpx

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
SERVERS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
# kube-proxy writes its rules by these; the loadable half of iptables is beside its libraries.
_IPTABLES = ("iptables", "iptables-save", "iptables-restore")
_LEGACY = "xtables-legacy-multi"
BUSYBOX = Path("/usr/bin/busybox")


def wanted(
    names: Iterable[str], binaries: Path, etcd: Path, pause: Path, flannel: Path | None = None
) -> dict[str, dict[str, Path]]:
    """Return for each image that `mlops site images` names (without registry) the files in it, by their path there.

    Args:
        flannel: folder of ``flanneld`` and of ``flannel``, its plugin.
    """
    found: dict[str, dict[str, Path]] = {}
    for name in names:
        short = name.rpartition(":")[0]
        if short in SERVERS:
            found[name] = {f"usr/local/bin/{short}": binaries / short}
        elif short == "etcd":
            # As published: beside its own etcdctl that of 3.5, which still restores, and no etcdutl.
            tools = sorted(etcd.parent.glob("etcdctl*")) or [Path("/usr/bin/etcdctl")]
            found[name] = {f"usr/local/bin/{file.name}": file for file in (etcd, *tools)}
            found[name]["usr/local/bin/etcd"] = etcd
        elif short == "coredns":
            found[name] = {"coredns": binaries / "coredns"}
        elif short == "pause":
            found[name] = {"pause": pause}
        elif short == "flannel" and flannel:
            found[name] = {"opt/bin/flanneld": flannel / "flanneld", "bin/cp": BUSYBOX} | _iptables()
        elif short == "flannel-cni-plugin" and flannel:
            found[name] = {"flannel": flannel / "flannel", "bin/cp": BUSYBOX}
        if short == "kube-proxy":
            found[name] |= _iptables()
    return found


def push(client: httpx.Client, name: str, files: Mapping[str, Path], links: Mapping[str, str] | None = None) -> str:
    """Push an image of one layer and return its digest.

    Args:
        client: of the registry, logged in. name: with a tag. links: symbolic ones in the image.
    """
    repository, _, tag = name.rpartition(":")
    blob = io.BytesIO()
    with tarfile.open(fileobj=blob, mode="w") as layer:
        for folder in ("tmp", "etc"):
            made = tarfile.TarInfo(folder)
            made.type, made.mode = tarfile.DIRTYPE, 0o777
            layer.addfile(made)
        for path, source in files.items():
            info = layer.gettarinfo(str(source.resolve()), path)
            info.mode, info.uid, info.gid = 0o755, 0, 0
            with source.open("rb") as opened:
                layer.addfile(info, opened)
        for path, target in (links or {}).items():
            link = tarfile.TarInfo(path)
            link.type, link.linkname = tarfile.SYMTYPE, target
            layer.addfile(link)
    data = blob.getvalue()
    digest = _upload(client, repository, data)
    main = next(iter(files))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [f"/{main}"], "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    }
    text = json.dumps(config).encode()
    image = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": _upload(client, repository, text), "size": len(text)},
        "layers": [{"mediaType": LAYER, "digest": digest, "size": len(data)}],
    }
    put = client.put(f"/v2/{repository}/manifests/{tag}", content=json.dumps(image), headers={"content-type": MANIFEST})
    put.raise_for_status()
    return put.headers["docker-content-digest"]


def _upload(client: httpx.Client, repository: str, data: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    opened = client.post(f"/v2/{repository}/blobs/uploads/")
    opened.raise_for_status()
    place = opened.headers["location"]
    put = client.put(f"{place}{'&' if '?' in place else '?'}digest={digest}", content=data, timeout=120)
    put.raise_for_status()
    return digest


def _iptables() -> dict[str, Path]:
    """Return this machine's iptables with its libraries and extensions, by their paths in an image."""
    legacy = Path("/usr/sbin", _LEGACY)
    files = {f"usr/sbin/{name}": legacy for name in (*_IPTABLES, *(name.replace("ip", "ip6", 1) for name in _IPTABLES))}
    (extensions,) = Path("/usr/lib").glob("*/xtables")
    loaded = sorted(extensions.glob("*.so"))
    files |= {str(extension).lstrip("/"): extension for extension in loaded}
    # An extension may need more than the program: `statistic`, by which a service has several pods, needs libm.
    said = subprocess.run(["ldd", legacy, *loaded], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(/\S+\.so\S*) \(", said):
        files[library.lstrip("/")] = Path(library)
    return files
