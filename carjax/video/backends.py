"""Decoders by name: PyAV's, OpenCV's, or one of the caller's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Protocol

from carjax import plugins
from carjax.errors import UsageError
from carjax.video.container import Path
from carjax.video.decoder import Frame
from carjax.video.timing import Fps

_SHIPPED = {
    "pyav": "carjax.video.decoder:Decoder",
    "opencv": "carjax.video.opencv:OpenCVDecoder",
}


class Frames(Protocol):
    """The sampled frames of one video, in presentation order; each iteration starts anew."""

    @property
    def warnings(self) -> Sequence[str]:
        """One line for each kind of damage met by the last complete pass."""

    def __iter__(self) -> Iterator[Frame]:
        """Yields frames as `Frame` describes them.

        Raises:
            CarjaxError: no frame can be decoded; one line that begins with the path and a colon.
        """


class Backend(Protocol):
    """What decodes videos: `Decoder`, `opencv.OpenCVDecoder`, or any callable like them."""

    def __call__(self, path: Path, *, fps: Fps, max_side: int | None) -> Frames:
        """Opens a video.

        Args:
            path: a local file.
            fps: which frames to take, see `Decoder`; `timing.sampler` tells, by their times.
            max_side: no side of an image may have more pixels; None: as they are.

        Raises:
            CarjaxError: it is not a video; one line that begins with the path and a colon.
        """


def load_backend(name: str) -> Backend:
    """Imports a decoder.

    Args:
        name: 'pyav', 'opencv', or 'MODULE:NAME', a callable of any module that Python finds.

    Raises:
        UsageError: there is none of that name.

    Example:
        >>> load_backend("pyav")("data/prius_walkaround.mp4", fps=1, max_side=320).warnings
        []
    """
    module_name, colon, attribute = _SHIPPED.get(name, name).partition(":")
    if not (module_name and colon and attribute):
        raise UsageError(f"decoder must be pyav, opencv or MODULE:NAME, not {name!r}")
    plugins.load(module_name, f"decoder {name!r}")
    module = sys.modules[module_name]
    backend: Backend | None = getattr(module, attribute, None)
    if not callable(backend):
        state = "is not callable" if hasattr(module, attribute) else "is not in it"
        raise UsageError(f"decoder {name}: imported {module_name}, but {attribute} {state}")
    return backend
