"""Every frame of a video, or a sample of them, in one pass from the start."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
from collections.abc import Collection, Generator, Mapping

import av
import numpy as np

from carjax.closing import Closing
from carjax.errors import CarjaxError
from carjax.video.container import (
    IndexCount,
    Losses,
    Path,
    decoded,
    index_count,
    opened,
    packet_count,
    pixel_aspect,
    stated_duration,
    stated_rate,
)
from carjax.video.picture import Renderer
from carjax.video.timing import Clock, Fps, parse_fps, sampler

# Frames are shrunk to this before scoring: enough for a crop of a third of the picture to fill
# the backbone's input. Photos are cut from the full-resolution frames.
SCORED_SIDE = 640
# Above this a stated rate is the ticks of a clock: WebM of a variable rate says 1000.
_TICKS = 240.0


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a video file holds.

    Attributes:
        path: the path as given.
        frames: number of frames; see `exact_frames`.
        exact_frames: whether `frames` was counted, by decoding or in the index of an MP4 or MOV
            file. Otherwise it is an estimate from the duration or the packets.
        duration_s: length in seconds.
        width: width in pixels as displayed: after rotation, with square pixels.
        height: height in pixels as displayed.
        rotation: degrees clockwise (0, 90, 180 or 270) by which stored pictures are turned.
        average_rate: frames per second on average.
    """

    path: str
    frames: int
    exact_frames: bool
    duration_s: float
    width: int
    height: int
    rotation: int
    average_rate: float


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """One frame as displayed.

    Attributes:
        index: 0-based index in presentation order at the video's own rate.
        time_s: presentation time in seconds; the video's first frame is at 0.
        image: uint8 [H, W, 3]; RGB, upright, square pixels.
    """

    index: int
    time_s: float
    image: np.ndarray


def probe(path: Path) -> VideoInfo:
    """Tells what a video file holds; only its first frame is decoded.

    Args:
        path: a local video file.

    Returns:
        Size, length and number of frames.

    Raises:
        CarjaxError: the file is missing, unreadable, not a video, has no decodable frame, or has
            colours that FFmpeg does not know.

    Example:
        >>> info = probe("data/prius_walkaround.mp4")
        >>> info.frames, info.average_rate, info.duration_s
        (180, 12.0, 15.0)
    """
    with opened(path) as (container, stream):
        first = next(decoded(container, stream, Losses()), None)
        if first is None:
            raise CarjaxError(f"{os.fspath(path)}: no frame can be decoded; the file is damaged")
        renderer = Renderer(os.fspath(path), pixel_aspect(stream))
        renderer.render(first, SCORED_SIDE)  # or the file fails at once
        upright = renderer.orientation(first)
        width, height = renderer.size(first)
        rate = stated_rate(stream)
        duration = stated_duration(container, stream)
        index = index_count(container, stream, os.path.getsize(path))
        stated = stream.frames
    if index is not None and index.present and duration is not None:
        frames = index.present
    elif duration is not None and (stated or rate <= _TICKS):
        frames = stated or round(duration * rate)
    else:
        # Streamed to disk, as browsers record WebM: no length is stated, or for a rate the clock's.
        frames, counted_s = packet_count(path, rate)
        duration = duration or counted_s
        rate = frames / duration if rate > _TICKS and duration else rate
    return VideoInfo(
        path=os.fspath(path),
        frames=max(1, frames),
        exact_frames=index is not None and index.present == frames,
        duration_s=duration,
        width=height if upright.transpose else width,
        height=width if upright.transpose else height,
        rotation=upright.rotation,
        average_rate=rate,
    )


def coded_size(path: Path) -> tuple[int, int]:
    """Width and height of the stored frames as the file's header states them; decodes none.

    Raises:
        CarjaxError: as `probe`, except that no frame need be intact.

    Example:
        >>> coded_size("data/prius_walkaround.mp4")
        (640, 360)
    """
    with opened(path) as (_, stream):
        return stream.codec_context.width, stream.codec_context.height


def recorded_at(path: Path) -> datetime.datetime | None:
    """Returns when the recording started, with its zone; None if the file does not say.

    A camera's local time comes first (QuickTime's `creationdate`), else the container's, in UTC.
    A time before 1980 is a clock that was never set, and one of the year 9999 no time either: what
    is taken after it could not be dated.

    Raises:
        CarjaxError: as `probe`.
    """
    with opened(path) as (container, _):
        stated = [
            container.metadata.get(key)
            for key in ("com.apple.quicktime.creationdate", "creation_time")
        ]
    for text in filter(None, stated):
        with contextlib.suppress(ValueError):
            # From FFmpeg 9 on, what a file states twice is joined.
            moment = datetime.datetime.fromisoformat(text.partition(";")[0])
            if 1980 <= moment.year < datetime.MAXYEAR:
                return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return None


