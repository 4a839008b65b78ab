"""`carjax experiment`: what carjax builds on, tested on photos and videos never trained on."""

from __future__ import annotations

import functools
import pathlib
from typing import TYPE_CHECKING

from absl import flags

from carjax import progress, result_folder, runtime
from carjax.cli import common
from carjax.errors import CarjaxError, UsageError, needing

if TYPE_CHECKING:
    from carjax.experiment.held import Held

SYNOPSIS = """usage: carjax experiment hypothesis|pairs|temporal --runs=DIR[,DIR] --out=DIR
RUNS are folders of benchmarks/crossval.py, whose heads predict photos that they never saw.
  hypothesis  is a head certain where its attribute is well shown? --page=FILE.md gets tables.
  pairs       draws blind pairs for people to judge: sheets in OUT, the answers in --key.
  temporal    what neighbouring frames add; also on your own --recordings with --labels.

  carjax experiment hypothesis --runs=out/crossval,out/by_model --out=docs/hypothesis"""

EXPERIMENTS = ("hypothesis", "pairs", "temporal")
# Flags that not every experiment reads.
_READERS = {
    **dict.fromkeys(("recordings", "labels", "heads", "per_model"), ("temporal",)),
    **dict.fromkeys(("pairs", "seed"), ("pairs",)),
    "judgements": ("hypothesis",),
    "key": ("hypothesis", "pairs"),
    "page": ("hypothesis", "temporal"),
}


def define_flags() -> flags.FlagValues:
    """Returns the command's flags."""
    values = flags.FlagValues()
    common.define_model(values, localise=False)
    flags.DEFINE_list("runs", [], "folders of cross-validation runs", flag_values=values)
    flags.DEFINE_string("out", None, "folder to write", flag_values=values)
    flags.DEFINE_string("data_dir", None, "default: $CARJAX_DATA", flag_values=values)
    flags.DEFINE_bool("videos", True, "also the real footage in data_dir", flag_values=values)
    flags.DEFINE_string("key", None, "CSV of what the sheets hide", flag_values=values)
    flags.DEFINE_string("judgements", None, "CSV of pair,viewer,choice", flag_values=values)
    flags.DEFINE_string("page", None, "Markdown page whose tables to renew", flag_values=values)
    flags.DEFINE_integer("pairs", 200, "how many pairs to draw", 4, flag_values=values)
    flags.DEFINE_integer("seed", 0, "of the pairs drawn", flag_values=values)
    flags.DEFINE_list("heads", [], "sequence heads: folders of runs", flag_values=values)
    flags.DEFINE_string("recordings", None, "Parquet: scores of videos", flag_values=values)
    flags.DEFINE_string("labels", None, "CSV of their labels: source,time_s,…", flag_values=values)
    flags.DEFINE_integer("per_model", 4, "walks per car model", 1, flag_values=values)
    flags.DEFINE_bool("overwrite", False, "write into a folder of other files", flag_values=values)
    return values


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit status."""
    values = define_flags()
    rest = common.parse(values, argv, SYNOPSIS)
    if len(rest) != 1 or rest[0] not in EXPERIMENTS:
        raise UsageError(
            f"carjax experiment runs one of {', '.join(EXPERIMENTS)}, not {' '.join(rest) or '…'!r}"
        )
    for name, readers in _READERS.items():
        if values[name].present and rest[0] not in readers:
            raise UsageError(f"--{name} is for `carjax experiment {' or '.join(readers)}`")
    alone = rest[0] == "temporal" and values.recordings
    for name in ("out",) if alone else ("runs", "out"):
        if not values[name].value:
            raise UsageError(f"carjax experiment {rest[0]} needs --{name} (see --help)")
    if values.judgements and not values.key:
        raise UsageError("--judgements needs the --key of the pairs that were judged")
    runtime.set_up_jax()
    return {"hypothesis": _hypothesis, "pairs": _pairs, "temporal": _temporal}[rest[0]](values)


def _pairs(values: flags.FlagValues) -> int:
    from carjax.experiment import held, pairs

    if not values.key:
        raise UsageError("carjax experiment pairs needs --key=FILE.csv (see --help)")
    out, key = pathlib.Path(values.out), pathlib.Path(values.key)
    if key.absolute().is_relative_to(out.absolute()):
        raise UsageError(f"{key}: lies beside the sheets that it explains: give another --key")
    result_folder.check_out(out, values.overwrite, manifest="sheet_01.png")
    if key.exists() and not values.overwrite:
        raise CarjaxError(
            f"{key}: judgements may need this key: give another --key, or --overwrite"
        )
    entries = held.all_candidates(_held(values))
    drawn, pictures, same = pairs.draw(entries, values.pairs, values.seed)
    sheets = pairs.write_sheets(out, drawn, pictures)
    pairs.write_key(key, drawn)
    print(f"{len(drawn)} pairs on {len(sheets)} sheets in {out}; key: {key}")
    for rival, count in same.items():
        print(f"  not shown, {rival} chose the same frame: {count}")
    return 0


def _held(values: flags.FlagValues) -> Held:
    """Reads everything that was held out, with its progress on the screen."""
    from carjax.experiment import held

    with progress.bars() as bar:
        return held.read(
            values.runs,
            values.data_dir,
            model=values.model,
            backbone_weights=values.backbone_weights,
            videos=values.videos,
            on_progress=functools.partial(bar, "photos"),
        )


def _hypothesis(values: flags.FlagValues) -> int:
    from carjax.experiment import hypothesis, hypothesis_page, pairs
    from carjax.experiment.page import check_page

    out = pathlib.Path(values.out)
    result_folder.check_out(out, values.overwrite, manifest=hypothesis_page.RESULT_FILE)
    judged = None
    if values.judgements:  # everything that can be wrong with the input is found first
        key = pairs.read_key(values.key)
        judged = key, pairs.read_judgements(values.judgements, key)
    page = pathlib.Path(values.page) if values.page else None
    if page is not None:
        check_page(page)
    content = hypothesis.measure(_held(values), judged)
    hypothesis_page.write(content, out, page)
    print(hypothesis_page.headline(content))
    print(f"\nresults: {out / hypothesis_page.RESULT_FILE}")
    return 0


def _temporal(values: flags.FlagValues) -> int:
    from carjax.experiment import temporal_page
    from carjax.experiment.page import check_page

    with needing("train", "the experiment"):
        from carjax.experiment import temporal_run

    out = pathlib.Path(values.out)
    result_folder.check_out(out, values.overwrite, manifest=temporal_page.RESULT_FILE)
    if len(values.runs) > 1:
        raise UsageError("carjax experiment temporal takes one folder of --runs, by car model")
    if bool(values.recordings) != bool(values.labels):
        raise UsageError("--recordings and --labels are given together, or neither")
    page = pathlib.Path(values.page) if values.page else None
    if page is not None:
        check_page(page)
    with progress.bars() as bar:
        content = temporal_run.measure(
            values.runs[0] if values.runs else None,
            heads=values.heads,
            model=values.model,
            backbone_weights=values.backbone_weights,
            per_model=values.per_model,
            videos=values.videos,
            own=(values.recordings, values.labels) if values.recordings else None,
            data_dir=values.data_dir,
            on_progress=functools.partial(bar, "photos"),
        )
    temporal_page.write(content, out, page)
    print(temporal_page.headline(content))
    print(f"\nresults: {out / temporal_page.RESULT_FILE}")
    return 0
