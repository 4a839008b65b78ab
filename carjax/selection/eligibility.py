"""Which frames may become photos: they show the car, all of it if any does, sharply and in light.

Every rule but the first compares a frame with its own video, so that a video that is soft, dark
or shows nothing but details keeps its best frames.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from carjax.attributes import CONTENT
from carjax.selection import tracking
from carjax.table import LUMA, ScoreTable

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
# The car's brightness as a share of what is usual in the video. Its shaded side has more than half
# of the sunny one's.
MIN_RELATIVE_BRIGHTNESS = 0.35
# Where the usual brightness is below this the photos come out dark. Of 2,967 photos (every third of
# Stanford Cars and phone_photos), black cars in the shade among them, one is darker.
MIN_BRIGHTNESS = 0.1
_LEAST_WEIGHT = 1e-12
_WHOLE, _PART, _NONE = (CONTENT.classes.index(name) for name in ("whole", "part", "none"))


def car_frames(
    table: ScoreTable, min_car_probability: float = MIN_CAR_PROBABILITY, *, seen: bool = False
) -> np.ndarray:
    """Returns which frames show a car, bool [N]; a probability that is not finite is a no.

    If one frame reaches `min_car_probability`, all that reach a quarter of it show the car;
    otherwise none does. Frames of which the content head says that they more likely show no car
    than one are left out of both.

    Args:
        table: scores of N frames.
        min_car_probability: what shows a car.
        seen: a frame before these has reached it.
    """
    probability = np.where(np.isfinite(table.car_probability), table.car_probability, -1.0)
    if table.content_probs is not None:
        none = table.content_probs[:, _NONE]
        probability = np.where(np.isfinite(none) & (none <= 0.5), probability, -1.0)
    if not (seen or (probability >= min_car_probability).any()):
        return np.zeros(len(table), bool)
    return probability >= FRAME_CAR_SHARE * min_car_probability


def main_car_frames(
    table: ScoreTable, min_car_probability: float = MIN_CAR_PROBABILITY
) -> np.ndarray:
    """Returns which frames show the car, and not another one that passes, bool [N].

    Those of `car_frames` that `tracking.main_car` takes for the main car; it judges no frame whose
    box is not finite.
    """
    car = car_frames(table, min_car_probability)
    judged = car & np.isfinite(table.box).all(axis=1)
    main = tracking.main_car(
        table.time_s, table.box, time_weights(table.time_s), judged, table.car_colour
    )
    return car & (main | ~judged)


def whole_frames(table: ScoreTable) -> np.ndarray:
    """Returns which frames rather show a whole car than a part of one, bool [N].

    All, where the model does not tell.
    """
    if table.content_probs is None:
        return np.ones(len(table), bool)
    return table.content_probs[:, _WHOLE] >= table.content_probs[:, _PART]


def whole_if_any(frames: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns those of the frames that show a whole car, if there are any, else all, bool [N]."""
    return frames & whole if (frames & whole).any() else frames


def sound_classes(table: ScoreTable, attribute: str) -> np.ndarray:
    """Returns which frames have finite probabilities of an attribute's classes, bool [N]."""
    return np.isfinite(table.probs[attribute]).all(axis=1) & np.isfinite(table.entropy[attribute])


def content_of(table: ScoreTable, row: int) -> str | None:
    """Returns what a frame with a car shows of it, 'whole' or 'part'; None if not known."""
    if table.content_probs is None:
        return None
    return CONTENT.classes[_WHOLE if whole_frames(table)[row] else _PART]


def eligible_frames(
    table: ScoreTable, min_car_probability: float = MIN_CAR_PROBABILITY
) -> np.ndarray:
    """Returns which frames may become photos, bool [N].

    They show the main car (`main_car_frames`); its box has at least
    4% of the usual area (the upper quartile over the frames with a car), because a smaller one is
    a slip of the localiser; it has at least 35% of the usual brightness; and it is sharp
    (`sharp_frames`). Frames with the whole car are compared with each other, and so are those with
    a part of it: selection takes the latter where no other will do.

    Args:
        table: scores of N frames.
        min_car_probability: what shows a car, see `car_frames`.
    """
    weights = time_weights(table.time_s)
    car = lit_frames(table, main_car_frames(table, min_car_probability), weights)
    whole = whole_frames(table)
    for rung in (car & whole, car & ~whole):
        car[rung] = sharp_frames(table.time_s[rung], table.sharpness[rung], weights[rung])
    return car


