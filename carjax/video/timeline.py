"""Where every frame of a video lies in its file, without decoding any.

Many containers state for every packet when its frame is shown, and whether it can be decoded
alone. Then the frame's index is the rank of its time, and a frame in the middle can be decoded
without all before it. Where a file leaves any doubt of that, there is no timeline, and the video
is decoded from its start.
"""

from __future__ import annotations

import dataclasses
import functools

import av
import numpy as np

from carjax.video.container import Path, opened, stated_rate
from carjax.video.timing import Clock

# Containers whose packets all have times of their own, and codecs of which each packet there is one
# shown frame. (VP8 hides whole packets; MPEG-4 packs two frames into one in old files.)
_FORMATS = {"mov", "mp4", "matroska", "webm"}
_CODECS = {"h264", "hevc", "av1", "vp9", "mjpeg", "prores"}


@dataclasses.dataclass(frozen=True, eq=False)
class Timeline:
    """The N frames of a video in presentation order.

    Attributes:
        time_s: float64 [N]; presentation times, as `Decoder` gives them.
        duration_s: when the last frame ends.
        key: bool [N]; frames that can be decoded alone.
        pts: int64 [N]; presentation times in the file's ticks, increasing.
        position: int64 [N]; rank of the frame's packet in the file (in decoding order).
        key_index: int64 [K]; the key frames' indices, in decoding order.
        key_dts: int64 [K]; decoding times of the key frames, in ticks.
    """

    time_s: np.ndarray
    duration_s: float
    key: np.ndarray
    pts: np.ndarray
    position: np.ndarray
    key_index: np.ndarray
    key_dts: np.ndarray

    def __len__(self) -> int:
        """The number of frames."""
        return len(self.pts)

    @functools.cached_property
    def stretch(self) -> np.ndarray:
        """The key frame, as a row of `key_index`, from which each frame can be decoded, int64 [N].

        A frame that is shown before the last key frame before it in the file may refer to frames
        before that one; then it is the key frame before.
        """
        rows = np.searchsorted(self.position[self.key_index], self.position, "right") - 1
        return rows - ((rows > 0) & (self.pts < self.pts[self.key_index[rows]]))

    @functools.cached_property
    def depth(self) -> np.ndarray:
        """How many frames are decoded from that key frame on to have each frame, int64 [N]."""
        return self.position - self.position[self.key_index[self.stretch]] + 1


def read_timeline(path: Path) -> Timeline | None:
    """Reads a video's packets, none of them decoded; None where they do not tell all.

    Args:
        path: a local video file.

    Raises:
        CarjaxError: as `probe`.

    Example:
        >>> timeline = read_timeline("data/prius_walkaround.mp4")
        >>> len(timeline), timeline.duration_s
        (180, 15.0)
    """
    with opened(path) as (container, stream):
        formats = set(container.format.name.split(","))
        if not formats & _FORMATS or stream.codec_context.codec.canonical_name not in _CODECS:
            return None
        if not stream.time_base:
            return None
        rows = []
        try:
            for packet in container.demux(stream):
                if packet.size:
                    if packet.is_corrupt or packet.is_discard or packet.pts is None:
                        return None
                    decoded_at = packet.pts if packet.dts is None else packet.dts
                    rows.append((packet.pts, decoded_at, packet.is_keyframe, packet.duration or 0))
        except av.FFmpegError:
            return None
        tick_s, rate = float(stream.time_base), stated_rate(stream)
        stated = stream.frames
    if not rows or (stated and stated != len(rows)):
        return None
    pts, dts, key, lengths = (np.array(column) for column in zip(*rows, strict=True))
    order = np.argsort(pts, kind="stable")
    if (np.diff(pts[order]) <= 0).any() or not key[0] or order[0] != 0:
        return None
    clock = Clock(tick_s, 1 / rate)
    time_s = np.array([clock.read(stamp) for stamp in pts[order].tolist()])
    index_of = np.argsort(order)
    keys = np.flatnonzero(key)
    return Timeline(
        time_s=time_s,
        duration_s=float(time_s[-1] + (lengths[order[-1]] * tick_s or 1 / rate)),
        key=key[order],
        pts=pts[order],
        position=order,
        key_index=index_of[keys],
        key_dts=dts[keys],
    )
