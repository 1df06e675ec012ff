"""Server-side apply of a list of manifests, and what it changed.

https://kubernetes.io/docs/reference/using-api/server-side-apply/: a field that another manager owns with another value
is a conflict, and nobody's change is overwritten unless that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from configs.problems import Problem, UserError
from infra.kubernetes.client import FIELD_MANAGER, is_away, status_code
from infra.kubernetes.manifests import Manifest, title
from infra.kubernetes.objects import find

if TYPE_CHECKING:
    from lightkube import Client
    from lightkube.core.exceptions import ApiError


class Change(StrEnum):
    """What applying a manifest did."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Applied:
    """An object after it was applied."""

    kind: str
    name: str
    change: Change
    object: Mapping[str, Any]


def apply(
    client: Client,
    manifests: Iterable[Manifest],
    *,
    force: bool = False,
    on_applied: Callable[[Applied], None] = lambda applied: None,
) -> list[Applied]:
    """Apply manifests in their order; each is sent as it is, and objects that fit already are left alone.

    Args:
        force: take over fields that another manager has set, instead of failing.
        on_applied: called after each object.

    Raises:
        UserError: objects that were refused, all of them, each with the API server's reason. The others are applied.
        httpx2.HTTPError: the API server is away, see :func:`infra.kubernetes.client.is_away`; may be repeated.
    """
    from lightkube.core.exceptions import ApiError

    done, problems = [], []
    for manifest in manifests:
        try:
            applied = _apply_one(client, manifest, force=force)
        except ApiError as error:
            if is_away(error):
                raise
            problems.append(_problem(manifest, error))
            continue
        done.append(applied)
        on_applied(applied)
    if problems:
        raise UserError(problems)
    return done


def read(client: Client, manifest: Manifest) -> Mapping[str, Any] | None:
    """Return the object that the cluster has under a manifest's kind, namespace and name; None where there is none."""
    metadata = manifest["metadata"]
    found = find(client, resource_class(manifest), metadata["name"], namespace=metadata.get("namespace"))
    return None if found is None else _plain(found)


def resource_class(manifest: Manifest) -> Any:
    """Return lightkube's class of a manifest's kind; a kind of somebody's own has to be made known to it first."""
    from lightkube.core.resource_registry import resource_registry

    return resource_registry.load(manifest["apiVersion"], manifest["kind"])


def _apply_one(client: Client, manifest: Manifest, *, force: bool) -> Applied:
    from lightkube.types import PatchType

    before = read(client, manifest)
    metadata = manifest["metadata"]
    # The manifest itself, not lightkube's model of it: a field set to nothing must reach the server as such.
    found = client.patch(
        resource_class(manifest),
        metadata["name"],
        dict(manifest),
        namespace=metadata.get("namespace"),
        patch_type=PatchType.APPLY,
        field_manager=FIELD_MANAGER,
        force=force,
    )
    after = _plain(found)
    if before is None:
        change = Change.CREATED
    else:
        change = Change.UNCHANGED if _wanted(before) == _wanted(after) else Change.CHANGED
    return Applied(manifest["kind"], metadata["name"], change, after)


def _plain(found: Any) -> Mapping[str, Any]:
    plain: Mapping[str, Any] = found.to_dict()
    return plain


def _wanted(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object without what the cluster itself keeps changing."""
    kept = {key: value for key, value in found.items() if key != "status"}
    moving = ("resourceVersion", "managedFields", "generation")
    kept["metadata"] = {key: value for key, value in found["metadata"].items() if key not in moving}
    return kept


def _problem(manifest: Manifest, error: ApiError) -> Problem:
    where, code, told = title(manifest), status_code(error), str(error)
    causes = error.status.details.causes if error.status.details and error.status.details.causes else []
    if code == 409 and any(cause.reason == "FieldManagerConflict" for cause in causes):
        fields = "; ".join(f"{cause.field} ({cause.message})" for cause in causes)
        remedy = "leave these fields to it, or take them over: `mlops platform apply --force`"
        return Problem(where, f"somebody else has set fields that we set otherwise: {fields}", remedy)
    if code == 403 and "forbidden: User" in told:
        return Problem(
            where, f"this login may not apply it: {told}", "use a kubeconfig that may, as an administrator's"
        )
    if code == 404:
        return Problem(where, f"cannot be applied: {told}", "its namespace, or its kind, is not there")
    if (code == 422 and "immutable" in told) or "Forbidden: updates to" in told:
        remedy = "delete the object and apply again"
        if manifest["kind"].startswith("PersistentVolume"):
            remedy = "set the site back as it was: with the object would go its data (mlops platform delete --data)"
        return Problem(where, f"has a field that cannot change any more: {told}", remedy)
    return Problem(where, f"the API server refuses it: {told}", "see its reason")
