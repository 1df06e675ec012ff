"""Teaches a network to take bytes, and colours as a video has them, without a step of its own before it.

A convolution is linear: what would scale its input and turn YUV into RGB goes into its weights instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def take_bytes(network: Any, to_rgb: npt.NDArray[np.float64] | None) -> None:
    """Change an ``openvino.Model`` of RGB from 0 to 1 to take bytes; ``to_rgb`` (3, 4) leads from their colours to RGB.

    The network still pads with black at the borders: zero minus what is subtracted from every byte, black itself.

    Raises:
        ValueError: its first layer is no convolution of three channels.
    """
    import openvino
    from openvino.preprocess import PrePostProcessor

    matrix = np.eye(3, 4) if to_rgb is None else to_rgb
    black = np.linalg.solve(matrix[:, :3], -matrix[:, 3])
    readers = list(network.input().get_target_inputs())
    layer = readers[0].get_node()
    if len(readers) != 1 or layer.get_type_name() != "Convolution" or layer.input_value(1).get_shape()[1] != 3:
        raise ValueError("the first layer is no convolution of three channels")
    weights = layer.input_value(1).get_node()
    if weights.get_type_name() != "Constant":
        raise ValueError("the first layer's weights are no constant")
    folded = np.einsum("okhw,kc->ochw", weights.get_data().astype(np.float64), matrix[:, :3] / 255)
    layer.input(1).replace_source_output(openvino.op.Constant(folded.astype(np.float32)).output(0))
    steps = PrePostProcessor(network)
    steps.input().tensor().set_element_type(openvino.Type.u8)
    steps.input().preprocess().convert_element_type(openvino.Type.f32).mean([float(value) for value in black])
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.build()
