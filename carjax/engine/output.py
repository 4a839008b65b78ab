"""Finished sources become parts: sorted Parquet files of bounded size, each commit all or nothing.

A run's folder holds `part-PROCESS-NUMBER-RUN.parquet` and, in its state folder, `settings.json` and
`commit-PROCESS-NUMBER-RUN.json`, written after the parts that it names. RUN is a word by which no
name comes twice: what is said of a file that is gone is said of no other. A part that no commit
names was left by a run that was killed, and is removed by the next one; so is a commit whose parts
are gone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from carjax import feature_columns
from carjax.engine import manifest
from carjax.engine.manifest import Commit, Record
from carjax.engine.rows import ORDER, Pool, UnitRows, fitting
from carjax.engine.store import Store
from carjax.errors import CarjaxError

if TYPE_CHECKING:
    import pyarrow as pa

    from carjax.sources.base import Source

# Rows of a column lie together for this many rows: large enough to compress, small to hold.
_GROUP_ROWS = 2048
# Rows with features are so wide that fewer make a part, and lie together.
_PART_BYTES, _GROUP_BYTES = 2**26, 2**24


@dataclasses.dataclass(frozen=True)
class Share:
    """Which process of how many this one is."""

    process: int = 0
    processes: int = 1

    def of(self, sources: Sequence[Source]) -> list[Source]:
        """Its share of the sources, by their names alone.

        So that processes which see other files, as some arrived in between, have no source twice.
        Of few sources one process may get more than another.
        """
        return [source for source in sources if self._takes(source.name)]

    def _takes(self, name: str) -> bool:
        digest = hashlib.sha256(os.fsencode(name)).digest()
        return int.from_bytes(digest[:8], "big") % self.processes == self.process

    def owns(self, name: str) -> bool:
        """Whether it looks after a file that some process, perhaps of an earlier run, named."""
        numbers = manifest.numbers(name)
        return numbers is not None and numbers[0] % self.processes == self.process


class PartWriter:
    """Writes tables into one Parquet file, in row groups of a good size."""

    def __init__(self, path: pathlib.Path, schema: pa.Schema) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        self.rows = 0
        self._group_rows = fitting(_GROUP_ROWS, schema, _GROUP_BYTES)
        # Among thousands of features there are few equal ones to be found.
        wide = any(name in schema.names for name in feature_columns.NAMES.values())
        text = [field.name for field in schema if field.type == pa.string()]
        self._writer = pq.ParquetWriter(
            path, schema, compression="zstd", use_dictionary=text if wide else True
        )
        self._tables: list[pa.Table] = []
        self._held = 0

    def write(self, table: pa.Table) -> None:
        """Adds rows."""
        self._tables.append(table)
        self._held += len(table)
        self.rows += len(table)
        if self._held >= self._group_rows:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._tables:
            table = pa.concat_tables(self._tables)
            self._writer.write_table(table, row_group_size=self._group_rows)
        self._tables, self._held = [], 0

    def close(self) -> None:
        """Ends the file."""
        self._flush()
        self._writer.close()


class _Batch:
    """Sources that wait to be committed together."""

    def __init__(self) -> None:
        # Of each source: its rows, if they lie on the disk; else they are in the pool.
        self.pending: list[tuple[Record, UnitRows | None]] = []
        self.pool = Pool()
        self.rows = 0

    def add(self, record: Record, rows: UnitRows | None) -> None:
        if rows is not None and not rows.spilled:
            for table in rows.chunks():
                self.pool.add(table)
            rows = None
        self.pending.append((record, rows))
        self.rows += record.rows

    def in_order(self) -> Iterator[pa.Table]:
        """Sorts the sources and yields their rows, from the disk and from the pool, once."""
        import pyarrow as pa

        self.pending.sort(key=lambda pair: pair[0].first)
        tables = self.pool.take()
        pooled = pa.concat_tables(tables).sort_by(ORDER) if tables else None
        start = 0
        for record, rows in self.pending:
            if rows is not None:
                yield from rows.chunks()
            elif record.rows and pooled is not None:
                yield pooled.slice(start, record.rows)
                start += record.rows


class Output:
    """The parts of one process.

    What is added is committed once or, if writing it fails, not at all: then no commit names it,
    and its sources are scored again by the next run. Threads may share it.

    Args:
        store: where the run's folder lies.
        folder: of the parts.
        state: folder of the commits.
        scratch: a local folder for files that are not finished.
        share: which process this is.
        schema: columns of the parts.
        part_rows: the most rows of a part; fewer where they are wide.
        checkpoint_s: seconds between commits, where no part is full before.
    """

    def __init__(
        self,
        store: Store,
        folder: str,
        state: str,
        scratch: pathlib.Path,
        share: Share,
        schema: pa.Schema,
        *,
        part_rows: int,
        checkpoint_s: float,
    ) -> None:
        self._store = store
        self._folder = folder
        self._state = state
        self._scratch = scratch
        self._schema = schema
        self._part_rows = fitting(part_rows, schema, _PART_BYTES)
        self._checkpoint_s = checkpoint_s
        self._process = share.process
        self._run = secrets.token_hex(4)
        self._parts = self._next(folder, "part")
        self._commits = self._next(state, "commit")
        self._batch = _Batch()
        self._lock = threading.RLock()
        self._last = time.monotonic()

    def _next(self, folder: str, kind: str) -> int:
        found = (manifest.numbers(name, kind) for name in self._store.names(folder))
        mine = [numbers[1] for numbers in found if numbers and numbers[0] == self._process]
        return 1 + max(mine, default=-1)

    def add(self, record: Record, rows: UnitRows | None) -> list[Commit]:
        """Takes a source that is done or failed; returns what was committed on that occasion."""
        with self._lock:
            made = []
            if self._batch.rows and self._batch.rows + record.rows > self._part_rows:
                made.append(self.commit())
            self._batch.add(record, rows)
            late = time.monotonic() - self._last >= self._checkpoint_s
            if late or self._batch.rows >= self._part_rows:
                made.append(self.commit())
            return [commit for commit in made if commit is not None]

    def commit(self) -> Commit | None:
        """Writes what is pending; from then on it is done for good.

        Raises:
            CarjaxError: not all rows are there: an earlier failure took some of them.
        """
        with self._lock:
            self._last = time.monotonic()
            batch, self._batch = self._batch, _Batch()
            if not batch.pending:
                return None
            parts = self._write(batch.in_order())
            if sum(rows for _, rows in parts) != batch.rows:
                raise CarjaxError(
                    f"{self._folder or '.'}: rows of {len(batch.pending)} sources were lost: "
                    "run the same command again, and it scores these"
                )
            commit = self._record(parts, tuple(record for record, _ in batch.pending))
            for _, rows in batch.pending:
                if rows is not None:
                    rows.drop()
            return commit

    def replace(self, old: Commit, records: tuple[Record, ...], tables: Iterable[pa.Table]) -> None:
        """Writes the parts of a commit anew, with fewer of its sources."""
        self._record(self._write(tables), records, (old.name, *(name for name, _ in old.parts)))

    def _record(
        self, parts: list[tuple[str, int]], records: tuple[Record, ...], replaces: tuple = ()
    ) -> Commit:
        name = manifest.stem("commit", self._process, self._commits, self._run)
        commit = Commit(name, tuple(parts), records, replaces)
        manifest.write_commit(self._store, self._state, commit)
        self._commits += 1
        return commit

    def _write(self, tables: Iterable[pa.Table]) -> list[tuple[str, int]]:
        """Writes rows as one part, or several where they are more than a part may hold."""
        parts: list[tuple[str, int]] = []
        writer: PartWriter | None = None
        for table in tables:
            start = 0
            while start < len(table):
                writer = writer or PartWriter(self._scratch / "part.parquet", self._schema)
                piece = table.slice(start, self._part_rows - writer.rows)
                writer.write(piece)
                start += len(piece)
                if writer.rows == self._part_rows:
                    parts.append(self._close(writer))
                    writer = None
        if writer is not None:
            parts.append(self._close(writer))
        return parts

    def _close(self, writer: PartWriter) -> tuple[str, int]:
        writer.close()
        name = manifest.stem("part", self._process, self._parts, self._run) + ".parquet"
        self._store.put(writer.path, f"{self._folder}/{name}")
        self._parts += 1
        return name, writer.rows


def remove_leftovers(
    store: Store, state: str, folder: str, commits: Sequence[Commit], share: Share
) -> None:
    """Removes commits that do not count, and parts that none names that does.

    Of the processes that this one looks after; files of other names are left alone.
    """
    counting = {f"{commit.name}.json" for commit in commits}
    for file in manifest.commit_files(store, state):
        if file not in counting and share.owns(file):
            store.remove(f"{state}/{file}")
    named = {name for commit in commits for name, _ in commit.parts}
    for file in store.names(folder):
        if manifest.is_part(file) and file not in named and share.owns(file):
            store.remove(f"{folder}/{file}")
