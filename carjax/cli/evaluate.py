"""`carjax evaluate`: measure a model on labelled photos."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

from absl import flags
from rich.console import Console
from rich.table import Table

from carjax import files, progress, result_folder, runtime
from carjax.cli import common
from carjax.errors import CarjaxError, UsageError

SYNOPSIS = """usage: carjax evaluate --labels=FILE.csv --images=DIR --out=DIR

Scores the photos that the table names (columns file,make,type,doors,seats,azimuth_deg, and
left,top,right,bottom for a window of each; blank = unknown, others ignored) and writes
DIR/metrics.json, DIR/predictions.csv, DIR/evaluation.html.
Photos that the model was trained on are reported apart. Example:

  carjax evaluate --labels=spins/labels.csv --images=spins --out=out/spins"""

# One headline per kind of attribute, for the table on the screen.
_CATEGORICAL = ("accuracy", "balanced_accuracy", "nll", "ece")
_ANGULAR = ("mederr_deg", "acc_pi_6", "flip_rate", "loglik_nats_per_rad")


def define_flags() -> flags.FlagValues:
    """Returns the command's flags."""
    values = flags.FlagValues()
    flags.DEFINE_string("labels", None, "CSV table with a column file", flag_values=values)
    flags.DEFINE_string("images", None, "folder that file is relative to", flag_values=values)
    flags.DEFINE_string("out", None, "folder to write", flag_values=values)
    flags.DEFINE_list(
        "split", [], "tables file,fold or file,split: each part apart", flag_values=values
    )
    flags.DEFINE_string(
        "data_dir", None, "where --labels and --images may lie ($CARJAX_DATA)", flag_values=values
    )
    common.define_model(values)
    flags.DEFINE_bool("overwrite", False, "write into a folder of other files", flag_values=values)
    return values


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit status."""
    values = define_flags()
    common.parse_flags(values, argv, SYNOPSIS, "evaluate")
    for name in ("labels", "images", "out"):
        if not values[name].value:
            raise UsageError(f"carjax evaluate needs --{name} (see --help)")
    # Everything that can be wrong with the input is found before JAX computes anything.
    from carjax.evaluation import page

    out = pathlib.Path(values.out)
    table, images = (_find(given, values.data_dir) for given in (values.labels, values.images))
    if not table.is_file():
        raise CarjaxError(f"{table}: no such file: give --labels=FILE.csv")
    splits_given = [_find(given, values.data_dir) for given in values.split]
    for path in (table, *splits_given):
        result_folder.check_apart(out, path, page.FILES)
    result_folder.check_out(out, values.overwrite, manifest=page.METRICS_FILE)
    page.require_plotly()

    runtime.set_up_jax()
    from carjax import model as models
    from carjax.evaluation import labels, run

    model = models.load(values.model, backbone_weights=values.backbone_weights)
    model = common.localised(model, values.localise)
    labelled = labels.read(table, images, model.spec.schema)
    names = labelled.photos.names
    splits = {}
    for path in splits_given:
        if path.stem in splits:
            raise UsageError(f"--split: two tables named {path.stem}: evaluate them one by one")
        splits[path.stem] = labels.read_split(path, names)
    for name, column in labelled.missing.items():
        _say(f"{table}: no column {column}: {name} is not evaluated")
    for name, counts in labelled.unknown_classes.items():
        listed = ", ".join(f"{value} ({count})" for value, count in counts.items())
        _say(f"{name}: unknown to this model, and so not evaluated: {listed}")

    with progress.bars() as bar:
        content, unreadable = run.evaluate(
            model,
            labelled,
            out,
            splits=splits,
            on_progress=lambda done: bar("photos", done, len(names)),
        )
    for line in unreadable:
        _say(f"{line} (skipped)")
    if content["seen"]:
        _say(
            f"{content['seen']} of {content['n']} photos were trained on: they are reported apart "
            "(parts.seen_images)"
        )
    show(content, out)
    return 0


def _find(given: str, data_dir: str | None) -> pathlib.Path:
    """Returns a path as given, or below the folder of data sets if it exists only there."""
    path = pathlib.Path(given)
    root = files.data_dir(data_dir)
    if root and not path.exists() and (root / path).exists():
        return root / path
    return path


def _say(line: str) -> None:
    print(f"carjax: {line}", file=sys.stderr)


def show(content: dict[str, Any], out: pathlib.Path) -> None:
    """Prints the headline figures, part by part, and where the page is."""
    from carjax.evaluation import page

    table = Table(box=None, pad_edge=False)
    table.add_column("photos")
    table.add_column("attribute")
    table.add_column("n", justify="right")
    table.add_column("figures, with 95% intervals")
    for part, section in ({"new": content} | content["parts"]).items():
        for name, figures in section["attributes"].items():
            table.add_row(part, name, str(figures["n"]), _line(figures, _CATEGORICAL))
        if "orientation" in section:
            figures = section["orientation"]
            table.add_row(part, figures["name"], str(figures["n"]), _line(figures, _ANGULAR))
    console = Console()
    console.print(table)
    console.print(
        f"\nreport: {out / page.PAGE_FILE}", highlight=False, markup=False, soft_wrap=True
    )


def _line(figures: dict[str, Any], names: tuple[str, ...]) -> str:
    if not figures["n"]:
        return "no photo"
    cells = []
    for name in names:
        interval = figures["ci95"][name]
        ends = "" if interval is None else " ({:.3f} to {:.3f})".format(*interval)
        cells.append(f"{name} {figures[name]:.3f}{ends}")
    return "\n".join(cells)
