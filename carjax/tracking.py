"""Follow the main car through the video, so that another car that passes is not taken for it.

Host code on the boxes and colours of a score table. Frames are joined to tracks as in multi-object
tracking: each goes to the track whose last box it fits best, or starts one. Where two tracks share
a stretch of time, the camera saw two cars, and the one that is seen for longer is the car. Tracks
one after the other are shots of a film: all are the car's, but those of another colour.
"""

from __future__ import annotations

import dataclasses

import numpy as np

# A box continues a track if its centre has moved by no more than this share of the boxes' mean
# sides, and the logarithm of its area by no more than this; both grow with the time since the
# frame before, whosever it was: a car that was hidden for a while comes back where it was.
MAX_MOVE, MAX_MOVE_PER_S = 0.35, 0.7
MAX_LOG_AREA, MAX_LOG_AREA_PER_S = 0.8, 0.8
# A track that was not seen for longer has ended.
MAX_GAP_S = 4.0
# Fewer frames are a slip of the car box.
MIN_FRAMES = 2
# Shares of red, green and blue in the middle of the box add up to one; between two shots of one
# car their median moves by less than this (around the car of the sample video: 0.12).
MAX_COLOUR_SHIFT = 0.15


@dataclasses.dataclass
class _Track:
    """Frames of one car: their positions in the table, in order."""

    frames: list[int]


def main_car(
    time_s: np.ndarray,
    box: np.ndarray,
    weights: np.ndarray,
    candidates: np.ndarray,
    colour: np.ndarray | None = None,
) -> np.ndarray:
    """Returns which of the candidate frames show the main car, bool [N].

    The main car is the track of the greatest total weight. Another track is another car if it was
    seen between two frames of a track that is the car's, or if its colour is another's; otherwise
    it is another shot of the car. Tracks of a single frame are left alone: a slip of the car box
    says nothing of another car. At one frame a second nearly every box continues the track.

    Args:
        time_s: float [N], increasing, seconds.
        box: float [N, 4]; left, top, right, bottom as fractions of the frame, finite for
            candidates.
        weights: float [N]; the time that each frame stands for.
        candidates: bool [N]; the frames that show a car.
        colour: float [N, 3] in 0..1, or None if it was not measured.

    Example:
        >>> box = np.tile([0.3, 0.3, 0.7, 0.7], (20, 1))
        >>> box[8:12] = [0.0, 0.6, 0.25, 0.8]  # a second car passes
        >>> seen = main_car(np.arange(20) / 8, box, np.ones(20), np.ones(20, bool))
        >>> np.flatnonzero(~seen).tolist()
        [8, 9, 10, 11]
    """
    tracks = _join(time_s, np.asarray(box, np.float64), np.flatnonzero(candidates))
    tracks.sort(key=lambda t: -weights[t.frames].sum())
    accepted: list[_Track] = []
    shown = candidates.copy()
    for track in tracks:
        if len(track.frames) < MIN_FRAMES:
            continue
        shared = any(_share_time(track, other) for other in accepted)
        if shared or (accepted and _differs(track, accepted[0], colour)):
            shown[track.frames] = False
        else:
            accepted.append(track)
    return shown


def _join(time_s: np.ndarray, box: np.ndarray, index: np.ndarray) -> list[_Track]:
    tracks: list[_Track] = []
    for i, seconds in zip(index, np.diff(time_s[index], prepend=time_s[index[:1]]), strict=True):
        alive = [t for t in tracks if time_s[i] - time_s[t.frames[-1]] <= MAX_GAP_S]
        costs = [_cost(box[t.frames[-1]], box[i], seconds) for t in alive]
        best = int(np.argmin(costs)) if costs else -1
        if costs and costs[best] <= 1:
            alive[best].frames.append(int(i))
        else:
            tracks.append(_Track([int(i)]))
    return tracks


def _cost(a: np.ndarray, b: np.ndarray, seconds: float) -> float:
    """How far box `b` is from continuing `a`, in units of what is allowed."""
    side_a, side_b = np.maximum(a[2:] - a[:2], 1e-6), np.maximum(b[2:] - b[:2], 1e-6)
    move = np.abs((a[:2] + a[2:]) / 2 - (b[:2] + b[2:]) / 2) / ((side_a + side_b) / 2)
    log_area = abs(np.log(side_a / side_b).sum())
    return float(
        max(
            move.max() / (MAX_MOVE + MAX_MOVE_PER_S * seconds),
            log_area / (MAX_LOG_AREA + MAX_LOG_AREA_PER_S * seconds),
        )
    )


def _share_time(a: _Track, b: _Track) -> bool:
    """Whether either track was seen between two frames of the other."""
    return a.frames[0] < b.frames[-1] and b.frames[0] < a.frames[-1]


def _differs(a: _Track, b: _Track, colour: np.ndarray | None) -> bool:
    """Whether the tracks' colours, whatever the light's strength, are those of two cars."""
    if colour is None:
        return False
    share_a, share_b = (
        np.median(c / np.maximum(c.sum(1, keepdims=True), 1e-6), axis=0)
        for c in (np.asarray(colour, np.float64)[t.frames] for t in (a, b))
    )
    return float(np.abs(share_a - share_b).max()) > MAX_COLOUR_SHIFT
