"""`carjax score SOURCE… --out=FILE.parquet`: a row of statistics for every frame."""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import TYPE_CHECKING

from absl import flags

from carjax import progress, runtime, video
from carjax.cli import common
from carjax.errors import CarjaxError, UsageError

if TYPE_CHECKING:
    from carjax.engine.run import Summary
    from carjax.engine.run_files import RunFiles
    from carjax.model import Model
    from carjax.sources.base import Problem, Source

SYNOPSIS = """usage: carjax score SOURCE… --out=FILE.parquet

Writes a row per frame. A SOURCE is a video, an image, a WebDataset .tar, Parquet with a column of
encoded images, a folder, a pattern ('videos/**/*.mp4'), any of these as a URL (gs://, s3://,
https://), or @LIST, a file with one on each line. Started again after it was killed, it goes on;
what cannot be read is in FILE.parquet.errors.csv. With --part_rows or --processes, FILE.parquet is
a folder of parts. Exit status: 0 done, 1 nothing was scored or the run failed, 2 wrong usage."""


def define_flags() -> flags.FlagValues:
    """Returns the command's flags."""
    values = flags.FlagValues()
    flags.DEFINE_string("out", None, "file to write, or its URL", values)
    flags.DEFINE_string("fps", "auto", "frames a second: auto (8), all, or N", values)
    flags.DEFINE_string("decoder", "pyav", "pyav, opencv, or MODULE:NAME, your own", values)
    flags.DEFINE_list("columns", None, "only these, beside source and frame", values)
    flags.DEFINE_enum(
        "save_features", None, ["pooled", "grid"], "and the backbone's features", flag_values=values
    )
    common.define_model(values)
    flags.DEFINE_bool(
        "overwrite", False, "begin anew: what carjax wrote there goes; for one process", values
    )
    _define_count(values, "part_rows", "write parts of at most so many rows")
    flags.DEFINE_float(
        "checkpoint_s", 60.0, "a killed run loses so many seconds", 0.0, flag_values=values
    )
    _define_count(values, "batch", "frames in each device's batch")
    _define_count(values, "threads", "sources that are read at once")
    flags.DEFINE_enum(
        "engine", "local", ["local", "ray"], "this process, or Ray Data", flag_values=values
    )
    _define_count(values, "processes", "number of processes that share the work")
    _define_count(values, "process_id", "this process's number, from 0", least=0)
    flags.DEFINE_bool(
        "distributed", False, "--process_id and --processes as the TPU pod or Slurm says", values
    )
    return values


def _define_count(values: flags.FlagValues, name: str, text: str, least: int = 1) -> None:
    flags.DEFINE_integer(name, None, text, least, flag_values=values)


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit status."""
    values = define_flags()
    words = common.parse(values, argv, SYNOPSIS)
    if not words:
        raise UsageError("carjax score needs a SOURCE: carjax score SOURCE… --out=FILE.parquet")
    if not values.out:
        raise UsageError("carjax score needs --out=FILE.parquet")
    fps = video.parse_fps(values.fps)
    check_processes(values)
    if math.isnan(values.checkpoint_s):
        raise UsageError("--checkpoint_s is a number of seconds, not nan")
    video.load_backend(values.decoder)

    # What can be wrong with the call is found before JAX is imported.
    from carjax.engine import run_files
    from carjax.engine.output import Share
    from carjax.sources import expand

    sources, problems = expand.expand(words)
    sources, missing = expand.existing(sources)
    problems += missing
    if not sources:
        run_files.only_errors(values.out, problems)
        first = f"{problems[0].source}: {problems[0].reason}" if problems else "no source is named"
        raise CarjaxError(f"nothing to score: {first}")
    share = Share(values.process_id or 0, values.processes or 1)
    target = run_files.Target(
        values.out, share, values.part_rows, values.checkpoint_s, values.overwrite
    )
    run_files.check_apart(values.out, sources)
    run_files.RunFiles(target)

    runtime.set_up_jax()
    if values.distributed:
        target = dataclasses.replace(target, share=Share(*join_pod()))
    from carjax import parquet

    model = load(values)
    # Features belong to a moment of a source.
    keys = ("source", "frame", "time_s") if values.save_features else ("source", "frame")
    columns = parquet.kept_columns(model.spec.schema, values.columns, keys)
    run = run_files.RunFiles(target)
    summary = score(values, fps, model, columns, sources, problems, run)
    return report(summary, values.out, run.errors_name)


def check_processes(values: flags.FlagValues) -> None:
    """Raises a UsageError unless the process knows which one it is."""
    processes, process = values.processes, values.process_id
    if values.distributed and (processes is not None or process is not None):
        raise UsageError("--distributed finds out --processes and --process_id itself: leave them")
    if (processes is None) != (process is None):
        raise UsageError("--processes and --process_id go together")
    if processes is not None and process >= processes:
        raise UsageError(f"--process_id is {process}; of {processes} it is 0 to {processes - 1}")
    if values.overwrite and (values.distributed or (processes or 1) > 1):
        raise UsageError(
            "--overwrite is for one process: of several, one would remove what others write: "
            f"remove {values.out} first"
        )
    if values.engine == "ray" and (values.distributed or processes is not None):
        raise UsageError("--engine=ray is one process and spreads the work itself")


def join_pod() -> tuple[int, int]:
    """Joins the other processes of a pod or Slurm job: (which this one is, how many)."""
    import jax

    runtime.join_processes(None, None, None, "--processes and --process_id instead")
    return jax.process_index(), jax.process_count()


def load(values: flags.FlagValues) -> Model:
    """Loads the model that the flags name."""
    from carjax import model as models

    model = models.load(values.model, backbone_weights=values.backbone_weights)
    return common.localised(model, values.localise)


def score(
    values: flags.FlagValues,
    fps: video.Fps,
    model: Model,
    columns: list[str],
    sources: list[Source],
    problems: list[Problem],
    run: RunFiles,
) -> Summary:
    """Scores with a progress bar; nothing is shown where standard error is no terminal."""
    from carjax import feature_columns, parquet
    from carjax.engine import local
    from carjax.engine import run as runs

    level = values.save_features
    features = feature_columns.of_model(model, level) if level else None
    schema = parquet.arrow_schema(model.spec.schema, columns, features)
    options = local.Options(
        fps, values.batch, values.threads, tuple(columns), features, values.decoder
    )

    def engine() -> runs.Engine:
        if values.engine == "ray":
            from carjax.engine import on_ray

            return on_ray.RayEngine(model, options)
        return local.LocalEngine(model, options)

    mine = len(run.target.share.of(sources))
    with progress.bars(quiet=not sys.stderr.isatty()) as bar:

        def on_progress(rows: int, done: int, failed: int) -> None:
            bar("scoring", done + failed, mine, f"sources, {rows:,} frames, {failed} failed")

        on_progress(0, 0, 0)
        return runs.score_sources(
            sources,
            problems,
            run,
            local.settings_of(model, options),
            schema,
            engine,
            on_progress,
        )


def report(summary: Summary, out: str, errors: str) -> int:
    """Says what was written, and returns the exit status."""
    known = f", {summary.skipped} of them before" if summary.skipped else ""
    print(f"{out}: {summary.rows:,} rows of {summary.done:,} sources{known}")
    if summary.problems:
        source, reason = summary.problems[0]
        count = len(summary.problems)
        counted = f"{count} {'error' if count == 1 else 'errors'}, in {errors}"
        # A file's name may hold the end of a line.
        first = " ".join(f"{source}: {reason}".split())
        print(f"carjax: {counted}; the first: {first}", file=sys.stderr)
    return 1 if summary.problems and not summary.rows else 0
