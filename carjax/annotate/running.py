"""What is known of a video after each of its frames, as one would see it live.

The state after n frames is what `selection.select_photos` gives for the first n rows of the table
with `policy="entropy"` and `view_policy="first"`: it knows nothing of later frames, and the last
state is the selection of the whole video. A state may take back what an earlier one said, as when
a sharper passage shows that the frames so far were blurred.

Computed anew for every n, that would take time in n². What a further frame cannot change is kept:
the tracks of the cars, and the sharpness of neighbourhoods that it does not reach.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from carjax import selection
from carjax.selection import eligibility, tracking
from carjax.table import ScoreTable


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """What is known after a frame; rows are positions in the score table.

    Attributes:
        row: the frame's own row.
        probs: attribute name → float64 [K]; class probabilities, a time-weighted mean over the
            frames so far that show the car; None before the first one.
        best: attribute name → row of the frame of lowest entropy so far, or None.
        views: name of a view → row of the first frame that fills it, or None.
        coverage: float64 [360]; the coverage map so far, per radian; None before any direction.
    """

    row: int
    probs: dict[str, np.ndarray | None]
    best: dict[str, int | None]
    views: dict[str, int | None]
    coverage: np.ndarray | None


def states(
    table: ScoreTable,
    *,
    attributes: Sequence[str],
    views: int = 8,
    view_threshold: float = selection.VIEW_THRESHOLD,
) -> Iterator[State]:
    """Yields the state after each of the N frames of a table.

    Args:
        table: scores of one video.
        attributes: names of those to follow.
        views: 8 or 4.
        view_threshold: mass that fills a view.
    """
    followed = [a.name for a in table.categorical if a.name in attributes]
    finite = {name: eligibility.sound_classes(table, name) for name in followed}
    means = {name: _Mean(table.probs[name], table.time_s) for name in followed}
    directed = table.angular is not None and table.angular.name in attributes
    if directed:
        from carjax import circular

        sound = selection.sound_directions(table)
        mass = selection.view_masses(table, sound, views)
        grid = np.asarray(circular.on_grid(selection.density_of(table, sound)), np.float64)
        coverage = _Mean(grid, table.time_s)
    names = selection.view_names(views)
    whole = eligibility.whole_frames(table)
    cars = _MainCar(table)
    sharp = _Sharp(table.time_s, table.sharpness), _Sharp(table.time_s, table.sharpness)

    for n in range(1, len(table) + 1):
        known = table.take(slice(n))
        weights = eligibility.time_weights(known.time_s)
        car = cars.after(known, weights)
        best: dict[str, int | None] = {}
        probs = {}
        for name in followed:
            candidates = car & finite[name][:n]
            entropy = np.where(candidates, known.entropy[name], np.inf)
            best[name] = int(np.argmin(entropy)) if candidates.any() else None
            probs[name] = means[name].over(candidates)
        found: dict[str, int | None] = {}
        covered = None
        if directed:
            eligible = eligibility.lit_frames(known, car, weights)
            for rung, rule in zip(
                (eligible & whole[:n], eligible & ~whole[:n]), sharp, strict=True
            ):
                eligible[rung] = rule.after(rung, weights)
            eligible &= sound[:n]
            for view, name in enumerate(names):
                rows = selection.frames_of_view(mass[:n], view, view_threshold, eligible, whole[:n])
                found[name] = int(rows[0]) if rows.size else None
            covered = coverage.over(car & sound[:n])
        yield State(n - 1, probs, best, found, covered)


class _MainCar:
    """`eligibility.main_car_frames` of more and more frames; they are joined to tracks once."""

    def __init__(self, table: ScoreTable):
        self._finite = np.isfinite(table.box).all(axis=1)
        judged = eligibility.car_frames(table) & self._finite
        self._look = tracking.look_of(table.box, table.car_colour)
        self._tracks = tracking.join(table.time_s, self._look, np.flatnonzero(judged))

    def after(self, known: ScoreTable, weights: np.ndarray) -> np.ndarray:
        n = len(known)
        car = eligibility.car_frames(known)
        if not car.any():
            return car
        judged = car & self._finite[:n]
        tracks = [track[: bisect.bisect_left(track, n)] for track in self._tracks]
        main = tracking.accept([t for t in tracks if t], self._look, weights, judged)
        return car & (main | ~judged)


class _Sharp:
    """`eligibility.sharp_frames` of more and more frames; only new neighbourhoods are measured."""

    def __init__(self, time_s: np.ndarray, sharpness: np.ndarray):
        self._time_s = time_s
        self._sharpness = sharpness
        self._rows = np.zeros(0, np.int64)
        self._local = np.zeros(0)

    def after(self, mask: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Which of the frames in the mask [n] are sharp for the video so far, bool [mask.sum()]."""
        rows = np.flatnonzero(mask)
        if not rows.size:
            return np.zeros(0, bool)
        low, high = eligibility.neighbourhoods(self._time_s[rows])
        kept = len(self._rows)
        if not np.array_equal(rows[:kept], self._rows):
            kept = 0  # a frame was taken back: all neighbourhoods may be others
        # The last frame's own weight grows with the next one: neighbourhoods with it are new, too.
        old = int(np.searchsorted(high, kept - 1, "right")) if kept else 0
        self._local = np.concatenate(
            [
                self._local[:old],
                eligibility.local_sharpness(
                    self._sharpness[rows], weights[rows], low[old:], high[old:]
                ),
            ]
        )
        self._rows = rows
        return eligibility.sharp_beside(self._sharpness[rows], weights[rows], self._local)


class _Mean:
    """The time-weighted mean of rows of a matrix over a mask that grows by a frame each time."""

    def __init__(self, values: np.ndarray, time_s: np.ndarray):
        self._values = values
        self._time_s = time_s
        self._mask = np.zeros(0, bool)
        self._sum = np.zeros(values.shape[1])
        self._weight = 0.0

    def over(self, mask: np.ndarray) -> np.ndarray | None:
        """The mean [K] over the frames in the mask [n], or None if there are none."""
        if not mask.any():
            return None
        n = len(mask)
        time_s = self._time_s[:n]
        if n == 1:
            return np.asarray(self._values[0], np.float64)
        # All frames but the last have their full weight, half the time to either neighbour.
        done = len(self._mask)
        if not np.array_equal(mask[:done], self._mask):
            self._sum, self._weight, done = np.zeros_like(self._sum), 0.0, 0
        edges = np.concatenate([time_s[:1], (time_s[1:] + time_s[:-1]) / 2])
        rows = done + np.flatnonzero(mask[done : n - 1])
        weights = edges[rows + 1] - edges[rows]
        self._sum = self._sum + weights @ self._values[rows]
        self._weight += float(weights.sum())
        self._mask = mask[: n - 1].copy()
        last = (time_s[-1] - edges[-1]) * mask[-1]
        if last:
            return (self._sum + last * self._values[n - 1]) / (self._weight + last)
        return self._sum / self._weight
