"""The image cannot be had, or does not start.

The texts are those of the kubelet (``pkg/kubelet/images``) and of containerd's and CRI-O's pulls.
"""

from __future__ import annotations

import re
from datetime import timedelta

from infra.kubernetes.diagnosis.facts import Container, Event, Facts, Pod
from infra.kubernetes.diagnosis.record import Category, Diagnosis

_PULLING = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "SignatureValidationFailed")
_NEVER = "ErrImageNeverPull"
_NAME = "InvalidImageName"
_NO_START = ("RunContainerError", "CreateContainerError", "StartError", "ContainerCannotRun")

SLOW = timedelta(seconds=60)
"""How long a pod may take from its node to its first container."""
_TLS = (
    (
        r"certificate signed by unknown authority",
        "the node does not know the authority that signed the registry's certificate",
        "put the registry's CA into /etc/containerd/certs.d/{host}/ of every node (ca in hosts.toml), or sign the"
        " certificate by a known authority",
    ),
    (
        r"certificate has expired or is not yet valid",
        "the registry's certificate has expired or is not valid yet",
        "renew the certificate of {host}, and compare the clocks of the node and the registry",
    ),
    (
        r"certificate is valid for .+, not |doesn't contain any IP SANs|is not valid for any names",
        "the registry's certificate is for another name",
        "name the registry as its certificate does, or give it a certificate for {host}",
    ),
    (
        r"server gave HTTP response to HTTPS client",
        "the registry speaks plain HTTP, the node expects TLS",
        "give the registry a certificate: plain HTTP is not used",
    ),
    (
        r"x509:|tls: |remote error: tls",
        "the node and the registry cannot agree on TLS",
        "look at the registry's certificate: openssl s_client -connect {host}",
    ),
)
_DENIED = re.compile(
    r"401 Unauthorized|403 Forbidden|insufficient_scope|authorization failed|authentication required|"
    r"no basic auth credentials|unauthorized:|denied:|access denied|incorrect username or password|failed to authorize",
    re.IGNORECASE,
)
_AWAY = re.compile(
    r"connection refused|i/o timeout|no such host|no route to host|network is unreachable|connection reset|"
    r"context deadline exceeded|Client\.Timeout|TLS handshake timeout|429 Too Many|toomanyrequests|"
    r"50[0234] (Internal|Bad|Service|Gateway)|server misbehaving|: EOF|unexpected EOF",
    re.IGNORECASE,
)
_MISSING = re.compile(r"not found|manifest unknown|MANIFEST_UNKNOWN|name unknown|NAME_UNKNOWN", re.IGNORECASE)
_SPACE = re.compile(r"no space left on device", re.IGNORECASE)
_PLATFORM = re.compile(r"no match for platform|exec format error|no matching manifest", re.IGNORECASE)


def diagnose(facts: Facts) -> Diagnosis | None:
    """Return why an image cannot be pulled or started; None when images are not the trouble."""
    for pod in facts.pods:
        for container in pod.containers:
            found = _pull(pod, container) or _start(pod, container)
            if found is not None:
                return found
    return None


def slow(facts: Facts) -> Diagnosis | None:
    """Return that a pod has its node and has not begun for a while, without an error."""
    for pod in facts.pods:
        condition = pod.conditions.get("PodScheduled")
        since = condition.since if condition and condition.status == "True" else None
        if pod.phase != "Pending" or not pod.node or since is None or facts.now - since < SLOW:
            continue
        last = pod.events[-1:]
        pulls = any(event.reason == "Pulling" for event in last)
        does = f"pulling image {pod.containers[-1].image}" if pulls and pod.containers else "being started"
        seconds = (facts.now - since).total_seconds()
        return Diagnosis(
            Category.SLOW_START,
            f"The run's pod has been {does} on {pod.node} for {seconds:.0f} s.",
            tuple(str(event) for event in last),
            f"wait; or look at the load, disk and network of {pod.node}",
            passing=True,
        )
    return None


