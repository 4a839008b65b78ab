"""Follow the main car through the video, so that another car that passes is not taken for it.

Host code on the boxes and colours of a score table. Frames are joined to tracks as in multi-object
tracking: each goes to the track whose last frame it fits best, or starts one. Where two tracks
share a stretch of time, the camera saw two cars, and the one that is seen for longer is the car.
Tracks one after the other are shots of a film: all are the car's, but those of another colour.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from carjax.table import LUMA

# A frame continues a track if the box's centre has moved by no more than the first share of the
# boxes' mean sides, and the logarithm of its area, the colour's shares of red, green and blue, and
# the logarithm of the brightness by no more than the others. The first two grow with the time
# since the frame before, whosever it was: a car that was hidden for a while comes back where it
# was. The others grow with the time since the track was seen: its other side may have another
# light. Around the car of the sample video, at 6 frames a second, the colour moves by 0.034 and
# 0.27; a car that is pasted in front of it moves them by 0.14 to 0.24 and 0.5 to 1.1.
MAX_MOVE, MAX_MOVE_PER_S = 0.35, 0.7
MAX_LOG_AREA, MAX_LOG_AREA_PER_S = 0.8, 0.8
MAX_COLOUR, MAX_COLOUR_PER_S = 0.07, 0.07
MAX_LOG_LIGHT, MAX_LOG_LIGHT_PER_S = 0.7, 0.5
# A track that was not seen for longer has ended.
MAX_GAP_S = 4.0
# Between two shots of one car the median share of a colour moves by less than this; the light may
# be any.
MAX_SHOT_COLOUR = 0.15


class Look(NamedTuple):
    """What tracks are joined by, a row per frame.

    Attributes:
        box: float [N, 4].
        colour: float [N, 3]; shares of red, green and blue, which add up to one.
        log_light: float [N]; logarithm of the brightness.
    """

    box: np.ndarray
    colour: np.ndarray
    log_light: np.ndarray


def main_car(
    time_s: np.ndarray,
    box: np.ndarray,
    weights: np.ndarray,
    candidates: np.ndarray,
    colour: np.ndarray | None = None,
) -> np.ndarray:
    """Returns which of the candidate frames show the main car, bool [N].

    The main car is the track of the greatest total weight (of more than one frame, if any is).
    Another track is another car if it was seen between two frames of a track that is the car's, or
    if its colour is another's; otherwise it is another shot of the car. A single frame between two
    of one track is a slip of the car box, which says nothing of another car: it is left alone. At
    one frame a second nearly every box continues the track.

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
    look = look_of(box, colour)
    tracks = join(time_s, look, np.flatnonzero(candidates))
    return accept(tracks, look, weights, candidates)


def accept(
    tracks: list[list[int]], look: Look, weights: np.ndarray, candidates: np.ndarray
) -> np.ndarray:
    """Returns which of the candidate frames are of tracks that show the main car, bool [N].

    Args:
        tracks: as from `join`.
        look: what they were joined by, of N frames or more.
        weights: float [N]; the time that each frame stands for.
        candidates: bool [N]; the frames that were joined.
    """
    tracks = sorted(tracks, key=lambda track: (len(track) == 1, -weights[track].sum()))
    accepted: list[list[int]] = []
    shown = candidates.copy()
    for track in tracks:
        shared = any(_share_time(track, other) for other in accepted)
        if len(track) == 1 and shared and _is_slip(track[0], tracks, accepted):
            continue
        if shared or (accepted and _another_colour(track, accepted[0], look)):
            shown[track] = False
        else:
            accepted.append(track)
    return shown


def look_of(box: np.ndarray, colour: np.ndarray | None) -> Look:
    """Returns what frames are joined by, from boxes [N, 4] and colours [N, 3] if measured."""
    # Without colours all frames have one: then it decides nothing.
    colour = np.ones((len(box), 3)) if colour is None else np.asarray(colour, np.float64)
    colour = np.maximum(colour, 1e-3)
    return Look(
        np.asarray(box, np.float64),
        colour / colour.sum(1, keepdims=True),
        np.log(colour @ LUMA),
    )


def join(time_s: np.ndarray, look: Look, index: np.ndarray) -> list[list[int]]:
    """Joins the frames at these positions to tracks: lists of positions, in order.

    A frame goes to a track by what came before it alone: the tracks of a video's first frames are
    those of the whole video, cut short.
    """
    tracks: list[list[int]] = []
    for i, seconds in zip(index, np.diff(time_s[index], prepend=time_s[index[:1]]), strict=True):
        alive = [track for track in tracks if time_s[i] - time_s[track[-1]] <= MAX_GAP_S]
        costs = [
            _cost(look, track[-1], int(i), float(seconds), float(time_s[i] - time_s[track[-1]]))
            for track in alive
        ]
        best = int(np.argmin(costs)) if costs else -1
        if costs and costs[best] <= 1:
            alive[best].append(int(i))
        else:
            tracks.append([int(i)])
    return tracks


def _cost(look: Look, a: int, b: int, step_s: float, gap_s: float) -> float:
    """How far frame `b` is from continuing `a`, in units of what is allowed.

    `step_s` passed since the frame before `b`, `gap_s` since `a`.
    """
    box_a, box_b = look.box[a], look.box[b]
    side_a, side_b = (np.maximum(box[2:] - box[:2], 1e-6) for box in (box_a, box_b))
    move = np.abs((box_a[:2] + box_a[2:]) / 2 - (box_b[:2] + box_b[2:]) / 2)
    return max(
        (move / ((side_a + side_b) / 2)).max() / (MAX_MOVE + MAX_MOVE_PER_S * step_s),
        abs(np.log(side_a / side_b).sum()) / (MAX_LOG_AREA + MAX_LOG_AREA_PER_S * step_s),
        np.abs(look.colour[a] - look.colour[b]).max() / (MAX_COLOUR + MAX_COLOUR_PER_S * gap_s),
        abs(look.log_light[a] - look.log_light[b]) / (MAX_LOG_LIGHT + MAX_LOG_LIGHT_PER_S * gap_s),
    )


def _share_time(a: list[int], b: list[int]) -> bool:
    """Whether either track was seen between two frames of the other."""
    return a[0] < b[-1] and b[0] < a[-1]


def _is_slip(frame: int, tracks: list[list[int]], accepted: list[list[int]]) -> bool:
    """Whether the frames before and after, but for other single ones, are of one of the car's."""
    others = np.sort(np.concatenate([track for track in tracks if len(track) > 1]))
    at = int(np.searchsorted(others, frame))
    beside = {int(i) for i in others[at - 1 : at + 1]}
    return any(beside <= set(track) for track in accepted)


def _another_colour(a: list[int], b: list[int], look: Look) -> bool:
    """Whether the tracks' colours, whatever the light's strength, are those of two cars."""
    shift = np.median(look.colour[a], axis=0) - np.median(look.colour[b], axis=0)
    return bool(np.abs(shift).max() > MAX_SHOT_COLOUR)
