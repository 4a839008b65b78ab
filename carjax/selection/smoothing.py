"""A score table whose azimuths know of their neighbours: the filter's, or a sequence model's."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import numpy as np

from carjax import circular, grids, selection
from carjax.errors import CarjaxError
from carjax.selection import eligibility
from carjax.table import ScoreTable
from carjax.temporal import circular_filter
from carjax.temporal.motion import Motion

if TYPE_CHECKING:
    from carjax.model import Model

LEAST_FRAMES = 64
# A walk explains the frames if they are so many nats likelier in it than unrelated: 20 times, the
# strong evidence of Kass and Raftery, "Bayes Factors", JASA 90 (1995).
LEAST_EVIDENCE = 3.0


def smoothed(table: ScoreTable, motion: Motion | None = None) -> ScoreTable:
    """Returns the table with the azimuths of the circular filter, forward and backward.

    Frames that do not show the main car say nothing, and learn where the camera was from their
    neighbours. Everything that depends on the azimuth follows: direction, κ, entropy, the masses of
    the views, and `azimuth_density`, whose cells the coverage map is made of.

    Frames that no walk explains (`LEAST_EVIDENCE`: one or few of them, a turntable at more than a
    quarter of a turn in a second, stills without an order) stand alone: the table is returned as
    it is.

    Args:
        table: scores of one video, of frames alone.
        motion: how cameras move; None: `Motion()`.
    """
    if table.angular is None or not len(table):
        return table
    mask = informing(table)
    if not mask.any():
        return table
    rows, seen = padding(len(table), mask)
    density = jax.tree.map(lambda x: x[rows], selection.density_of(table, mask))
    found = circular_filter.smooth(
        density,
        table.time_s[rows] - table.time_s[0],
        seen,
        motion,
    )
    if found.log_evidence < LEAST_EVIDENCE:
        return table
    return with_density(table, np.asarray(found.density)[: len(table)])


def by_model(path: str | os.PathLike[str], model: Model) -> Callable[[ScoreTable], ScoreTable]:
    """Returns the function that gives a table the azimuths of a sequence head.

    The table must hold the features of its frames, pooled and grid.

    Args:
        path: of the sequence head, from `carjax train`.
        model: the one that scores the frames; the head must be of the same backbone.

    Raises:
        CarjaxError: the file is none, or was trained on features of another backbone.
    """
    from carjax.temporal import sequence_model

    head = sequence_model.load(path)
    theirs, ours = head.card["backbone_sha256"], model.card["backbone_sha256"]
    if (theirs, head.spec.input_size) != (ours, model.spec.input_size):
        raise CarjaxError(
            f"{path}: reads features of another backbone, or of another input size: "
            f"{head.spec.backbone} at {head.spec.input_size} pixels"
        )

    def run(table: ScoreTable) -> ScoreTable:
        mask = informing(table)
        if not mask.any():
            return table
        rows, seen = padding(len(table), mask)
        if table.features is None:
            raise CarjaxError(
                "a sequence head reads features: score with carjax.score_video(…, features='grid')"
            )
        features = jax.tree.map(lambda x: x[rows], table.features)
        density = head(features, table.time_s[rows], seen)
        grid = np.array(circular.on_grid(density))[: len(table)]
        # What a sequence head says of a frame without the car means nothing.
        grid[~mask] = 1 / (2 * np.pi)
        return with_density(table, grid)

    return run


def informing(table: ScoreTable) -> np.ndarray:
    """Returns which frames say something of the main car's direction, bool [N]."""
    return eligibility.main_car_frames(table) & selection.sound_directions(table)


def padding(
    count: int, mask: np.ndarray, least: int = LEAST_FRAMES
) -> tuple[np.ndarray, np.ndarray]:
    """Pads frames at the end to one of few lengths, so that few programs are ever compiled.

    Args:
        count: frames T ≥ 1.
        mask: bool [T].
        least: S ≥ this; a power of two.

    Returns:
        (int [S]: the rows to take, the last one repeated; bool [S]: the mask of these).

    Example:
        >>> rows, mask = padding(3, np.array([True, False, True]))
        >>> rows.shape, rows[2:5].tolist(), mask[:5].tolist()
        ((64,), [2, 2, 2], [True, False, True, False, False])
    """
    size = max(least, 1 << (count - 1).bit_length())
    rows = np.minimum(np.arange(size), count - 1)
    return rows, mask[rows] & (np.arange(size) < count)


def with_density(table: ScoreTable, density: np.ndarray) -> ScoreTable:
    """Returns the table with other azimuth densities, float [N, cells], per radian."""
    cells = density.shape[1]
    angle = np.arange(cells) * (2 * np.pi / cells)
    # A cell's mass lies evenly in it, as in `circular_filter.summary`.
    even = np.sinc(1 / cells) * (2 * np.pi / cells)
    moment = np.asarray(density, np.float64) @ np.exp(1j * angle) * even
    return dataclasses.replace(
        table,
        azimuth_deg=grids.wrapped_deg(np.degrees(np.angle(moment))),
        kappa=grids.concentration(np.abs(moment)).astype(np.float32),
        azimuth_floor=np.zeros(len(table), np.float32),
        azimuth_entropy=grids.entropy(density).astype(np.float32),
        view_probs=grids.bin_masses(density).astype(np.float32),
        azimuth_density=density.astype(np.float32),
    )
