"""Scores the frames of a video: all, so many a second, or coarse to fine.

Decoding runs ahead in a thread while the devices score.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from carjax import refine, video
from carjax.stopwatch import Stopwatch
from carjax.table import ScoreTable, concatenate

if TYPE_CHECKING:
    from carjax.backbones.features import Level
    from carjax.model import Model

# Frames are shrunk to this before scoring: enough for a crop of a third of the picture to fill
# the backbone's input. Photos are cut from the full-resolution frames.
SCORED_SIDE = 640
# On CPU the rate is the same from 8 to 32; small batches waste less on the last one.
BATCH_SIZE = 12
_IN_FLIGHT = 2


class Source(Protocol):
    """A video that was scored, from which photos can be taken: `video.Decoder`, `video.Reader`."""

    @property
    def info(self) -> video.VideoInfo:
        """The video, as counted."""

    @property
    def warnings(self) -> list[str]:
        """What was lost of a damaged video: one line each."""

    def grab(self, indices: Any, *, max_sides: Any = None) -> dict[int, np.ndarray]:
        """The frames of these indices at full size."""


def score_video(
    model: Model,
    path: str | os.PathLike[str],
    *,
    fps: video.Fps = "auto",
    attributes: tuple[str, ...] | None = None,
    views: int = 8,
    progress: Callable[[int], None] = lambda frames: None,
    watch: Stopwatch | None = None,
    features: Level | None = None,
) -> tuple[ScoreTable, Source]:
    """Scores frames of a video, decoding and scoring at the same time.

    Args:
        model: from `carjax.load_model`.
        path: a video file.
        fps: 'all'; so many frames a second; or 'auto': coarse to fine, see `refine`.
        attributes: what 'auto' looks for; None means all that the model has.
        views: views around the object that 'auto' looks for, 8 or 4.
        progress: called with the number of frames scored so far.
        watch: is told the time spent waiting for decoding and for scores.
        features: which of the backbone's features the table holds too, see `scoring.Scorer`.

    Returns:
        (the score table, the video, whose `info` and `warnings` are now those of the whole pass).

    Raises:
        CarjaxError: the file is missing, not a video, or has no frame that can be decoded.
    """
    watch = watch or Stopwatch()
    if fps != "auto":
        decoder = video.Decoder(path, fps=fps, max_side=SCORED_SIDE)
        scan = _Scan(model, progress, watch, features)
        scan.start(iter(decoder))
        scan.finish()
        return scan.table(), decoder
    for seek in (True, False):
        with watch("decode"):
            reader = video.Reader(path, max_side=SCORED_SIDE, seek=seek)
        try:
            scan = _Scan(model, progress, watch, features)
            return _coarse_to_fine(scan, reader, attributes, views), reader
        except video.UnprovenIndexError:
            if not reader.seeks:
                raise
            reader.close()
    raise AssertionError("a video decoded from its start has no index to be wrong about")


def _coarse_to_fine(
    scan: _Scan, reader: video.Reader, attributes: tuple[str, ...] | None, views: int
) -> ScoreTable:
    scan.start(reader.sample(refine.coarse_rate(reader.info.duration_s)))
    scan.finish()
    limit = refine.budget(reader.info.duration_s, len(scan.table()))
    tried = len(scan.table())
    waiting: list[int] = []
    while True:
        with scan.watch("choose"):
            frames = refine.next_frames(
                scan.table(),
                reader.time_s,
                min(scan.batch_size, limit - tried),
                waiting=waiting,
                attributes=attributes,
                views=views,
            ).tolist()
        tried += len(frames)
        if frames:
            # Decoded while those that wait are scored.
            scan.start(reader.read(frames))
        elif waiting:
            scan.finish()
        else:
            return scan.table()
        waiting = frames


class _Scan:
    """One model, one video: what has been scored of it so far."""

    def __init__(
        self,
        model: Model,
        progress: Callable[[int], None],
        watch: Stopwatch,
        features: Level | None,
    ) -> None:
        from carjax import scoring

        self.watch = watch
        self.batch_size = 0
        self._model = model
        self._progress = progress
        self._tables: list[ScoreTable] = []
        self._shape: tuple[int, ...] | None = None
        self._pending: tuple[Any, video.Batch] | None = None
        self._scoring = scoring
        with watch("score"):
            self._scorer = scoring.Scorer(model, BATCH_SIZE, features=features)
        self.batch_size = self._scorer.batch_size

    def table(self) -> ScoreTable:
        """All scores so far, in order of frame."""
        self._tables = [concatenate(self._tables)]
        return self._tables[0]

    def start(self, frames: Iterable[video.Frame]) -> None:
        """Decodes frames and scores them; the last batch of them may still be at it."""
        batches = video.batches(frames, self.batch_size, shape=self._shape)
        with video.prefetch(batches, depth=_IN_FLIGHT) as stream:
            while True:
                with self.watch("decode"):
                    batch = next(stream, None)
                if batch is None:
                    return
                self._shape = batch.images.shape[1:]
                # Before the next batch, behind which the small programs of a table would wait.
                self.finish()
                with self.watch("score"):
                    self._pending = self._scorer.dispatch(batch.images, batch.mask), batch

    def finish(self) -> None:
        """Waits for what is being scored."""
        if self._pending is not None:
            with self.watch("score"):
                self._collect(*self._pending)
            self._pending = None

    def _collect(self, scores: Any, batch: video.Batch) -> None:
        # The whole batch becomes a table, padding and all: one shape, so nothing compiles again.
        table = self._scoring.to_table(
            self._scoring.to_host(scores), self._model.spec, batch.index, batch.time_s
        )
        self._tables.append(table.take(np.flatnonzero(batch.mask)))
        self._progress(sum(len(t) for t in self._tables))
