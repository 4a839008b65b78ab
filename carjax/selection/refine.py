"""Which frames of a video to score next: coarse-to-fine sampling as Bayesian optimisation in time.

Host code on NumPy arrays: pure functions. A video is scored sparsely first; then, round by round,
the frames are scored that are expected to better the chosen photos most. What is bettered is the
sum, over the attributes and views, of the certainty of the frame that would be chosen: 1 − H/log K
for an attribute, the mass inside the bin for a view.

* Attributes: between two scored frames the certainty is taken for a Brownian bridge, a Wiener
  process that is known at both ends. A frame's gain is its expected improvement on the best
  frame (Kushner, "A new method of locating the maximum point of an arbitrary multipeak curve in
  the presence of noise", Journal of Basic Engineering 1964; Mockus, "On Bayesian methods for
  seeking the extremum", 1975).
* Views: between two scored frames the azimuth goes the shorter way at constant speed, so that it is
  known when a bin's centre is passed. A frame's gain is how much more of its predicted density lies
  in the bin than of the best frame's; a bin that is empty or barely filled gains most.

Whether a frame may be chosen at all (`eligibility`) is interpolated between its neighbours too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from carjax import grids
from carjax.attributes import Categorical
from carjax.selection.categorical import pool_probabilities
from carjax.selection.eligibility import (
    car_frames,
    eligible_frames,
    sound_classes,
    time_weights,
    whole_frames,
    whole_if_any,
)
from carjax.table import ScoreTable, certainty

# A video's first pass takes a frame for each second; a short video has at least so many slots.
COARSE_FPS = 1.0
COARSE_MIN = 24
# No more frames than these are scored: so many for each second of video, and altogether so many on
# top of the first pass. At 30 frames a second that is a sixth at most.
BUDGET_FPS = 5.0
BUDGET_REFINED = 72
# Gains in certainty below this are not worth a round.
MIN_GAIN = 0.002
# A frame that gains this share of what the best one does will do, if it takes less decoding.
NEARLY = 0.9
# A view whose frame is half a bin off its centre counts for so much less than one at the centre.
OFF_CENTRE = 0.1
# What is not between two eligible frames may be eligible still.
MIN_ELIGIBLE = 0.1


def coarse_rate(duration_s: float) -> float:
    """Returns how many frames a second the first pass takes.

    Example:
        >>> coarse_rate(60.0), coarse_rate(12.0)
        (1.0, 2.0)
    """
    return max(COARSE_FPS, COARSE_MIN / duration_s) if duration_s > 0 else COARSE_FPS


def budget(duration_s: float, coarse: int) -> int:
    """Returns how many frames may be scored in all, the `coarse` ones of the first pass included.

    Example:
        >>> budget(60.0, 60), budget(12.0, 24)
        (132, 60)
    """
    return max(coarse, min(math.floor(BUDGET_FPS * duration_s), coarse + BUDGET_REFINED))


def next_frames(
    table: ScoreTable,
    times_s: np.ndarray,
    count: int,
    *,
    waiting: Sequence[int] = (),
    lost: Sequence[int] = (),
    attributes: Sequence[str] | None = None,
    views: int = 8,
    effort: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Returns the frames to score next: those that are expected to better the photos most.

    Chosen one after the other, each as if those before had come out as predicted: of the frames
    that promise nearly as much as the best one, that which takes the least decoding. A round that
    is worth its first frame is filled, because a batch costs the same whatever is in it. Where no
    frame shows a car yet, they halve the widest gaps.

    Args:
        table: scores of the M frames scored so far, M ≥ 1.
        times_s: float64 [N]; presentation times of all frames of the video, strictly increasing.
        count: how many frames to return, at most.
        waiting: frames that are being scored.
        lost: frames that cannot be decoded.
        attributes: names to better the photos of; None means all of the table's schema.
        views: 8 or 4 views around the object.
        effort: two int64 [N]: the stretch of the file that each frame is decoded with, and how many
            of its frames come before and with it (`video.Reader.effort`); None: all cost the same.

    Returns:
        int64 [≤ count]; indices into `times_s`, increasing, none of them in the table, waiting or
        lost. Empty when less than `MIN_GAIN` is to be gained.
    """
    if not car_frames(table).any():  # it may be seen between them yet
        known = np.concatenate([table.frame, waiting, lost]).astype(int)
        return _widest_gaps(known, times_s, count)
    model = _Model(table, times_s, attributes, views)
    for index in waiting:
        model.believe(index)
    zeros = np.zeros(len(times_s), np.int64)
    stretch, depth = effort or (zeros, zeros)
    reached = np.zeros(stretch.max() + 1, np.int64)
    chosen: list[int] = []
    while len(chosen) < count:
        gain = model.gains()
        gain[list(lost)] = -1.0
        if gain.max() <= 0 or (not chosen and gain.max() < MIN_GAIN):
            break
        near = np.flatnonzero(gain >= NEARLY * gain.max())
        more = np.maximum(depth[near] - reached[stretch[near]], 0)
        best = int(near[np.lexsort((-gain[near], more))[0]])
        reached[stretch[best]] = max(reached[stretch[best]], depth[best])
        chosen.append(best)
        model.believe(best)
    return np.array(sorted(chosen), np.int64)


