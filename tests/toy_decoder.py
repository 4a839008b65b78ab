"""Decoders as a user would write them, outside the package."""

import dataclasses

from carjax import video


class Negative:
    """The frames of `video.Decoder` with every colour inverted, and a word about it."""

    def __init__(self, path, *, fps, max_side):
        self._frames = video.Decoder(path, fps=fps, max_side=max_side)
        self.warnings = []

    def __iter__(self):
        for frame in self._frames:
            yield dataclasses.replace(frame, image=255 - frame.image)
        self.warnings = ["is a negative"]


NOT_CALLABLE = 3
