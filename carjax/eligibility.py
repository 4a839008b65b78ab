"""Which frames may become photos: they show the car, sharply, in a box that is not a slip."""

from __future__ import annotations

import numpy as np

from carjax.table import ScoreTable

# The classifier was trained with smoothed labels, so its mass on vehicles is low even on clear
# photos: 99.5% of the training photos have more than 0.20, 90% of car-free backgrounds less than
# 0.15. A video needs one frame above it; then the car is there, and its frames need a quarter.
MIN_CAR_PROBABILITY = 0.15
FRAME_CAR_SHARE = 0.25
# What is usual in a video is its upper quartile: still right when most frames are spoilt.
USUAL_QUANTILE = 0.75
# A box below this share of the usual area (a fifth of the width) is a slip of the localiser.
MIN_RELATIVE_AREA = 0.04
# See `sharp_frames`.
SHARPNESS_WINDOW_S = 1.5
SHARPNESS_NEIGHBOURS = 4
MIN_LOCAL_SHARPNESS = 0.85
MIN_GLOBAL_SHARPNESS = 0.8


def car_frames(table: ScoreTable, min_car_probability: float = MIN_CAR_PROBABILITY) -> np.ndarray:
    """Returns which frames show a car, bool [N]; a probability that is not finite is a no.

    If one frame reaches `min_car_probability`, all that reach a quarter of it show the car;
    otherwise none does.
    """
    probability = np.where(np.isfinite(table.car_probability), table.car_probability, -1.0)
    if not (probability >= min_car_probability).any():
        return np.zeros(len(table), bool)
    return probability >= FRAME_CAR_SHARE * min_car_probability


def eligible_frames(
    table: ScoreTable, min_car_probability: float = MIN_CAR_PROBABILITY
) -> np.ndarray:
    """Returns which frames may become photos, bool [N].

    They show a car; its box has at least 4% of the usual area (the upper quartile over the frames
    with a car), because a smaller one is a slip of the localiser; and they are sharp
    (`sharp_frames`) beside the others of which this holds.

    Args:
        table: scores of N frames.
        min_car_probability: what shows a car, see `car_frames`.
    """
    box = np.where(np.isfinite(table.box), table.box, 0).astype(np.float64)
    area = np.prod(np.maximum(box[:, 2:] - box[:, :2], 0), axis=1)
    mask = car_frames(table, min_car_probability) & np.isfinite(table.sharpness)
    mask &= np.isfinite(table.box).all(axis=1)
    if not mask.any():
        return mask
    weights = time_weights(table.time_s)
    usual = _weighted_quantile(area[mask], weights[mask], USUAL_QUANTILE)
    mask &= area >= MIN_RELATIVE_AREA * usual
    mask[mask] = sharp_frames(table.time_s[mask], table.sharpness[mask], weights[mask])
    return mask


def sharp_frames(
    time_s: np.ndarray, sharpness: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Returns which frames are sharp for their video, bool [N].

    Sharpness (`scoring.sharpness`) depends on the camera, its compression, and the size of the
    car. So a frame is compared with its own video, twice:

    * with its neighbourhood of ±1.5 s (at least 4 frames to each side): at least 0.85 of the
      neighbourhood's upper quartile. The quartile follows the slow changes that come from the side
      and the size of the car, and still belongs to the sharp frames when up to three quarters of
      the neighbourhood are blurred; a median gives way at one half. In the sample video motion
      blur leaves 0.6 to 0.8 of it.
    * with the whole video: at least 0.8 of its upper quartile. That catches a passage that is
      blurred for longer than the neighbourhood.

    Both are ratios, so a video that is soft throughout keeps its frames. The frame of the highest
    value is always sharp.

    Args:
        time_s: float [N], increasing, seconds.
        sharpness: float [N], finite, not negative.
        weights: float [N], time that each frame stands for; None takes it from `time_s`.

    Returns:
        bool [N].

    Example:
        >>> sharp_frames(np.arange(8) / 8, np.array([300, 320, 20, 15, 25, 310, 290, 305.0]))
        array([ True,  True, False, False, False,  True,  True,  True])
    """
    count = len(sharpness)
    if not count:
        return np.zeros(0, bool)
    if weights is None:
        weights = time_weights(time_s)
    sharpness = np.asarray(sharpness, np.float64)
    index = np.arange(count)
    low = np.searchsorted(time_s, time_s - SHARPNESS_WINDOW_S, "left")
    high = np.searchsorted(time_s, time_s + SHARPNESS_WINDOW_S, "right")
    low = np.maximum(np.minimum(low, index - SHARPNESS_NEIGHBOURS), 0)
    high = np.minimum(np.maximum(high, index + SHARPNESS_NEIGHBOURS + 1), count)
    local = np.array(
        [
            _weighted_quantile(sharpness[a:b], weights[a:b], USUAL_QUANTILE)
            for a, b in zip(low, high, strict=True)
        ]
    )
    overall = _weighted_quantile(sharpness, weights, USUAL_QUANTILE)
    return (sharpness >= MIN_LOCAL_SHARPNESS * local) & (
        sharpness >= MIN_GLOBAL_SHARPNESS * overall
    )


def time_weights(time_s: np.ndarray) -> np.ndarray:
    """Returns the time that each frame stands for, float64 [N] (`circular.time_weights`)."""
    # Imported in the functions that need it: JAX takes most of a second.
    from carjax import circular

    return circular.time_weights(time_s)


def _weighted_quantile(values: np.ndarray, weights: np.ndarray, quantile: float) -> float:
    """The smallest value whose cumulative weight reaches that share of the total."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(total, quantile * total[-1])]])
