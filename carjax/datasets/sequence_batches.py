"""Sequences of frames of any length as batches of one shape, with masks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from carjax.features import Features

AZIMUTH = "azimuth_deg"


class FrameSequence(NamedTuple):
    """The T scored frames of one source, in order.

    Attributes:
        source: its name.
        frame: int64 [T]; 0-based index in presentation order.
        time_s: float64 [T]; strictly increasing.
        features: float16 Features(pooled [T, C], grid [T, g, g, Cm] or [T, 0, 0, Cm]).
        labels: 'azimuth_deg' → float32 degrees [T] (NaN: unknown), any other column → int32 index
            into `FrameSequences.classes` [T] (−1: unknown).
        mask: bool [T]; all True.
    """

    source: str
    frame: np.ndarray
    time_s: np.ndarray
    features: Features
    labels: dict[str, np.ndarray]
    mask: np.ndarray


class SequenceBatch(NamedTuple):
    """B sequences, padded at their ends to one length T; attributes as in `FrameSequence`.

    Where the mask is False the frame is −1, the time that of the sequence's last frame, features
    are zeros and labels unknown. The last batch of all is filled with empty sequences: source ''.
    """

    source: tuple[str, ...]
    frame: np.ndarray
    time_s: np.ndarray
    features: Features
    labels: dict[str, np.ndarray]
    mask: np.ndarray


def pad(sequences: Sequence[FrameSequence], length: int | None = None) -> SequenceBatch:
    """Joins sequences to one batch, padded at their ends.

    Args:
        sequences: at least one, of the same columns.
        length: T; default: that of the longest.

    Raises:
        ValueError: a sequence is longer than that.
    """
    longest = max(len(s.frame) for s in sequences)
    length = longest if length is None else length
    if longest > length:
        raise ValueError(f"a sequence has {longest} frames, more than {length}")

    def join(arrays: Sequence[np.ndarray], filler: float) -> np.ndarray:
        shape = (len(arrays), length, *arrays[0].shape[1:])
        out = np.full(shape, filler, arrays[0].dtype)
        for row, array in zip(out, arrays, strict=True):
            row[: len(array)] = array
        return out

    time_s = join([s.time_s for s in sequences], 0.0)
    for row, one in zip(time_s, sequences, strict=True):
        row[len(one.time_s) :] = one.time_s[-1] if len(one.time_s) else 0.0
    levels = zip(*(s.features for s in sequences), strict=True)
    return SequenceBatch(
        source=tuple(s.source for s in sequences),
        frame=join([s.frame for s in sequences], -1),
        time_s=time_s,
        features=Features(*(join(level, 0) for level in levels)),  # type: ignore[arg-type]
        labels={
            name: join([s.labels[name] for s in sequences], math.nan if name == AZIMUTH else -1)
            for name in sequences[0].labels
        },
        mask=join([s.mask for s in sequences], False),
    )


def batches(
    sequences: Sequence[FrameSequence],
    size: int,
    *,
    order: Sequence[int] | None = None,
    multiple: int = 1,
) -> Iterator[SequenceBatch]:
    """Yields batches of one size; only the sequences of one are in memory.

    Args:
        sequences: `FrameSequences`, or any others.
        size: sequences of a batch.
        order: which sequences, in which order; default: all as they come.
        multiple: lengths are rounded up to one of this, so that few shapes are compiled.
    """
    chosen = list(range(len(sequences)) if order is None else order)
    for start in range(0, len(chosen), size):
        some = [sequences[i] for i in chosen[start : start + size]]
        some += [_empty(some[0])] * (size - len(some))
        longest = max(len(s.frame) for s in some)
        yield pad(some, -(-longest // multiple) * multiple)


def _empty(like: FrameSequence) -> FrameSequence:
    """A sequence without frames."""
    return FrameSequence(
        source="",
        frame=like.frame[:0],
        time_s=like.time_s[:0],
        features=Features(*(level[:0] for level in like.features)),
        labels={name: values[:0] for name, values in like.labels.items()},
        mask=like.mask[:0],
    )
