"""The exported network, run by OpenVINO on many frames at a time."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from configs.problems import Problem, UserError
from ml.boxes.drawing import Image
from ml.boxes.geometry import Boxes, decode

Precision = Literal["auto", "fp32"]
MODEL_FILE, WEIGHTS_FILE, METADATA_FILE = "model.xml", "model.bin", "metadata.yaml"


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

    def compile(self, shape: tuple[int, int], precision: Precision, throughput: bool = True) -> Any:
        """The network compiled for one input size, as an ``openvino.CompiledModel``.

        It takes bytes of shape (1, height, width, 3), RGB, and gives floats of shape (1, 4 + classes, candidates).

        Args:
            shape: height and width of the input, multiples of ``stride``.
            precision: ``fp32``, or ``auto`` for bfloat16 where the CPU computes in it, at half the cost.
            throughput: run several requests side by side instead of one as fast as possible.

        Raises:
            UserError: OpenVINO cannot read the network.
        """
        import openvino
        from openvino.preprocess import PrePostProcessor

        core = openvino.Core()
        try:
            network = core.read_model(self.folder / MODEL_FILE)
        except RuntimeError:
            remedy = "the file is damaged: export it again: python -m ml.evaluate"
            raise UserError(Problem(str(self.folder / MODEL_FILE), "is no OpenVINO network", remedy)) from None
        network.reshape([1, 3, *shape])
        steps = PrePostProcessor(network)
        steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
        steps.input().preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
        steps.input().model().set_layout(openvino.Layout("NCHW"))
        settings: dict[str, str | bool] = {
            "PERFORMANCE_HINT": "THROUGHPUT" if throughput else "LATENCY",
            # Decoder and encoder share the cores: inference must not be tied to some of them.
            "ENABLE_CPU_PINNING": False,
        }
        if precision == "fp32":
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        return core.compile_model(steps.build(), "CPU", settings)


class Network:
    """Runs an exported model asynchronously; compiled once for each size of input it meets.

    Args:
        model: the exported model.
        confidence: candidates whose best score is not above this are dropped.
        overlap: of two boxes of one class that overlap more than this, the less confident is dropped.
        precision: see :meth:`ExportedModel.compile`.
    """

    def __init__(self, model: ExportedModel, confidence: float, overlap: float, precision: Precision) -> None:
        self.model, self.confidence, self.overlap, self.precision = model, confidence, overlap, precision
        self._queues: dict[tuple[int, int], Any] = {}

    def submit(self, image: Image) -> Future[Boxes]:
        """Start on an RGB image of shape (height, width, 3) in whole strides; waits while all requests are busy.

        The future gives the boxes in pixels of this image.
        """
        import openvino

        shape = (image.shape[0], image.shape[1])
        if shape not in self._queues:
            queue = openvino.AsyncInferQueue(self.model.compile(shape, self.precision))
            queue.set_callback(self._finish)
            self._queues[shape] = queue
        future: Future[Boxes] = Future()
        self._queues[shape].start_async(image[None], future)
        return future

    def close(self) -> None:
        """Wait for what was started."""
        for queue in self._queues.values():
            queue.wait_all()

    def _finish(self, request: Any, future: Future[Boxes]) -> None:
        try:
            raw = np.asarray(request.get_output_tensor(0).data[0])
            future.set_result(decode(raw, self.confidence, self.overlap))
        except Exception as error:  # whoever waits for the boxes is told
            future.set_exception(error)
