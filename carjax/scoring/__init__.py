"""Scores frames: `score`, a pure function of one batch; `Scorer`, which feeds it any number."""

from carjax.scoring.scorer import (
    DEVICE_BATCH,
    DTYPE,
    Scorer,
    canvas,
    kept_scorer,
    score_frames,
)
from carjax.scoring.statistics import (
    FrameScores,
    concatenate,
    score,
    sharpness,
    to_host,
    to_table,
)

__all__ = [
    "DEVICE_BATCH",
    "DTYPE",
    "FrameScores",
    "Scorer",
    "canvas",
    "concatenate",
    "kept_scorer",
    "score",
    "score_frames",
    "sharpness",
    "to_host",
    "to_table",
]
