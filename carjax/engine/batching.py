"""Batches of one fixed shape from the frames of many sources."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Iterator

import numpy as np

from carjax import scoring
from carjax.engine.feed import Decoded, End
from carjax.errors import CarjaxError

# Frames of rare sizes wait for others of their size, but no longer than this many batches: a
# source is finished only when its last frame is scored.
_MOST_PATIENCE = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """B frames on one canvas, of any sources; the padding is at the end.

    Attributes:
        images: uint8 [B, H, W, 3]; each frame in its top left corner.
        valid: int32 [B, 2]; height and width of each frame.
        frames: the R ≤ B frames that are no padding, without their images.
    """

    images: np.ndarray
    valid: np.ndarray
    frames: tuple[Decoded, ...]

    @property
    def mask(self) -> np.ndarray:
        """bool [B]; False where padded."""
        return np.arange(len(self.images)) < len(self.frames)


class Buffers:
    """Arrays for batches, used again: new ones cost a page fault for every 4 KB."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._free: list[np.ndarray] = []

    def take(self, shape: tuple[int, ...]) -> np.ndarray:
        """Returns an array uint8 of that shape, of any content."""
        with self._lock:
            for i, array in enumerate(self._free):
                if array.shape == shape:
                    return self._free.pop(i)
        try:
            return np.zeros(shape, np.uint8)
        except MemoryError:
            count, height, width, _ = shape
            raise CarjaxError(
                f"a batch of {count} frames of {width}×{height} does not fit into memory: give a "
                "smaller --batch"
            ) from None

    def give(self, array: np.ndarray) -> None:
        """Takes back an array that nothing reads any more."""
        with self._lock:
            self._free.append(array)
            if len(self._free) > self._most:
                self._free.pop(0)


def batches(
    stream: Iterable[Decoded | End | None], size: int, buffers: Buffers, *, most_waiting: int
) -> Iterator[Batch | End]:
    """Groups frames by canvas into full batches; what the stream says of ends passes through.

    Frames of different sources share a batch. Only where more frames than `most_waiting` wait for
    others of their size, or wait for too long, a batch is padded before the end.

    Args:
        stream: frames and ends; None where nothing came for a while, so that what waits is sent.
        size: frames in a batch.
        buffers: where arrays come from; whoever reads the batches gives them back.
        most_waiting: the most frames that wait in groups.
    """
    groups: dict[tuple[int, ...], list[Decoded]] = {}
    since: dict[tuple[int, ...], int] = {}
    waiting = sent = 0

    def send(shape: tuple[int, ...]) -> Batch:
        nonlocal waiting, sent
        frames = groups.pop(shape)
        del since[shape]
        waiting -= len(frames)
        sent += 1
        images = buffers.take((size, *shape, 3))
        valid = np.full((size, 2), shape, np.int32)
        for i, frame in enumerate(frames):
            height, width = valid[i] = frame.sample.image.shape[:2]
            images[i, :height, :width] = frame.sample.image
        bare = [_without_image(frame) for frame in frames]
        return Batch(images, valid, tuple(bare))

    for item in stream:
        if isinstance(item, End):
            yield item
            continue
        if item is None:
            while groups:
                yield send(next(iter(groups)))
            continue
        height, width = item.sample.image.shape[:2]
        shape = item.sample.canvas or scoring.canvas(height, width)
        groups.setdefault(shape, []).append(item)
        since.setdefault(shape, sent)
        waiting += 1
        if len(groups[shape]) == size:
            yield send(shape)
        elif waiting > most_waiting:
            yield send(max(groups, key=lambda s: len(groups[s])))
        oldest = next(iter(since), None)
        if oldest is not None and sent - since[oldest] > _MOST_PATIENCE:
            yield send(oldest)
    while groups:
        yield send(next(iter(groups)))


_NO_IMAGE = np.zeros((0, 0, 3), np.uint8)


def _without_image(frame: Decoded) -> Decoded:
    return dataclasses.replace(frame, sample=dataclasses.replace(frame.sample, image=_NO_IMAGE))
