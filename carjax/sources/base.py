"""What a source of frames is, and what reading one gives."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from typing import Protocol

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """One frame to score.

    Attributes:
        source: what its row is called: the source's name, or for a member of an archive
            `NAME/MEMBER`.
        frame: 0-based index in that source.
        time_s: presentation time in seconds; 0 for a still.
        image: uint8 [H, W, 3]; RGB, upright, no side above `video.SCORED_SIDE`.
        canvas: height and width to which it is padded to be scored with others; None: the one
            that `scoring.canvas` finds for its size.
    """

    source: str
    frame: int
    time_s: float
    image: np.ndarray
    canvas: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Problem:
    """What was wrong with a source or with a part of it; the rest of it counts."""

    source: str
    reason: str


Item = Sample | Problem


class Source(Protocol):
    """A file that holds frames, wherever it lies: the unit of work, of resuming and of failing.

    It is small, can be pickled, and nothing is opened before it is read. What the bytes are, a
    video, a still, an archive or a table, is told by the bytes (`readers.read`).
    """

    @property
    def path(self) -> str:
        """The path or URL as given or found."""

    @property
    def name(self) -> str:
        """The path as text that can be written."""

    def fingerprint(self) -> str:
        """What changes when the bytes do, without reading them all.

        Raises:
            OSError: the source cannot be reached.
        """

    def head(self, size: int) -> bytes:
        """The first bytes.

        Raises:
            OSError: the source cannot be reached.
        """

    def read_bytes(self) -> bytes:
        """All bytes.

        Raises:
            OSError: the source cannot be reached.
        """

    def local(self) -> contextlib.AbstractContextManager[pathlib.Path]:
        """A local file of the same bytes: the source itself, or a copy while the block lasts.

        Raises:
            OSError: the source cannot be reached.
        """
