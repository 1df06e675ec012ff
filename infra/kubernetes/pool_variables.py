"""What may be set about a run of the pool ``kubernetes``: the schema that the UI makes a form of, with the defaults."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from configs.cluster import Cluster, Toleration
from infra.kubernetes.pods import bound_to_lost_node

AWAY_S = 60
"""Seconds that a pod stays bound to a node that is away: the default of 300 keeps a lost run's place for too long."""
COMMAND = "python -m infra.kubernetes.execute"
"""What a run's pod starts: Prefect's ``prefect flow-run execute`` in less time, see there."""
_QUANTITY = r"^\d+(\.\d+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"

Quantity = Annotated[str, Field(pattern=_QUANTITY)]


class Variables(BaseModel):
    """The variables of the base job template; deployments and single runs may set them."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, description="Begin of the Job's name; left out: the flow run's name")
    namespace: str = Field(description="Namespace of the Job")
    command: str | None = Field(None, description="What executes the flow run; none: Prefect's own command")
    env: dict[str, str | None] = Field(default_factory=dict, description="Further variables; never a secret")
    image: str = Field(description="The image with the code of the run, by digest")
    image_pull_policy: str = Field("IfNotPresent", pattern="^(IfNotPresent|Always|Never)$")
    image_pull_secrets: list[dict[str, str]] = Field(description="Secrets with a registry's login, as [{name: ...}]")
    cpu: Quantity = Field(description="Processors, requested and at most; threads follow it")
    memory: Quantity = Field(description="Memory, requested and at most; /dev/shm counts into it")
    gpus: int | None = Field(None, ge=0, title="GPUs", description="nvidia.com/gpu")
    shm: Quantity = Field(title="Shared memory", description="The most that /dev/shm may hold; less than memory")
    node_selector: dict[str, str] = Field(description="Labels of the nodes that the run may be on")
    tolerations: list[dict[str, Any]] = Field(description="Taints that the run puts up with")
    affinity: dict[str, Any] | None = Field(
        None, description="Nodes to prefer; a run that was lost with its node gets the others here"
    )
    cache: str = Field(pattern="^/.", description="The node's folder for DVC's cache, kept between runs")
    priority_class: str = Field(description="Which runs go first")
    service_account: str = Field("mlops-run", description="The account of the pod, for distributed trainings")
    deadline_s: int | None = Field(
        None, ge=60, title="Deadline", description="Seconds after which the Job is ended, waiting included; none: never"
    )
    ttl_s: int = Field(ge=60, title="Kept for", description="Seconds that a finished Job and its logs are kept")


def variables(cluster: Cluster, image: str, pull_secrets: list[str]) -> dict[str, Any]:
    """Return the schema of :class:`Variables` with the site's values as defaults."""
    training = cluster.training
    defaults: dict[str, Any] = {
        "command": COMMAND,
        "env": {},
        "namespace": cluster.namespace,
        "image": image,
        "image_pull_secrets": [{"name": name} for name in pull_secrets],
        "cpu": training.cpu,
        "memory": training.memory,
        "shm": training.shm,
        "node_selector": dict(training.node_selector),
        "tolerations": [*map(_toleration, training.tolerations), *bound_to_lost_node(AWAY_S)],
        "cache": str(cluster.cache),
        "priority_class": training.priority_class,
        "ttl_s": training.ttl_s,
    }
    if training.gpus:
        defaults["gpus"] = training.gpus
    if training.deadline_s is not None:
        defaults["deadline_s"] = training.deadline_s
    schema = Variables.model_json_schema()
    for name, value in defaults.items():
        schema["properties"][name]["default"] = value
    del schema["required"]  # all have defaults now
    return schema


def _toleration(toleration: Toleration) -> dict[str, Any]:
    return toleration.model_dump(mode="json", exclude_none=True)
