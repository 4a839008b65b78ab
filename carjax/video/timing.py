"""The times of frames, and which of them to take."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Literal

from carjax.errors import UsageError

Fps = float | Literal["auto", "all"]

AUTO_FPS = 8.0


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


class Clock:
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


def sampler(fps: Fps, own_rate: float) -> Callable[[float, float], bool]:
    """Decides which frames to take, from their times and the file's clock tick, in order.

    All of a video whose own average rate, as the file states it, is no more than is asked for: also
    those that come close upon each other where the rate is uneven.
    """
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
