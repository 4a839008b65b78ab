"""Batches of stretches of videos, as rows of features that lie on the device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from carjax.features import Features
from carjax.temporal.sequence_heads import Frames


class FrameBatch(NamedTuple):
    """B stretches of T frames, from simulated walks or from recordings; host or device arrays.

    Attributes:
        view: int32 [B, T]; first index into the features: the photo's view, 0 in recordings.
        row: int32 [B, T]; second index: the photo, or the frame of all recordings.
        azimuth_deg: float32 [B, T]; of the camera's path; NaN where it is not known.
        time_s: float32 [B, T].
        mask: bool [B, T]; False is padding.
    """

    view: Any
    row: Any
    azimuth_deg: Any
    time_s: Any
    mask: Any


def stack(batches: Iterable[FrameBatch]) -> FrameBatch:
    """Joins the batches of many steps, with a leading axis [steps]."""
    return FrameBatch(*(np.stack(x) for x in zip(*batches, strict=True)))


def gather(features: Features, batch: FrameBatch) -> Frames:
    """The batch's frames, as they are stored: features [V, n, …] → [B, T, …]."""
    rows = jax.tree.map(lambda x: x[batch.view, batch.row], features)
    return Frames(rows, batch.time_s, batch.mask)
