"""The autoencoder as Lightning's own first example has it, which the thesis took over: the peer of ``ddp_autoencoder``.

One image a step, images read one by one, Lightning's defaults otherwise. Stops when it has seen ``--steps`` images or
the mean of the last thousand losses is below ``--until``.
"""

from __future__ import annotations

import argparse
import collections
import json
import time
from pathlib import Path

import lightning
import torch
from torch import nn

from ml.ddp.idx import read_images


class Images(torch.utils.data.Dataset):
    """Images one by one, as torchvision's ``ToTensor`` gives them: (1, 28, 28), 0 to 1."""

    def __init__(self, folder: Path) -> None:
        self.images = read_images(folder, "train")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.images[index].copy()).unsqueeze(0).float().div(255)


class LitAutoEncoder(lightning.LightningModule):
    """784, 64, 3, 64, 784; mean square error; Adam with 0.001."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 784))
        self.recent: collections.deque[float] = collections.deque(maxlen=1000)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        pixels = batch.view(batch.size(0), -1)
        loss = nn.functional.mse_loss(self.decoder(self.encoder(pixels)), pixels)
        self.recent.append(float(loss))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Judge(lightning.Callback):
    """Judges on the test split every so many steps, outside of the time that counts, and stops at the wanted loss."""

    def __init__(self, folder: Path, until: float, every: int, limit_s: float) -> None:
        self.test = torch.from_numpy(read_images(folder, "t10k").copy()).flatten(1).float() / 255
        self.until, self.every, self.limit_s = until, every, limit_s
        self.began = self.aside = 0.0
        self.loss = float("inf")

    def on_train_start(self, trainer: lightning.Trainer, module: LitAutoEncoder) -> None:
        self.began = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self.began - self.aside

    def on_train_batch_end(self, trainer: lightning.Trainer, module: LitAutoEncoder, *_: object) -> None:
        if trainer.global_step % self.every:
            return
        started = time.monotonic()
        with torch.no_grad():
            self.loss = float(nn.functional.mse_loss(module.decoder(module.encoder(self.test)), self.test))
        self.aside += time.monotonic() - started
        trainer.should_stop = self.loss <= self.until or self.seconds() > self.limit_s


def main() -> None:
    """Train and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--until", type=float, required=True, help="loss on the test split")
    parser.add_argument("--every", type=int, default=1000, help="steps between two looks at it")
    parser.add_argument("--limit-s", type=float, default=600.0, help="seconds after which it gives up")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    lightning.seed_everything(options.seed, verbose=False)
    judge = Judge(options.data, options.until, options.every, options.limit_s)
    trainer = lightning.Trainer(
        max_epochs=100, accelerator="cpu", devices=1, callbacks=[judge], logger=False, enable_checkpointing=False
    )
    trainer.fit(LitAutoEncoder(), torch.utils.data.DataLoader(Images(options.data), shuffle=True))
    print(json.dumps({"steps": trainer.global_step, "loss": judge.loss, "seconds": judge.seconds()}))


if __name__ == "__main__":
    main()