class _Model:
    """What is known at the scored frames, and predicted between them."""

    def __init__(
        self,
        table: ScoreTable,
        times_s: np.ndarray,
        attributes: Sequence[str] | None,
        views: int,
    ) -> None:
        names = {a.name for a in table.schema} if attributes is None else set(attributes)
        eligible = eligible_frames(table)
        self.times_s = times_s
        self.known = table.frame
        self.eligible = whole_if_any(eligible, whole_frames(table)).astype(float)
        weights = time_weights(table.time_s)
        values = [
            _certainties(table, attribute, self.eligible > 0, weights)
            for attribute in table.categorical
            if attribute.name in names
        ]
        self.values = np.array(values).reshape(len(values), len(table))
        self.rates = np.array([_rate(value, table.time_s) for value in self.values])
        self.best = np.max(self.values * self.eligible, axis=1, initial=0.0)
        turns = table.angular is not None and table.angular.name in names
        self.centres = np.arange(views if turns else 0) * (360 / views)
        self.azimuth = np.nan_to_num(np.asarray(table.azimuth_deg, np.float64))
        self.log_kappa = np.log(
            np.maximum(np.nan_to_num(np.asarray(table.kappa, np.float64)), 1e-3)
        )
        self.floor = np.nan_to_num(np.asarray(table.azimuth_floor, np.float64))
        fill = _view_value(self.azimuth, self.log_kappa, self.floor, self.centres)
        self.best_view = np.max(fill * self.eligible, axis=1, initial=0.0)

    def gains(self) -> np.ndarray:
        """What scoring each frame of the video is expected to add to the sum, float64 [N]."""
        left, share, variance = self._place()
        eligible = np.maximum(_between(self.eligible, left, share), MIN_ELIGIBLE)
        gain = np.zeros(len(self.times_s))
        for value, rate, best in zip(self.values, self.rates, self.best, strict=True):
            mean = _between(value, left, share)
            gain += _expected_improvement(mean, np.sqrt(rate * variance), best)
        azimuth = _azimuth_between(self.azimuth, left, share)
        fill = _view_value(
            azimuth, _between(self.log_kappa, left, share), _between(self.floor, left, share),
            self.centres,
        )  # fmt: skip
        gain += np.maximum(fill - self.best_view[:, None], 0).sum(axis=0)
        gain *= eligible
        gain[self.known] = -1.0
        return gain

    def believe(self, index: int) -> None:
        """Takes the prediction for a frame for its score."""
        left, share, _ = (x[index : index + 1] for x in self._place())
        at = int(np.searchsorted(self.known, index))
        azimuth = _azimuth_between(self.azimuth, left, share)
        row = {
            name: _between(getattr(self, name), left, share)
            for name in ("eligible", "log_kappa", "floor", "values")
        }
        fill = _view_value(azimuth, row["log_kappa"], row["floor"], self.centres)
        self.best = np.maximum(self.best, row["values"][:, 0])
        self.best_view = np.maximum(self.best_view, fill[:, 0])
        self.known = np.insert(self.known, at, index)
        self.azimuth = np.insert(self.azimuth, at, azimuth)
        for name, value in row.items():
            before = getattr(self, name)
            setattr(self, name, np.insert(before, at, value[..., 0], axis=-1))

    def _place(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where every frame lies: the scored frame before it, and how far it is to the next.

        Third comes the variance of a Wiener process there, at one per second: of a bridge between
        the two, or, before the first and after the last scored frame, of a path from that one.
        """
        count = len(self.known)
        known_s = self.times_s[self.known]
        every = np.arange(len(self.times_s))
        left = np.clip(np.searchsorted(self.known, every, "right") - 1, 0, max(count - 2, 0))
        start, end = known_s[left], known_s[np.minimum(left + 1, count - 1)]
        gap_s = end - start
        share = np.where(gap_s > 0, (self.times_s - start) / np.where(gap_s > 0, gap_s, 1), 0.0)
        share = np.clip(share, 0.0, 1.0)
        outside = np.maximum(known_s[0] - self.times_s, self.times_s - known_s[-1])
        return left, share, np.where(outside > 0, outside, gap_s * share * (1 - share))


def _widest_gaps(known: np.ndarray, times_s: np.ndarray, count: int) -> np.ndarray:
    """The frames nearest to the middles of the widest gaps, one gap after the other."""
    known_s = np.sort(times_s[known])
    after = np.searchsorted(known_s, times_s).clip(1, len(known_s) - 1) if len(known_s) > 1 else 0
    distance = np.minimum(np.abs(times_s - known_s[after - 1]), np.abs(times_s - known_s[after]))
    chosen: list[int] = []
    for _ in range(min(count, len(times_s) - len(known))):
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.abs(times_s - times_s[chosen[-1]]))
    return np.array(sorted(chosen), np.int64)


def _certainties(
    table: ScoreTable, attribute: Categorical, candidates: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Certainty where a frame agrees with the video's class, else 0; float64 [M]."""
    probs = np.asarray(table.probs[attribute.name], np.float64)
    entropy = np.asarray(table.entropy[attribute.name], np.float64)
    sound = sound_classes(table, attribute.name)
    votes = candidates & sound
    if not votes.any() or len(attribute.classes) < 2:
        return np.zeros(len(table))
    label = int(np.argmax(pool_probabilities(probs[votes], weights[votes])))
    agrees = sound & (np.argmax(np.where(sound[:, None], probs, 0), axis=1) == label)
    sure = certainty(np.where(sound, entropy, 0), len(attribute.classes))
    return np.where(agrees, sure, 0.0)


def _rate(values: np.ndarray, time_s: np.ndarray) -> float:
    """Variance per second of the Wiener process through these values: the median of its squares.

    Less than their mean, which a few jumps to frames of another class decide.
    """
    if len(values) < 2:
        return 0.0
    squares = np.diff(values) ** 2 / np.diff(time_s)
    return float(np.median(squares[squares > 0])) if (squares > 0).any() else 0.0


def _between(values: np.ndarray, left: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Linear interpolation along the last axis."""
    right = np.minimum(left + 1, values.shape[-1] - 1)
    return values[..., left] * (1 - share) + values[..., right] * share


def _azimuth_between(azimuth: np.ndarray, left: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Degrees, the shorter way around."""
    right = np.minimum(left + 1, len(azimuth) - 1)
    step = grids.difference_deg(azimuth[right], azimuth[left])
    return (azimuth[left] + share * step) % 360


def _view_value(
    azimuth: np.ndarray, log_kappa: np.ndarray, floor: np.ndarray, centres: np.ndarray
) -> np.ndarray:
    """Mass inside each bin, a little less off its centre; 0 in another bin. Float64 [V, M].

    The von Mises density is taken for a normal one of variance 1/κ: for a prediction it will do.
    """
    if not len(centres):
        return np.zeros((0, len(azimuth)))
    half = 180 / len(centres)
    off = grids.apart_deg(azimuth, centres[:, None])
    scale = math.sqrt(2) * np.degrees(np.exp(-log_kappa / 2))
    mass = (_erf((half - off) / scale) + _erf((half + off) / scale)) / 2
    mass = (1 - floor) * mass + floor / len(centres)
    return np.where(off <= half, mass - OFF_CENTRE * off / half, 0.0)


def _erf(x: np.ndarray) -> np.ndarray:
    """The error function, within 5e-4 (Abramowitz and Stegun, 7.1.27)."""
    z = np.abs(x)
    series = 1 + z * (0.278393 + z * (0.230389 + z * (0.000972 + z * 0.078108)))
    return np.sign(x) * (1 - series**-4)


def _expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """E[max(X − best, 0)] of a normal X."""
    safe = np.where(deviation > 0, deviation, 1.0)
    z = (mean - best) / safe
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    cumulative = (1 + _erf(z / math.sqrt(2))) / 2
    return np.where(
        deviation > 0,
        safe * np.maximum(z * cumulative + density, 0),
        np.maximum(mean - best, 0),
    )
