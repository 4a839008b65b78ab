"""Many sorted parts become one sorted file, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from carjax.engine.manifest import Commit, Record
from carjax.engine.rows import fitting
from carjax.engine.store import Store
from carjax.errors import CarjaxError

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE, _BYTES_AT_ONCE = 1024, 2**22


class _Reader:
    """The rows of one commit in their order; a file is open only while it is read."""

    def __init__(self, store: Store, folder: str, commit: Commit) -> None:
        self._name = commit.name
        self._batches = _batches(store, folder, commit)
        self._rest: pa.RecordBatch | None = None

    def take(self, rows: int) -> Iterator[pa.Table]:
        """Yields the next rows."""
        import pyarrow as pa

        while rows:
            batch = self._rest if self._rest is not None else next(self._batches, None)
            if batch is None:
                raise CarjaxError(
                    f"{self._name}: its parts hold fewer rows than it names: begin anew with "
                    "--overwrite"
                )
            piece = batch.slice(0, rows)
            self._rest = batch.slice(len(piece)) if len(piece) < len(batch) else None
            rows -= len(piece)
            yield pa.Table.from_batches([piece])


def _batches(store: Store, folder: str, commit: Commit) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    for name, _ in commit.parts:
        path = f"{folder}/{name}" if folder else name
        with store.open(path) as opened, pq.ParquetFile(opened) as file:
            yield from file.iter_batches(fitting(_ROWS_AT_ONCE, file.schema_arrow, _BYTES_AT_ONCE))


def rows_of(
    store: Store, commits: list[tuple[str, Commit]]
) -> Iterator[tuple[Record, Iterator[pa.Table]]]:
    """Yields the sources that did not fail, in order, each with its rows, to be read at once.

    Args:
        store: where the parts lie.
        commits: each with the folder of its parts.
    """
    order = [
        (record.first, i, at)
        for i, (_, commit) in enumerate(commits)
        for at, record in enumerate(commit.records)
    ]
    readers: dict[int, _Reader] = {}
    left = [len(commit.records) for _, commit in commits]
    for _, i, at in sorted(order):
        folder, commit = commits[i]
        record = commit.records[at]
        tables: Iterator[pa.Table] = iter(())
        if record.rows:
            tables = readers.setdefault(i, _Reader(store, folder, commit)).take(record.rows)
        if not record.failed:
            yield record, tables
        for _ in tables:  # what does not count, or was not read
            pass
        left[i] -= 1
        if not left[i]:
            readers.pop(i, None)
