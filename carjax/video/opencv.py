"""Frames by OpenCV's reader, where its indices and times are true."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Generator

import cv2
import numpy as np

from carjax import pictures
from carjax.errors import CarjaxError
from carjax.video.container import (
    IndexCount,
    Losses,
    Path,
    decoded,
    index_count,
    opened,
    pixel_aspect,
    stated_duration,
    stated_rate,
)
from carjax.video.decoder import SCORED_SIDE, Frame, damage
from carjax.video.picture import Orientation, Renderer, shown_size, upright
from carjax.video.timing import Fps, parse_fps, sampler

_OTHERWISE = "use the decoder pyav"


@dataclasses.dataclass(frozen=True)
class _Header:
    """What OpenCV does not tell of a file; read with PyAV, which decodes one frame for it."""

    rate: float
    tick_s: float
    aspect: float
    orientation: Orientation
    index: IndexCount | None
    stated_s: float | None


class OpenCVDecoder:
    """The frames of a video as `Decoder` gives them, decoded by `cv2.VideoCapture`.

    Indices are counted, times are OpenCV's (`CAP_PROP_POS_MSEC`) from the first frame's on, and
    turning and square pixels follow the file's header. The same files are refused as by `Decoder`,
    and so are those of which OpenCV tells no true times (they do not increase: raw streams, MPEG
    programme streams, AVI with B-frames, recordings whose clock jumps back), that are interlaced,
    as the first frame tells, or of which it reads another stream. Pictures that are damaged are not
    left out: OpenCV does not tell which they are.

    Args:
        path: a local video file.
        fps: which frames to take, see `Decoder`.
        max_side: the longest side in pixels, see `Decoder`.

    Attributes:
        warnings: one line for each kind of damage met by the last complete pass.

    Raises:
        CarjaxError: as `Decoder`; or OpenCV cannot read the video truly.
        UsageError: `fps` is wrong.

    Example:
        >>> decoder = OpenCVDecoder("data/prius_walkaround.mp4", fps=1)
        >>> [frame.index for frame in decoder][:4]
        [0, 12, 24, 36]
    """

    def __init__(self, path: Path, *, fps: Fps = "auto", max_side: int | None = None) -> None:
        self._fps = parse_fps(fps)
        self._name = os.fspath(path)
        self._max_side = max_side
        self._header = _read_header(self._name)
        self.warnings: list[str] = []

    def __iter__(self) -> Generator[Frame, None, None]:
        """Yields the sampled frames in presentation order."""
        header = self._header
        wanted = sampler(self._fps, header.rate)
        count, first_s, last_s = 0, 0.0, -math.inf
        with _captured(self._name) as capture:
            while capture.grab():
                stamp_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if not count:
                    first_s = stamp_s
                time_s = stamp_s - first_s
                if not time_s > last_s:
                    raise CarjaxError(
                        f"{self._name}: OpenCV gives a wrong time for frame {count}; {_OTHERWISE}"
                    )
                if wanted(time_s, header.tick_s):
                    yield Frame(count, time_s, self._image(capture, count))
                count, last_s = count + 1, time_s
        if not count:
            raise CarjaxError(f"{self._name}: OpenCV can decode no frame of it; {_OTHERWISE}")
        self.warnings = damage(
            Losses(), count, last_s + 1 / header.rate, header.index, header.stated_s
        )

    def _image(self, capture: cv2.VideoCapture, index: int) -> np.ndarray:
        """The grabbed frame, upright, uint8 [H, W, 3]."""
        done, image = capture.retrieve()
        if not done:
            raise CarjaxError(f"{self._name}: OpenCV cannot read frame {index}; {_OTHERWISE}")
        height, width = image.shape[:2]
        size = shown_size(width, height, self._header.aspect, self._max_side)
        image = pictures.resized(image, size[1], size[0])
        return upright(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), self._header.orientation)


def _read_header(name: str) -> _Header:
    with opened(name) as (container, stream):
        first = next(decoded(container, stream, Losses()), None)
        if first is None:
            raise CarjaxError(f"{name}: no frame can be decoded; the file is damaged")
        if stream.index != container.streams.video[0].index:
            raise CarjaxError(f"{name}: OpenCV reads only its first video stream; {_OTHERWISE}")
        if first.pts is None or not stream.time_base:
            raise CarjaxError(f"{name}: has no timestamps that OpenCV tells; {_OTHERWISE}")
        if first.interlaced_frame:
            # It would hand on memory that nothing was written to, and call it a picture.
            raise CarjaxError(f"{name}: is interlaced, which OpenCV cannot show; {_OTHERWISE}")
        aspect = pixel_aspect(stream)
        renderer = Renderer(name, aspect)
        renderer.render(first, SCORED_SIDE)  # OpenCV would not tell that it cannot
        return _Header(
            rate=stated_rate(stream),
            tick_s=float(stream.time_base),
            aspect=aspect,
            orientation=renderer.orientation(first),
            index=index_count(container, stream, os.path.getsize(name)),
            stated_s=stated_duration(container, stream),
        )


@contextlib.contextmanager
def _captured(name: str) -> Generator[cv2.VideoCapture, None, None]:
    """Opens a file that `_read_header` has found to be a video; pictures stay as stored."""
    path = os.path.abspath(name)
    try:
        path.encode()
    except UnicodeEncodeError:  # OpenCV crashes
        raise CarjaxError(f"{name}: OpenCV cannot open a name that is not UTF-8") from None
    # Damage is told by the warnings, not on standard error; read when the first video is opened.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # Not OpenCV's other readers: one of them takes '%03d' in a name for a series of pictures.
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise CarjaxError(f"{name}: OpenCV cannot open it; {_OTHERWISE}")
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        yield capture
    finally:
        capture.release()
