"""The files of a run of `carjax score`: what earlier runs left, and what comes to stand there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from carjax import errors
from carjax.engine import manifest
from carjax.engine.join import rows_of
from carjax.engine.manifest import DAMAGED, Commit, Record, is_commit, is_part
from carjax.engine.output import Output, PartWriter, Share, remove_leftovers
from carjax.engine.store import Store, open_store
from carjax.errors import CarjaxError, UsageError
from carjax.files import is_remote
from carjax.sources.base import Problem, Source

if TYPE_CHECKING:
    import pyarrow as pa

# Folder of the state of a run, in the folder of its parts.
_STATE = "_carjax"
# Rows of a part: as many as they come where they stay parts; few where they become one file.
PART_ROWS, _JOINED_ROWS = 100_000, 2_000
CHECKPOINT_S = 60.0
# What lies in the folder of a run that makes one file, beside parts and commits: the last one is
# a name of `files.unique`.
_OTHERS = re.compile(
    r"settings\.json|joined\.(parquet|jsonl)|scratch-\d{5,}|(?P<hidden>\..+\.[0-9a-f]{16}\.part)"
)


@dataclasses.dataclass(frozen=True)
class Target:
    """Where the results of a run go.

    Attributes:
        out: the path or URL as given.
        share: which process of how many this one is.
        part_rows: the most rows of a part; None: one file, if one process writes.
        checkpoint_s: seconds between commits.
        overwrite: what carjax wrote there is removed; for one process alone.
    """

    out: str
    share: Share = dataclasses.field(default_factory=Share)
    part_rows: int | None = None
    checkpoint_s: float = CHECKPOINT_S
    overwrite: bool = False


class RunFiles:
    """The state of one output, from what earlier runs left to the finished file.

    What is to be overwritten counts as gone from the start, and is removed by `clear`.

    Raises:
        CarjaxError: the output cannot be written, or belongs to something else.
    """

    def __init__(self, target: Target) -> None:
        with errors.writing(target.out):
            self.store, self.name = open_store(target.out)
            self.target = target
            self.errors_name = f"{self.name}.errors.csv"
            self.manifest_name = f"{self.name}.manifest.jsonl"
            self._joining = f"{self.name}.run"
            self.rolling = (
                target.part_rows is not None
                or target.share.processes > 1
                or (not target.overwrite and self.store.is_folder(self.name))
            )
            self.folder = self.name if self.rolling else self._joining
            self._parts_state = f"{self.name}/{_STATE}"
            self.state = self._parts_state if self.rolling else self._joining
            self._settings = f"{self.state}/settings.json"
            self._scratch = f"{self.state}/scratch-{target.share.process:05d}"
            self.base: Commit | None = None
            self._base_settings: dict[str, Any] | None = None
            _check_errors_file(self.store, self.errors_name, target.out)
            if target.overwrite:
                self._check_removable()
            else:
                self._check()

    def _check_removable(self) -> None:
        if self.target.share.processes > 1:
            raise CarjaxError(
                f"{self.target.out}: is overwritten by one process, not by several: remove it first"
            )
        others = self._others()
        if others and not (self._is_ours() and self.rolling):
            self._refuse(others)
        self._check_joining()

    def clear(self) -> None:
        """Removes what is to be overwritten, and nothing that carjax did not write.

        Raises:
            CarjaxError: another run is writing there.
        """
        with self.store.idle((self._joining, self._parts_state)):
            kept = self._others()
            if self.store.size(self.name) is not None:
                self.store.remove(self.name)
            # The state last: if this is stopped, it tells whose the rest is.
            for entry in self.store.entries(self.name):
                if entry not in (*kept, _STATE):
                    self.store.remove(f"{self.name}/{entry}")
            self.store.remove(self._parts_state)
            if not kept:
                self.store.remove(self.name)
            for name in (self._joining, self.manifest_name, self.errors_name):
                self.store.remove(name)

    def _is_ours(self) -> bool:
        return self.store.size(f"{self._parts_state}/settings.json") is not None

    def _others(self) -> list[str]:
        """What lies in a folder of parts, or where one is to be, that carjax did not write."""
        entries = (name for name in self.store.entries(self.name) if name != _STATE)
        ours = self._is_ours()
        return [name for name in entries if not (_is_hidden(name) or (ours and is_part(name)))]

    def _refuse(self, others: Sequence[str]) -> None:
        raise CarjaxError(
            f"{self.target.out}: is a folder that carjax did not write, or holds more, such as "
            f"{others[0]}: give another --out"
        )

    def _check_joining(self) -> None:
        """The folder of a run that makes one file is removed at its end: it must be carjax's."""
        found = self.store.entries(self._joining)
        others = [n for n in found if not (is_part(n) or is_commit(n) or _OTHERS.fullmatch(n))]
        if others or self.store.size(self._joining) is not None:
            what = others[0] if others else "a file of that name"
            raise CarjaxError(
                f"{self.target.out}: its run needs the folder {self._joining}, and there lies "
                f"{what}, which carjax did not write: remove it, or give another --out"
            )

    def _check(self) -> None:
        out = self.target.out
        self._check_joining()
        if self.rolling:
            if self.store.size(self.name) is not None:
                raise CarjaxError(
                    f"{out}: is one file, and parts need a folder: give another --out, "
                    "or --overwrite"
                )
            if self.store.is_folder(self._joining):
                raise CarjaxError(
                    f"{out}: was begun as one file: go on without --part_rows and --processes, "
                    "give another --out, or --overwrite"
                )
            others = self._others()
            if others and not self._is_ours() and not self.store.is_folder(self.state):
                self._refuse(others)
            return
        if self.store.size(f"{self._joining}/joined.jsonl") is not None:
            with self.store.scratch(self._scratch):  # alone: another run may be ending it
                self._end_join()
        self._read_base()

    def _read_base(self) -> None:
        """Reads what the finished file holds, if there is one."""
        self.base = self._base_settings = None
        size = self.store.size(self.name)
        if size is None:
            return
        if self.store.size(self.manifest_name) is not None:
            with self.store.open(self.manifest_name) as file, contextlib.suppress(*DAMAGED):
                described, *records = map(json.loads, file.read().splitlines())
                if described["format"] != manifest.FORMAT:
                    raise CarjaxError(
                        f"{self.manifest_name}: has format {described['format']}, this carjax "
                        f"writes {manifest.FORMAT}: give another --out, or --overwrite"
                    )
                if described["size"] == size:
                    known = tuple(Record.from_json(record) for record in records)
                    self._base_settings = dict(described["settings"])
                    self.base = Commit("", ((self.name, described["rows"]),), known)
                    return
        raise CarjaxError(
            f"{self.target.out}: exists, and no manifest tells what it holds: give another --out, "
            "or --overwrite"
        )

    @contextlib.contextmanager
    def writing(self) -> Iterator[pathlib.Path]:
        """Yields a local folder for unfinished files; only one run at a time has it.

        Raises:
            CarjaxError: another run has it.
        """
        with self.store.scratch(self._scratch) as scratch:
            if not self.rolling:
                self._read_base()  # another run may have ended since it was read
            yield scratch

    def output(self, scratch: pathlib.Path, schema: pa.Schema) -> Output:
        """The parts of this process."""
        return Output(
            self.store,
            self.folder,
            self.state,
            scratch,
            self.target.share,
            schema,
            part_rows=self.target.part_rows or (PART_ROWS if self.rolling else _JOINED_ROWS),
            checkpoint_s=self.target.checkpoint_s,
        )

    def commits(self) -> list[tuple[str, Commit]]:
        """What is written so far, each with the folder of its parts."""
        base = [("", self.base)] if self.base else []
        return base + [(self.folder, commit) for commit in self._own_commits()]

    def _own_commits(self) -> list[Commit]:
        return manifest.read_commits(self.store, self.state, self.folder)

    def remove_leftovers(self, commits: Sequence[tuple[str, Commit]]) -> None:
        """Removes what an earlier run left, of this process, but for what counts: `commits`."""
        counting = [commit for _, commit in commits]
        remove_leftovers(self.store, self.state, self.folder, counting, self.target.share)

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Compares what the rows depend on with what earlier runs wrote.

        Raises:
            CarjaxError: they differ, or cannot be read.
        """
        if self._base_settings is not None:
            manifest.compare_settings(self._base_settings, settings, self.target.out)
        if self.store.size(self._settings) is not None:
            with self.store.open(self._settings) as file:
                written = file.read()
            try:
                begun = dict(json.loads(written))
            except DAMAGED:
                raise CarjaxError(
                    f"{self.target.out}: {self._settings} is damaged, and tells no more what it "
                    "was begun with: give another --out, or --overwrite"
                ) from None
            manifest.compare_settings(begun, settings, self.target.out)

    def keep_settings(self, settings: Mapping[str, Any]) -> None:
        """Writes what the rows depend on, or compares it with what is written.

        Raises:
            CarjaxError: it differs: another process was begun with other words.
        """
        if self.store.size(self._settings) is None:
            self.store.write(self._settings, json.dumps(settings, indent=1).encode())
        else:
            self.check_settings(settings)

    def current(self, commits: Sequence[tuple[str, Commit]]) -> dict[str, Record]:
        """The record that counts of every source; see `manifest.current`."""
        return manifest.current((c for _, c in commits), one_writer=not self.rolling)

    def end(self, settings: Mapping[str, Any], schema: pa.Schema, scratch: pathlib.Path) -> None:
        """Makes the one file, if this run changes it, and removes the run's folder, scratch too."""
        before = {r.source for r in self.base.records} if self.base else set()
        fresh = [r for commit in self._own_commits() for r in commit.records]
        if any(r.source in before or not r.failed for r in fresh):
            self.join(settings, schema, scratch)
        else:
            self.store.remove(self.state)

    def join(self, settings: Mapping[str, Any], schema: pa.Schema, scratch: pathlib.Path) -> None:
        """Makes one file of all parts; a run that is killed here goes on here."""
        commits = self.commits()
        counting = self.current(commits)
        commits = [(folder, manifest.without(commit, counting)) for folder, commit in commits]
        records: list[Record] = []
        writer = PartWriter(scratch / "joined.parquet", schema)
        for record, tables in rows_of(self.store, commits):
            records.append(record)
            for table in tables:
                writer.write(table)
        writer.close()
        size = writer.path.stat().st_size
        head = {"format": manifest.FORMAT, "settings": settings}
        head |= {"rows": writer.rows, "size": size}
        lines = [json.dumps(head), *(json.dumps(record.to_json()) for record in records)]
        self.store.put(writer.path, f"{self._joining}/joined.parquet")
        # From here on the joined file counts, whatever happens.
        text = "\n".join(lines) + "\n"
        self.store.write(f"{self._joining}/joined.jsonl", text.encode())
        self._end_join()

    def _end_join(self) -> None:
        """Does what is left of a join whose file is complete."""
        listed = f"{self._joining}/joined.jsonl"
        if self.store.size(listed) is None:
            return
        joined = f"{self._joining}/joined.parquet"
        if self.store.size(joined) is not None:
            self.store.move(joined, self.name)
        self.store.move(listed, self.manifest_name)
        self.store.remove(self._joining)

    def write_errors(
        self, known: Sequence[tuple[str, str]], wanted: Sequence[str]
    ) -> list[tuple[str, str]]:
        """Writes the errors of all processes so far, and returns them.

        Read again after writing: of two processes that write at once the last one sees both.
        """
        written = None
        while True:
            counting = self.current(self.commits())
            told = (counting[name].problems for name in wanted if name in counting)
            rows = sorted({*known, *(problem for some in told for problem in some)})
            if rows == written:
                return rows
            self.store.write(self.errors_name, manifest.errors_csv(rows))
            written = rows


