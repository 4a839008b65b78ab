"""Frames of a video file: true timestamps, upright pictures, constant memory.

Decoding is PyAV's (FFmpeg). Nothing here imports JAX, so that a bad path fails at once.

Every frame has one identity: its 0-based index in presentation order at the video's own rate,
whatever is sampled. Frames are counted as `ffprobe -count_frames` counts them: what an edit list
hides is no frame.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import math
import os
import stat
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from carjax.errors import CarjaxError, UsageError
from carjax.prefetch import Prefetch, prefetch

Path = str | os.PathLike[str]
Fps = float | Literal["auto", "all"]

__all__ = [
    "AUTO_FPS",
    "Batch",
    "Decoder",
    "Fps",
    "Frame",
    "Prefetch",
    "VideoInfo",
    "batches",
    "coded_size",
    "frames",
    "grab",
    "parse_fps",
    "prefetch",
    "probe",
]

AUTO_FPS = 8.0

# Demuxers that read one local file and nothing else: playlists (hls, dash, concat) could open
# other files and addresses. Audio formats are listed so that they can be named as such.
_FORMATS = (
    "mov,matroska,avi,gif,apng,mpegts,mpeg,mpegvideo,m4v,h264,hevc,obu,ivf,flv,asf,ogg,mxf,dv,nut,"
    "yuv4mpegpipe,wav,mp3,flac,aac,aiff,amr"
)
_IMAGE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*")
_IMAGE_BRANDS = (b"heic", b"heix", b"mif1", b"avif")

_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC: an album's cover is no video
_MAX_THREADS = 8  # more gain little, and each one holds frames of its own
_FALLBACK_RATE = 25.0


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


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """B frames as arrays of a fixed shape; the padding is at the end.

    Attributes:
        images: uint8 [B, H, W, 3]; zeros where padded.
        mask: bool [B]; False where padded.
        index: int64 [B]; `Frame.index`, -1 where padded.
        time_s: float64 [B]; `Frame.time_s`, NaN where padded.
    """

    images: np.ndarray
    mask: np.ndarray
    index: np.ndarray
    time_s: np.ndarray


def parse_fps(text: str | float) -> Fps:
    """Reads how many frames to take each second.

    Args:
        text: 'auto', 'all' or a number above 0.

    Returns:
        'auto', 'all' or that number as a float.

    Raises:
        UsageError: it is none of these.

    Example:
        >>> parse_fps("auto"), parse_fps("2.5")
        ('auto', 2.5)
    """
    if text == "auto":
        return "auto"
    if text == "all":
        return "all"
    with contextlib.suppress(ValueError, TypeError):
        rate = float(text)
        if math.isfinite(rate) and rate > 0:
            return rate
    raise UsageError(f"fps must be auto, all or a number above 0, not {str(text)!r}")


def probe(path: Path) -> VideoInfo:
    """Tells what a video file holds; only its first frame is decoded.

    Args:
        path: a local video file.

    Returns:
        Size, length and number of frames.

    Raises:
        CarjaxError: the file is missing, unreadable, not a video, or has no decodable frame.

    Example:
        >>> info = probe("data/prius_walkaround.mp4")
        >>> info.frames, info.average_rate, info.duration_s
        (180, 12.0, 15.0)
    """
    with _opened(path) as (container, stream):
        first = next(_decoded(container, stream, _Losses()), None)
        if first is None:
            raise CarjaxError(f"{os.fspath(path)}: no frame can be decoded; the file is damaged")
        renderer = _Renderer(_pixel_aspect(stream))
        upright = renderer.orientation(first)
        width, height = renderer.size(first)
        rate = _rate(stream)
        duration = _stated_duration(container, stream)
        index = _index_count(container, stream, os.path.getsize(path))
        stated = stream.frames
    if index is not None and index.present and duration is not None:
        frames = index.present
    elif duration is not None:
        frames = stated or round(duration * rate)
    else:
        # Streamed to disk, as browsers record WebM: no length is stated.
        frames, duration = _packet_count(path, rate)
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
    with _opened(path) as (_, stream):
        return stream.codec_context.width, stream.codec_context.height


def recorded_at(path: Path) -> datetime.datetime | None:
    """Returns when the recording started, with its zone; None if the file does not say.

    A camera's local time comes first (QuickTime's `creationdate`), else the container's, in UTC.
    A time before 1980 is a clock that was never set.

    Raises:
        CarjaxError: as `probe`.
    """
    with _opened(path) as (container, _):
        stated = [
            container.metadata.get(key)
            for key in ("com.apple.quicktime.creationdate", "creation_time")
        ]
    for text in filter(None, stated):
        with contextlib.suppress(ValueError):
            moment = datetime.datetime.fromisoformat(text)
            if moment.year >= 1980:
                return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return None


class Decoder:
    """The frames of a video, one at a time. Each iteration decodes from the start.

    A damaged or cut file yields the frames that can be decoded, then ends; `warnings` says what
    was lost. Frames that the decoder marks as damaged keep their index but are left out.

    Args:
        path: a local video file.
        fps: 'all'; a number N: the first frame at or after each multiple of 1/N seconds, by
            timestamp; or 'auto': N = `AUTO_FPS`. A video whose own rate is N or less is taken
            whole.
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

    def __iter__(self) -> Generator[Frame, None, None]:
        """Yields the sampled frames in presentation order."""
        wanted = _sampler(self._fps, self.info.average_rate)
        intact = False
        with contextlib.closing(self._pictures()) as pictures:
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
            with contextlib.closing(self._pictures()) as pictures:
                for picture in pictures:
                    if picture.index in missing:
                        images[picture.index] = picture.rgb(sides.get(picture.index))
                        missing.remove(picture.index)
                        if not missing:
                            break
        if missing:
            raise CarjaxError(f"{self.info.path}: has no frame {min(missing)}")
        return images

    def _pictures(self) -> Generator[_Picture, None, None]:
        """Every decoded frame, with its index and time, before conversion to RGB."""
        losses = _Losses()
        with _opened(self._path) as (container, stream):
            renderer = _Renderer(_pixel_aspect(stream))
            clock = _Clock(float(stream.time_base or 1e-3), 1 / self.info.average_rate)
            count = 0
            end_s = 0.0
            for raw in _decoded(container, stream, losses):
                time_s = clock.read(raw.dts if raw.pts is None else raw.pts)
                yield _Picture(count, time_s, clock.tick_s, raw, renderer)
                count += 1
                end_s = time_s + _frame_duration(raw, clock.tick_s, self.info.average_rate)
                losses.frames += bool(raw.is_corrupt)
            index = _index_count(container, stream, os.path.getsize(self._path))
            stated_s = _stated_duration(container, stream)
        self.warnings = _warnings(losses, count, end_s, index, stated_s)
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


