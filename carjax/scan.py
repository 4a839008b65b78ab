"""Scores the frames of a video: all, so many a second, or coarse to fine.

Decoding runs ahead in a thread while the devices score. Coarse to fine takes a video whose frames
can be jumped to; another one would be decoded from its start for every round, and is read in one
pass, `video.AUTO_FPS` frames a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from carjax import selection, video
from carjax.prefetch import prefetch
from carjax.selection import refine
from carjax.stopwatch import Stopwatch
from carjax.table import ScoreTable, concatenate

if TYPE_CHECKING:
    from carjax.features import Level
    from carjax.model import Model
    from carjax.scoring import FrameScores

# On CPU the rate is the same from 8 to 32; small batches waste less on the last one.
BATCH_SIZE = 12
_IN_FLIGHT = 2
# Frames that are decoded before there is a model to score them: 44 MB at 16:9.
_AHEAD = 64


class ScoredVideo(Protocol):
    """A video that was scored, from which photos can be taken: `video.Decoder`, `video.Reader`."""

    @property
    def info(self) -> video.VideoInfo:
        """The video, as counted."""

    @property
    def warnings(self) -> list[str]:
        """What was lost of a damaged video: one line each."""

    def grab(self, indices: Any, *, max_sides: Any = None) -> dict[int, np.ndarray]:
        """The frames of these indices at full size."""

    def close(self) -> None:
        """Closes what is open; whoever grabs more opens it again."""


class Ahead:
    """A video whose first frames are decoded in a thread, while the model is still being loaded.

    Args:
        path: a video file.
        fps: as in `score_video`.
        seek: with 'auto': jump to frames by the file's index, and not decode from its start.

    Attributes:
        source: the video.
        frames: those that are scored first, in order.

    Raises:
        CarjaxError: as `score_video`.
    """

    def __init__(self, path: str | os.PathLike[str], fps: video.Fps, *, seek: bool = True) -> None:
        self.source: video.Decoder | video.Reader
        if fps == "auto":
            reader = video.Reader(path, max_side=video.SCORED_SIDE, seek=seek)
            coarse = refine.coarse_rate(reader.info.duration_s)
            frames = reader.sample(coarse if reader.seeks else video.AUTO_FPS)
            self.source = reader
        else:
            self.source = video.Decoder(path, fps=fps, max_side=video.SCORED_SIDE)
            frames = iter(self.source)
        self.frames = prefetch(frames, depth=_AHEAD)

    @property
    def seeks(self) -> bool:
        """Whether more frames can be jumped to after the first ones."""
        return isinstance(self.source, video.Reader) and self.source.seeks


def expected_frames(info: video.VideoInfo, fps: video.Fps, *, seeks: bool = True) -> int:
    """Estimates how many frames will be scored, for a progress bar.

    Args:
        info: of `video.probe`.
        fps: as in `score_video`.
        seeks: whether 'auto' can jump to frames (`Ahead.seeks`).
    """
    if fps == "auto" and not seeks:
        fps = video.AUTO_FPS
    if fps == "auto":
        coarse = round(info.duration_s * refine.coarse_rate(info.duration_s))
        return max(1, min(info.frames, refine.budget(info.duration_s, coarse)))
    rate = info.average_rate if fps == "all" else fps
    return max(1, round(min(info.frames, info.duration_s * float(rate))))


def score_video(
    model: Model,
    path: str | os.PathLike[str],
    *,
    fps: video.Fps = "auto",
    ahead: Ahead | None = None,
    attributes: tuple[str, ...] | None = None,
    views: int = 8,
    progress: Callable[[int], None] = lambda frames: None,
    watch: Stopwatch | None = None,
    features: Level | None = None,
) -> tuple[ScoreTable, ScoredVideo]:
    """Scores frames of a video, decoding and scoring at the same time.

    Args:
        model: from `carjax.load_model`.
        path: a video file.
        fps: 'all'; so many frames a second; or 'auto': coarse to fine, see `refine`; in one
            pass where `video.Reader` cannot jump to frames.
        ahead: the same video at the same `fps`, where its decoding has begun already.
        attributes: what 'auto' looks for; None means all that the model has.
        views: views around the object that 'auto' looks for, 8 or 4.
        progress: called with the number of frames scored so far.
        watch: is told the time spent waiting for decoding and for scores.
        features: which of the backbone's features the table holds too, see `scoring.Scorer`.

    Returns:
        (the score table, the video, whose `info` and `warnings` are now those of the whole pass).

    Raises:
        CarjaxError: the file is missing, not a video, or has no frame that can be decoded.
        UsageError: no such attribute, or other views.
    """
    selection.wanted_names(model.spec.schema, attributes, views)
    watch = watch or Stopwatch()
    for seek in (True, False):
        if ahead is None:
            with watch("decode"):
                ahead = Ahead(path, fps, seek=seek)
        source = ahead.source
        with ahead.frames as frames:
            try:
                scan = _Scan(model, progress, watch, features)
                scan.start(frames)
                scan.finish()
                if ahead.seeks:
                    assert isinstance(source, video.Reader)
                    _refine(scan, source, attributes, views)
                return scan.table(), source
            except video.UnprovenIndexError:
                if not ahead.seeks:
                    raise
                source.close()
                ahead = None
    raise AssertionError("a video decoded from its start has no index to be wrong about")


def _refine(
    scan: _Scan, reader: video.Reader, attributes: tuple[str, ...] | None, views: int
) -> None:
    """Scores more frames, where they are expected to better the photos."""
    limit = refine.budget(reader.info.duration_s, len(scan.table()))
    tried = len(scan.table())
    waiting: list[int] = []
    while True:
        with scan.watch("choose"):
            frames = refine.next_frames(
                scan.table(),
                reader.time_s,
                # Not the scorer's batch, which grows with the devices: they change no choice.
                min(BATCH_SIZE, limit - tried),
                waiting=waiting,
                lost=sorted(reader.damaged),
                attributes=attributes,
                views=views,
                effort=reader.effort,
            ).tolist()
        tried += len(frames)
        if frames:
            # Decoded while those that wait are scored.
            scan.start(reader.read(frames))
        elif waiting:
            scan.finish()
        else:
            return
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
        self._model = model
        self._progress = progress
        self._tables: list[ScoreTable] = []
        self._shape: tuple[int, ...] | None = None
        self._pending: tuple[FrameScores, video.Batch] | None = None
        with watch("score"):
            self._scorer = scoring.kept_scorer(model, BATCH_SIZE, features)
        self.batch_size = self._scorer.batch_size

    def table(self) -> ScoreTable:
        """All scores so far, in order of frame."""
        self._tables = [concatenate(self._tables)]
        return self._tables[0]

    def start(self, frames: Iterable[video.Frame]) -> None:
        """Decodes frames and scores them; the last batch of them may still be at it."""
        batches = video.batches(frames, self.batch_size, shape=self._shape)
        with prefetch(batches, depth=_IN_FLIGHT) as stream:
            while True:
                with self.watch("decode"):
                    batch = next(stream, None)
                if batch is None:
                    return
                self._shape = batch.images.shape[1:]
                with self.watch("score"):
                    scores = self._scorer.dispatch(batch.images, batch.mask)
                self.finish()
                self._pending = scores, batch

    def finish(self) -> None:
        """Waits for what is being scored."""
        if self._pending is not None:
            with self.watch("score"):
                self._collect(*self._pending)
            self._pending = None

    def _collect(self, scores: FrameScores, batch: video.Batch) -> None:
        from carjax import scoring

        # The whole batch becomes a table, padding and all: one shape, so nothing compiles again.
        table = scoring.to_table(
            scoring.to_host(scores), self._model.spec, batch.index, batch.time_s
        )
        self._tables.append(table.take(np.flatnonzero(batch.mask)))
        self._progress(sum(len(t) for t in self._tables))
