"""Images of the add-ons, each of one version."""

METRICS_SERVER = "registry.k8s.io/metrics-server/metrics-server:v0.8.0"
HEADLAMP = "ghcr.io/headlamp-k8s/headlamp:v0.44.0"
DEVICE_PLUGIN = "nvcr.io/nvidia/k8s-device-plugin:v0.17.4"


def from_mirror(image: str, mirror: str | None) -> str:
    """Return where an image is pulled from.

    Args:
        mirror: registry and prefix of copies under the same last name; None: where its project puts it.
    """
    return image if mirror is None else f"{mirror}/{image.rpartition('/')[2]}"