class Decoder(Closing):
    """The frames of a video, one at a time. Each iteration decodes from the start.

    A damaged or cut file yields the frames that can be decoded, then ends; `warnings` says what
    was lost. Frames that the decoder marks as damaged keep their index but are left out.

    Args:
        path: a local video file.
        fps: 'all'; a number N: the first frame at or after each multiple of 1/N seconds, by
            timestamp; or 'auto': N = `AUTO_FPS`. A video whose own rate, as the file states it,
            is N or less is taken whole.
        max_side: scale larger frames down so that neither side exceeds this number of pixels;
            None keeps the full size.

    Attributes:
        info: the video; after a complete pass, `frames` and `duration_s` are as decoded.
        warnings: one line for each kind of damage met by the last complete pass.

    Raises:
        CarjaxError: as `probe`; also when a pass finds no intact frame.
        UsageError: `fps` is wrong.

    Example:
        >>> decoder = Decoder("data/prius_walkaround.mp4", fps=1)
        >>> [frame.index for frame in decoder][:4]
        [0, 12, 24, 36]
    """

    def __init__(self, path: Path, *, fps: Fps = "auto", max_side: int | None = None) -> None:
        self._fps = parse_fps(fps)
        self._path = path
        self._max_side = max_side
        self.info = probe(path)
        self.warnings: list[str] = []

    def close(self) -> None:
        """Does nothing: a pass closes its file itself, where a `Reader` keeps files open."""

    def __iter__(self) -> Generator[Frame, None, None]:
        """Yields the sampled frames in presentation order."""
        wanted = sampler(self._fps, self.info.average_rate)
        intact = False
        with contextlib.closing(self.pictures()) as pictures:
            for picture in pictures:
                if picture.raw.is_corrupt:
                    continue
                intact = True
                if wanted(picture.time_s, picture.tick_s):
                    yield Frame(picture.index, picture.time_s, picture.rgb(self._max_side))
        if not intact:
            raise CarjaxError(f"{self.info.path}: no frame is intact; the file is damaged")

    def grab(
        self, indices: Collection[int], *, max_sides: Mapping[int, int] | None = None
    ) -> dict[int, np.ndarray]:
        """Decodes the frames of these indices; see the function `grab`.

        Full size, but for those that `max_sides` names: neither side of theirs exceeds its number.
        """
        sides = max_sides or {}
        missing = set(indices)
        images: dict[int, np.ndarray] = {}
        if missing:
            with contextlib.closing(self.pictures()) as pictures:
                for picture in pictures:
                    if picture.index in missing:
                        images[picture.index] = picture.rgb(sides.get(picture.index))
                        missing.remove(picture.index)
                        if not missing:
                            break
        if missing:
            raise CarjaxError(f"{self.info.path}: has no frame {min(missing)}")
        return images

    def pictures(self) -> Generator[Picture, None, None]:
        """Every decoded frame, with its index and time, before conversion to RGB."""
        losses = Losses()
        with opened(self._path) as (container, stream):
            renderer = Renderer(self.info.path, pixel_aspect(stream))
            clock = Clock(float(stream.time_base or 1e-3), 1 / self.info.average_rate)
            count = 0
            end_s = 0.0
            # An AVI has times of packets alone: where frames are predicted from later ones, PyAV
            # hands these on in the packets' order.
            guessed = container.format.name == "avi"
            for raw in decoded(container, stream, losses):
                time_s = clock.read(raw.dts if guessed or raw.pts is None else raw.pts)
                yield Picture(count, time_s, clock.tick_s, raw, renderer)
                count += 1
                end_s = time_s + _frame_duration(raw, clock.tick_s, self.info.average_rate)
                losses.frames += bool(raw.is_corrupt)
            index = index_count(container, stream, os.path.getsize(self._path))
            stated_s = stated_duration(container, stream)
        self.warnings = damage(losses, count, end_s, index, stated_s)
        self.info = dataclasses.replace(
            self.info, frames=count, exact_frames=True, duration_s=end_s
        )


def frames(
    path: Path, *, fps: Fps = "auto", max_side: int | None = None
) -> Generator[Frame, None, None]:
    """Decodes a video frame by frame; `Decoder` is the same with its warnings.

    Args:
        path: a local video file.
        fps: which frames to take, see `Decoder`.
        max_side: the longest side in pixels, see `Decoder`.

    Returns:
        An iterator of frames in presentation order with strictly increasing times.

    Raises:
        CarjaxError: as `probe`, at once; while iterating, when no frame is intact.
        UsageError: `fps` is wrong.

    Example:
        >>> first = next(frames("data/prius_walkaround.mp4"))
        >>> first.index, first.time_s, first.image.dtype, first.image.ndim
        (0, 0.0, dtype('uint8'), 3)
    """
    return iter(Decoder(path, fps=fps, max_side=max_side))


def grab(path: Path, indices: Collection[int]) -> dict[int, np.ndarray]:
    """Decodes single frames at full size, in one pass that stops after the last.

    The pass starts at the first frame, because only decoding in order proves a frame's index.

    Args:
        path: a local video file.
        indices: presentation indices, as in `Frame.index`.

    Returns:
        Index → uint8 [H, W, 3]; the same pixels as `frames` gives.

    Raises:
        CarjaxError: as `probe`, or the video has no such frame.

    Example:
        >>> sorted(grab("data/prius_walkaround.mp4", {3, 1}))
        [1, 3]
    """
    return Decoder(path, fps="all").grab(indices)


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A decoded frame before its conversion to RGB."""

    index: int
    time_s: float
    tick_s: float
    raw: av.VideoFrame
    renderer: Renderer

    def rgb(self, max_side: int | None) -> np.ndarray:
        """The upright image, uint8 [H, W, 3]."""
        return self.renderer.render(self.raw, max_side)


def _frame_duration(raw: av.VideoFrame, tick_s: float, rate: float) -> float:
    duration = getattr(raw, "duration", None)
    return duration * tick_s if duration else 1 / rate


def damage(
    losses: Losses,
    count: int,
    end_s: float,
    index: IndexCount | None,
    stated_s: float | None,
) -> list[str]:
    """One line for each kind of damage."""
    lines = []
    if index is not None and count < index.stated:
        lines.append(
            f"the video is cut short or damaged: {count} of {index.stated} frames can be decoded"
        )
    elif index is None and stated_s is not None and end_s < min(0.9 * stated_s, stated_s - 1):
        lines.append(f"the picture ends at {end_s:.1f} s of {stated_s:.1f} s")
    if losses.packets:
        lines.append(f"damaged parts of the video were skipped ({losses.packets})")
    if losses.frames:
        lines.append(f"damaged frames were left out ({losses.frames})")
    return lines
