"""Rows of the sources that are being scored, until each is whole; in constant memory."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from carjax.engine.feed import End

if TYPE_CHECKING:
    import pyarrow as pa

# A source with more rows waits on the disk: an hour of video has 30,000.
_SPILL_ROWS = 1024
# A table of a few rows weighs a hundred times its numbers: so many are copied into one.
_MOST_TABLES = 64
ORDER = [("source", "ascending"), ("frame", "ascending")]
_SPILL_BYTES = 2**24


def fitting(rows: int, schema: pa.Schema, most_bytes: int) -> int:
    """Returns so many rows, or as many fewer as fit into those bytes: features make rows wide.

    Example:
        >>> import pyarrow as pa
        >>> fitting(1000, pa.schema({"features_pooled": pa.list_(pa.float16(), 2000)}), 400_000)
        100
    """
    import pyarrow as pa

    lists = [field.type for field in schema if pa.types.is_fixed_size_list(field.type)]
    width = sum(kind.list_size * kind.value_type.bit_width // 8 for kind in lists)
    return max(1, min(rows, most_bytes // max(1, width)))


class Pool:
    """Rows of many tables, in few large ones."""

    def __init__(self) -> None:
        self._large: list[pa.Table] = []
        self._small: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Adds rows."""
        self._small.append(table)
        if len(self._small) == _MOST_TABLES:
            self._compact()

    def _compact(self) -> None:
        import pyarrow as pa

        if self._small:
            self._large.append(pa.concat_tables(self._small).combine_chunks())
            self._small = []

    def take(self) -> list[pa.Table]:
        """Returns all rows as they came, and forgets them."""
        self._compact()
        large, self._large = self._large, []
        return large


class UnitRows:
    """The rows of one source. They nearly always come in order; else they are sorted at the end."""

    def __init__(self, spill: pathlib.Path) -> None:
        self.count = 0
        self.first = ""  # the `source` of the first row in order
        self._pool = Pool()
        self._held = self._most_held = 0
        self._in_order = True
        self._spill = spill
        self._writer: pa.ipc.RecordBatchFileWriter | None = None

    @property
    def spilled(self) -> bool:
        """Whether rows lie on the disk."""
        return self._writer is not None

    def add(self, row: int, table: pa.Table) -> None:
        """Adds a run of rows, the first of them the `row`-th of the source."""
        if not self.count:
            self._most_held = fitting(_SPILL_ROWS, table.schema, _SPILL_BYTES)
        self._in_order &= row == self.count
        name = table.column("source")[0].as_py()
        self.first = min(name, self.first or name)
        self.count += len(table)
        self._held += len(table)
        self._pool.add(table)
        if self._held >= self._most_held:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa

        for table in self._pool.take():
            if self._writer is None:
                self._writer = pa.ipc.new_file(self._spill, table.schema)
            self._writer.write_table(table)
        self._held = 0

    def chunks(self) -> Iterator[pa.Table]:
        """Yields all rows in order of source and frame, once."""
        import pyarrow as pa

        if self._writer is None:
            batches = self._pooled()
            yield from _ordered(batches, self._in_order, self._most_held)
            return
        self._writer.close()
        # Of a mapped file only what is being written lies in memory.
        with pa.memory_map(str(self._spill)) as file, pa.ipc.open_file(file) as reader:
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            yield from _ordered(batches + self._pooled(), self._in_order, self._most_held)

    def _pooled(self) -> list[pa.RecordBatch]:
        return [batch for table in self._pool.take() for batch in table.to_batches()]

    def drop(self) -> None:
        """Forgets the rows."""
        self._pool.take()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._spill.unlink(missing_ok=True)


def _ordered(batches: list[pa.RecordBatch], sorted_: bool, most: int) -> Iterator[pa.Table]:
    """Yields the rows of batches, at most `most` at once, in order of source and frame."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if sorted_:
        yield from (pa.Table.from_batches([batch]) for batch in batches)
        return
    if not batches:
        return
    keys = pa.Table.from_batches([batch.select([name for name, _ in ORDER]) for batch in batches])
    order = pc.sort_indices(keys, sort_keys=ORDER).to_numpy().astype(np.int64)
    starts = np.cumsum([0, *map(len, batches)])
    batch_of = np.searchsorted(starts, order, side="right") - 1
    for start in range(0, len(order), most):
        rows, of = order[start : start + most], batch_of[start : start + most]
        pieces = [batches[i].take(pa.array(rows[of == i] - starts[i])) for i in np.unique(of)]
        yield pa.Table.from_batches(pieces).sort_by(ORDER)


class Collector:
    """Gathers rows of many sources, in whatever order batches come, until sources are whole."""

    def __init__(self, scratch: pathlib.Path) -> None:
        self._scratch = scratch
        self._rows: dict[int, UnitRows] = {}
        self._ends: dict[int, End] = {}

    def add(self, unit: int, row: int, table: pa.Table) -> tuple[End, UnitRows] | None:
        """Adds a run of a source's rows; returns the source if that made it whole."""
        self._of(unit).add(row, table)
        return self._whole(unit)

    def end(self, end: End) -> tuple[End, UnitRows] | None:
        """Says how many rows a source has; returns it if it is whole."""
        self._ends[end.unit] = end
        return self._whole(end.unit)

    def _of(self, unit: int) -> UnitRows:
        if unit not in self._rows:
            self._rows[unit] = UnitRows(self._scratch / f"rows-{unit}.arrow")
        return self._rows[unit]

    def _whole(self, unit: int) -> tuple[End, UnitRows] | None:
        end = self._ends.get(unit)
        rows = self._of(unit)
        if end is None or rows.count < end.rows:
            return None
        del self._ends[unit]
        return end, self._rows.pop(unit)
