"""Video files as frames."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import cv2

from carjax import video
from carjax.errors import CarjaxError
from carjax.scan import SCORED_SIDE
from carjax.sources.base import Item, Problem, Sample, Source


def read(source: Source, fps: video.Fps) -> Iterator[Item]:
    """Yields the sampled frames of a video, then what was lost of it."""
    with source.local() as path:
        yield from read_file(source.name, path, fps)


def read_file(name: str, path: pathlib.Path, fps: video.Fps) -> Iterator[Item]:
    """Yields the sampled frames of a local file, each as `carjax select` scores it.

    Args:
        name: what to call the video.
        path: where it lies.
        fps: which frames to take, see `video.Decoder`.

    Raises:
        CarjaxError: it is not a video, or no frame can be decoded.
    """
    shape = None
    try:
        decoder = video.Decoder(path, fps=fps, max_side=SCORED_SIDE)
        for frame in decoder:
            image = frame.image
            shape = shape or image.shape
            if image.shape != shape:  # the resolution changed
                image = cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
            yield Sample(name, frame.index, frame.time_s, image)
    except CarjaxError as error:
        raise CarjaxError(str(error).removeprefix(f"{os.fspath(path)}: ")) from None
    if decoder.warnings:
        yield Problem(name, "; ".join(decoder.warnings))
