"""The engine of one process: decoding threads, the devices, and a writing thread, all at once."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from carjax import model as models
from carjax import parquet, plugins, runtime, scoring, video
from carjax.channel import Channel
from carjax.engine.batching import Batch, Buffers, batches
from carjax.engine.feed import End, Feed
from carjax.engine.rows import Collector, UnitRows
from carjax.feature_columns import FeatureColumns
from carjax.prefetch import prefetch
from carjax.sources.base import Source

if TYPE_CHECKING:
    import pyarrow as pa

    from carjax.model import Model, Spec

# Batches on the devices: one is computed while the next one is copied there.
_IN_FLIGHT = 2
# Frames wait in memory for the device: decoded, and in groups of one size; in batches.
_DECODED_BATCHES = 2
_GROUPED_BATCHES = 3
Finish = Callable[[End, UnitRows], None]
Progress = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Options:
    """How sources are read and scored.

    Attributes:
        fps: which frames of videos to take.
        batch: frames in each device's batch; None: `scoring.DEVICE_BATCH`.
        threads: sources that are read at once; None: what suits the machine.
        columns: the columns to keep; None: all.
        features: what is kept of the backbone's features, beside `columns`; None: nothing.
        decoder: what decodes videos, by its name, see `video.load_backend`.
    """

    fps: video.Fps = "auto"
    batch: int | None = None
    threads: int | None = None
    columns: tuple[str, ...] | None = None
    features: FeatureColumns | None = None
    decoder: str = "pyav"


def settings_of(model: Model, options: Options) -> dict[str, Any]:
    """Returns what rows depend on, JSON-like: runs with other settings do not share a file."""
    heads = {k: v for k, v in model.params.items() if k != "backbone"}
    spec = json.dumps(models.spec_to_json(model.spec), sort_keys=True)
    known = f"{model.card['backbone_sha256']} {models.weights_hash(heads)} {spec}"
    settings: dict[str, Any] = {
        "model": hashlib.sha256(known.encode()).hexdigest()[:16],
        "fps": options.fps,
        "columns": None if options.columns is None else list(options.columns),
    }
    # What earlier versions had no choice of is left out where it is as it was then.
    if options.features:
        settings["save_features"] = options.features.level
    if options.decoder != "pyav":
        settings["decoder"] = options.decoder
    if model.spec.modules:
        settings["code"] = plugins.code_of(model.spec.modules)
    return settings


def threads(options: Options) -> int:
    """Returns how many sources are read at once; a video is decoded by several threads itself."""
    return options.threads or min(16, max(2, runtime.cores() // 2))


class LocalEngine:
    """Scores sources on the devices of this process; built once, used for any number of runs.

    Frames of different sources share batches, and everything overlaps: threads decode, one
    assembles batches, this one feeds the devices, and one turns scores into rows.
    """

    def __init__(self, model: Model, options: Options) -> None:
        self._spec = model.spec
        self._options = options
        # Of several processes each has its own devices and its own sources.
        devices = jax.local_devices()
        size = None if options.batch is None else options.batch * len(devices)
        kept = options.features.level if options.features else None
        self.scorer = scoring.Scorer(model, size, devices=devices, features=kept)

    def run(
        self,
        sources: Sequence[Source],
        scratch: pathlib.Path,
        finish: Finish,
        progress: Progress = lambda rows: None,
    ) -> None:
        """Scores sources.

        Args:
            sources: what to score.
            scratch: a local folder for rows of long sources.
            finish: called once for each source, from another thread, when all its rows are there
                or it failed.
            progress: called with the number of frames scored since the last call.
        """
        size = self.scorer.batch_size
        buffers = Buffers(_IN_FLIGHT + 2)
        writer = _Writer(self._spec, self._options, scratch, finish, buffers)
        feed = Feed(
            sources,
            self._options.fps,
            self._options.decoder,
            threads=threads(self._options),
            depth=_DECODED_BATCHES * size,
        )
        stream = batches(feed, size, buffers, most_waiting=_GROUPED_BATCHES * size)
        # The feed is left first: the threads behind it end once it gives them no more.
        with writer, prefetch(stream, depth=2) as items, feed:
            for scored in self._scored(items):
                writer.put(scored)
                if not isinstance(scored, End):
                    progress(len(scored[1].frames))

    def _scored(self, items: Iterator[Batch | End]) -> Iterator[End | tuple[Any, Batch]]:
        """Sends batches to the devices, and yields what comes back."""
        pending: collections.deque[tuple[Any, Batch]] = collections.deque()

        def collect() -> tuple[Any, Batch]:
            scores, batch = pending.popleft()
            return scoring.to_host(scores), batch

        for item in items:
            if isinstance(item, End):
                yield item
                continue
            scores = self.scorer.dispatch(item.images, item.mask, item.valid)
            for leaf in jax.tree.leaves(scores):
                leaf.copy_to_host_async()
            pending.append((scores, item))
            if len(pending) >= _IN_FLIGHT:
                yield collect()
        while pending:
            yield collect()


class _Writer:
    """A thread that turns scores into rows and says which sources are whole."""

    def __init__(
        self,
        spec: Spec,
        options: Options,
        scratch: pathlib.Path,
        finish: Finish,
        buffers: Buffers,
    ) -> None:
        self._spec = spec
        self._options = options
        self._collector = Collector(scratch)
        self._finish = finish
        self._buffers = buffers
        self._channel: Channel[End | tuple[Any, Batch]] = Channel(8)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="carjax-rows", daemon=True)

    def __enter__(self) -> _Writer:
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """What was put is still written, then a failure of the thread is raised here."""
        self._channel.finish()
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error

    def put(self, item: End | tuple[Any, Batch]) -> None:
        """Hands over a source's end or a batch's scores.

        Raises:
            BaseException: whatever stopped the thread, such as a full disk.
        """
        if not self._channel.put(item) and self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            for item in self._channel:
                whole = [self._collector.end(item)] if isinstance(item, End) else self._add(*item)
                for pair in whole:
                    if pair is not None:
                        self._finish(*pair)
        except BaseException as error:
            self._error = error
            self._channel.shut()

    def _add(self, scores: Any, batch: Batch) -> list[tuple[End, UnitRows] | None]:
        self._buffers.give(batch.images)
        table = to_rows(scores, batch, self._spec, self._options)
        whole, start = [], 0
        frames = batch.frames
        for i in range(1, len(frames) + 1):
            before = frames[i - 1]
            follows = i < len(frames) and (
                (frames[i].unit, frames[i].row) == (before.unit, before.row + 1)
            )
            if not follows:
                run = table.slice(start, i - start)
                whole.append(self._collector.add(frames[start].unit, frames[start].row, run))
                start = i
        return whole


def to_rows(scores: Any, batch: Batch, spec: Spec, options: Options) -> pa.Table:
    """Returns the rows of a batch's frames, with the columns and features to keep."""
    # With the padding, so that every call has the same shapes.
    size = len(batch.images)
    frame, time_s, names = np.zeros(size, np.int64), np.zeros(size), [""] * size
    for i, decoded in enumerate(batch.frames):
        sample = decoded.sample
        frame[i], time_s[i], names[i] = sample.frame, sample.time_s, sample.source
    table = scoring.to_table(scores, spec, frame, time_s)
    rows = parquet.to_arrow(table, names, options.features).slice(0, len(batch.frames))
    if options.columns is None:
        return rows
    return rows.select([*options.columns, *(options.features.widths if options.features else ())])
