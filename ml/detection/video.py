"""Reads and writes videos through FFmpeg's libraries (PyAV), frame by frame, with timestamps kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np

from configs.problems import Problem, UserError
from ml.boxes.drawing import Image
from ml.boxes.geometry import Letterbox
from ml.detection.yuv import ColourSpace, Planes, YuvCanvas, place_planes, small_rgb

# The same on every machine: x264's output depends on the number of its threads.
ENCODER_THREADS = 2
PRESET = "ultrafast"

# H.273's and FFmpeg's numbers.
LIMITED_RANGE = 1
UNKNOWN_MATRIX = 2


@dataclass(frozen=True)
class Frame:
    """One frame of a video, upright.

    Attributes:
        index: from 0.
        ticks: when it is shown, in time bases of its video, from 0 for the first frame.
        duration: in time bases, 0 where the file does not say.
        time_s: the same instant in seconds.
        planes: luma (height, width) and two colours of half that size, rounded up. Read only: later frames may be
            decoded from them.
    """

    index: int
    ticks: int
    duration: int
    time_s: float
    planes: Planes
    space: ColourSpace

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.planes[0].shape
        return height, width

    def small(self, height: int, width: int) -> Image:
        """The frame as an RGB image of shape (height, width, 3)."""
        return small_rgb(self.planes, self.space, height, width)

    def network_input(self, fit: Letterbox) -> tuple[Image, ColourSpace]:
        """The frame where the letterbox puts it, as planes of shape (3, height, width), and what these are."""
        return place_planes(self.planes, self.space, fit), self.space


class VideoReader:
    """Decodes a video; iterate it once.

    Attributes:
        rate: frames a second on average.
        time_base: seconds a tick.
        declared: frames that the file says it holds, 0 where it does not say.
        damaged: packets that could not be decoded, so far.

    Raises:
        UserError: the file is missing or holds no video that can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._container = av.open(str(path))
        except av.FileNotFoundError:
            raise UserError(Problem(str(path), "there is no such file", "give a video or a folder of images")) from None
        except (av.FFmpegError, OSError) as error:
            raise UserError(_unreadable(path, error)) from None
        if not self._container.streams.video:
            self._container.close()
            raise UserError(Problem(str(path), "holds no video", "give a video or a folder of images"))
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or 25)
        self.time_base = Fraction(self._stream.time_base or 1 / self.rate)
        self.declared = int(self._stream.frames)
        self.damaged = 0
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    @property
    def frame_bytes(self) -> int:
        """What a decoded frame takes in memory, as far as the file tells."""
        return int(self._stream.height * self._stream.width) * 3 // 2

    @property
    def expected(self) -> int:
        """Frames to expect, as far as the file tells; 0 where it does not."""
        if self.declared:
            return self.declared
        return round(self._container.duration / av.time_base * self.rate) if self._container.duration else 0

    def __iter__(self) -> Iterator[Frame]:
        """Every frame that decodes, in the order it is shown. What does not decode is counted and left out.

        Raises:
            UserError: not one frame decodes.
        """
        step = max(round(1 / (self.rate * self.time_base)), 1)
        first: int | None = None
        ticks, index = -step, 0
        for frame in self._decoded():
            if frame.pts is not None and first is None:
                first = frame.pts - (ticks + step)
            shown = frame.pts - first if frame.pts is not None and first is not None else ticks + step
            ticks = max(shown, ticks + 1)  # a file with muddled timestamps still gives a video that plays
            duration = int(frame.duration or 0)
            yield Frame(index, ticks, duration, float(ticks * self.time_base), *self._planes(frame))
            index += 1
        if index == 0:
            raise UserError(Problem(str(self.path), "not one frame of it can be decoded", "give a whole video file"))

    def _decoded(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
            except av.InvalidDataError:
                self.damaged += 1
            except (av.FFmpegError, OSError):  # the container itself ends here
                self.damaged += 1
                return
            else:
                yield from frames

    def _planes(self, frame: Any) -> tuple[Planes, ColourSpace]:
        space = ColourSpace(
            int(frame.colorspace), int(frame.color_range), int(frame.color_primaries), int(frame.color_trc)
        )
        self._size = self._size or (frame.height, frame.width)
        rotation = frame.rotation
        if frame.format.name != "yuv420p" or (frame.height, frame.width) != self._size:
            width, height = self._size[1], self._size[0]
            frame = frame.reformat(width, height, "yuv420p", dst_color_range=LIMITED_RANGE)
            space = replace(space, range=LIMITED_RANGE, matrix=space.matrix or UNKNOWN_MATRIX)
        turns = round(rotation / 90) % 4
        planes = tuple(_upright(plane, turns) for plane in frame.planes)
        return (planes[0], planes[1], planes[2]), space


def _upright(plane: Any, quarter_turns: int) -> Image:
    """A view of the decoder's memory, or a copy turned counterclockwise where the camera was held otherwise."""
    view = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
    return np.ascontiguousarray(np.rot90(view, quarter_turns)) if quarter_turns else view


class VideoWriter:
    """Encodes frames as H.264 in an MP4 file that plays while it loads. Leaving its `with` block completes the file.

    Sides are made even by repeating the last row or column: H.264 in the form that every player reads needs that.

    Args:
        path: the file to write.
        size: height and width in pixels.
        rate: frames a second on average.
        time_base: seconds a tick of the frames' timestamps.
        qp: H.264's quantizer of all frames, 0 (lossless) to 51; a rate factor would cost a quarter more.
        space: how the planes stand for colours.
    """

    def __init__(
        self, path: Path, size: tuple[int, int], rate: Fraction, time_base: Fraction, qp: int, space: ColourSpace
    ) -> None:
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        options = {"preset": PRESET, "qp": str(qp), "threads": str(ENCODER_THREADS)}
        self._stream = self._container.add_stream("libx264", rate=rate, options=options)
        self._stream.height, self._stream.width = (side + side % 2 for side in size)
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = time_base
        context = self._stream.codec_context
        context.colorspace, context.color_range = space.matrix, space.range
        context.color_primaries, context.color_trc = space.primaries, space.transfer
        # One frame for all: x264 copies what it is given before `encode` returns.
        self._frame = av.VideoFrame(self._stream.width, self._stream.height, "yuv420p")
        self._frame.time_base = time_base
        luma, blue, red = (_upright(plane, 0) for plane in self._frame.planes)
        self._canvas = YuvCanvas((luma, blue, red), space)

    def canvas(self, frame: Frame) -> YuvCanvas:
        """A copy of the frame to draw on; :meth:`write` takes it as it then is."""
        for target, plane in zip(self._canvas.planes, frame.planes, strict=True):
            height, width = plane.shape
            target[:height, :width] = plane
            target[height:, :width] = plane[-1:]
            target[:, width:] = target[:, width - 1 : width]
        self._frame.pts, self._frame.duration = frame.ticks, frame.duration
        return self._canvas

    def write(self) -> None:
        """Encode the canvas."""
        self._container.mux(self._stream.encode(self._frame))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the file, or after an error let go of it as it is."""
        if error is None:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        else:
            with suppress(av.FFmpegError, OSError):
                self._container.close()


def _unreadable(path: Path, error: Exception) -> Problem:
    if path.is_file() and path.stat().st_size == 0:
        return Problem(str(path), "is empty", "give a whole video file")
    reason = getattr(error, "strerror", None) or str(error)
    return Problem(str(path), f"cannot be read as a video: {reason}", "give a whole video file (mp4, mkv, avi, ...)")
