"""The autoencoder of :mod:`ml.ddp.autoencoder` as a Lightning module: scripts of Lightning run unchanged, too.

    torchrun --nproc-per-node=2 ml/ddp/autoencoder_lightning.py --data fashion-mnist --epochs 20

Needs the optional extra ``lightning``. Killed and started again, it goes on after its last whole epoch.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.utils.data import DataLoader, TensorDataset

from configs.problems import run_main
from ml.ddp.autoencoder import Autoencoder
from ml.ddp.idx import read_images
from ml.ddp.muon import Muon
from ml.ddp.world import folder, leave
from ml.events import Events


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=folder("MLOPS_DATA"), help="folder of IDX files")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=256, help="images of all ranks together")
    parser.add_argument("--lr", type=float, default=4e-3, help="of the first step; falls to 0 over all epochs")
    train(parser.parse_args())


class Module(lightning.LightningModule):
    """The autoencoder with its loss, its optimizer and its events."""

    def __init__(self, epochs: int, lr: float) -> None:
        super().__init__()
        self.model = Autoencoder(width=64, code=3)
        self.epochs, self.lr = epochs, lr
        self.events = Events("ddp")
        self.began = 0.0

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """Return the mean square error of the batch's pixels."""
        return self._error(batch)

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        """Add a batch to the epoch's loss."""
        self.log("loss", self._error(batch), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return Muon with steps that become smaller until the end."""
        optimizer = Muon(self.parameters(), lr=self.lr)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Take the time."""
        self.began = time.monotonic()

    def on_train_epoch_end(self) -> None:
        """Tell how far it is; Lightning has validated by now."""
        if self.global_rank == 0:
            seconds = time.monotonic() - self.began
            numbers = {"loss": float(self.trainer.callback_metrics["loss"]), "seconds": seconds}
            self.events.epoch(self.current_epoch + 1, self.epochs, numbers)
            print(f"epoch {self.current_epoch + 1}/{self.epochs}  loss {numbers['loss']:.5f}", flush=True)

    def _error(self, batch: list[torch.Tensor]) -> torch.Tensor:
        pixels = batch[0] / 255
        return torch.nn.functional.mse_loss(self.model(pixels), pixels)


def train(options: argparse.Namespace) -> None:
    """Train to the last epoch, and write ``model.pt`` and ``metrics.json``.

    Raises:
        UserError: the images cannot be read.
    """
    local, size = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), int(os.environ.get("WORLD_SIZE", "1"))
    train_part, test = (
        TensorDataset(torch.from_numpy(read_images(options.data, split).copy()).flatten(1))
        for split in ("train", "t10k")
    )
    checkpoints = folder("MLOPS_CHECKPOINTS")
    settings: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="gpu" if os.environ.get("MLOPS_BACKEND") == "nccl" else "cpu",
        devices=local,
        num_nodes=size // local,
        strategy="ddp" if size > 1 else "auto",
        callbacks=[ModelCheckpoint(checkpoints, "last", enable_version_counter=False, save_on_train_epoch_end=True)],
        num_sanity_val_steps=0,
        **settings,
    )
    last = checkpoints / "last.ckpt"
    module = Module(options.epochs, options.lr)
    trainer.fit(
        module,
        DataLoader(train_part, batch_size=max(1, options.batch // size), shuffle=True),
        DataLoader(test, batch_size=1000),
        ckpt_path=str(last) if last.is_file() else None,
        weights_only=True,
    )
    if trainer.is_global_zero:
        leave(module.model, {"loss": float(trainer.callback_metrics["loss"])})


if __name__ == "__main__":
    run_main(main)
