"""The training loop: Ultralytics' model, augmentation, loss and optimizer, driven so that it can stop and resume.

Every epoch starts from random states made of the seed and the epoch's number, and no gradient is carried over, so
that a checkpoint after a whole epoch holds all there is to go on from.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
import torch
from ultralytics.data import build_dataloader
from ultralytics.models.yolo.detect import DetectionTrainer

from configs.problems import Problem, UserError
from configs.recipe import Recipe, TrainSection
from ml.yolov5.checkpoints import State
from ml.yolov5.dataset import Split
from ml.yolov5.settings import Settings
from ml.yolov5.startup import leave_compiler_out, seed_everything, seeded_by, step_plainly
from ml.yolov5.validator import EpochValidator, as_fp32

Row = dict[str, float]

_MODELS = "use yolov5n.yaml (or s, m, l, x), a model yaml like it, or weights trained with Ultralytics"
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Watcher:
    """Who is told how the training goes on. ``epoch`` may raise to stop it after a whole epoch.

    Attributes:
        batch: called after each batch with epoch (from 0), batch (from 1), batches, and the running losses.
        epoch: called after each epoch, checkpointed state included.
    """

    batch: Callable[[int, int, int, Mapping[str, SupportsFloat]], None]
    epoch: Callable[[Row, Callable[[], State]], None]


@dataclass
class Best:
    """The averaged weights of the best epoch so far, in half precision as they are published."""

    epoch: int = 0
    metrics: Row = field(default_factory=dict)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def fitness(self) -> float:
        """What epochs are compared by, the same as in Ultralytics."""
        return self.metrics.get("mAP50-95", -1.0)


# "Trainer" in the class's name would make Ultralytics load its platform's callbacks.
class Yolov5Training(DetectionTrainer):  # type: ignore[misc]
    """Trains one detector.

    Args:
        recipe: classes, data folder and the train section.
        model: model yaml or weights file, as resolved.
        settings: device, precision, threads and workers.
        scratch: existing folder for Ultralytics' own files and for decoded images; removed by the caller.
        watcher: who is told after each batch and epoch.
        resume: state of an earlier run with the same inputs, as given to ``watcher.epoch``.
    """

    def __init__(
        self, recipe: Recipe, model: str, settings: Settings, scratch: Path, watcher: Watcher, resume: State | None
    ) -> None:
        self.recipe, self.settings, self.scratch = recipe, settings, scratch
        self.watcher, self.from_state = watcher, resume
        self.history: list[Row] = []
        self.best_so_far = Best()
        self.mosaic_closed = recipe.train.close_mosaic == 0
        with seeded_by(seed_everything):
            super().__init__(overrides=arguments(recipe.train, model, settings, scratch))
        # Ultralytics has just set one thread less than there are cores.
        torch.set_num_threads(settings.threads)

    def prepare(self) -> None:
        """Build model, loaders and optimizer, and restore ``resume``.

        Raises:
            UserError: no image can be used, or the model is no YOLOv5.
        """
        self._setup_train()
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.settings.precision == "fp16")
        if self.from_state is not None:
            self._restore(self.from_state)
            self.scheduler.last_epoch = self.start_epoch - 1

    def dropped(self) -> dict[str, str]:
        """Images that are not used, and why."""
        return {**self.train_loader.dataset.dropped, **self.test_loader.dataset.dropped}

    def train(self) -> None:
        """Train from the first epoch, or the one after ``resume``, to the last.

        Raises:
            UserError: a loss is not finite any more.
        """
        try:
            for epoch in range(self.start_epoch, self.epochs):
                if self._no_better_for_long():
                    break
                self._whole_epoch(epoch)
        finally:
            for loader in (self.train_loader, self.test_loader):
                loader.close()

    def get_dataset(self) -> dict[str, Any]:
        """The dataset as Ultralytics describes it; nothing is looked up, downloaded or written."""
        root = self.recipe.data.path.absolute()
        names = dict(enumerate(self.recipe.data.classes))
        folders = {split: str(root / "images" / split) for split in ("train", "val")}
        return {"path": root, **folders, "names": names, "nc": len(names), "channels": 3}

    def setup_model(self) -> Any:
        """Build the model, channels last: the layout in which convolutions need no reordering."""
        try:
            checkpoint = super().setup_model()
        except (MemoryError, OSError):
            raise
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(Problem("train.model", f"{self.args.model} cannot be loaded: {reason}", _MODELS)) from None
        if getattr(self.model.model[-1], "one2one_cv2", None) is not None:
            raise UserError(Problem("train.model", f"{self.args.model} is no YOLOv5 model", _MODELS))
        if self.settings.device != "mps":
            self.model.to(memory_format=torch.channels_last)
        return checkpoint

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Loader of one split, with images kept as the recipe says."""
        training = mode == "train"
        split = Split(
            self.recipe.data.path.absolute(),
            mode,
            self.scratch,
            imgsz=self.args.imgsz,
            batch_size=batch_size,
            augment=training,
            hyp=self.args,
            rect=not training,
            cache=self.args.cache or None,
            stride=int(self.model.stride.max()),
            pad=0.0,
            task="detect",
            data=self.data,
        )
        if not len(split):
            reasons = (f"{Path(name).name}: {reason}" for name, reason in list(split.dropped.items())[:3])
            raise UserError(Problem(str(split.images), f"no image can be used ({'; '.join(reasons)})", "mend them"))
        workers = self.settings.workers if training else self.settings.workers // 2
        return build_dataloader(split, batch_size, workers, shuffle=training, rank=-1, device=self.device)

    def get_validator(self) -> EpochValidator:
        """The validator of every epoch."""
        return EpochValidator(self.test_loader, self.data["names"])

    def build_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """The optimizer with one fused kernel for all weights, on a CPU too."""
        leave_compiler_out()
        optimizer: torch.optim.Optimizer = super().build_optimizer(*args, **kwargs)
        if self.device.type == "cpu" and type(optimizer).__module__.startswith("torch.optim"):
            for group in optimizer.param_groups:
                group.update(fused=True, foreach=False)
        step_plainly(optimizer)
        return optimizer

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of the network's forward and backward pass."""
        dtype = _DTYPES.get(self.settings.precision)
        return torch.autocast(self.device.type, dtype=dtype) if dtype else nullcontext()

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Batch on the device, images as fp32 in 0..1, shape (batch, 3, height, width), channels last."""
        batch = super().preprocess_batch(batch)
        if self.settings.device != "mps":
            batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        return batch

    def _whole_epoch(self, epoch: int) -> None:
        started = time.monotonic()
        self.epoch = epoch
        self._begin_epoch(epoch)
        losses = self._train_epoch(epoch)
        rate = float(self.optimizer.param_groups[0]["lr"])
        metrics: Row = {}
        if epoch + 1 == self.epochs or (epoch + 1) % self.recipe.train.validate_every == 0:
            metrics = self.validator(self)
            self._keep_if_best(epoch, metrics)
        seconds = time.monotonic() - started
        self.history.append({"epoch": epoch + 1, **losses, **metrics, "lr": rate, "seconds": seconds})
        self.watcher.epoch(self.history[-1], self._state)

    def _no_better_for_long(self) -> bool:
        judged = bool(self.history) and "mAP50" in self.history[-1]
        return judged and 0 < self.recipe.train.patience <= len(self.history) - self.best_so_far.epoch

    def _begin_epoch(self, epoch: int) -> None:
        seed = int(np.random.SeedSequence([self.args.seed, epoch]).generate_state(1)[0])
        seed_everything(seed, self.args.deterministic)
        if not self.mosaic_closed and epoch >= self.epochs - self.args.close_mosaic:
            self.mosaic_closed = True
            self._close_dataloader_mosaic()
            self.train_loader.reset()
        if self.train_loader.num_workers == 0:
            self.train_loader.generator.manual_seed(seed)
            self.train_loader.reset()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch expects the step at an epoch's end, Ultralytics at its start
            self.scheduler.step()
        self._model_train()

    def _train_epoch(self, epoch: int) -> Row:
        """One pass over the train split; the mean losses by name."""
        batches = len(self.train_loader)
        warmup = self._get_warmup_iterations(batches)
        nominal = self.accumulate
        sums: dict[str, torch.Tensor] = {}
        waiting = 0
        for index, batch in enumerate(self.train_loader):
            accumulate = self._warm_up(epoch * batches + index, warmup, nominal, epoch)
            batch = self.preprocess_batch(batch)
            with self.autocast():
                raw = self.model(batch["img"])
            loss, items = self.model.loss(batch, as_fp32(raw))
            self.scaler.scale(loss.sum()).backward()
            waiting += 1
            if waiting >= accumulate or index + 1 == batches:
                self.optimizer_step()
                waiting = 0
            sums = {name: sums[name] + value if sums else value for name, value in items.items()}
            self.watcher.batch(epoch, index + 1, batches, sums)
        means = {name: float(value) / batches for name, value in sums.items()}
        if not all(np.isfinite(value) for value in means.values()):
            raise UserError(_diverged(epoch, means, self.recipe.train))
        return means

    def _warm_up(self, step: int, warmup: int, nominal: int, epoch: int) -> int:
        """Set the rates of the first steps, as Ultralytics does; returns the batches to a weight update."""
        if not warmup or step > warmup:
            return nominal
        ramp = [0, warmup]
        for group in self.optimizer.param_groups:
            first = self.args.warmup_bias_lr if group.get("param_group") == "bias" else 0.0
            group["lr"] = float(np.interp(step, ramp, [first, group["initial_lr"] * self.lf(epoch)]))
            if "momentum" in group:
                group["momentum"] = float(np.interp(step, ramp, [self.args.warmup_momentum, self.args.momentum]))
        return max(1, round(float(np.interp(step, ramp, [1, nominal]))))

    def _keep_if_best(self, epoch: int, metrics: Row) -> None:
        if metrics["mAP50-95"] >= self.best_so_far.fitness:
            weights = self.ema.ema.state_dict()
            halved = {name: x.half() if x.is_floating_point() else x.clone() for name, x in weights.items()}
            self.best_so_far = Best(epoch + 1, metrics, halved)

    def _state(self) -> State:
        """All that the next epoch depends on besides the inputs."""
        return {
            "epochs": self.epoch + 1,
            "settings": asdict(self.settings),
            "architecture": self.model.yaml,
            "model": self.model.state_dict(),
            "ema": self.ema.ema.state_dict(),
            "updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best": asdict(self.best_so_far),
            "history": self.history,
            "images": len(self.train_loader.dataset),
            "mosaic": list(self.train_loader.dataset.buffer),
        }

    def _restore(self, state: State) -> None:
        self.start_epoch = state["epochs"]
        self.model.load_state_dict(state["model"])
        self.ema.ema.load_state_dict(state["ema"])
        self.ema.updates = state["updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.best_so_far = Best(**state["best"])
        self.history = state["history"]
        # The images that mosaics are drawn from when there is no cache; loading one puts it there.
        for index in state["mosaic"]:
            self.train_loader.dataset.load_image(index)


def arguments(train: TrainSection, model: str, settings: Settings, scratch: Path) -> dict[str, Any]:
    """The recipe as Ultralytics' arguments; what it would do beyond training is off."""
    names = (
        "epochs imgsz batch optimizer lr0 lrf momentum weight_decay warmup_epochs cos_lr mosaic close_mosaic scale "
        "translate fliplr hsv_h hsv_s hsv_v patience seed"
    )
    return {
        **{name: getattr(train, name) for name in names.split()},
        "task": "detect",
        "mode": "train",
        "model": model,
        "nbs": train.nominal_batch,
        "device": settings.device.removeprefix("cuda:"),
        "workers": settings.workers,
        "cache": False if train.cache == "none" else train.cache,
        "deterministic": settings.device == "cpu",
        "project": str(scratch),
        "name": "ultralytics",
        "exist_ok": True,
        "amp": False,
        "save": False,
        "plots": False,
        "verbose": False,
    }


def _diverged(epoch: int, means: Row, train: TrainSection) -> Problem:
    losses = ", ".join(f"{name} {value}" for name, value in means.items())
    return Problem(
        "train.lr0",
        f"the training diverged in epoch {epoch + 1}: {losses}",
        f"lower it (now {train.lr0}), lengthen train.warmup_epochs, or set train.precision to fp32",
    )