def lit_frames(table: ScoreTable, car: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns which frames of the main car are large and light enough, bool [N].

    Args:
        table: scores of N frames.
        car: bool [N]; as from `main_car_frames`.
        weights: float [N]; as from `time_weights`.
    """
    box = np.where(np.isfinite(table.box), table.box, 0).astype(np.float64)
    area = np.prod(np.maximum(box[:, 2:] - box[:, :2], 0), axis=1)
    car = car & np.isfinite(table.sharpness) & np.isfinite(table.box).all(axis=1)
    car &= area >= MIN_RELATIVE_AREA * usual(area, weights, car)
    if table.car_colour is not None:
        brightness = table.car_colour @ LUMA
        car &= brightness >= MIN_RELATIVE_BRIGHTNESS * usual(brightness, weights, car)
    return car


def is_dark(table: ScoreTable) -> bool:
    """Whether the car is dark wherever it may be photographed; no, if that was not measured."""
    frames = eligible_frames(table)
    if table.car_colour is None or not frames.any():
        return False
    return usual(table.car_colour @ LUMA, time_weights(table.time_s), frames) < MIN_BRIGHTNESS


def usual(values: np.ndarray, weights: np.ndarray, which: np.ndarray) -> float:
    """Returns the weighted upper quartile of the values of those frames; 0 if there are none."""
    if not which.any():
        return 0.0
    return _weighted_quantile(values[which], weights[which], USUAL_QUANTILE)


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
    if not len(sharpness):
        return np.zeros(0, bool)
    if weights is None:
        weights = time_weights(time_s)
    local = local_sharpness(sharpness, weights, *neighbourhoods(time_s))
    return sharp_beside(sharpness, weights, local)


def sharp_beside(sharpness: np.ndarray, weights: np.ndarray, local: np.ndarray) -> np.ndarray:
    """The rule of `sharp_frames`, where the neighbourhoods' upper quartiles are known."""
    overall = _weighted_quantile(sharpness, weights, USUAL_QUANTILE)
    return (sharpness >= MIN_LOCAL_SHARPNESS * local) & (
        sharpness >= MIN_GLOBAL_SHARPNESS * overall
    )


def neighbourhoods(time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns where the neighbourhood of each frame starts, and before what it ends, int [N]."""
    index = np.arange(len(time_s))
    low = np.searchsorted(time_s, time_s - SHARPNESS_WINDOW_S, "left")
    high = np.searchsorted(time_s, time_s + SHARPNESS_WINDOW_S, "right")
    low = np.maximum(np.minimum(low, index - SHARPNESS_NEIGHBOURS), 0)
    high = np.minimum(np.maximum(high, index + SHARPNESS_NEIGHBOURS + 1), len(time_s))
    return low, high


def local_sharpness(
    sharpness: np.ndarray, weights: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Returns the upper quartile of the sharpness in each stretch low … high − 1, float64 [M]."""
    sharpness = np.asarray(sharpness, np.float64)
    return np.array(
        [
            _weighted_quantile(sharpness[a:b], weights[a:b], USUAL_QUANTILE)
            for a, b in zip(low, high, strict=True)
        ]
    )


def time_weights(time_s: npt.ArrayLike) -> np.ndarray:
    """Weights of frames by the time each stands for: half the time to each neighbour.

    The trapezoid rule, so that uneven sampling of a video changes no mean over time. Never quite
    none, so that a mean over any frames is one: of several at one time, say.

    Args:
        time_s: float [N]; presentation times in seconds, not decreasing.

    Returns:
        float64 [N] with sum 1; equal weights if all times are equal (a single frame has 1).

    Raises:
        ValueError: the times are not one row of finite, non-decreasing numbers.

    Example:
        >>> time_weights([0.0, 1.0, 4.0]).tolist()
        [0.125, 0.5, 0.375]
    """
    times = np.asarray(time_s, np.float64)
    if times.ndim != 1 or times.size == 0:
        raise ValueError(f"time_s must be [N] with N ≥ 1, not of shape {times.shape}")
    gaps = np.diff(times)
    if not np.isfinite(times).all() or (gaps < 0.0).any():
        raise ValueError("time_s must be finite and must not decrease")
    span = times[-1] - times[0]
    if span == 0.0:
        return np.full(times.shape, 1.0 / times.size)
    weights = (np.append(gaps, 0.0) + np.insert(gaps, 0, 0.0)) / (2.0 * span)
    return np.maximum(weights, _LEAST_WEIGHT)


def _weighted_quantile(values: np.ndarray, weights: np.ndarray, quantile: float) -> float:
    """The smallest value whose cumulative weight reaches that share of the total.

    With equal weights the share is often reached exactly: rounding must not decide, or the weights'
    scale would.
    """
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(total, quantile * total[-1] * (1 - 1e-9))]])
