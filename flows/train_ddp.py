"""A distributed training: any script that runs under torchrun, from a dataset version to a registered model."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import Flow, State, flow
from prefect.client.schemas.objects import FlowRun
from pydantic import Field

from tasks.ddp import fetch_dataset, follow, launch, open_ddp_job, remove_gang
from tasks.ddp_results import open_ddp_tracking, register_output, report_training

DdpFile = Annotated[
    str,
    Field(pattern=r"^configs/[\w./-]+\.ya?ml$", description="The training: a file below configs/, as configs/ddp.yaml"),
]


def clean_up(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Remove what a cancelled or crashed run has launched."""
    remove_gang(flow_run.parameters, str(flow_run.id))


@flow(name="train-ddp", description=__doc__, on_cancellation=[clean_up], on_crashed=[clean_up])
def train_ddp(config: DdpFile = "configs/ddp.yaml") -> None:
    """Fetch the data, launch the workers, follow them, register the model, promote it if it is better, and report."""
    with open_ddp_job(config) as job, open_ddp_tracking(job) as tracking:
        fetch_dataset(job)
        launch(job)
        follow(job, tracking)
        champion, registration = register_output(job, tracking)
        report_training(job, tracking, champion, registration)
