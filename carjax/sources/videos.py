"""Video files as frames."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from carjax import pictures, video
from carjax.errors import CarjaxError
from carjax.sources.base import Item, Problem, Sample, Source
from carjax.video import SCORED_SIDE


def read(source: Source, fps: video.Fps, decoder: video.Backend) -> Iterator[Item]:
    """Yields the sampled frames of a video, then what was lost of it."""
    with source.local() as path:
        yield from read_file(source.name, path, fps, decoder)


def read_file(
    name: str, path: pathlib.Path, fps: video.Fps, decoder: video.Backend
) -> Iterator[Item]:
    """Yields the sampled frames of a local file; PyAV's are those that `carjax select` scores.

    Args:
        name: what to call the video.
        path: where it lies.
        fps: which frames to take, see `video.Decoder`.
        decoder: what decodes it.

    Raises:
        CarjaxError: it is not a video, no frame can be decoded, or the decoder breaks its contract.
    """
    shape = None
    index, time_s = -1, -math.inf
    try:
        frames = decoder(path, fps=fps, max_side=SCORED_SIDE)
        for frame in frames:
            if not (frame.index > index and frame.time_s > time_s):
                raise CarjaxError("the decoder gives indices or times that do not increase")
            index, time_s, image = frame.index, frame.time_s, _checked(frame.image)
            shape = shape or image.shape
            if image.shape != shape:  # the resolution changed
                image = pictures.resized(image, *shape[:2])
            yield Sample(name, frame.index, frame.time_s, image)
    except CarjaxError as error:
        raise CarjaxError(str(error).removeprefix(f"{os.fspath(path)}: ")) from None
    if shape is None:
        raise CarjaxError("the decoder gives no frame")
    if frames.warnings:
        yield Problem(name, "; ".join(frames.warnings))


def _checked(image: np.ndarray) -> np.ndarray:
    """An image of any decoder, uint8 [H, W, 3]."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise CarjaxError(
            f"the decoder gives {image.dtype} {list(image.shape)}, where uint8 [H, W, 3] is due"
        )
    if max(image.shape) > SCORED_SIDE:
        raise CarjaxError(f"the decoder gives images of more than {SCORED_SIDE} pixels a side")
    return image
