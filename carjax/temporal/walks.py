"""Simulated walks: photos of one car model, ordered as a camera that walks around it sees them.

No data set has enough walk-around videos with a true azimuth per frame, but it has photos of each
car model from many sides. A walk draws what a camera does (its path of azimuths over time, with
pauses, hurries and turns back) and shows, in each frame, a photo that was taken from about there.
Where the model has none the frame is missing, and the timestamps jump. In spoilt stretches the
photo is shown blurred, cut or small (`SPOILT`).

Pure NumPy: a walk depends on its arguments and on the state of the generator alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from carjax.datasets.augment import Augmentation
from carjax.errors import UsageError
from carjax.grids import apart_deg, wrapped_deg

# The views of a photo that frames show, in the numbering of the feature cache, whose odd views are
# mirrored: 0 the photo, 1 its mirror image, 2 spoilt, 3 spoilt and mirrored.
MIRRORED, SPOILT_VIEW = 1, 2
# How the views of spoilt frames are drawn: cut far into the car, or small in a wide frame; mostly
# blurred; from very dark to overexposed.
SPOILT = Augmentation(
    crop=0.45,
    margin=0.1,
    zoom_out=2.5,
    zoom_out_rate=0.3,
    blur=8.0,
    blur_rate=0.7,
    brightness=1.5,
)


@dataclasses.dataclass(frozen=True)
class WalkSpec:
    """How the camera walks, and how much goes wrong.

    Attributes:
        frames: how often the camera looks; the length T of every walk, padding included.
        fps: looks per second.
        time_jitter: each timestamp is off by up to half this share of the time between two.
        speed_deg_s: median angular speed over walks.
        speed_spread: standard deviation of the logarithm of a walk's own median speed.
        speed_change: standard deviation of the logarithm of the speed within a walk …
        speed_change_s: … and the time in seconds over which it is forgotten.
        max_speed_deg_s: no walk is ever faster.
        pause_rate: pauses begin this often, per second of walking …
        pause_s: … and last so long on average, in seconds.
        hurry: factor on the speed in a hurry …
        hurry_rate: … which begins this often, per second …
        hurry_s: … and lasts so long on average, in seconds.
        turn_rate: the camera turns back this often, per second.
        tolerance_deg: a frame shows a photo whose label lies within this of the path.
        spoilt: share of spoilt frames …
        spoilt_s: … which come in stretches of this many seconds on average.
        mirrored: use the mirror image of every photo too, which doubles the angles.
    """

    frames: int = 128
    fps: float = 8.0
    time_jitter: float = 0.3
    speed_deg_s: float = 15.0
    speed_spread: float = 0.35
    speed_change: float = 0.4
    speed_change_s: float = 3.0
    max_speed_deg_s: float = 75.0
    pause_rate: float = 0.08
    pause_s: float = 1.2
    hurry: float = 2.5
    hurry_rate: float = 0.05
    hurry_s: float = 1.0
    turn_rate: float = 0.03
    tolerance_deg: float = 3.0
    spoilt: float = 0.2
    spoilt_s: float = 0.6
    mirrored: bool = True

    def __post_init__(self) -> None:
        """Checks every parameter.

        Raises:
            UsageError: one is out of its range.
        """
        for name in ("frames", "fps", "speed_deg_s", "speed_change_s", "max_speed_deg_s",
                     "pause_s", "hurry", "hurry_s", "spoilt_s"):  # fmt: skip
            if not getattr(self, name) > 0:
                raise UsageError(f"{name}: must be above 0, not {getattr(self, name)}")
        for name in ("speed_spread", "speed_change", "pause_rate", "hurry_rate", "turn_rate",
                     "tolerance_deg"):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name}: must be at least 0, not {getattr(self, name)}")
        for name in ("time_jitter", "spoilt"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UsageError(f"{name}: must be in [0, 1), not {getattr(self, name)}")


class Walk(NamedTuple):
    """T frames of one walk; padding, where photos were missing, is at the end.

    Attributes:
        photo: int32 [T]; which of the given photos the frame shows (0 in padding).
        view: int32 [T]; which view of it: 0 plain, 1 mirrored, 2 spoilt, 3 spoilt and mirrored.
        spoilt: bool [T].
        azimuth_deg: float32 [T] in [0, 360); where the camera is: the truth.
        label_deg: float32 [T] in [0, 360); the photo's own label, mirrored where the photo is. It
            is within the tolerance of the truth, and as noisy as labels are.
        time_s: float32 [T]; timestamps from about 0, increasing; padding repeats the last one.
        mask: bool [T]; False in padding.
    """

    photo: np.ndarray
    view: np.ndarray
    spoilt: np.ndarray
    azimuth_deg: np.ndarray
    label_deg: np.ndarray
    time_s: np.ndarray
    mask: np.ndarray


def simulate(azimuth_deg: npt.ArrayLike, spec: WalkSpec, rng: np.random.Generator) -> Walk:
    """Simulates one walk around one car model.

    Args:
        azimuth_deg: float [n]; labels of the model's photos in any turn; NaN is never shown.
        spec: how the camera walks.
        rng: where all randomness comes from.

    Returns:
        A walk of `spec.frames` frames. Where no photo has a suitable angle it is all padding.

    Example:
        >>> walk = simulate(np.arange(0, 181, 4), WalkSpec(), np.random.default_rng(0))
        >>> walk.photo.shape, bool(walk.mask.all())
        ((128,), True)
    """
    labels = np.asarray(azimuth_deg, np.float64)
    time_s = _timestamps(spec, rng)
    path = _path(time_s, spec, rng)
    spoilt = _stretches(time_s, spec.spoilt, spec.spoilt_s, rng)
    seen = np.concatenate([labels, -labels]) if spec.mirrored else labels
    choice = _choose(path, seen, spec.tolerance_deg, rng)
    # Frames without a photo are left out: the walk closes up, and its timestamps jump.
    kept = np.flatnonzero(choice >= 0)
    rows = np.full(spec.frames, kept[-1] if len(kept) else 0)
    rows[: len(kept)] = kept
    mask = np.arange(spec.frames) < len(kept)
    chosen = np.where(mask, choice[rows], 0)
    mirrored = chosen >= max(len(labels), 1)
    spoilt = spoilt[rows] & mask
    label = seen[chosen] if len(seen) else np.zeros(spec.frames)
    return Walk(
        photo=(chosen - mirrored * len(labels)).astype(np.int32),
        view=(mirrored * MIRRORED + spoilt * SPOILT_VIEW).astype(np.int32),
        spoilt=spoilt,
        azimuth_deg=wrapped_deg(path[rows]),
        label_deg=wrapped_deg(np.where(mask, label, path[rows])),
        time_s=time_s[rows].astype(np.float32),
        mask=mask,
    )


def stack(walks: Sequence[Walk]) -> Walk:
    """Joins walks of equal length to one with a leading axis."""
    return Walk(*(np.stack(fields) for fields in zip(*walks, strict=True)))


# --- The camera ----------------------------------------------------------------------------------


def _timestamps(spec: WalkSpec, rng: np.random.Generator) -> np.ndarray:
    """Increasing times, float64 [T]."""
    off = rng.uniform(-0.5, 0.5, spec.frames) * spec.time_jitter
    return (np.arange(spec.frames) + off) / spec.fps


def _path(time_s: np.ndarray, spec: WalkSpec, rng: np.random.Generator) -> np.ndarray:
    """Azimuths in degrees, float64 [T], in any turn."""
    gaps = np.diff(time_s, prepend=time_s[0])
    # The logarithm of the speed is an Ornstein-Uhlenbeck process about the walk's own median.
    kept = np.exp(-gaps / spec.speed_change_s)
    noise = rng.normal(size=spec.frames)
    change = np.empty(spec.frames)
    state = noise[0]
    for i, (keep, new) in enumerate(zip(kept, noise, strict=True)):
        state = keep * state + np.sqrt(1.0 - keep * keep) * new
        change[i] = state
    own = spec.speed_spread * rng.normal()
    speed = spec.speed_deg_s * np.exp(own + spec.speed_change * change)
    speed *= np.where(_events(time_s, spec.hurry_rate, spec.hurry_s, rng), spec.hurry, 1.0)
    speed = np.minimum(speed, spec.max_speed_deg_s)
    speed[_events(time_s, spec.pause_rate, spec.pause_s, rng)] = 0.0
    turns = np.cumsum(rng.random(spec.frames) < 1.0 - np.exp(-spec.turn_rate * gaps))
    direction = rng.choice([-1.0, 1.0]) * (-1.0) ** turns
    return rng.uniform(0.0, 360.0) + np.cumsum(direction * speed * gaps)


def _events(time_s: np.ndarray, rate: float, mean_s: float, rng: np.random.Generator) -> np.ndarray:
    """Bool [T]; inside of stretches that begin `rate` times a second outside of them."""
    return _stretches(time_s, rate * mean_s / (1.0 + rate * mean_s), mean_s, rng)


def _stretches(
    time_s: np.ndarray, share: float, mean_s: float, rng: np.random.Generator
) -> np.ndarray:
    """Bool [T]; stretches of exponential length that take a share of the time, on average."""
    if not share:
        return np.zeros(len(time_s), bool)
    inside = rng.random() < share
    # A stretch has no memory: what is left of the first one is as long as any.
    lasts = {True: mean_s, False: mean_s * (1.0 - share) / share}
    out = np.zeros(len(time_s), bool)
    at = time_s[0]
    while at <= time_s[-1]:
        end = at + rng.exponential(lasts[inside])
        if inside:
            out |= (time_s >= at) & (time_s < end)
        at, inside = end, not inside
    return out


# --- The photos ----------------------------------------------------------------------------------


def _choose(
    path: np.ndarray, seen: np.ndarray, tolerance: float, rng: np.random.Generator
) -> np.ndarray:
    """The photo that each frame shows, int [T]; −1 where none is within the tolerance.

    Photo j at a distance d is drawn with probability ∝ exp(−½(d / ⅓ tolerance)²): mostly the
    nearest, sometimes another one (by the Gumbel-max trick, for all frames at once).
    """
    if not len(seen):
        return np.full(len(path), -1)
    apart = apart_deg(path[:, None], seen)
    score = rng.gumbel(size=apart.shape) - 0.5 * (3.0 * apart / max(tolerance, 1e-9)) ** 2
    near = apart <= tolerance
    return np.where(near.any(axis=1), np.where(near, score, -np.inf).argmax(axis=1), -1)
