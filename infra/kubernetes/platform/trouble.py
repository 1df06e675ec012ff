"""Why a pod of the platform is not ready, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightkube import Client

NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError")
NO_CONTAINER = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
TELLING_EVENTS = ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")


@dataclass(frozen=True)
class Trouble:
    """What is wrong: ``what`` continues the component's name; ``lasting``: it does not pass by itself."""

    what: str
    lasting: bool = False


def pod_trouble(client: Client, pod: Mapping[str, Any]) -> Trouble:
    """Return why ``pod`` is not ready; asks for events where the pod itself does not say."""
    status = pod.get("status", {})
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return Trouble(f"has no node: {condition.get('message', condition.get('reason', ''))}")
    groups = (
        (pod["spec"].get("initContainers", ()), status.get("initContainerStatuses", ())),
        (pod["spec"]["containers"], status.get("containerStatuses", ())),
    )
    for specs, states in groups:
        images = {one["name"]: one["image"] for one in specs}
        for state in states:
            found = _container(pod, state, images[state["name"]], not_begun=states is not groups[1][1])
            if found is not None:
                return found
    if status.get("phase") == "Failed":
        return Trouble(f"was ended by its node: {status.get('reason', '')} {status.get('message', '')}".strip())
    return _from_events(client, pod) or Trouble("is starting")


def _container(pod: Mapping[str, Any], state: Mapping[str, Any], image: str, *, not_begun: bool) -> Trouble | None:
    name, now = state["name"], state.get("state", {})
    waiting, last = now.get("waiting"), state.get("lastState", {}).get("terminated")
    ended = now.get("terminated")
    if waiting is not None:
        reason, message = waiting.get("reason", ""), _one_line(waiting.get("message", ""))
        if reason in NO_IMAGE:
            return Trouble(f"cannot start: node {_node(pod)} has no image {image} ({reason}: {message})", lasting=True)
        if reason in NO_CONTAINER:
            return Trouble(f"cannot start: {message or reason}", lasting=True)
        if reason == "CrashLoopBackOff" and last is not None:
            return Trouble(_ended(name, last), lasting=int(state.get("restartCount", 0)) > 2)
        return None
    if ended is not None and ended.get("exitCode", 0) != 0:
        return Trouble(_ended(name, ended))
    if "running" in now and (not_begun or state.get("started") is not True) and not state.get("ready", False):
        return Trouble(f"is starting ({name})" + (", again" if last else ""))
    if "running" in now and not state.get("ready", False):
        return Trouble(f"runs, but does not answer as it should ({name})")
    return None


def _ended(name: str, ended: Mapping[str, Any]) -> str:
    if ended.get("reason") == "OOMKilled":
        return f"needs more memory than its limit: {name} was killed for it"
    # Our containers leave the end of their log there.
    said = next((_one_line(line) for line in reversed(ended.get("message", "").splitlines()) if line.strip()), "")
    status = f"signal {ended['signal']}" if ended.get("signal") else f"status {ended.get('exitCode')}"
    return f"ended with {status} ({name})" + (f": {said}" if said else "")


def _from_events(client: Client, pod: Mapping[str, Any]) -> Trouble | None:
    from lightkube.resources.core_v1 import Event

    metadata = pod["metadata"]
    events = client.list(
        Event, namespace=metadata["namespace"], fields={"involvedObject.uid": metadata["uid"], "type": "Warning"}
    )
    telling = [event for event in events if event.reason in TELLING_EVENTS]
    if not telling:
        return None
    return Trouble(f"cannot start on node {_node(pod)}: {_one_line(telling[-1].message or '')}")


def _node(pod: Mapping[str, Any]) -> str:
    return str(pod["spec"].get("nodeName", "?"))


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:297] + "..."
