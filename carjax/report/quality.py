"""What the video was like: which frames were left out, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from carjax.selection import eligibility
from carjax.table import ScoreTable
from carjax.wording import percent

_SMALL_SIDE = 720


def notes(table: ScoreTable, video: Mapping[str, Any]) -> list[str]:
    """Returns a line for each way in which frames fell short; none for a flawless video.

    Every frame is counted once, by the first reason that keeps it from becoming a photo.

    Args:
        table: scores of the video.
        video: `width` and `height` as in `selection.json`.
    """
    weights = eligibility.time_weights(table.time_s)
    car = eligibility.car_frames(table)
    main = eligibility.main_car_frames(table)
    lit = eligibility.lit_frames(table, main, weights)
    eligible = eligibility.eligible_frames(table)
    whole = eligibility.whole_frames(table)
    if not (eligible & whole).any():
        whole = np.ones_like(whole)
    reasons = (
        ("show no car that is recognised", ~car),
        ("show another car, or it is taken for one", car & ~main),
        ("show the car too dark or too small", main & ~lit),
        ("are blurred", lit & ~eligible),
        ("show only a part of the car", eligible & ~whole),
    )
    lines = []
    for what, frames in reasons:
        share = float(weights[frames].sum())
        if frames.any():
            lines.append(f"{percent(share)} of the time, frames {what}.")
    used = float(weights[eligible & whole].sum())
    lines.insert(0, f"{percent(used)} of the time, frames are good enough for a photo.")
    if min(video["width"], video["height"]) < _SMALL_SIDE:
        lines.append(
            f"The video is {video['width']} × {video['height']} pixels, and so are the photos: "
            "film in 1080p or more for a listing."
        )
    return lines
