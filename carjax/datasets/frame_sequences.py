"""Sequences of scored frames with their features and labels, for models that look across time.

The features come from `carjax score --save_features=…`, the labels from a CSV file; see
`frame_labels`. Features are read one source at a time, so that a set of sequences takes little
memory, and processes can share it.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np

from carjax import parquet
from carjax.datasets import frame_labels
from carjax.datasets.sequence_batches import FrameSequence
from carjax.errors import CarjaxError
from carjax.feature_columns import FeatureColumns
from carjax.features import Level

if TYPE_CHECKING:
    import pyarrow as pa

_KEYS = ("source", "frame", "time_s")


class _Piece(NamedTuple):
    """Rows `start` to `stop` of a file."""

    path: pathlib.Path
    start: int
    stop: int


class _Source(NamedTuple):
    """Where the rows of one source lie, as they come, and what is known about them in order."""

    pieces: tuple[_Piece, ...]
    order: np.ndarray
    frame: np.ndarray
    time_s: np.ndarray
    labels: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class FrameSequences(Sequence[FrameSequence]):
    """A sequence for each labelled source, read from the disk when it is asked for.

    Attributes:
        info: what the features are.
        sources: the names, sorted.
        classes: column of the labels → its classes, sorted; `azimuth_deg` is not among them.
        unmatched: labels that no scored frame is near to.
    """

    info: FeatureColumns
    sources: tuple[str, ...]
    classes: dict[str, tuple[str, ...]]
    unmatched: int
    _rows: dict[str, _Source]
    _columns: tuple[str, ...]

    def __len__(self) -> int:
        """The number of sources."""
        return len(self.sources)

    @overload
    def __getitem__(self, index: int) -> FrameSequence: ...

    @overload
    def __getitem__(self, index: slice) -> list[FrameSequence]: ...

    def __getitem__(self, index: int | slice) -> FrameSequence | list[FrameSequence]:
        """Reads one sequence, or of a slice a list of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        name = self.sources[index]
        rows = self._rows[name]
        with parquet.errors_of(rows.pieces[0].path):
            table = _read_pieces(rows.pieces, self._columns).take(rows.order)
        features = self.info.read(table)
        assert features is not None  # looked at when it was opened
        mask = np.ones(len(table), bool)
        return FrameSequence(name, rows.frame, rows.time_s, features, dict(rows.labels), mask)

    def labels_of(self, index: int) -> dict[str, np.ndarray]:
        """The labels of one sequence, without reading features."""
        return dict(self._rows[self.sources[index]].labels)


def read(
    path: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    *,
    level: Level | None = None,
    weights_sha256: str | None = None,
) -> FrameSequences:
    """Opens what `carjax score --save_features=…` wrote, with labels.

    Args:
        path: the file, or the folder of parts.
        labels: a CSV file; see `frame_labels.read`.
        level: read no more than 'pooled' features, or insist on 'grid'; None: what there is.
        weights_sha256: `model.weights_hash` of the backbone that the features must come from.

    Returns:
        A sequence for each source that the labels name.

    Raises:
        CarjaxError: a file is missing, unreadable or holds no features, or not those asked for; a
            source is not in the scores, or none of its labels is near a frame; a column is missing,
            or a number is none.

    Example:
        >>> walks = read("scores.parquet", "labels.csv", level="grid")    # doctest: +SKIP
        >>> walks[0].features.pooled.shape, walks[0].labels["azimuth_deg"].shape  # doctest: +SKIP
        ((120, 1280), (120,))
    """
    known = frame_labels.read(labels)
    with parquet.errors_of(path):
        parts = parquet.parts(path)
        info = described(parts, level, weights_sha256)
        found = _index(parts, set(known.rows))
    known.check_sources(found, path)
    unmatched = 0
    sources: dict[str, _Source] = {}
    for name in known.rows:
        attached, lost = known.at(name, found[name].time_s)
        unmatched += lost
        sources[name] = found[name]._replace(labels=attached)
    wanted = list(info.widths)[: 1 if level == "pooled" else None]
    ordered = tuple(sorted(sources))
    return FrameSequences(info, ordered, known.classes, unmatched, sources, tuple(wanted))


def described(
    parts: Sequence[pathlib.Path], level: Level | None, weights_sha256: str | None
) -> FeatureColumns:
    """Returns what the features of all parts of a file of scores are.

    Raises:
        CarjaxError: it is not what `read` was asked for; the caller names the file.
    """
    import pyarrow.parquet as pq

    headers = [parquet.header_of(pq.read_schema(part)) for part in parts]
    if any("features" not in header for header in headers):
        raise CarjaxError("it has no features: score with --save_features=pooled or grid")
    first, *others = (FeatureColumns(**header["features"]) for header in headers)
    if any(other != first for other in others):
        raise CarjaxError("its parts hold different features; score them again")
    if level == "grid" and first.level != "grid":
        raise CarjaxError("it holds pooled features only: score with --save_features=grid")
    if weights_sha256 is not None:
        first.check_weights(weights_sha256)
    return first


def _index(parts: Sequence[pathlib.Path], wanted: set[str]) -> dict[str, _Source]:
    """Finds the rows of the wanted sources; features are not read."""
    import pyarrow.parquet as pq

    pieces: dict[str, list[_Piece]] = {}
    moments: dict[str, list[np.ndarray]] = {}
    for part in parts:
        file = pq.ParquetFile(part, read_dictionary=["source"])
        missing = [name for name in _KEYS if name not in file.schema_arrow.names]
        if missing:
            raise CarjaxError(f"it lacks the column {missing[0]}; score the videos again")
        rows = file.read(columns=list(_KEYS))
        if not len(rows):
            continue
        source = rows.unify_dictionaries().column("source").combine_chunks()
        codes = source.indices.to_numpy()
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        stops = [*starts[1:].tolist(), len(rows)]
        frame, time_s = rows.column("frame").to_numpy(), rows.column("time_s").to_numpy()
        for start, stop in zip(starts.tolist(), stops, strict=True):
            name = source.dictionary[int(codes[start])].as_py()
            if name in wanted:
                pieces.setdefault(name, []).append(_Piece(part, start, stop))
                both = np.stack([frame[start:stop], time_s[start:stop]])
                moments.setdefault(name, []).append(both)
    found = {}
    for name, mine in pieces.items():
        frames, times = np.concatenate(moments[name], axis=1)
        order = np.argsort(frames, kind="stable")
        found[name] = _Source(tuple(mine), order, frames[order].astype(np.int64), times[order], {})
    return found


def _read_pieces(pieces: Sequence[_Piece], columns: Sequence[str]) -> pa.Table:
    """Reads those rows, and of the files no more row groups than hold them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for piece in pieces:
        with pq.ParquetFile(piece.path) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            ends = np.cumsum(sizes)
            groups = np.flatnonzero((ends > piece.start) & (ends - sizes < piece.stop))
            first = int(ends[groups[0]] - sizes[groups[0]])
            rows = file.read_row_groups(groups.tolist(), columns=list(columns))
        tables.append(rows.slice(piece.start - first, piece.stop - piece.start))
    return pa.concat_tables(tables)
