"""The views around the car: which frame fills each, and the angles that the video covers.

Host code on NumPy arrays: pure functions. Where the table has no densities on a grid, they are made
of its columns with `circular`, which is imported then: JAX takes most of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from carjax import grids
from carjax.attributes import VIEWS, view_deg
from carjax.selection.eligibility import content_of, whole_frames, whole_if_any
from carjax.selection.result import OrientationChoice, ViewChoice
from carjax.table import ScoreTable

if TYPE_CHECKING:
    from carjax.circular import Density

# A view is filled by a frame with more than this of its mass in the view's bin.
VIEW_THRESHOLD = 0.8
# Masses and angles closer than this are equal: the model's own error is larger.
MASS_TOLERANCE = 0.01
ANGLE_TOLERANCE_DEG = 2.0


def view_names(views: int = 8) -> tuple[str, ...]:
    """Returns the names of the views in order of azimuth, the first centred on 0 degrees.

    Example:
        >>> view_names(4)
        ('front', 'left', 'rear', 'right')
    """
    return VIEWS[:: len(VIEWS) // views]


def choose_views(
    table: ScoreTable,
    car: np.ndarray,
    eligible: np.ndarray,
    weights: np.ndarray,
    view_policy: str,
    view_threshold: float,
    views: int,
) -> OrientationChoice:
    """Returns the frame of each view, by the rules of `select_photos`, and the coverage.

    Args:
        table: scores of the N frames of one video.
        car: bool [N]; the frames whose directions count as covered.
        eligible: bool [N]; the frames that may become photos.
        weights: float [N]; as from `time_weights`.
        view_policy: 'best' or 'first'.
        view_threshold: mass inside the bin that a view needs.
        views: 8 or 4.
    """
    whole = whole_frames(table)
    sound = sound_directions(table)
    eligible = eligible & sound
    mass = view_masses(table, eligible, views)

    chosen: dict[str, ViewChoice | None] = {}
    for view, name in enumerate(view_names(views)):
        index = frames_of_view(mass, view, view_threshold, eligible, whole)
        if not index.size:
            chosen[name] = None
            continue
        if view_policy == "first":
            best = int(index[0])
        else:
            best = _best_in_bin(
                index, mass[:, view], table.azimuth_deg, table.sharpness, view_deg(name)
            )
        chosen[name] = choice_at(table, mass, best, view)
    filled = [view for view in chosen.values() if view is not None]
    return OrientationChoice(
        views=chosen,
        missing=tuple(name for name, view in chosen.items() if view is None),
        order=tuple(view.frame for view in sorted(filled, key=lambda view: view.azimuth_deg)),
        coverage=_coverage(table, car & sound, weights),
    )


def choice_at(table: ScoreTable, mass: np.ndarray, row: int, view: int) -> ViewChoice:
    """Returns what a frame says of one view: `row` of the table, `view` of the masses' columns."""
    return ViewChoice(
        azimuth_deg=float(table.azimuth_deg[row]),
        kappa=float(table.kappa[row]),
        probability=float(mass[row, view]),
        frame=int(table.frame[row]),
        time_s=float(table.time_s[row]),
        content=content_of(table, row),
    )


def sound_directions(table: ScoreTable) -> np.ndarray:
    """Returns which frames have a finite density of the direction, bool [N]."""
    return (
        np.isfinite(table.azimuth_deg)
        & np.isfinite(table.kappa)
        & np.isfinite(table.azimuth_floor)
        & np.isfinite(table.view_probs).all(axis=1)
    )


def frames_of_view(
    mass: np.ndarray, view: int, threshold: float, eligible: np.ndarray, whole: np.ndarray
) -> np.ndarray:
    """Returns the rows that fill a view: with the whole car if any does, int [M], increasing.

    Args:
        mass: float [N, views]; as from `view_masses`.
        view: the view's column.
        threshold: the mass that fills a view.
        eligible: bool [N]; the frames that may become photos.
        whole: bool [N]; the frames that show the whole car.
    """
    fills = eligible & (np.argmax(mass, axis=1) == view) & (mass[:, view] > threshold)
    return np.flatnonzero(whole_if_any(fills, whole))


def _best_in_bin(
    index: np.ndarray,
    mass: np.ndarray,
    azimuth_deg: np.ndarray,
    sharpness: np.ndarray,
    centre_deg: float,
) -> int:
    """Highest mass; among equals nearest to the centre, then sharpest, then earliest."""
    index = index[mass[index] >= mass[index].max() - MASS_TOLERANCE]
    distance = grids.apart_deg(azimuth_deg[index], centre_deg)
    index = index[distance <= distance.min() + ANGLE_TOLERANCE_DEG]
    return int(index[np.argmax(sharpness[index])])


def view_masses(table: ScoreTable, mask: np.ndarray, views: int) -> np.ndarray:
    """Mass in each bin, float [N, views]; zeros outside the mask."""
    if views == len(VIEWS):
        masses = table.view_probs
    elif table.azimuth_density is not None:
        masses = grids.bin_masses(table.azimuth_density, views)
    else:
        from carjax import circular

        masses = np.asarray(circular.view_probs(density_of(table, mask), views))
    return np.where(mask[:, None], masses, 0)


def _coverage(table: ScoreTable, mask: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean density of the frames in the mask, float64 [360], per radian."""
    if not mask.any():  # nothing is known of the direction: the density of that is uniform
        return np.full(360, 1 / (2 * np.pi))
    if table.azimuth_density is not None:
        mean = np.average(table.azimuth_density[mask], axis=0, weights=weights[mask])
        return grids.resampled(mean, 360)
    from carjax import circular

    weights = np.where(mask, weights, 0)
    coverage = circular.coverage_map(density_of(table, mask), weights / weights.sum())
    return np.asarray(coverage, np.float64)


def density_of(table: ScoreTable, mask: np.ndarray) -> Density:
    """The azimuth densities on the host; uniform outside the mask: every number is finite."""
    from carjax.circular import Density

    # All frames, masked, and not a subset: one shape per video is compiled once.
    mu, kappa, floor = (
        np.where(mask, column, 0).astype(np.float32)
        for column in (np.radians(table.azimuth_deg), table.kappa, table.azimuth_floor)
    )
    mu, kappa = mu[:, None], kappa[:, None]  # one component each
    return Density(np.ones_like(mu), mu, kappa, floor)  # type: ignore[arg-type]
