"""The score table: every statistic of every scored frame of one video, on the host."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from carjax.attributes import Angular, Categorical, Schema
from carjax.features import Features

if TYPE_CHECKING:
    import pandas

# Weights of red, green and blue in an image's brightness (ITU-R BT.601).
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def certainty(entropy: ArrayLike, classes: int) -> np.ndarray:
    """Returns 1 − H / log K in [0, 1]; one where there is nothing to choose, NaN where H is.

    `certainty.normalized_certainty` for the host, where JAX need not be imported.

    Args:
        entropy: Shannon entropies H in nats, any shape.
        classes: the number of classes K.
    """
    entropy = np.asarray(entropy, float)
    if classes < 2:
        return np.where(np.isnan(entropy), np.nan, 1.0)
    return np.clip(1 - entropy / math.log(classes), 0, 1)


@dataclasses.dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of N frames in presentation order, as NumPy arrays. Compares by identity.

    Attributes:
        schema: the attributes that were scored.
        frame: int64 [N]; 0-based index in presentation order at the video's own rate.
        time_s: float64 [N]; presentation time in seconds, strictly increasing.
        probs: attribute name → float32 [N, K]; class probabilities.
        entropy: attribute name → float32 [N]; Shannon entropy of `probs` in nats.
        azimuth_deg: float32 [N]; mean direction, degrees in [0, 360).
        kappa: float32 [N]; concentration of the von Mises component.
        azimuth_floor: float32 [N]; weight ε of the uniform component, 0 ≤ ε < 1.
        azimuth_entropy: float32 [N]; differential entropy of the azimuth density in nats.
        view_probs: float32 [N, 8]; mass of the density in each bin of `attributes.VIEWS`.
        car_probability: float32 [N]; probability that the frame shows a car.
        box: float32 [N, 4]; left, top, right, bottom of the car, as fractions of the frame.
        sharpness: float32 [N]; of the crop to the box, in 0..1 (`scoring.sharpness`).
        car_colour: float32 [N, 3]; mean red, green and blue in the middle of the box, in 0..1; None
            in tables of before it was measured.
        content_probs: float32 [N, 3]; probabilities of `attributes.CONTENT`: the frame shows a
            whole car, a part of one, none; None where the model does not tell.
        disagreement: attribute name → float32 [N]; see `heads.ClassPrediction`; None if unknown.
        novelty: attribute name → float32 [N]; see `heads.ClassPrediction`; None if unknown.
        azimuth_density: float32 [N, cells]; the azimuth density per radian on a grid (see
            `grids`), where it is none that `kappa` and `azimuth_floor` describe: after
            `selection.smoothing`. None: it is the one that they describe.
        features: float16; pooled [N, C] and grid [N, 8, 8, Cm] or [N, 0, 0, Cm]; see
            `scoring.FrameScores`; None where they were not kept.

    The azimuth fields are zeros where the schema has no angular attribute.
    """

    schema: Schema
    frame: np.ndarray
    time_s: np.ndarray
    probs: dict[str, np.ndarray]
    entropy: dict[str, np.ndarray]
    azimuth_deg: np.ndarray
    kappa: np.ndarray
    azimuth_floor: np.ndarray
    azimuth_entropy: np.ndarray
    view_probs: np.ndarray
    car_probability: np.ndarray
    box: np.ndarray
    sharpness: np.ndarray
    car_colour: np.ndarray | None = None
    content_probs: np.ndarray | None = None
    disagreement: dict[str, np.ndarray] | None = None
    novelty: dict[str, np.ndarray] | None = None
    azimuth_density: np.ndarray | None = None
    features: Features | None = None

    def __len__(self) -> int:
        """The number of frames."""
        return len(self.frame)

    def row_of(self, frame: int) -> int:
        """The row of a frame.

        Raises:
            KeyError: the frame was not scored.
        """
        row = int(np.searchsorted(self.frame, frame))
        if row == len(self) or self.frame[row] != frame:
            raise KeyError(frame)
        return row

    def take(self, rows: slice | np.ndarray) -> ScoreTable:
        """Some of the frames, in order; a slice gives views of the same arrays."""

        def of(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                return value[rows]
            if isinstance(value, dict):
                return {name: array[rows] for name, array in value.items()}
            if isinstance(value, Features):
                return Features(*(array[rows] for array in value))
            return value

        return ScoreTable(**{f.name: of(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def to_pandas(self) -> pandas.DataFrame:
        """Returns a pandas frame with a row per frame (needs pandas)."""
        from carjax.report import notebook

        return notebook.table_frame(self)

    @property
    def categorical(self) -> tuple[Categorical, ...]:
        """The attributes with classes."""
        return tuple(a for a in self.schema if isinstance(a, Categorical))

    @property
    def angular(self) -> Angular | None:
        """The attribute that is a direction, if the schema has one."""
        return next((a for a in self.schema if isinstance(a, Angular)), None)


def concatenate(tables: Sequence[ScoreTable]) -> ScoreTable:
    """Joins scores of one video by one model, in order of frame.

    Args:
        tables: at least one; no frame is in two of them.

    Raises:
        ValueError: there is no table.
    """
    if not tables:
        raise ValueError("there must be at least one table to join")

    def of(values: list[Any]) -> Any:
        if isinstance(values[0], np.ndarray):
            return np.concatenate(values)
        if isinstance(values[0], dict):
            return {name: np.concatenate([v[name] for v in values]) for name in values[0]}
        if isinstance(values[0], Features):
            return Features(*(np.concatenate(level) for level in zip(*values, strict=True)))
        return values[0]

    names = [f.name for f in dataclasses.fields(ScoreTable)]
    joined = ScoreTable(**{name: of([getattr(t, name) for t in tables]) for name in names})
    return joined.take(np.argsort(joined.frame, kind="stable"))
