"""`carjax prepare`: from a data set as published to the records that training reads."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from absl import flags

from carjax import errors, files, progress
from carjax.cli import common
from carjax.errors import CarjaxError, UsageError

if TYPE_CHECKING:
    from carjax.datasets.builders.base import PhotoBuilder

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

    name, _, config = words[0].partition("/")
    if name not in builders.BUILDERS:
        raise UsageError(f"no data set {name!r}; there are: {', '.join(builders.BUILDERS)}")
    source = pathlib.Path(values.source).expanduser()
    builder = _create(name, config, source, root)
    folder = pathlib.Path(builder.data_dir)
    if folder.is_dir() and not values.overwrite:
        print(f"{folder}: prepared already; --overwrite prepares it again")
    else:
        with (
            errors.writing(folder, "or give another --data_dir"),
            _alone(folder),
            _set_aside(folder),
        ):
            # Made again: a builder takes over what it finds.
            _prepare(_create(name, config, source, root), source, quiet=values.quiet)
    _report(folder, str(folder.parent.relative_to(root)))
    return 0


def _create(name: str, config: str, source: pathlib.Path, root: pathlib.Path) -> PhotoBuilder:
    """Makes the builder; what is wrong with the call or the tree is found here."""
    try:
        from carjax.datasets import builders

        builder_class = builders.load(name)
    except ImportError as error:
        raise CarjaxError(
            f"preparing needs more packages ({error}): pip install 'carjax[train]'"
        ) from None
    builder_class.check_source(source)
    chosen = builder_class.choose_config(config, source)
    logging.getLogger("absl").setLevel(logging.ERROR)
    return builder_class(data_dir=str(root), config=chosen)


@contextlib.contextmanager
def _set_aside(folder: pathlib.Path) -> Iterator[None]:
    """Moves what was prepared before out of the way; it comes back if the block fails."""
    aside = folder.with_name(f".{folder.name}.before")
    if folder.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    try:
        yield
    except BaseException:
        if aside.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """Keeps others from preparing the same, and clears what a killed run has left."""
    import fcntl

    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".prepare.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CarjaxError(f"{folder.parent}: another carjax prepare is at work") from None
        for left in folder.parent.glob(f"incomplete.*_{folder.name}"):
            shutil.rmtree(left)
        yield


def _prepare(builder: PhotoBuilder, source: pathlib.Path, *, quiet: bool) -> None:
    """Writes the records and their index, with a bar per split."""
    import tensorflow_datasets as tfds

    from carjax.datasets import prepared

    tfds.disable_progress_bar()
    download = tfds.download.DownloadConfig(
        manual_dir=str(source.resolve()), try_download_gcs=False
    )
    with progress.bars(quiet=quiet) as show:
        builder.on_progress = show
        # tfds makes a folder of downloads, even for none, and talks of them.
        with tempfile.TemporaryDirectory() as none, contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_dir=none, download_config=download)
        prepared.write_index(pathlib.Path(builder.data_dir), functools.partial(show, "index"))


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
