"""One run of `carjax score`: what is left to do, the doing, and what came of it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from carjax import errors
from carjax.engine import manifest
from carjax.engine.feed import End, fingerprint_of
from carjax.engine.join import rows_of
from carjax.engine.manifest import Commit, Record
from carjax.engine.output import Output
from carjax.engine.rows import UnitRows
from carjax.engine.run_files import RunFiles
from carjax.errors import CarjaxError, one_line
from carjax.sources.base import Problem, Source

if TYPE_CHECKING:
    import pyarrow as pa

_LOOKUPS = 32


class Engine(Protocol):
    """What scores sources: `local.LocalEngine`, `on_ray.RayEngine`."""

    def run(
        self,
        sources: Sequence[Source],
        scratch: pathlib.Path,
        finish: Callable[[End, UnitRows], None],
        progress: Callable[[int], None],
    ) -> None:
        """Scores sources; see `local.LocalEngine.run`."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is in the output after a run, of all processes so far.

    Attributes:
        rows: how many.
        done: sources that are whole in it.
        skipped: sources of this process that an earlier run had done.
        problems: (source, reason), the rows of the errors file.
    """

    rows: int
    done: int
    skipped: int
    problems: list[tuple[str, str]]


def score_sources(
    sources: Sequence[Source],
    problems: Sequence[Problem],
    run: RunFiles,
    settings: Mapping[str, Any],
    schema: pa.Schema,
    engine: Callable[[], Engine],
    progress: Callable[[int, int, int], None] = lambda rows, done, failed: None,
) -> Summary:
    """Scores what earlier runs have not scored, and writes everything.

    Args:
        sources: all sources, of all processes, in order of their names.
        problems: what is known to be wrong before anything is read.
        run: the output and what is in it.
        settings: JSON-like facts that rows depend on: the model, the sampling, the columns.
        schema: the columns of the rows.
        engine: makes what scores them; not called where nothing is left to do.
        progress: called with the rows of this run and process, its sources that are done, those
            of earlier runs among them, and those that failed.

    Returns:
        What the output holds now.

    Raises:
        CarjaxError: the engine cannot be made, or the output cannot be written or was begun with
            other settings or sources.
    """
    with errors.writing(run.target.out):
        made: Engine | None = None
        if run.target.overwrite:
            # Before anything is removed, so that an engine that cannot be made costs nothing.
            made = _made(engine)
            run.clear()
        names = [source.name for source in sources]
        known = [(problem.source, problem.reason) for problem in problems]
        mine = run.target.share.of(sources)
        with run.writing() as scratch:
            run.check_settings(settings)
            commits = run.commits()
            done = {n: r for n, r in run.current(commits).items() if not r.failed}
            _check_wanted(done, [*names, *(name for name, _ in known)], run.target.out)
            stale = _changed([s for s in sources if s.name in done], done)
            run.keep_settings(settings)
            run.remove_leftovers(commits)
            output = run.output(scratch, schema)
            if run.rolling and stale:
                _rewrite(run, output, commits, done, stale)
            todo = [s for s in mine if s.name not in done or s.name in stale]
            run.write_errors(known, names)
            skipped = len(mine) - len(todo)
            if todo:
                _score(made or _made(engine), todo, skipped, scratch, output, progress)
            counting = run.current(run.commits())
            _check_kept([s.name for s in todo], counting, run.target.out)
            done = {n: r for n, r in counting.items() if not r.failed}
            told = run.write_errors(known, names)
            if not run.rolling:
                run.end(settings, schema, scratch)
        rows = sum(record.rows for record in done.values())
        return Summary(rows, len(done), skipped, told)


def _made(engine: Callable[[], Engine]) -> Engine:
    """Makes the engine; that it cannot be made is no fault of the output."""
    try:
        return engine()
    except OSError as error:
        raise CarjaxError(f"scoring cannot begin: {one_line(error)}") from error


def _check_wanted(done: Mapping[str, Record], names: Sequence[str], out: str) -> None:
    """Nothing that was computed is dropped because a call names fewer sources."""
    others = sorted(done.keys() - set(names))
    if others:
        raise CarjaxError(
            f"{out}: holds {len(others)} sources that were not named this time, such as "
            f"{others[0]}: name them too, give another --out, or --overwrite"
        )


def _check_kept(names: Sequence[str], counting: Mapping[str, Record], out: str) -> None:
    """Whatever was scored is in the output, or is told."""
    lost = sorted(set(names) - counting.keys())
    if lost:
        raise CarjaxError(
            f"{out}: lacks {len(lost)} sources that were scored, such as {lost[0]}: something else "
            "writes there or removes files: run the same command again"
        )


def _changed(sources: Sequence[Source], done: Mapping[str, Record]) -> set[str]:
    """Names of sources whose bytes are not those that were scored; what cannot be told is not."""

    def changed(source: Source) -> bool:
        now = fingerprint_of(source)
        return now not in ("", done[source.name].fingerprint)

    with concurrent.futures.ThreadPoolExecutor(_LOOKUPS) as pool:
        flags = pool.map(changed, sources)
        return {s.name for s, flag in zip(sources, flags, strict=True) if flag}


def _rewrite(
    run: RunFiles,
    output: Output,
    commits: Sequence[tuple[str, Commit]],
    done: Mapping[str, Record],
    stale: set[str],
) -> None:
    """Writes the parts that hold rows of changed sources anew, without these."""
    if run.target.share.processes > 1:
        raise CarjaxError(
            f"{len(stale)} sources were changed since they were scored, such as "
            f"{min(stale)}: score these with one process first, or remove {run.target.out}"
        )
    counting = {name: record for name, record in done.items() if name not in stale}
    for folder, commit in commits:
        if not any(r.source in stale and not r.failed for r in commit.records):
            continue
        kept = manifest.without(commit, counting)
        # In the order of their rows, as the commit's own.
        records = tuple(record for record in kept.records if not record.failed)
        rows = rows_of(run.store, [(folder, kept)])
        output.replace(commit, records, (table for _, tables in rows for table in tables))
        for name, _ in commit.parts:
            run.store.remove(f"{folder}/{name}")


def _score(
    engine: Engine,
    todo: Sequence[Source],
    skipped: int,
    scratch: pathlib.Path,
    output: Output,
    progress: Callable[[int, int, int], None],
) -> None:
    """Runs the engine; what is finished when it is stopped is committed."""
    rows, done, failed = 0, skipped, 0

    def finish(end: End, unit: UnitRows) -> None:
        nonlocal done, failed
        name = todo[end.unit].name
        told = [(problem.source, problem.reason) for problem in end.problems]
        if end.failure is None:
            done += 1
            record = Record(name, end.fingerprint, unit.count, unit.first or name, tuple(told))
            output.add(record, unit)
        else:
            failed += 1
            unit.drop()
            told.append((name, end.failure))
            output.add(Record(name, end.fingerprint, 0, name, tuple(told), failed=True), None)
        progress(rows, done, failed)

    def scored(count: int) -> None:
        nonlocal rows
        rows += count
        progress(rows, done, failed)

    progress(rows, done, failed)
    try:
        engine.run(todo, scratch, finish, scored)
    except BaseException:
        with contextlib.suppress(Exception):  # the first failure is the one to tell
            output.commit()
        raise
    output.commit()
