"""H.264 in MP4 as browsers play it: 4:2:0, even sides, BT.709, its index in front."""

from __future__ import annotations

import contextlib
import fractions
import os
import types
from collections.abc import Iterator

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from carjax.errors import CarjaxError

# Times are exact to this part of a second, so that a video of any rate keeps its own.
_TICKS = 90_000
_BT709 = 1
_ENCODERS = ("libx264", "libopenh264", "h264_videotoolbox")


class Mp4Writer:
    """Writes RGB frames with their times to an MP4 file; used in a `with` block.

    The file names no source and holds no metadata of one.

    Args:
        path: the file to write.
        width: of the frames in pixels, even.
        height: of the frames in pixels, even.
        rate: frames a second on average.

    Raises:
        CarjaxError: this build of FFmpeg has no H.264 encoder.
        OSError: the file cannot be written, here or later.
    """

    def __init__(self, path: str | os.PathLike[str], width: int, height: int, rate: float):
        if width % 2 or height % 2:
            raise ValueError(f"sides must be even for 4:2:0, not {width}×{height}")
        name = next((e for e in _ENCODERS if e in av.codecs_available), None)
        if name is None:
            raise CarjaxError("this build of PyAV cannot write H.264: pip install --upgrade av")
        with self._told():
            self._container = av.open(
                os.path.abspath(path), "w", format="mp4", options={"movflags": "+faststart"}
            )
        options = {"preset": "superfast", "crf": "21"} if name == "libx264" else {}
        average = fractions.Fraction(rate).limit_denominator(1001)
        stream = self._container.add_stream(name, rate=average, options=options)
        assert isinstance(stream, av.VideoStream)  # for the type checker: all three encode video
        self._stream = stream
        context = stream.codec_context
        context.width, context.height = width, height
        context.pix_fmt = "yuv420p"
        context.time_base = fractions.Fraction(1, _TICKS)
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = 1  # 16 to 235, which every player takes for granted
        self._reformatter = VideoReformatter()
        self._last = -1

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        # Of two failures the first is told: with the disk full, closing fails as well.
        with self._told() if kind is None else contextlib.suppress(av.FFmpegError):
            try:
                if kind is None:
                    self._container.mux(self._stream.encode(None))
            finally:
                self._container.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            raise OSError(error.errno, error.strerror) from error

    def write(self, image: np.ndarray, time_s: float) -> None:
        """Appends a frame, uint8 [H, W, 3] RGB; times increase. The image may be reused."""
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(image, format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
        )
        self._last = max(self._last + 1, round(time_s * _TICKS))
        frame.pts = self._last
        frame.time_base = fractions.Fraction(1, _TICKS)
        with self._told():
            self._container.mux(self._stream.encode(frame))
