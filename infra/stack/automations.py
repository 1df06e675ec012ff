"""The automations that the server itself carries out: crashed runs are found, a published dataset is trained on."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.events.schemas.automations import AutomationCore

# A heartbeat comes every 30 s. One may be lost; the second missing one is a crash, and with the 5 s of the server's
# own clock it shows within 90 s of the last sign of life.
SILENCE = timedelta(seconds=70)
SILENT = f"No heartbeat for {SILENCE.seconds} s"
HEARTBEAT = "prefect.flow-run.heartbeat"
CRASHED = "mlops: silent runs have crashed"
PUBLISHED = "mlops: train on a published dataset"
TRAINING = "train-forklift/local"

# What may follow a heartbeat besides another one. `Running` and `Cancelling` are not among them: heartbeats go on.
ENDS = (
    *("Completed", "Failed", "Crashed", "Cancelled", "Cached", "RolledBack"),
    *("AwaitingRetry", "AwaitingConcurrencySlot", "Rescheduled", "Scheduled", "Late", "Pending"),
    *("Paused", "Suspended", "Resuming"),
    # Of a run that is started again: the last heartbeat of its former process may come after AwaitingRetry.
    *("Submitting", "InfrastructurePending"),
)


async def apply_automations(client: PrefectClient, training: str = TRAINING) -> list[str]:
    """Create or update our automations; the one that runs the deployment ``training`` only once that is there.

    Returns the names of those that are in force.
    """
    from prefect.exceptions import ObjectNotFound

    wanted = [crashed_runs()]
    try:
        deployment = await client.read_deployment_by_name(training)
    except ObjectNotFound:
        await _delete(client, PUBLISHED)
    else:
        from prefect.events.actions import RunDeployment
        from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

        wanted.append(
            AutomationCore(
                name=PUBLISHED,
                description="A dataset version was published: train on it.",
                trigger=EventTrigger(
                    expect={"dataset.published"}, posture=Posture.Reactive, threshold=1, within=timedelta(0)
                ),
                actions=[RunDeployment(source="selected", deployment_id=deployment.id)],
            )
        )
    for automation in wanted:
        await _apply(client, automation)
    return [automation.name for automation in wanted]


def crashed_runs() -> AutomationCore:
    """A flow run whose heartbeats stop without an end is set to Crashed, which also frees its concurrency slot."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    return AutomationCore(
        name=CRASHED,
        description="A run that sends no heartbeat any more has lost its process.",
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            after={HEARTBEAT},
            expect={HEARTBEAT, *(f"prefect.flow-run.{name}" for name in ENDS)},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Crashed",
                message=f"{SILENT}: the process is gone. Retry the run; it resumes.",
            )
        ],
    )


async def _apply(client: PrefectClient, automation: AutomationCore) -> None:
    known = await client.read_automations_by_name(automation.name)
    if not known:
        await client.create_automation(automation)
        return
    # Updating clears what the server has counted so far, so an automation that fits already is left alone.
    if not _same(known[0], automation):
        await client.update_automation(known[0].id, automation)
    for double in known[1:]:
        await client.delete_automation(double.id)


def _same(known: AutomationCore, wanted: AutomationCore) -> bool:
    fields = {"name", "description", "enabled", "trigger", "actions"}
    left, right = (item.model_dump(mode="json", include=fields) for item in (known, wanted))
    for item in (left, right):
        trigger = item["trigger"]
        trigger.pop("id", None)
        for key in ("after", "expect", "for_each"):
            trigger[key] = sorted(trigger[key])
        match = trigger["match"].get("prefect.resource.id")
        if isinstance(match, str):
            trigger["match"]["prefect.resource.id"] = [match]
    return left == right


async def _delete(client: PrefectClient, name: str) -> None:
    for automation in await client.read_automations_by_name(name):
        await client.delete_automation(automation.id)
