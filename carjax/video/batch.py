"""Frames as arrays of one fixed shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from carjax.video.decoder import Frame


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """B frames as arrays of a fixed shape; the padding is at the end.

    Attributes:
        images: uint8 [B, H, W, 3]; zeros where padded.
        mask: bool [B]; False where padded.
        index: int64 [B]; `Frame.index`, -1 where padded.
        time_s: float64 [B]; `Frame.time_s`, NaN where padded.
    """

    images: np.ndarray
    mask: np.ndarray
    index: np.ndarray
    time_s: np.ndarray


def batches(
    frames: Iterable[Frame],
    size: int,
    *,
    shape: tuple[int, ...] | None = None,
) -> Iterator[Batch]:
    """Groups frames into batches of one fixed shape, so that nothing compiles twice.

    A frame whose size differs from the first one's (the resolution changed) is resized to it.

    Args:
        frames: frames in order.
        size: frames in a batch, B.
        shape: (H, W, 3), to which all are resized; None takes the first frame's.

    Yields:
        Batches; the last one is padded.

    Raises:
        ValueError: `size` is below 1.

    Example:
        >>> image = np.zeros((2, 4, 3), np.uint8)
        >>> stream = (Frame(i, i / 10, image) for i in range(3))
        >>> [batch.mask.tolist() for batch in batches(stream, 2)]
        [[True, True], [True, False]]
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    batch: Batch | None = None
    row = 0
    for frame in frames:
        shape = shape or frame.image.shape
        # A new array each time: the consumer may still be reading the last one.
        batch = batch or _empty_batch(size, shape)
        batch.images[row] = _resized(frame.image, shape)
        batch.mask[row] = True
        batch.index[row] = frame.index
        batch.time_s[row] = frame.time_s
        row += 1
        if row == size:
            yield batch
            batch, row = None, 0
    if batch is not None:
        yield batch


def _empty_batch(size: int, shape: tuple[int, ...]) -> Batch:
    return Batch(
        images=np.zeros((size, *shape), np.uint8),
        mask=np.zeros(size, np.bool_),
        index=np.full(size, -1, np.int64),
        time_s=np.full(size, np.nan),
    )


def _resized(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if image.shape == shape:
        return image
    from carjax import pictures  # brings OpenCV, which takes its time to load

    return pictures.resized(image, *shape[:2])
