"""What a run has finished: commits, each a small file that is written after the rows it names."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from carjax.engine.store import Store
from carjax.errors import CarjaxError

FORMAT = 1
# What reading a file of JSON meets that was cut or changed.
DAMAGED = (ValueError, KeyError, TypeError)
# What a run calls its parts and commits: PROCESS-NUMBER-RUN; the earliest ones lack the RUN.
_NAME = re.compile(
    r"(?P<kind>part|commit)-(?P<process>\d{5,})-(?P<number>\d{6,})(-[0-9a-f]{8})?\.(?P<ending>\w+)"
)
_ENDINGS = {"part": "parquet", "commit": "json"}


@dataclasses.dataclass(frozen=True)
class Record:
    """What became of one source.

    Attributes:
        source: its name.
        fingerprint: of the bytes that were read.
        rows: how many rows it has.
        first: the `source` of its first row: records and rows have the same order by it.
        problems: (source or member, reason) of what was wrong.
        failed: nothing of it counts; it is tried again in the next run.
    """

    source: str
    fingerprint: str
    rows: int
    first: str
    problems: tuple[tuple[str, str], ...] = ()
    failed: bool = False

    def to_json(self) -> list[Any]:
        """The record as a JSON array."""
        problems = [list(problem) for problem in self.problems]
        return [self.source, self.fingerprint, self.rows, self.first, problems, self.failed]

    @staticmethod
    def from_json(row: list[Any]) -> Record:
        """The record of a JSON array."""
        source, fingerprint, rows, first, problems, failed = row
        return Record(source, fingerprint, rows, first, tuple(map(tuple, problems)), failed)


@dataclasses.dataclass(frozen=True)
class Commit:
    """Parts that are written, and the sources that are whole in them.

    Attributes:
        name: of its file, without the extension; '' for what an earlier run joined.
        parts: (file, rows); one after the other they hold the rows of `records`, in that order.
        records: in order of their rows, those without rows among them.
        replaces: names and parts of earlier commits that no longer count.
    """

    name: str
    parts: tuple[tuple[str, int], ...]
    records: tuple[Record, ...]
    replaces: tuple[str, ...] = ()


def stem(kind: str, process: int, number: int, run: str) -> str:
    """Returns the name of a part or commit, without the extension.

    Args:
        kind: 'part' or 'commit'.
        process: which process writes it.
        number: counts that process's files of the kind.
        run: 8 hexadecimal digits of its own for each run.

    Example:
        >>> stem("part", 1, 23, "0a1b2c3d")
        'part-00001-000023-0a1b2c3d'
    """
    return f"{kind}-{process:05d}-{number:06d}-{run}"


def numbers(name: str, kind: str | None = None) -> tuple[int, int] | None:
    """Returns the process and the number in a file's name.

    Args:
        name: of any file.
        kind: 'part' or 'commit'; None: either.

    Returns:
        None where it is no name of that kind.

    Example:
        >>> numbers("part-00001-000023-0a1b2c3d.parquet")
        (1, 23)
    """
    found = _NAME.fullmatch(name)
    if found is None or found["ending"] != _ENDINGS[found["kind"]]:
        return None
    if kind not in (None, found["kind"]):
        return None
    return int(found["process"]), int(found["number"])


def is_part(name: str) -> bool:
    """Whether a run of carjax gave a file that name, as a part."""
    return numbers(name, "part") is not None


def is_commit(name: str) -> bool:
    """Whether a run of carjax gave a file that name, as a commit."""
    return numbers(name, "commit") is not None


def write_commit(store: Store, folder: str, commit: Commit) -> None:
    """Writes a commit; from then on its parts count."""
    content = {
        "parts": commit.parts,
        "replaces": commit.replaces,
        "records": [record.to_json() for record in commit.records],
    }
    data = json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()
    store.write(f"{folder}/{commit.name}.json", data)


def commit_files(store: Store, state: str) -> list[str]:
    """Returns the names of the files of all commits."""
    return [name for name in store.names(state) if is_commit(name)]


def read_commits(store: Store, state: str, folder: str) -> list[Commit]:
    """Returns the commits that count, of all processes.

    One whose parts are not all there counts as never made: its sources are scored again.

    Args:
        store: where they lie.
        state: folder of the commits.
        folder: of the parts.

    Raises:
        CarjaxError: one cannot be read.
    """
    found = []
    for file in commit_files(store, state):
        try:
            with store.open(f"{state}/{file}") as opened:
                content = json.loads(opened.read())
            found.append(
                Commit(
                    name=file.removesuffix(".json"),
                    parts=tuple((name, rows) for name, rows in content["parts"]),
                    records=tuple(Record.from_json(row) for row in content["records"]),
                    replaces=tuple(content["replaces"]),
                )
            )
        except FileNotFoundError:  # it did not count, and its process removed it just now
            continue
        except DAMAGED:
            raise CarjaxError(
                f"{state}/{file}: is damaged: remove it, and the sources that it named are scored "
                "again"
            ) from None
    # Listed after the commits were read: parts are written before them.
    there = set(store.names(folder)) if found else set()
    found = [c for c in found if there.issuperset(name for name, _ in c.parts)]
    replaced = {name for commit in found for name in commit.replaces}
    return [c for c in found if not replaced & {c.name, *(name for name, _ in c.parts)}]


def current(commits: Iterable[Commit], *, one_writer: bool) -> dict[str, Record]:
    """Returns the record that counts of every source, failed ones among them.

    Args:
        commits: in the order in which they were made, where one process made them.
        one_writer: a later record replaces an earlier one. Otherwise one that is done counts
            before one that failed, whoever made it.

    Raises:
        CarjaxError: several processes scored the same source.
    """
    counting: dict[str, Record] = {}
    for commit in commits:
        for record in commit.records:
            before = counting.get(record.source)
            if before is None or one_writer or before.failed:
                counting[record.source] = record
            elif not record.failed:
                raise CarjaxError(
                    f"{record.source}: was scored by two processes; all need the same sources and "
                    "--processes, and each a --process_id of its own: remove the folder and start "
                    "again"
                )
    return counting


def without(commit: Commit, counting: Mapping[str, Record]) -> Commit:
    """Returns the commit with those records marked as failed that do not count any more."""
    records = (
        r if counting.get(r.source) is r else dataclasses.replace(r, failed=True)
        for r in commit.records
    )
    return dataclasses.replace(commit, records=tuple(records))


def errors_csv(rows: Iterable[tuple[str, str]]) -> bytes:
    """Returns the content of `FILE.parquet.errors.csv`.

    Example:
        >>> errors_csv([("a.mp4", "the file is empty")])
        b'source,reason\\na.mp4,the file is empty\\n'
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("source", "reason"))
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def compare_settings(before: Mapping[str, Any], now: Mapping[str, Any], out: str) -> None:
    """Raises a CarjaxError that names the first setting that differs."""
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            short = not isinstance(now.get(key), list)
            then, here = before.get(key, "the default"), now.get(key, "the default")
            values = f" ({then}, now {here})" if short else ""
            raise CarjaxError(
                f"{out}: was begun with another {key}{values}: give the same, another --out, "
                "or --overwrite"
            )
