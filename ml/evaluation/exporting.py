"""The weights as ONNX and as OpenVINO, for any input whose sides are whole strides.

Made with PyTorch's and OpenVINO's own converters: the one in Ultralytics installs packages when it misses some.
The same weights give the same bytes.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import yaml

from ml.detection.network import METADATA_FILE, MODEL_FILE

OPSET = 17
INPUT, OUTPUT = "images", "boxes"


def export_onnx(model: Any, path: Path) -> None:
    """Write the detector as ONNX: ``images`` (batch, 3, height, width), RGB from 0 to 1, to ``boxes``
    (batch, 4 + classes, candidates), centre and size in pixels, then scores."""
    import torch

    head = model.model[-1]
    before = head.export, head.dynamic, head.format
    # Of unequal sides, so that a converter that mixed them up could not stay unnoticed.
    example = torch.zeros(1, 3, 8 * int(max(model.stride)), 6 * int(max(model.stride)))
    head.export, head.dynamic, head.format = True, True, "onnx"
    try:
        with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
            # The newer exporter needs onnxscript and writes paths of this machine into the file.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (example,),
                str(path),
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch", 2: "height", 3: "width"}, OUTPUT: {0: "batch", 2: "candidates"}},
                dynamo=False,
            )
    finally:
        head.export, head.dynamic, head.format = before


def export_openvino(onnx: Path, folder: Path, names: tuple[str, ...], imgsz: int, stride: int) -> None:
    """Write the ONNX file as an OpenVINO network with what one must know to run it.

    Weights stay float32: halved to 16 bits they save 5 MB of a YOLOv5n and no time, and boxes would move.

    Args:
        onnx: as :func:`export_onnx` writes it.
        folder: made; gets ``model.xml``, ``model.bin`` and ``metadata.yaml``.
        names: the classes.
        imgsz: longer side of the images that the model was judged on, pixels.
        stride: of the network, pixels.
    """
    import openvino

    network = openvino.convert_model(onnx)
    # Converters number what has no name through the life of the process; the place in the graph is the same always.
    for place, node in enumerate(network.get_ordered_ops()):
        if node.get_type_name() not in {"Parameter", "Result"}:
            node.set_friendly_name(f"{node.get_type_name()}_{place}")
    folder.mkdir(parents=True, exist_ok=True)
    openvino.save_model(network, folder / MODEL_FILE, compress_to_fp16=False)
    metadata = {"names": list(names), "imgsz": imgsz, "stride": stride, "input": "RGB, 0 to 1, sides in whole strides"}
    (folder / METADATA_FILE).write_text(yaml.safe_dump(metadata, sort_keys=False), encoding="utf-8")
