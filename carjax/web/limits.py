"""What the server takes: sizes, times and places. Judged by decoding, never by a file's name."""

from __future__ import annotations

import dataclasses
import os

from carjax.errors import CarjaxError

NO_ROOM = "the server has no room left; try again later"
_MEGA = 1_000_000


@dataclasses.dataclass(frozen=True)
class Limits:
    """The bounds of one server; the fields are flags of `carjax serve`.

    Attributes:
        megabytes: the largest upload, in 10⁶ bytes.
        seconds: the longest video.
        megapixels: the largest frame, in 10⁶ pixels.
        frames: the most frames that a video may hold.
        job_seconds: how long a job may run before it is ended.
        memory_gb: memory for the process that scores, in 10⁹ bytes.
        queue: jobs that wait, or are being uploaded, while one runs; more are told "busy".
        keep: finished jobs that are kept at a time.
        keep_minutes: how long a finished job is kept after its last use.
        upload_minutes: the longest upload.
        idle_seconds: the longest silence during an upload.
    """

    megabytes: float = 500
    seconds: float = 180
    megapixels: float = 9
    frames: int = 12_000
    job_seconds: float = 300
    memory_gb: float = 6
    queue: int = 8
    keep: int = 50
    keep_minutes: float = 60
    upload_minutes: float = 15
    idle_seconds: float = 30

    @property
    def bytes(self) -> int:
        """The largest upload."""
        return round(self.megabytes * _MEGA)


def check(path: str | os.PathLike[str], limits: Limits) -> dict[str, float | int]:
    """Decodes the first frame of a video and refuses what is over the limits.

    What a file says of its length can be wrong: the job itself counts again as it decodes
    (`frames_allowed`).

    Returns:
        frames, duration_s, width, height, and `expected`: about how many frames will be scored.

    Raises:
        CarjaxError: it is no video, or too large; the message says which limit and what to do.
    """
    from carjax import scan, video

    # The header first: it costs nothing to refuse what it admits.
    _check_size(*video.coded_size(path), limits)
    info = video.probe(path)
    _check_size(info.width, info.height, limits)
    if info.duration_s > limits.seconds:
        raise CarjaxError(
            f"{info.duration_s:.0f} s is too long: at most {limits.seconds:g} s; "
            "one walk around the car is enough"
        )
    if info.frames > limits.frames:
        raise CarjaxError(
            f"{info.frames} frames are too many: at most {limits.frames}; "
            "film at 30 frames a second or fewer"
        )
    with video.Reader(path) as reader:
        expected = scan.expected_frames(info, "auto", seeks=reader.seeks)
    return {
        "frames": info.frames,
        "duration_s": info.duration_s,
        "width": info.width,
        "height": info.height,
        "expected": expected,
    }


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.megapixels * _MEGA:
        raise CarjaxError(
            f"frames of {width} × {height} are too large: at most "
            f"{limits.megapixels:g} megapixels; film at a lower resolution"
        )


def frames_allowed(limits: Limits) -> int:
    """How many frames may be scored before a video proves longer than it said."""
    from carjax import video

    return round((limits.seconds + 1) * video.AUTO_FPS) + 1
