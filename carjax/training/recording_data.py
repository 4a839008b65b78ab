"""What sequence heads learn from in place of walks: one's own recordings, scored and labelled.

The features of all frames lie on the device, the recordings one after another; a step is B windows
of T frames, as indices of rows, drawn on the host from (seed, step) alone. A recording is held out
as a whole, by a hash of its name, or of what it shares with others (`config.recordings.group`), so
that its fold stays the same whatever is recorded later.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from carjax import parquet, pooling
from carjax.datasets import frame_sequences
from carjax.datasets.folds import fold_of
from carjax.datasets.frame_sequences import FrameSequences
from carjax.datasets.sequence_batches import AZIMUTH
from carjax.errors import CarjaxError, UsageError
from carjax.features import Features
from carjax.training import config as configs
from carjax.training import data
from carjax.training.frame_batch import FrameBatch, gather


class Recordings(NamedTuple):
    """N frames of R recordings, one recording after another.

    Attributes:
        sources: their names.
        starts: int [R + 1]; recording r has the rows starts[r] to starts[r + 1].
        features: float16; pooled [1, N, C], grid [1, N, g, g, Cm].
        azimuth_deg: float32 [N]; NaN where nobody knows it.
        time_s: float64 [N].
        frame: int64 [N]; index in the video.
    """

    sources: tuple[str, ...]
    starts: np.ndarray
    features: Features
    azimuth_deg: np.ndarray
    time_s: np.ndarray
    frame: np.ndarray

    def labelled(self) -> dict[str, int]:
        """The number of frames of known azimuth of each recording."""
        known = np.add.reduceat(~np.isnan(self.azimuth_deg), self.starts[:-1], dtype=int)
        return dict(zip(self.sources, known.tolist(), strict=True))

    def window(self, row: int, frames: int, rng: np.random.Generator) -> range:
        """Draws a window of that many frames of the recording of a row, which holds that row.

        A shorter recording is taken whole.
        """
        at = np.searchsorted(self.starts, row, side="right") - 1
        first, stop = self.starts[at : at + 2].tolist()
        last = max(first, min(row, stop - frames))
        start = int(rng.integers(max(first, row - frames + 1), last + 1))
        return range(start, min(start + frames, stop))

    def batch(self, windows: Sequence[range], frames: int) -> FrameBatch:
        """Joins windows, padded at their ends to one length; padding has no azimuth."""
        rows = np.stack([np.minimum(np.arange(frames) + w.start, w.stop - 1) for w in windows])
        mask = np.arange(frames) < np.array([[len(w)] for w in windows])
        # Times may be large; float32 keeps them apart when they count from the first frame.
        time_s = (self.time_s[rows] - self.time_s[rows[:, :1]]).astype(np.float32)
        azimuth_deg = np.where(mask, self.azimuth_deg[rows], np.float32(np.nan))
        view = np.zeros(rows.shape, np.int32)
        return FrameBatch(view, rows.astype(np.int32), azimuth_deg, time_s, mask)


class Split(NamedTuple):
    """Recordings that a run learns from, and those that it is measured on, if any."""

    train: Recordings
    held_out: Recordings | None


class Found(NamedTuple):
    """Recordings on disk of which the azimuth is known somewhere.

    Attributes:
        path: of the scores.
        frames: all labelled sources.
        train: indices of those to learn from.
        held_out: indices of those to measure on.
    """

    path: str
    frames: FrameSequences
    train: tuple[int, ...]
    held_out: tuple[int, ...]


def find(config: ml_collections.ConfigDict) -> Found:
    """Finds the recordings of a config, and which are held out; reads no features yet.

    Args:
        config: checked, of recordings.

    Raises:
        UsageError: a setting does not fit them.
        CarjaxError: a file is missing or broken, or not of the form that the config asks for.
    """
    own, cells = config.recordings, config.head.grid
    found = frame_sequences.read(own.scores, own.labels, level="grid" if cells else "pooled")
    info, size = found.info, configs.input_size(config)
    if (info.backbone, info.input_size) != (config.backbone, size):
        raise CarjaxError(
            f"{own.scores}: its features are of {info.backbone} at {info.input_size} pixels, not "
            f"of {config.backbone} at {size}: see --config.backbone and --config.input_size"
        )
    if cells and info.cells % cells:
        raise UsageError(f"config.head.grid: {cells} does not divide the {info.cells} cells kept")
    if found.unmatched:
        message = "%s: %d labels are near no scored frame"
        logging.getLogger(__name__).warning(message, own.labels, found.unmatched)
    labels = [found.labels_of(i) for i in range(len(found))]
    if AZIMUTH not in labels[0]:
        raise CarjaxError(f"{own.labels}: no column {AZIMUTH}, which sequence heads learn")
    known = [i for i, of in enumerate(labels) if not np.isnan(of[AZIMUTH]).all()]
    if not known:
        raise CarjaxError(f"{own.labels}: no frame of known {AZIMUTH} to train on")
    fold = {i: fold_of(_group(config, found, i), own.folds) for i in known}
    train = tuple(i for i in known if fold[i] != config.fold)
    held_out = tuple(i for i in known if fold[i] == config.fold)
    if not train or (config.fold >= 0 and not held_out):
        there = ", ".join(map(str, sorted(set(fold.values()))))
        raise UsageError(
            f"config.fold: {len(train)} recordings to train on and {len(held_out)} held out in "
            f"fold {config.fold} of {own.folds}; recordings are in: {there}"
        )
    return Found(str(own.scores), found, train, held_out)


def _group(config: ml_collections.ConfigDict, found: FrameSequences, index: int) -> str:
    """What a recording is held out with: its value in the column of groups, or its own name."""
    name = config.recordings.group
    if not name:
        return found.sources[index]
    table, source = config.recordings.labels, found.sources[index]
    if name not in found.classes:
        there = ", ".join(found.classes) or "none"
        raise UsageError(f"config.recordings.group: {table} has no column {name!r}: {there}")
    codes = found.labels_of(index)[name]
    values = [found.classes[name][code] for code in np.unique(codes[codes >= 0])]
    if len(values) != 1:
        told = " and ".join(map(repr, values)) or "nothing"
        raise CarjaxError(f"{table}: {source!r} needs one {name}, and has {told}")
    return values[0]


def load(found: Found, config: ml_collections.ConfigDict, weights_sha256: str) -> Split:
    """Reads the features of the recordings, the grid at the cells that the head reads.

    Args:
        found: the recordings.
        config: of the run.
        weights_sha256: `model.weights_hash` of the backbone that they must be of.

    Raises:
        CarjaxError: they are of another one, or cannot be read.
    """
    with parquet.errors_of(found.path):
        found.frames.info.check_weights(weights_sha256)
    train = _read(found.frames, found.train, config.head.grid)
    held_out = _read(found.frames, found.held_out, config.head.grid) if found.held_out else None
    return Split(train, held_out)


def _read(frames: FrameSequences, chosen: Sequence[int], cells: int) -> Recordings:
    parts = []
    for i in chosen:
        one = frames[i]
        parts.append(one._replace(features=pooling.pool_kept(one.features, cells)))
    features: Any = jax.tree.map(lambda *x: np.concatenate(x)[None], *[p.features for p in parts])
    return Recordings(
        sources=tuple(part.source for part in parts),
        starts=np.cumsum([0, *(len(part.frame) for part in parts)]),
        features=features,
        azimuth_deg=np.concatenate([part.labels[AZIMUTH] for part in parts]),
        time_s=np.concatenate([part.time_s for part in parts]),
        frame=np.concatenate([part.frame for part in parts]),
    )


def draw(recordings: Recordings, config: ml_collections.ConfigDict, step: int) -> FrameBatch:
    """Draws the windows of one training step, each around a random frame of known azimuth."""
    rng = np.random.default_rng((config.seed, step))
    known, frames = np.flatnonzero(~np.isnan(recordings.azimuth_deg)), config.sequence.frames
    rows = known[rng.integers(len(known), size=config.batch)]
    return recordings.batch([recordings.window(row, frames, rng) for row in rows.tolist()], frames)


def held_out_windows(recordings: Recordings, config: ml_collections.ConfigDict) -> data.HeldOut:
    """Every held-out recording in windows, one after another; NaN targets are not counted."""
    frames, windows = config.sequence.frames, []
    for first, stop in zip(recordings.starts, recordings.starts[1:], strict=False):
        cut = (range(i, min(i + frames, stop)) for i in range(first, stop, frames))
        windows += [w for w in cut if not np.isnan(recordings.azimuth_deg[w.start : w.stop]).all()]
    batch = recordings.batch(windows, frames)
    of_row = np.repeat(recordings.sources, np.diff(recordings.starts))
    names = np.array([f"{s}#{f}" for s, f in zip(of_row, recordings.frame, strict=True)])
    names = np.where(np.isnan(batch.azimuth_deg), "", names[batch.row])
    return data.HeldOut(gather(recordings.features, batch), batch.azimuth_deg, names)
