"""Numbers and names as people read them."""

from __future__ import annotations

import math


def clock(seconds: float) -> str:
    """A moment of the video as m:ss.s.

    Args:
        seconds: time from the start, ≥ 0.

    Returns:
        Minutes, seconds and tenths, rounded to the nearest tenth.

    Example:
        >>> clock(0.25), clock(59.96), clock(754.2)
        ('0:00.3', '1:00.0', '12:34.2')
    """
    minutes, tenths = divmod(_rounded(max(seconds, 0.0) * 10), 600)
    return f"{minutes}:{tenths // 10:02d}.{tenths % 10}"


def _rounded(number: float) -> float:
    """The nearest integer, of a half the upper one, as in the page's script; NaN stays."""
    return math.floor(number + 0.5) if math.isfinite(number) else number


def percent(fraction: float) -> str:
    """A fraction as a whole percentage that never claims 0% or 100% by rounding.

    Args:
        fraction: a probability or certainty in [0, 1].

    Returns:
        Such as '93%', '<1%' or '>99%'.

    Example:
        >>> percent(0.934), percent(0.9996), percent(1.0), percent(0.001)
        ('93%', '>99%', '100%', '<1%')
    """
    if 0.995 <= fraction < 1:
        return ">99%"
    if 0 < fraction < 0.005:
        return "<1%"
    return f"{_rounded(100 * fraction)}%"


def degrees(azimuth_deg: float) -> str:
    """A direction in whole degrees below a full turn.

    Example:
        >>> degrees(89.6), degrees(359.7)
        ('90°', '0°')
    """
    return f"{_rounded(azimuth_deg) % 360}°"


def label(name: str) -> str:
    """The name of an attribute or a view as a heading.

    Example:
        >>> label("rear-left"), label("number_of_doors")
        ('Rear left', 'Number of doors')
    """
    words = name.replace("_", " ").replace("-", " ")
    return words[:1].upper() + words[1:]


def side(view: str) -> str:
    """The part of the car that a view shows, to complete “film the …”.

    Args:
        view: one of `carjax.attributes.VIEWS`.

    Example:
        >>> side("rear-right"), side("left"), side("front")
        ('rear right side', 'left side', 'front')
    """
    return view if view in ("front", "rear") else view.replace("-", " ") + " side"
