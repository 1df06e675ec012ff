"""What the pipeline of videos is made of: colours inside the network's first layer, the plot of counts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openvino
import pytest

from configs.problems import UserError
from ml.boxes.drawing import class_colour
from ml.boxes.geometry import Letterbox
from ml.detection.counts_plot import HEIGHT, LEFT, RIGHT, TOP, WIDTH, draw_counts, ticks
from ml.detection.first_layer import take_bytes
from ml.detection.network import ExportedModel, Network
from ml.detection.pictures import Photo
from ml.detection.pipeline import find_boxes
from ml.detection.yuv import ColourSpace, place_planes, small_rgb

SPACES = (ColourSpace(), ColourSpace(1, 1), ColourSpace(5, 2))


def _layer() -> openvino.Model:
    """A padded convolution of RGB from 0 to 1, as the first of YOLOv5 is."""
    image = openvino.opset13.parameter([1, 3, 8, 12], np.float32)
    weights = np.random.default_rng(0).normal(size=(4, 3, 6, 6)).astype(np.float32)
    layer = openvino.opset13.convolution(image, weights, [2, 2], [2, 2], [2, 2], [1, 1])
    return openvino.Model([layer], [image])


def _run(model: openvino.Model, image: np.ndarray) -> np.ndarray:
    return np.array(openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image[None])[0])


def test_a_first_layer_takes_bytes_of_rgb() -> None:
    image = np.random.default_rng(1).integers(0, 256, (3, 8, 12), dtype=np.uint8)
    model = _layer()
    take_bytes(model, None)
    assert np.allclose(_run(model, image), _run(_layer(), image.astype(np.float32) / 255), atol=1e-4)


@pytest.mark.parametrize("space", SPACES)
def test_a_first_layer_takes_the_colours_of_a_video_up_to_its_borders(space: ColourSpace) -> None:
    image = np.random.default_rng(1).integers(60, 190, (3, 8, 12), dtype=np.uint8)
    to_rgb = space.to_rgb()
    rgb = np.einsum("kc,chw->khw", to_rgb[:, :3], image) + to_rgb[:, 3, None, None]
    model = _layer()
    take_bytes(model, to_rgb)
    assert np.allclose(_run(model, image), _run(_layer(), (rgb / 255).astype(np.float32)), atol=1e-4)


def test_a_network_that_does_not_begin_with_a_convolution_is_refused() -> None:
    image = openvino.opset13.parameter([1, 3, 8, 8], np.float32)
    with pytest.raises(ValueError, match="no convolution"):
        take_bytes(openvino.Model([openvino.opset13.relu(image)], [image]), None)


@pytest.mark.parametrize("space", SPACES)
def test_a_frame_is_placed_as_its_rgb_would_be(space: ColourSpace) -> None:
    random = np.random.default_rng(2)
    planes = tuple(random.integers(60, 190, size, dtype=np.uint8) for size in ((54, 96), (27, 48), (27, 48)))
    fit = Letterbox.fit((54, 96), (32, 32))
    placed = place_planes(planes, space, fit)  # type: ignore[arg-type]  # three of them
    to_rgb = space.to_rgb()
    rgb = np.clip(np.einsum("kc,chw->hwk", to_rgb[:, :3], placed) + to_rgb[:, 3], 0, 255)
    inside = rgb[fit.top : fit.top + fit.scaled[0], fit.left : fit.left + fit.scaled[1]]
    assert np.abs(inside - small_rgb(planes, space, *fit.scaled)).max() <= 1  # type: ignore[arg-type]
    assert np.abs(rgb[: fit.top] - 114).max() <= 2


@pytest.mark.parametrize(
    ("end", "most", "least", "expected"),
    [
        (11.96, 8, 0, [0, 2, 4, 6, 8, 10]),
        (1.0, 6, 1, [0, 1]),
        (0.3, 8, 0, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]),
        (1000, 8, 0, [0, 200, 400, 600, 800, 1000]),
    ],
)
def test_ticks_are_round_numbers(end: float, most: int, least: float, expected: list[float]) -> None:
    assert ticks(end, most, least) == pytest.approx(expected)


def test_a_plot_of_counts_shows_each_class_where_it_is() -> None:
    counts = np.array([[4, 0]] * 50 + [[4, 2]] * 50)
    plot = draw_counts(counts, np.arange(100.0), ("forklift", "person"), "Boxes", "image")
    assert plot.shape == (HEIGHT, WIDTH, 3)
    axes = plot[TOP : HEIGHT - 66, LEFT : WIDTH - RIGHT]
    for index, rows in ((0, {(25, True), (75, True)}), (1, {(25, False), (75, True)})):
        for share, above in rows:
            column = axes[: axes.shape[0] * 3 // 4, axes.shape[1] * share // 100]
            assert (column == class_colour(index)).all(axis=1).any() == above


def test_a_plot_of_one_picture_without_boxes_is_drawn() -> None:
    plot = draw_counts(np.zeros((1, 1), np.int64), np.zeros(1), ("forklift",), "Boxes " * 60, "time (s)")
    assert plot.shape == (HEIGHT, WIDTH, 3)


@pytest.fixture
def exported(tmp_path: Path) -> ExportedModel:
    """A network of one layer that finds nothing."""
    image = openvino.opset13.parameter([-1, 3, -1, -1], np.float32)
    layer = openvino.opset13.convolution(image, np.zeros((5, 3, 32, 32), np.float32), [32, 32], [0, 0], [0, 0], [1, 1])
    boxes = openvino.opset13.reshape(layer, np.array([0, 5, -1]), special_zero=True)
    openvino.save_model(openvino.Model([boxes], [image]), tmp_path / "model.xml", compress_to_fp16=False)
    (tmp_path / "metadata.yaml").write_text("names: [forklift]\nstride: 32\n")
    return ExportedModel.load(tmp_path)


def _photos(count: int, then: Exception | None = None) -> Iterator[Photo]:
    for index in range(count):
        yield Photo(index, f"{index}", np.zeros((64, 64 + 64 * (index == 2), 3), np.uint8))
    if then:
        raise then


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_batches_that_do_not_fill_are_finished(exported: ExportedModel, batch: int, count: int) -> None:
    network = Network(exported, 0.25, 0.7, "fp32", batch)
    found = [(photo.index, len(boxes)) for photo, boxes in find_boxes(_photos(count), network, 64)]
    assert found == [(index, 0) for index in range(count)]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_source_that_breaks_off_within_a_batch_is_told(exported: ExportedModel, count: int) -> None:
    pairs = find_boxes(_photos(count, OSError("torn")), Network(exported, 0.25, 0.7, "fp32", 2), 64)
    assert [photo.index for photo, _ in itertools.islice(pairs, count)] == list(range(count))
    with pytest.raises(OSError, match="torn"):
        next(pairs)


def test_a_network_that_cannot_be_read_is_told_within_a_batch(exported: ExportedModel) -> None:
    (exported.folder / "model.xml").write_text("<net>")
    with pytest.raises(UserError, match="is no OpenVINO network"):
        list(find_boxes(_photos(3), Network(exported, 0.25, 0.7, "fp32", 2), 64))
