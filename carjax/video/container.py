"""Opens a video file, finds its main stream, and decodes it in presentation order."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

import av
from av.stream import Disposition

from carjax import runtime
from carjax.errors import CarjaxError

Path = str | os.PathLike[str]

# Demuxers that read one local file and nothing else: playlists (hls, dash, concat) could open
# other files and addresses. Audio formats are listed so that they can be named as such.
_FORMATS = (
    "mov,matroska,avi,gif,mpegts,mpeg,mpegvideo,m4v,h264,hevc,obu,ivf,flv,asf,ogg,mxf,dv,nut,"
    "yuv4mpegpipe,wav,mp3,flac,aac,aiff,amr"
)
_IMAGE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*")
_IMAGE_BRANDS = (b"heic", b"heix", b"mif1", b"avif")

_MAX_THREADS = 8  # more gain little, and each one holds frames of its own
_FALLBACK_RATE = 25.0
# Tags that are no UTF-8 are no reason to refuse a video: PyAV needs to be told so before 19, which
# takes no such argument.
_TAGS: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
)


class Losses:
    """What a pass could not decode."""

    def __init__(self) -> None:
        self.packets = 0
        self.frames = 0


class IndexCount(NamedTuple):
    """Frames in the index of an MP4 or MOV file, and those whose bytes the file really has."""

    stated: int
    present: int


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Opens a file and its main video stream, ready to decode."""
    name = os.fspath(path)
    head = _head(name)
    if is_image(head):
        raise CarjaxError(f"{name}: is an image, not a video; give a video file")
    try:
        # An absolute path cannot be read as a protocol ("http:…").
        container = av.open(
            os.path.abspath(name),
            container_options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"},
            **_TAGS,
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
        yield container, main_stream(name, container)


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
        if "://" in name:
            raise CarjaxError(
                f"{name}: an address, not a file: download it first (carjax score reads addresses)"
            ) from error
        raise CarjaxError(f"{name}: no such file") from error
    except PermissionError as error:
        raise CarjaxError(f"{name}: no permission to read it") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CarjaxError(f"{name}: cannot be read: {reason}") from error
    if not head:
        raise CarjaxError(f"{name}: the file is empty")
    return head


def is_image(head: bytes) -> bool:
    """Whether a file is a still picture, by its first 16 bytes.

    Example:
        >>> is_image(b"\\xff\\xd8\\xff\\xe0"), is_image(b"\\0\\0\\0\\x20ftypisom")
        (True, False)
    """
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in _IMAGE_BRANDS
    return head.startswith(_IMAGE_MAGIC)


def main_stream(name: str, container: av.container.InputContainer) -> av.VideoStream:
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
    stream.codec_context.thread_count = min(runtime.cores(), _MAX_THREADS)
    return stream


def _is_cover(stream: av.VideoStream) -> bool:
    """Whether the stream is an album's cover."""
    return bool(stream.disposition & Disposition.attached_pic)


def decoded(
    container: av.container.InputContainer, stream: av.VideoStream, losses: Losses
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


def stated_rate(stream: av.VideoStream) -> float:
    """Average frames per second."""
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate and rate > 0 else _FALLBACK_RATE


def stated_duration(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """Length in seconds if the file states it."""
    if stream.duration and stream.time_base and stream.duration > 0:
        return float(stream.duration * stream.time_base)
    if container.duration and container.duration > 0:
        length = container.duration / 1e6
        if "matroska" in container.format.name and stream.start_time and stream.time_base:
            # Matroska states when it ends, whenever the picture begins.
            begins = float(stream.start_time * stream.time_base)
            length = length - begins if 0 < begins < length else length
        return length
    return None


def index_count(
    container: av.container.InputContainer, stream: av.VideoStream, size: int
) -> IndexCount | None:
    """Counts the index of an MP4 or MOV file, which lists every frame; None for others."""
    entries = stream.index_entries
    if "mp4" not in container.format.name or not stream.frames or not entries:
        return None
    shown = [entry for entry in entries if not entry.is_discard]
    return IndexCount(len(shown), sum(entry.pos + entry.size <= size for entry in shown))


def packet_count(path: Path, rate: float) -> tuple[int, float]:
    """Number of packets and length in seconds, by reading a file through without decoding."""
    with opened(path) as (container, stream):
        stamps = []
        with contextlib.suppress(av.FFmpegError):
            for packet in container.demux(stream):
                if packet.size:
                    stamps.append(packet.pts)
        known = [stamp for stamp in stamps if stamp is not None]
        if len(known) < 2 or not stream.time_base:
            return len(stamps), len(stamps) / rate
        return len(stamps), float((max(known) - min(known)) * stream.time_base) + 1 / rate


def pixel_aspect(stream: av.VideoStream) -> float:
    """Width of a stored pixel over its height."""
    aspect = stream.sample_aspect_ratio
    return float(aspect) if aspect and 0.25 <= aspect <= 4 else 1.0
