"""The exported network, run by OpenVINO on many frames at a time."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from configs.problems import Problem, UserError
from ml.boxes.drawing import Image
from ml.boxes.geometry import Boxes, decode
from ml.detection.first_layer import take_bytes
from ml.detection.yuv import ColourSpace

Precision = Literal["auto", "fp32"]
MODEL_FILE, WEIGHTS_FILE, METADATA_FILE = "model.xml", "model.bin", "metadata.yaml"
REQUESTS = 3  # for each that runs
_Kind = tuple[tuple[int, int], ColourSpace | None]


@dataclass(frozen=True)
class ExportedModel:
    """A folder with an OpenVINO network and what one must know to run it.

    Attributes:
        folder: holds ``model.xml``, ``model.bin`` and ``metadata.yaml``.
        names: the classes in the order of the network's scores.
        stride: sides of the network's input are multiples of this, pixels.
    """

    folder: Path
    names: tuple[str, ...]
    stride: int

    @classmethod
    def load(cls, folder: Path) -> ExportedModel:
        """Read the metadata.

        Raises:
            UserError: ``folder`` is no folder of an exported model, or files are missing or broken in it.
        """
        if folder.suffix == ".pt" or not folder.is_dir():
            what = "is a weights file" if folder.is_file() else "is no folder"
            remedy = f"give the OpenVINO folder that `python -m ml.evaluate` exports ({MODEL_FILE}, {METADATA_FILE})"
            raise UserError(Problem(str(folder), what, remedy))
        missing = [name for name in (MODEL_FILE, WEIGHTS_FILE, METADATA_FILE) if not (folder / name).is_file()]
        if missing:
            remedy = "export it again: python -m ml.evaluate"
            raise UserError(Problem(str(folder / name), "there is no such file", remedy) for name in missing)
        try:
            values = yaml.safe_load((folder / METADATA_FILE).read_text(encoding="utf-8"))
            return cls(folder, tuple(str(name) for name in values["names"]), int(values["stride"]))
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError):
            remedy = "it must hold `names` (a list) and `stride`; export it again: python -m ml.evaluate"
            raise UserError(Problem(str(folder / METADATA_FILE), "is no metadata of a model", remedy)) from None

    def compile(
        self,
        shape: tuple[int, int],
        precision: Precision,
        *,
        space: ColourSpace | None = None,
        batch: int = 1,
        throughput: bool = True,
    ) -> Any:
        """The network compiled for one input size, as an ``openvino.CompiledModel``.

        It takes bytes of shape (batch, 3, height, width) and gives floats of shape (batch, 4 + classes, candidates).

        Args:
            shape: height and width of the input, multiples of ``stride``.
            precision: ``fp32``, or ``auto`` for bfloat16 where the CPU computes in it, at half the cost.
            space: what the three planes are; RGB where None.
            batch: images a request.
            throughput: run several requests side by side instead of one as fast as possible.

        Raises:
            UserError: OpenVINO cannot read the network, or it is no YOLOv5 network.
        """
        import openvino

        core = openvino.Core()
        try:
            network = core.read_model(self.folder / MODEL_FILE)
            network.reshape([batch, 3, *shape])
            take_bytes(network, space.to_rgb() if space else None)
        except (RuntimeError, ValueError):
            remedy = "the file is damaged: export it again: python -m ml.evaluate"
            raise UserError(Problem(str(self.folder / MODEL_FILE), "is no OpenVINO network of ours", remedy)) from None
        settings: dict[str, str | bool] = {
            "PERFORMANCE_HINT": "THROUGHPUT" if throughput else "LATENCY",
            # Decoder and encoder share the cores: inference must not be tied to some of them.
            "ENABLE_CPU_PINNING": False,
        }
        if precision == "fp32":
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        return core.compile_model(network, "CPU", settings)


class Network:
    """Runs an exported model asynchronously; compiled once for each kind of input it meets.

    Args:
        model: the exported model.
        confidence: candidates whose best score is not above this are dropped.
        overlap: of two boxes of one class that overlap more than this, the less confident is dropped.
        precision: see :meth:`ExportedModel.compile`.
        batch: images a request; more than one is for images that are all alike, as the frames of a video are.
    """

    def __init__(
        self, model: ExportedModel, confidence: float, overlap: float, precision: Precision, batch: int = 1
    ) -> None:
        self.model, self.confidence, self.overlap, self.precision = model, confidence, overlap, precision
        self.batch = batch
        self._queues: dict[_Kind, Any] = {}
        # Compiling takes as long as decoding the first 30 frames: whoever submits does not wait for it.
        self._starter = ThreadPoolExecutor(1, "start")
        self._kind: _Kind | None = None
        self._waiting: list[tuple[Image, Future[Boxes]]] = []

    def submit(self, planes: Image, space: ColourSpace | None = None) -> Future[Boxes]:
        """Start on an image of shape (3, height, width) in whole strides as soon as a request is free.

        The last images of a batch that does not fill wait for :meth:`flush`.

        Args:
            planes: red, green and blue, or what ``space`` says.

        Returns:
            The boxes in pixels of this image.
        """
        kind = ((planes.shape[1], planes.shape[2]), space)
        if kind != self._kind:
            self.flush()
            self._kind = kind
        future: Future[Boxes] = Future()
        self._waiting.append((planes, future))
        if len(self._waiting) == self.batch:
            self.flush()
        return future

    def flush(self) -> None:
        """Start on what was submitted and not yet started on."""
        if not self._waiting or self._kind is None:
            return
        images, futures = zip(*self._waiting, strict=True)
        self._waiting = []
        batch = np.empty((self.batch, *images[0].shape), np.uint8)
        np.stack(images, out=batch[: len(images)])
        batch[len(images) :] = images[-1]
        self._starter.submit(self._start, self._kind, batch, futures)

    def close(self) -> None:
        """Wait for what was started; what was not is given up."""
        self._starter.shutdown(cancel_futures=True)
        for queue in self._queues.values():
            queue.wait_all()

    def _start(self, kind: _Kind, batch: Image, futures: tuple[Future[Boxes], ...]) -> None:
        try:
            self._queue(kind).start_async(batch, futures)
        except BaseException as error:  # whoever waits for the boxes is told
            for future in futures:
                future.set_exception(error)

    def _queue(self, kind: _Kind) -> Any:
        import openvino

        if kind not in self._queues:
            shape, space = kind
            compiled = self.model.compile(shape, self.precision, space=space, batch=self.batch)
            # Some requests wait for every one that runs: a core that has done with one finds the next at once.
            requests = REQUESTS * int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
            self._queues[kind] = openvino.AsyncInferQueue(compiled, requests)
            self._queues[kind].set_callback(self._finish)
        return self._queues[kind]

    def _finish(self, request: Any, futures: tuple[Future[Boxes], ...]) -> None:
        try:
            raw = np.asarray(request.get_output_tensor(0).data)
            found = [decode(raw[index], self.confidence, self.overlap) for index in range(len(futures))]
        except Exception as error:  # whoever waits for the boxes is told
            for future in futures:
                future.set_exception(error)
        else:
            for future, boxes in zip(futures, found, strict=True):
                future.set_result(boxes)