def only_errors(out: str, problems: Sequence[Problem]) -> None:
    """Writes the errors file of a run that has nothing to score, and changes nothing else."""
    store, name = open_store(out)
    file = f"{name}.errors.csv"
    rows = sorted((problem.source, problem.reason) for problem in problems)
    with errors.writing(out):
        _check_errors_file(store, file, out)
        store.write(file, manifest.errors_csv(rows))


def _check_errors_file(store: Store, name: str, out: str) -> None:
    """Raises a CarjaxError if a file that carjax did not write is called as its errors are."""
    if store.size(name):
        head = manifest.errors_csv(())
        with store.open(name) as file:
            if file.read(len(head)) != head:
                raise CarjaxError(
                    f"{out}: its errors need the file {name}, and there lies one that carjax did "
                    "not write: remove it, or give another --out"
                )


def check_apart(out: str, sources: Sequence[Source]) -> None:
    """Raises a UsageError if the output would take the place of a source, or of its folder."""
    here = _place(out)
    real: dict[str, str] = {}
    for source in sources:
        there = {_place(source.path)}
        if not is_remote(source.path):  # a link is told by where it lies, too
            folder, name = os.path.split(source.path)
            if folder not in real:
                real[folder] = os.path.realpath(folder)
            there.add(os.path.join(real[folder], name))
        if here in there:
            raise UsageError(f"--out={out} is a source itself: give another --out")
        if any(place.startswith(f"{here.rstrip('/')}/") for place in there):
            raise UsageError(f"--out={out} holds a source, {source.name}: give another --out")


def _place(path: str) -> str:
    """Where something lies, told alike for all its names."""
    scheme, _, rest = path.partition("://") if is_remote(path) else ("file", "", path)
    if scheme in ("file", "local"):
        return os.path.realpath(rest)
    # A kind of bucket may have two names, as gs and gcs, and a bucket's may begin with "/".
    return f"://{posixpath.normpath(rest).strip('/')}"


def _is_hidden(name: str) -> bool:
    found = _OTHERS.fullmatch(name)
    return found is not None and found["hidden"] is not None
