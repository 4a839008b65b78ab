"""From a data set as published to its records and their index."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from carjax import errors
from carjax.datasets import builders
from carjax.errors import CarjaxError

if TYPE_CHECKING:
    from carjax.datasets.builders.base import PhotoBuilder


def create(name: str, config: str, source: pathlib.Path, root: pathlib.Path) -> PhotoBuilder:
    """Makes the builder of a data set; its `data_dir` is the folder of the records.

    Args:
        name: one of `builders.BUILDERS`.
        config: of that builder; '' is the default one.
        source: the folder of the data set as published.
        root: the folder of prepared data sets.

    Raises:
        CarjaxError: the source lacks files, or a package is missing.
        UsageError: there is no such config.
    """
    try:
        builder_class = builders.load(name)
    except ImportError as error:
        raise CarjaxError(
            f"preparing needs more packages ({error}): pip install 'carjax[train]'"
        ) from None
    builder_class.check_source(source)
    chosen = builder_class.choose_config(config, source)
    logging.getLogger("absl").setLevel(logging.ERROR)
    return builder_class(data_dir=str(root), config=chosen)


def prepare(
    name: str,
    config: str,
    source: pathlib.Path,
    root: pathlib.Path,
    *,
    on_progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> pathlib.Path:
    """Writes the records of a data set and their index, in place of those that there are.

    Args:
        name: as in `create`.
        config: as in `create`.
        source: as in `create`.
        root: as in `create`.
        on_progress: called with (split or 'index', items done, items to do).

    Returns:
        The folder of the records.

    Raises:
        CarjaxError: as `create`, or the source cannot be read, the folder cannot be written, or
            somebody else prepares the same.
        UsageError: as `create`.
    """
    folder = pathlib.Path(create(name, config, source, root).data_dir)
    with (
        errors.writing(folder, "or give another --data_dir"),
        _alone(folder),
        _set_aside(folder),
    ):
        # Made again: a builder takes over what it finds.
        _write(create(name, config, source, root), source, on_progress)
    return folder


def _write(
    builder: PhotoBuilder, source: pathlib.Path, on_progress: Callable[[str, int, int], None]
) -> None:
    import tensorflow_datasets as tfds

    from carjax.datasets import prepared

    tfds.disable_progress_bar()
    download = tfds.download.DownloadConfig(
        manual_dir=str(source.resolve()), try_download_gcs=False
    )
    builder.on_progress = on_progress
    # tfds makes a folder of downloads, even for none, and talks of them.
    with tempfile.TemporaryDirectory() as none, contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=none, download_config=download)
    prepared.write_index(pathlib.Path(builder.data_dir), functools.partial(on_progress, "index"))


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