def _pull(pod: Pod, container: Container) -> Diagnosis | None:
    if container.waiting == _NAME:
        return Diagnosis(
            Category.IMAGE_NAME,
            f"{container.image!r} is no name of an image.",
            (container.waiting_message,),
            "write it as registry.example/project/mlops@sha256:..., in lower case",
        )
    if container.waiting == _NEVER:
        return Diagnosis(
            Category.IMAGE_NOT_FOUND,
            f"Image {container.image} is not on {pod.node}, and its pull policy is Never.",
            (container.waiting_message,),
            "put the image on the node, or set the pull policy to IfNotPresent",
        )
    if container.waiting not in _PULLING:
        return None
    # The back-off's own text leaves the cause out; the events before it have it.
    tries = [event for event in pod.said("Failed") if event.message.startswith("Failed to pull image")]
    secrets = pod.said("FailedToRetrieveImagePullSecret")[-1:]
    said = next((event.message for event in reversed(tries)), container.waiting_message)
    evidence = tuple(str(event) for event in (*secrets, *tries[-1:])) or (said,)
    registry = registry_of(container.image)
    where = f"{pod.node} cannot pull {container.image}"
    if _SPACE.search(said):
        return Diagnosis(
            Category.DISK_PRESSURE,
            f"{where}: the disk of {pod.node} is full.",
            evidence,
            f"free disk on {pod.node}: crictl rmi --prune, and look at the DVC cache",
            passing=True,
            avoid=(pod.node,),
        )
    for pattern, why, remedy in _TLS:
        if re.search(pattern, said):
            return Diagnosis(Category.REGISTRY_TLS, f"{where}: {why}.", evidence, remedy.format(host=registry))
    if _DENIED.search(said) and not re.search(r": not found$", said):
        return _denied(container, where, registry, evidence, secrets)
    if _AWAY.search(said):
        return Diagnosis(
            Category.REGISTRY_AWAY,
            f"{where}: registry {registry} does not answer.",
            evidence,
            f"look whether {registry} runs and is reached from {pod.node}; Kubernetes tries again by itself",
            passing=True,
        )
    if _PLATFORM.search(said):
        return Diagnosis(
            Category.IMAGE_UNUSABLE,
            f"{where}: the image was not built for this node's processor.",
            evidence,
            "build it for the node's architecture, or select other nodes",
        )
    if _MISSING.search(said):
        return Diagnosis(
            Category.IMAGE_NOT_FOUND,
            f"Image {container.image} does not exist in {registry}.",
            evidence,
            "build and push it: mlops build-image; or correct the name or digest in the deployment",
        )
    if not tries and container.waiting != "ErrImagePull":
        return None  # the event that tells why is on its way
    return Diagnosis(
        Category.REGISTRY_AWAY, f"{where}.", evidence, f"look at the registry {registry} and the node", passing=True
    )


def _denied(
    container: Container, where: str, registry: str, evidence: tuple[str, ...], secrets: tuple[Event, ...]
) -> Diagnosis:
    if secrets:
        names = ", ".join(re.findall(r"\(([^)]+)\)", secrets[0].message)[:1]) or "mlops-registry"
        return Diagnosis(
            Category.PULL_DENIED,
            f"{where}: the registry asks for a login, and pull secret {names} is missing.",
            evidence,
            "make the secret from section registry of configs/site.yaml: mlops platform apply",
        )
    return Diagnosis(
        Category.PULL_DENIED,
        f"{where}: registry {registry} refuses the login, or the image does not exist there.",
        evidence,
        "correct user and password in section registry of configs/site.yaml, then mlops platform apply",
    )


def _start(pod: Pod, container: Container) -> Diagnosis | None:
    ended = container.ended
    reason = container.waiting if container.waiting in _NO_START else ended.reason if ended else ""
    if reason not in _NO_START:
        return None
    said = container.waiting_message if container.waiting in _NO_START else ended.message if ended else ""
    command = re.search(r'exec: "([^"]+)": (executable file not found|stat .*: no such file|permission denied)', said)
    if command:
        what = f"{command.group(1)} cannot be started in image {container.image}: {command.group(2)}"
        remedy = "name a program that the image has, or use the image that mlops build-image makes"
    elif _PLATFORM.search(said):
        what = f"Image {container.image} was not built for the processor of {pod.node}"
        remedy = "build it for the node's architecture, or select other nodes"
    else:
        what = f"Container {container.name} of image {container.image} cannot be started on {pod.node}"
        remedy = "read the evidence: it is what the container runtime says"
    return Diagnosis(Category.IMAGE_UNUSABLE, f"{what}.", (said,), remedy)


def registry_of(image: str) -> str:
    """Return the registry that an image's name means."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"
