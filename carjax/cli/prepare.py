"""`carjax prepare`: from a data set as published to the records that training reads."""

from __future__ import annotations

import pathlib

from absl import flags

from carjax import files, progress
from carjax.cli import common
from carjax.errors import UsageError

SYNOPSIS = """usage: carjax prepare NAME[/CONFIG] --source=DIR [--data_dir=DIR] [--FLAGS]

Turns a data set as downloaded and unpacked into records below the folder of data sets; a config
of `carjax train` then names it: datasets = ("pascal3d_car",). NAME is one of

  pascal3d_car[/voc|/imagenet|/all]   PASCAL3D+ release 1.1, the cars
  compcars_web                        CompCars, web-nature photos
  stanford_cars_attributes            Stanford Cars with type, doors and seats
  labelled_folder[/NAME]              any photos with labels.csv and schema.json

A file that cannot be used is skipped and told. See data/README.md for where to get them."""

# Skipped files shown; all are in metadata.json.
_SHOWN = 10


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit status."""
    values = flags.FlagValues()
    flags.DEFINE_string("source", None, "folder of the data set as published", values)
    flags.DEFINE_string("data_dir", None, "where it goes (default: $CARJAX_DATA)", values)
    flags.DEFINE_boolean("overwrite", False, "prepare it again", values)
    flags.DEFINE_boolean("quiet", False, "show no progress", values)
    words = common.parse(values, argv, SYNOPSIS)
    if len(words) != 1 or not values.source:
        raise UsageError("carjax prepare needs one NAME and --source=DIR (see --help)")
    root = files.data_dir(values.data_dir)
    if root is None:
        raise UsageError("carjax prepare needs --data_dir=DIR, or CARJAX_DATA set")

    from carjax.datasets import builders
    from carjax.datasets.builders import prepare

    name, _, config = words[0].partition("/")
    if name not in builders.BUILDERS:
        raise UsageError(f"no data set {name!r}; there are: {', '.join(builders.BUILDERS)}")
    source = pathlib.Path(values.source).expanduser()
    folder = pathlib.Path(prepare.create(name, config, source, root).data_dir)
    if folder.is_dir() and not values.overwrite:
        print(f"{folder}: prepared already; --overwrite prepares it again")
    else:
        with progress.bars(quiet=values.quiet) as show:
            prepare.prepare(name, config, source, root, on_progress=show)
    _report(folder, str(folder.parent.relative_to(root)))
    return 0


def _report(folder: pathlib.Path, name: str) -> None:
    """Prints what there is, and what was lost."""
    from carjax.datasets import prepared

    table = prepared.read_index(folder)
    column = table.column("split").to_pylist()
    metadata = prepared.read_metadata(folder)
    held_out = table.column("model_split").to_pylist().count("val")
    models = len(set(table.column("model").to_pylist()) - {""})
    print(f"{folder}: {len(table)} examples; config.datasets = ({name!r},)")
    for split in prepared.splits(folder):
        print(f"  {split:<16} {column.count(split)}")
    print(f"  {'by_model':<16} {held_out} held out of {len(table)}, {models} models")
    for line in metadata["notes"]:
        print(f"  {line}")
    for what, n in sorted(metadata["counts"].items()):
        print(f"  {n} × {what}")
    skipped = metadata["skipped"]
    print(f"  {len(skipped)} skipped" + (f"; all in {folder / 'metadata.json'}" if skipped else ""))
    for path, reason in skipped[:_SHOWN]:
        print(f"    {path}: {reason}")