def batches(
    frames: Iterable[Frame],
    size: int,
    *,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Iterator[Batch]:
    """Groups frames into batches of one fixed shape, so that nothing compiles twice.

    A frame whose size differs from the first one's (the resolution changed) is resized to it.

    Args:
        frames: frames in order.
        size: frames in a batch, B.
        transform: applied to each image first; uint8 [H, W, 3] to uint8 [H', W', 3].

    Yields:
        Batches; the last one is padded.

    Raises:
        ValueError: `size` is below 1.

    Example:
        >>> image = np.zeros((2, 4, 3), np.uint8)
        >>> stream = (Frame(i, i / 10, image) for i in range(3))
        >>> [batch.mask.tolist() for batch in batches(stream, 2)]
        [[True, True], [True, False]]
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    batch: Batch | None = None
    shape: tuple[int, ...] | None = None
    row = 0
    for frame in frames:
        image = frame.image if transform is None else transform(frame.image)
        shape = shape or image.shape
        # A new array each time: the consumer may still be reading the last one.
        batch = batch or _empty_batch(size, shape)
        batch.images[row] = _resized(image, shape)
        batch.mask[row] = True
        batch.index[row] = frame.index
        batch.time_s[row] = frame.time_s
        row += 1
        if row == size:
            yield batch
            batch, row = None, 0
    if batch is not None:
        yield batch


def _empty_batch(size: int, shape: tuple[int, ...]) -> Batch:
    return Batch(
        images=np.zeros((size, *shape), np.uint8),
        mask=np.zeros(size, np.bool_),
        index=np.full(size, -1, np.int64),
        time_s=np.full(size, np.nan),
    )


class _Losses:
    """What a pass could not decode."""

    def __init__(self) -> None:
        self.packets = 0
        self.frames = 0


class _IndexCount(NamedTuple):
    """Frames in the index of an MP4 or MOV file, and those whose bytes the file really has."""

    stated: int
    present: int


class _Orientation(NamedTuple):
    """How a stored picture becomes upright: transposed first, then flipped."""

    transpose: bool
    flip_x: bool
    flip_y: bool
    rotation: int


_UPRIGHT = _Orientation(transpose=False, flip_x=False, flip_y=False, rotation=0)


@dataclasses.dataclass(frozen=True, eq=False)
class _Picture:
    """A decoded frame before its conversion to RGB."""

    index: int
    time_s: float
    tick_s: float
    raw: av.VideoFrame
    renderer: _Renderer

    def rgb(self, max_side: int | None) -> np.ndarray:
        """The upright image, uint8 [H, W, 3]."""
        return self.renderer.render(self.raw, max_side)


class _Renderer:
    """Turns the decoded frames of one pass into upright RGB images with square pixels."""

    def __init__(self, aspect: float) -> None:
        self._aspect = aspect
        self._reformatter = VideoReformatter()  # keeps its tables from frame to frame
        self._turned: tuple[int, _Orientation] | None = None

    def orientation(self, raw: av.VideoFrame) -> _Orientation:
        """How to turn this frame.

        Reading side data makes a reference cycle that keeps the frame's memory until the next
        garbage collection, so it is read again only when the rotation changes.
        """
        rotation = getattr(raw, "rotation", 0)  # PyAV 14.1
        if self._turned is None or self._turned[0] != rotation:
            self._turned = rotation, _orientation(raw)
        return self._turned[1]

    def size(self, raw: av.VideoFrame) -> tuple[int, int]:
        """Width and height with square pixels, before turning; a side is only ever stretched."""
        if self._aspect >= 1:
            return round(raw.width * self._aspect), raw.height
        return raw.width, round(raw.height / self._aspect)

    def render(self, raw: av.VideoFrame, max_side: int | None) -> np.ndarray:
        """The upright image, uint8 [H, W, 3]."""
        width, height = self.size(raw)
        if max_side is not None and max(width, height) > max_side:
            scale = max_side / max(width, height)
            width, height = max(1, round(width * scale)), max(1, round(height * scale))
        smaller = width * height < raw.width * raw.height
        rgb = self._reformatter.reformat(
            raw,
            width=width,
            height=height,
            format="rgb24",
            interpolation="AREA" if smaller else "BILINEAR",
        )
        return _upright(rgb.to_ndarray(), self.orientation(raw))


class _Clock:
    """Turns the timestamps of a file into strictly increasing seconds from 0."""

    def __init__(self, tick_s: float, frame_s: float) -> None:
        self.tick_s = tick_s
        self._frame_s = frame_s
        self._origin_s: float | None = None
        self._last_s = -math.inf
        self._expected_s = 0.0

    def read(self, pts: int | None) -> float:
        """The time of the next frame.

        A frame without a timestamp comes one frame after the last; a repeated one just after its
        twin; where the clock jumps back (recordings were joined), time goes on as before.
        """
        time_s = self._expected_s
        if pts is not None:
            stamp_s = pts * self.tick_s
            if self._origin_s is None:
                self._origin_s = stamp_s - self._expected_s
            time_s = stamp_s - self._origin_s
            if time_s <= self._last_s - self._frame_s:
                self._origin_s = stamp_s - self._expected_s
                time_s = self._expected_s
            elif time_s <= self._last_s:
                time_s = self._last_s + self._frame_s / 1000
        self._last_s = time_s
        self._expected_s = time_s + self._frame_s
        return time_s


def _sampler(fps: Fps, own_rate: float) -> Callable[[float, float], bool]:
    """Decides which frames to take, from their times and the file's clock tick, in order."""
    rate = AUTO_FPS if fps == "auto" else fps
    # A stated rate such as 8.0001 is the rate 8.
    if rate == "all" or own_rate <= rate * (1 + 1e-3):
        return lambda time_s, tick_s: True
    due_s = 0.0

    def wanted(time_s: float, tick_s: float) -> bool:
        nonlocal due_s
        # Matroska rounds times to 1 ms: 0.033 must pass for 1/30.
        late_s = time_s + min(tick_s / 2, 1e-3) + 1e-9
        if late_s < due_s:
            return False
        due_s = (math.floor(late_s * rate) + 1) / rate
        return True

    return wanted


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Opens a file and its main video stream, ready to decode."""
    name = os.fspath(path)
    head = _head(name)
    if head.startswith(_IMAGE_MAGIC) or _is_container_image(head):
        raise CarjaxError(f"{name}: is an image, not a video; give a video file")
    try:
        # An absolute path cannot be read as a protocol ("http:…").
        container = av.open(
            os.path.abspath(name),
            # Not `options`, which crashes PyAV before 18 on files that add streams later (FLV, TS).
            container_options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except (av.FFmpegError, ValueError) as error:
        if head[4:8] in (b"ftyp", b"mdat", b"wide"):
            raise CarjaxError(
                f"{name}: the video is cut short or damaged (its index is missing); "
                "copy or record it again"
            ) from error
        raise CarjaxError(
            f"{name}: is not a video that can be read; give an MP4, MOV, MKV, WebM, AVI or GIF file"
        ) from error
    with container:
        yield container, _main_stream(name, container)


def _head(name: str) -> bytes:
    """The first bytes of a regular file.

    Raises:
        CarjaxError: there is no such file, or it cannot be read.
    """
    try:
        mode = os.stat(name).st_mode
        if stat.S_ISDIR(mode):
            raise CarjaxError(f"{name}: is a folder; give a video file")
        if not stat.S_ISREG(mode):
            raise CarjaxError(f"{name}: is not a regular file; give a video file")
        with open(name, "rb") as file:
            head = file.read(16)
    except FileNotFoundError as error:
        raise CarjaxError(f"{name}: no such file") from error
    except PermissionError as error:
        raise CarjaxError(f"{name}: no permission to read it") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CarjaxError(f"{name}: cannot be read: {reason}") from error
    if not head:
        raise CarjaxError(f"{name}: the file is empty")
    return head


def _is_container_image(head: bytes) -> bool:
    """Whether a RIFF or ISO file is a WebP, HEIC or AVIF image."""
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    return head[4:8] == b"ftyp" and head[8:12] in _IMAGE_BRANDS


def _main_stream(name: str, container: av.container.InputContainer) -> av.VideoStream:
    """The video stream with the most pixels, set to decode on several threads."""
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        held = "has sound but no picture" if container.streams.audio else "holds no video"
        raise CarjaxError(f"{name}: {held}; give a video file")
    readable = [stream for stream in streams if stream.codec_context is not None]
    if not readable:
        raise CarjaxError(f"{name}: its video codec is not supported; convert it to H.264")
    stream = max(readable, key=lambda s: s.codec_context.width * s.codec_context.height)
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = min(os.cpu_count() or 1, _MAX_THREADS)
    return stream


def _is_cover(stream: av.VideoStream) -> bool:
    """Whether the stream is an album's cover. PyAV before 14.1 does not tell."""
    disposition = getattr(stream, "disposition", 0)
    return bool(getattr(disposition, "value", disposition) & _ATTACHED_PICTURE)


def _decoded(
    container: av.container.InputContainer, stream: av.VideoStream, losses: _Losses
) -> Iterator[av.VideoFrame]:
    """Frames in presentation order; what cannot be decoded is counted and passed over."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            losses.packets += 1
            packet = None
        if packet is None:
            return
        if packet.is_corrupt and "mp4" in container.format.name:
            # Half a frame, where the file was cut: its error would drop the frames before it,
            # which other threads still hold.
            losses.packets += 1
            continue
        try:
            decoded = packet.decode()
        except av.FFmpegError:
            losses.packets += 1
            continue
        for frame in decoded:
            if isinstance(frame, av.VideoFrame):
                yield frame


def _rate(stream: av.VideoStream) -> float:
    """Average frames per second."""
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate and rate > 0 else _FALLBACK_RATE


def _stated_duration(
    container: av.container.InputContainer, stream: av.VideoStream
) -> float | None:
    """Length in seconds if the file states it."""
    if stream.duration and stream.time_base and stream.duration > 0:
        return float(stream.duration * stream.time_base)
    if container.duration and container.duration > 0:
        return container.duration / 1e6
    return None


def _index_count(
    container: av.container.InputContainer, stream: av.VideoStream, size: int
) -> _IndexCount | None:
    """Counts the index of an MP4 or MOV file, which lists every frame; None for others."""
    entries = getattr(stream, "index_entries", None)  # PyAV 18
    if "mp4" not in container.format.name or not stream.frames or not entries:
        return None
    shown = [entry for entry in entries if not entry.is_discard]
    return _IndexCount(len(shown), sum(entry.pos + entry.size <= size for entry in shown))


def _packet_count(path: Path, rate: float) -> tuple[int, float]:
    """Number of packets and length in seconds, by reading a file through without decoding."""
    with _opened(path) as (container, stream):
        stamps = []
        with contextlib.suppress(av.FFmpegError):
            for packet in container.demux(stream):
                if packet.size:
                    stamps.append(packet.pts)
        known = [stamp for stamp in stamps if stamp is not None]
        if len(known) < 2 or not stream.time_base:
            return len(stamps), len(stamps) / rate
        return len(stamps), float((max(known) - min(known)) * stream.time_base) + 1 / rate


def _frame_duration(raw: av.VideoFrame, tick_s: float, rate: float) -> float:
    duration = getattr(raw, "duration", None)
    return duration * tick_s if duration else 1 / rate


def _warnings(
    losses: _Losses,
    count: int,
    end_s: float,
    index: _IndexCount | None,
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


def _pixel_aspect(stream: av.VideoStream) -> float:
    """Width of a stored pixel over its height."""
    aspect = stream.sample_aspect_ratio
    return float(aspect) if aspect and 0.25 <= aspect <= 4 else 1.0


def _orientation(raw: av.VideoFrame) -> _Orientation:
    """Reads the display matrix, rounded to right angles; phones mirror and turn with it.

    The matrix (a b u; c d v; x y w) maps a stored point (p, q), y downwards, to
    (a·p + c·q, b·p + d·q) as shown: ISO/IEC 14496-12, 6.2.2, and FFmpeg's libavutil/display.h.
    """
    data: Any = raw.side_data.get("DISPLAYMATRIX")
    if data is None:
        return _UPRIGHT
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
    rotation = round(math.degrees(math.atan2(b, a)) / 90) * 90 % 360
    if abs(b) > abs(a):
        return _Orientation(True, c < 0, b < 0, rotation)
    return _Orientation(False, a < 0, d < 0, rotation)


def _upright(image: np.ndarray, orientation: _Orientation) -> np.ndarray:
    if orientation == _UPRIGHT:
        return image
    import cv2  # only turned videos need it, and it takes its time to load

    if orientation.transpose:
        image = cv2.transpose(image)
    if orientation.flip_x or orientation.flip_y:
        image = cv2.flip(
            image, -1 if orientation.flip_x and orientation.flip_y else int(orientation.flip_x)
        )
    return image


def _resized(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if image.shape == shape:
        return image
    import cv2

    return cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
