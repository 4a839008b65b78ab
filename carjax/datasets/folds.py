"""Folds by name: they depend on nothing else, today and in the next version."""

from __future__ import annotations

import hashlib


def number_of(name: str) -> int:
    """The SHA-1 of a name (UTF-8) as a number."""
    return int(hashlib.sha1(name.encode()).hexdigest(), 16)


def fold_of(name: str, folds: int) -> int:
    """Returns the fold of what is held out under that name: the SHA-1 modulo their number.

    Example:
        >>> [fold_of(name, 5) for name in ("a.mp4", "b.mp4", "c.mp4")]
        [3, 0, 4]
    """
    return number_of(name) % folds
