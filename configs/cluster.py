"""Section ``cluster`` of the site: which Kubernetes cluster trains, and what platform and runs may use there."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from configs.loading import Section
from configs.quantity import Quantity
from configs.storage import DirectoryStorage, MountStorage, SmbStorage

NAME = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
"""What Kubernetes takes as a name of a namespace."""


def _node_folder(path: PurePosixPath) -> PurePosixPath:
    if not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/"):
        raise ValueError("name a folder of the node by its absolute path, as /var/lib/mlops/cache")
    return path


def _pinned(image: str) -> str:
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    if digest and not digest.startswith("sha256:"):
        raise ValueError("a digest is sha256: and 64 hexadecimal digits")
    if not digest and tag in ("", "latest"):
        raise ValueError("name a version or a digest, as registry.example/mlops:1.2 or ...@sha256:...; never latest")
    return image


NodeFolder = Annotated[PurePosixPath, AfterValidator(_node_folder)]
ImageName = Annotated[str, Field(pattern=r"^[^\s]+$"), AfterValidator(_pinned)]


class Images(Section):
    """Images of the platform, each with its version or digest."""

    # The data of one major version is not read by another: a new one needs a dump and a restore.
    postgres: ImageName = Field("docker.io/library/postgres:17.6-bookworm", description="the official image, 13 to 17")
    run: ImageName | None = Field(
        None, description="the image with this project's code; left out: the one that `mlops build-image` made last"
    )


class State(Section):
    """Where Postgres and MLflow keep their data: volumes of a storage class, or folders of one node."""

    storage_class: str | None = Field(None, pattern=r"^[a-z0-9.-]+$", description="left out: the cluster's default one")
    host_path: NodeFolder | None = Field(None, description="a folder of `node`, for a cluster without storage classes")
    node: str | None = Field(None, pattern=r"^[a-z0-9.-]+$", description="the node that `host_path` lies on")
    postgres: Quantity = Field("10Gi", description="size of the database's volume")
    artifacts: Quantity = Field("50Gi", description="size of the volume of MLflow's artifacts")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.host_path is None) != (self.node is None):
            raise ValueError("`host_path` and `node` belong together: the folder, and the node that it lies on")
        if self.host_path is not None and self.storage_class is not None:
            raise ValueError("give `storage_class`, or `host_path` with `node`, not both")
        return self


class Quota(Section):
    """What all runs in the namespace may request together; what is more waits. Left out: as much as there is."""

    cpu: Quantity | None = None
    memory: Quantity | None = None
    gpus: int | None = Field(None, ge=0)
    pods: int | None = Field(None, ge=1)


class Toleration(Section):
    """A taint of nodes that runs put up with, as Kubernetes writes it."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("`Exists` has no value: leave `value` out, or write `operator: Equal`")
        if self.operator == "Equal" and (self.key is None or self.value is None):
            raise ValueError("`Equal` needs `key` and `value`; `operator: Exists` fits any value")
        return self


class Resources(Section):
    """What a run gets unless its deployment says otherwise."""

    cpu: Quantity = "2"
    memory: Quantity = Field("6Gi", description="the pod's limit; its /dev/shm counts into it")
    gpus: int = Field(0, ge=0, description="nvidia.com/gpu")
    shm: Quantity = Field("1Gi", description="the most that /dev/shm may hold")
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    priority_class: str = Field("mlops-training", pattern=r"^[a-z0-9.-]+$")
    deadline_s: int | None = Field(None, ge=60, description="seconds after which a run is ended; left out: never")
    ttl_s: int = Field(3600, ge=60, description="seconds that a finished Job and its logs are kept")


class Cluster(Section):
    """A cluster, and the namespace that is ours."""

    kubeconfig: Path | None = Field(
        None,
        description="left out: KUBECONFIG, the site's own cluster, ~/.kube/config; in a pod its service account",
    )
    context: str | None = Field(None, min_length=1, description="of the kubeconfig; left out: its current one")
    namespace: str = Field("mlops", pattern=NAME)
    images: Images = Images()
    state: State = State()
    share: DirectoryStorage | MountStorage | SmbStorage | None = Field(
        None, discriminator="kind", description="how nodes reach the share; left out: as section storage says"
    )
    cache: NodeFolder = Field(
        PurePosixPath("/var/lib/mlops/cache"), description="folder of each node for DVC's cache, kept between runs"
    )
    quota: Quota = Quota()
    training: Resources = Resources()
    concurrency: int | None = Field(None, ge=1, description="runs at a time; left out: as many as fit")
    retries: int = Field(
        3, ge=0, description="starts of a run after it lost its node or its place there, before it is failed"
    )
