"""The exported model on videos and on folders of images: annotated copies, tables, counts, a summary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

from configs.problems import Problem, UserError
from configs.recipe import DetectSection
from ml.boxes.drawing import RgbCanvas, draw_boxes
from ml.boxes.geometry import Boxes, network_shape
from ml.boxes.images import IMAGE_SUFFIXES
from ml.boxes.sheet import save_jpeg
from ml.detection.accuracy import Accuracy, read_truth
from ml.detection.network import ExportedModel, Network
from ml.detection.pictures import PhotoFolder, Previews, plot_counts
from ml.detection.pipeline import find_boxes
from ml.detection.staging import staged
from ml.detection.tables import Tables
from ml.detection.video import VideoReader, VideoWriter
from ml.events import Events
from ml.progress import Progress

ANNOTATED, PREVIEW, COUNTS_PLOT, SUMMARY = "annotated.mp4", "preview.jpg", "counts.png", "summary.json"
VIDEO_BATCH = 4  # frames a request: a tenth cheaper than one by one
# Between decoder and encoder: enough for every core to find work, as far as memory goes.
VIDEO_AHEAD, VIDEO_AHEAD_BYTES = 64, 192 << 20


@dataclass(frozen=True)
class SourceSummary:
    """What was found in one source.

    Attributes:
        source: the video or folder, as it was named.
        kind: ``video`` or ``images``.
        folder: where its results lie.
        frames: pictures that were read, and that the results hold.
        declared_frames: frames that the video says it holds or images in the folder; None where a video does not say.
        unreadable: damaged packets of a video, or images that cannot be read.
        size: height and width of the first picture, pixels.
        fps: frames a second of the video, None for images.
        boxes: how many of each class.
        frames_with_boxes: pictures with at least one box.
        network_input: height and width that the network saw of the first picture, pixels.
        accuracy: precision and recall against ``<video>.jsonl``, None where there is no such file.
    """

    source: str
    kind: str
    folder: str
    frames: int
    declared_frames: int | None
    unreadable: int
    size: tuple[int, int]
    fps: float | None
    boxes: dict[str, int]
    frames_with_boxes: int
    network_input: tuple[int, int]
    accuracy: dict[str, object] | None


@dataclass(frozen=True)
class Summary:
    """What :func:`detect` found, the model it used and how."""

    sources: tuple[SourceSummary, ...]
    classes: tuple[str, ...]
    imgsz: int
    confidence: float
    overlap: float


def detect(
    sources: Sequence[Path], model: Path, out: Path, settings: DetectSection, events: Events | None = None
) -> Summary:
    """Find boxes in every source and write what was found.

    The results of one source lie in ``out`` itself, those of several in a folder each: ``annotated.mp4`` (or
    ``images/``), ``detections.jsonl`` and ``.csv``, ``counts.csv`` and ``.png``, ``preview.jpg``; the summary of all
    in ``out/summary.json``. A damaged video is processed as far as it decodes, and the summary says so.

    Args:
        sources: videos and folders of images.
        model: folder with the exported model; OpenVINO only, no weights file.
        out: made if need be; files appear there when they are complete.
        settings: resolution, thresholds, video quality; its ``source`` is not looked at.
        events: told the progress.

    Raises:
        UserError: a source or the model is missing or unreadable; before anything is written where that can be seen
            beforehand.
    """
    events = events or Events("detect")
    exported = ExportedModel.load(model)
    folders = _folders(sources, out)
    truths = _check(sources, exported)
    with staged(out) as staging:
        found = []
        for source, folder in zip(sources, folders, strict=True):
            target = staging / folder.relative_to(out)
            target.mkdir(exist_ok=True)
            run = _Run(source, target, folder, exported, settings, events)
            found.append(run.images() if source.is_dir() else run.video(truths.get(source)))
            for line in _remarks(found[-1]):
                print(line)
                events.note(line)
        result = Summary(tuple(found), exported.names, settings.imgsz, settings.conf, settings.iou)
        (staging / SUMMARY).write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    return result


class _Run:
    """One source on its way through the pipeline; results are written to ``target``, and will lie in ``folder``."""

    def __init__(
        self, source: Path, target: Path, folder: Path, model: ExportedModel, settings: DetectSection, events: Events
    ) -> None:
        self.source, self.target, self.folder = source, target, folder
        self.model, self.settings, self.events = model, settings, events
        self.previews = Previews(model.names)

    def video(self, truth: dict[int, Boxes] | None) -> SourceSummary:
        accuracy = Accuracy(truth, self.model.names) if truth is not None else None
        with VideoReader(self.source) as reader, Tables(self.target, self.model.names, "time_s") as tables:
            progress = Progress(self.events, "frames", reader.expected, self.source.name)
            size = self._annotate(reader, tables, accuracy, progress)
            progress.finish()
            return self._summary(
                tables,
                size,
                kind="video",
                declared_frames=reader.declared or None,
                unreadable=reader.damaged,
                fps=round(float(reader.rate), 4),
                accuracy=accuracy.summary() if accuracy else None,
            )

    def _annotate(
        self, reader: VideoReader, tables: Tables, accuracy: Accuracy | None, progress: Progress
    ) -> tuple[int, int]:
        """Detect, draw and encode; return the frames' height and width."""
        network = self._network(VIDEO_BATCH)
        ahead = min(max(VIDEO_AHEAD_BYTES // max(reader.frame_bytes, 1), 4 * VIDEO_BATCH), VIDEO_AHEAD)
        with ExitStack() as stack:
            pairs = stack.enter_context(closing(find_boxes(reader, network, self.settings.imgsz, ahead)))
            writer: VideoWriter | None = None
            for frame, boxes in pairs:
                if writer is None:
                    path, size = self.target / ANNOTATED, frame.size
                    writer = VideoWriter(path, size, reader.rate, reader.time_base, self.settings.qp, frame.space)
                    stack.enter_context(writer)
                draw_boxes(writer.canvas(frame), boxes, self.model.names)
                writer.write()
                tables.add(frame.index, frame.time_s, boxes)
                self.previews.offer(frame, boxes, f"{frame.time_s:.1f} s, frame {frame.index}")
                if accuracy:
                    accuracy.add(frame.index, boxes)
                progress.advance()
        return size

    def images(self) -> SourceSummary:
        photos = PhotoFolder(self.source)
        (self.target / "images").mkdir()
        size = (0, 0)
        progress = Progress(self.events, "images", len(photos.paths), self.source.name)
        with (
            Tables(self.target, self.model.names, "image") as tables,
            closing(find_boxes(photos, self._network(), self.settings.imgsz)) as pairs,
        ):
            for photo, boxes in pairs:
                size = size if photo.index else photo.size
                tables.add(photo.index, photo.name, boxes)
                self.previews.offer(photo, boxes, photo.name)
                draw_boxes(RgbCanvas(photo.image), boxes, self.model.names)
                save_jpeg(photo.image, self.target / "images" / f"{photo.name}.jpg")
                progress.advance()
            progress.finish()
            if not tables.keys:
                raise UserError(Problem(str(self.source), "not one image in it can be read", "give whole image files"))
            return self._summary(
                tables, size, kind="images", declared_frames=len(photos.paths), unreadable=len(photos.unreadable)
            )

    def _network(self, batch: int = 1) -> Network:
        return Network(self.model, self.settings.conf, self.settings.iou, self.settings.precision, batch)

    def _summary(
        self,
        tables: Tables,
        size: tuple[int, int],
        *,
        kind: str,
        declared_frames: int | None,
        unreadable: int,
        fps: float | None = None,
        accuracy: dict[str, object] | None = None,
    ) -> SourceSummary:
        counts = tables.counts
        save_jpeg(self.previews.sheet(self.source.name), self.target / PREVIEW)
        plot_counts(tables, self.target / COUNTS_PLOT, f"Boxes found in {self.source.name}")
        return SourceSummary(
            source=self.source.as_posix(),
            kind=kind,
            folder=self.folder.as_posix(),
            frames=len(counts),
            declared_frames=declared_frames,
            unreadable=unreadable,
            size=size,
            fps=fps,
            boxes=dict(zip(self.model.names, counts.sum(axis=0).tolist(), strict=True)),
            frames_with_boxes=int((counts.sum(axis=1) > 0).sum()),
            network_input=network_shape(size, self.settings.imgsz, self.model.stride),
            accuracy=accuracy,
        )


def _folders(sources: Sequence[Path], out: Path) -> list[Path]:
    """Where the results of each source go: ``out`` for one, else a folder each, numbered where names repeat."""
    if len(sources) == 1:
        return [out]
    folders: list[Path] = []
    for source in sources:
        name, number = source.stem, 1
        while out / name in folders:
            number += 1
            name = f"{source.stem}-{number}"
        folders.append(out / name)
    return folders


def _check(sources: Sequence[Path], model: ExportedModel) -> dict[Path, dict[int, Boxes]]:
    """Look at every source before any is worked on; return the ground truth of those that have it."""
    problems: list[Problem] = []
    truths: dict[Path, dict[int, Boxes]] = {}
    if not sources:
        problems.append(Problem("SOURCE", "no source is named", "name a video or a folder of images"))
    for source in sources:
        truth = source.with_suffix(".jsonl")
        try:
            if source.is_dir():
                if not PhotoFolder(source).paths:
                    remedy = f"it must hold files ending in {', '.join(sorted(IMAGE_SUFFIXES))}"
                    problems.append(Problem(str(source), "this folder holds no images", remedy))
                continue
            with VideoReader(source):
                pass
            if truth.is_file():
                truths[source] = read_truth(truth, len(model.names))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return truths


def _remarks(summary: SourceSummary) -> list[str]:
    """What a person should know of a source that was not whole."""
    if summary.kind == "images" and summary.unreadable:
        return [f"{summary.source}: {summary.unreadable} of {summary.declared_frames} images cannot be read"]
    if summary.kind == "video" and (summary.unreadable or summary.frames < (summary.declared_frames or 0)):
        of = f" of {summary.declared_frames}" if summary.declared_frames else ""
        return [f"{summary.source}: damaged; {summary.frames}{of} frames could be decoded, the results hold these"]
    return []
