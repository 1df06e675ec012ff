"""A volume cannot be mounted, or a Secret or ConfigMap that the pod needs is missing.

Numbers and texts are those of mount.cifs(8), the kernel's cifs client, the kubelet and csi-driver-smb.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from infra.kubernetes.diagnosis.facts import Facts, Pod
from infra.kubernetes.diagnosis.record import Category, Diagnosis
from infra.kubernetes.manifests import SHARE
from infra.samba.sentinel import SENTINEL

_STATUS = "mlops doctor"
_LOGIN = "correct the share's user and password (configs/site.yaml, .mlops/secrets), then mlops platform apply"
_CIFS: tuple[tuple[str, str, str, bool], ...] = (
    (
        r"mount error\(13\)|cifs_mount failed w/return code = -13|STATUS_LOGON_FAILURE|LOGON_FAILURE|return code = -13",
        "the share refuses user or password",
        _LOGIN,
        False,
    ),
    (
        r"mount error\(2\)|return code = -2\b|STATUS_BAD_NETWORK_NAME|BAD_NETWORK_NAME",
        "the server has no such share or folder",
        "correct the share's name in section storage or cluster.share of configs/site.yaml",
        False,
    ),
    (
        r"mount error\((112|113|110|111|101|115)\)|return code = -(112|113|110|111|101)\b|"
        r"Host is down|No route to host|could not resolve address|Unable to find suitable address",
        "the share's server does not answer",
        f"look whether the Samba server runs and port 445 is open: {_STATUS}; the kubelet tries again by itself",
        True,
    ),
    (
        r"mount error\((95|22)\)|return code = -(95|22)\b",
        "node and server agree on no SMB version, or an option of the mount is not known",
        "the server has to speak SMB 3.1.1; look at dmesg of the node",
        False,
    ),
    (
        r"mount error\(126\)|return code = -126|Required key not available",
        "Kerberos has no ticket for the share",
        "give user and password, or a keytab on the node",
        False,
    ),
    (
        r"unknown filesystem type .?cifs|No such device|mount error\(19\)|bad option; for several filesystems|"
        r"mount\.cifs: (not found|No such file)|need a /sbin/mount\.",
        "the node cannot mount SMB shares: cifs-utils or the kernel's cifs module is missing",
        "apt install cifs-utils on the node; or use the share without a mount, smb://",
        False,
    ),
)
_NO_DRIVER = re.compile(r"driver name ([\w.-]+) not found in the list of registered CSI drivers")
_WRONG_TYPE = re.compile(r"hostPath type check failed: (\S+) is not (?:a|an) (.+)$")
_VOLUME = re.compile(r'for volume "([^"]+)"')
_FAILED = ("FailedMount", "FailedAttachVolume", "FailedMapVolume")


def missing(facts: Facts) -> Diagnosis | None:
    """Return the Secret, ConfigMap or key that a pod needs and the namespace has not."""
    for pod in facts.pods:
        for container in pod.containers:
            if container.waiting != "CreateContainerConfigError":
                continue
            return _missing(container.waiting_message, (f"{container.waiting}: {container.waiting_message}",))
        if pod.phase == "Pending" and pod.node:
            for event in pod.said("FailedMount")[-1:]:
                if re.search(
                    r'(secret|configmap) "[^"]+" not found|references non-existent (secret|config) key', event.message
                ):
                    return _missing(event.message, (str(event),))
    return None


def _missing(message: str, evidence: tuple[str, ...]) -> Diagnosis:
    remedy = "mlops platform apply makes what the platform's runs need; or correct the name in the deployment"
    if match := re.search(r"couldn't find key (\S+) in (Secret|ConfigMap) (?:\S+/)?(\S+)", message):
        what = f"{match.group(2)} {match.group(3)} has no key {match.group(1)}."
    elif match := re.search(r'(secret|configmap) "([^"]+)" not found', message):
        kind = "Secret" if match.group(1) == "secret" else "ConfigMap"
        what = f"{kind} {match.group(2)} does not exist in the namespace."
    elif match := re.search(r"references non-existent (secret|config) key: (\S+)", message):
        what = f"A mounted {'Secret' if match.group(1) == 'secret' else 'ConfigMap'} has no key {match.group(2)}."
    elif "runAsNonRoot" in message:
        what = "The image would run as root, which is not allowed."
        remedy = "build it with a user: mlops build-image does"
    else:
        what = f"The pod's configuration cannot be used: {message}."
    return Diagnosis(Category.CONFIG_MISSING, what, evidence, remedy)


def mount_failed(facts: Facts) -> Diagnosis | None:
    """Return why a pod's volume cannot be mounted."""
    for pod in facts.pods:
        if pod.phase != "Pending" or not pod.node:
            continue
        failures = [event for event in pod.events if event.reason in _FAILED]
        if failures:
            message, evidence = failures[-1].message, (str(failures[-1]),)
            return _not_mounted(pod, message, evidence) or _mount(pod, message, evidence)
    return None


def _not_mounted(pod: Pod, message: str, evidence: tuple[str, ...]) -> Diagnosis | None:
    """The node's own mount of the share is not there: its sentinel tells, or the folder itself."""
    match, volume = _WRONG_TYPE.search(message), _VOLUME.search(message)
    if match is None or volume is None:
        return None
    path = PurePosixPath(match.group(1))
    if path.name != SENTINEL and not (SHARE in pod.claims and volume.group(1).endswith("-share")):
        return None
    return Diagnosis(
        Category.MOUNT_FAILED,
        f"{pod.node} has no share at {path.parent if path.name == SENTINEL else path}, and the pod waits for it.",
        evidence,
        f"look whether the Samba server runs ({_STATUS}), and what {pod.node} says (journalctl -g 'mount error'); "
        "the pod starts by itself once the share is mounted",
        passing=True,
    )


def _mount(pod: Pod, message: str, evidence: tuple[str, ...]) -> Diagnosis:
    found = _VOLUME.search(message)
    volume = f"volume {found.group(1)}" if found else "a volume"
    source = re.search(r"(//[\w.$-]+(?::\d+)?/[\w.$/-]+)", message)
    where = f"{pod.node} cannot mount {volume}" + (f" ({source.group(1)})" if source else "")
    for pattern, why, remedy, passing in _CIFS:
        if re.search(pattern, message):
            return Diagnosis(Category.MOUNT_FAILED, f"{where}: {why}.", evidence, remedy, passing)
    if match := _NO_DRIVER.search(message):
        return Diagnosis(
            Category.MOUNT_FAILED,
            f"{where}: driver {match.group(1)} does not run on the node.",
            evidence,
            f"install {match.group(1)} (csi-driver-smb), or look at its pod on {pod.node}",
            passing=True,
        )
    if match := _WRONG_TYPE.search(message):
        return Diagnosis(
            Category.MOUNT_FAILED,
            f"{where}: {pod.node} has no {match.group(2)} {match.group(1)}.",
            evidence,
            f"mount or make {match.group(1)} on {pod.node}, or select nodes that have it",
        )
    if "An operation with the given Volume ID" in message or "DeadlineExceeded" in message:
        return Diagnosis(
            Category.MOUNT_FAILED,
            f"{where}: the mount hangs, as it does when the share's server does not answer.",
            evidence,
            f"look whether the Samba server runs and port 445 is open: {_STATUS}",
            passing=True,
        )
    return Diagnosis(Category.MOUNT_FAILED, f"{where}.", evidence, "read the evidence: it is what the node says", True)
