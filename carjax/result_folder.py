"""The folder of a command's results: whether it may be written, and what `carjax select` writes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import shutil
from collections.abc import Collection, Iterator

from carjax import errors, files, interrupts
from carjax.errors import CarjaxError, UsageError
from carjax.selection import photographed

# The manifest: written last, so that a folder which holds it is complete.
SELECTION = "selection.json"
SCORES = "scores.parquet"
REPORT = "report.html"
ANNOTATED = "annotated.mp4"
PHOTOS = "photos"
# While results move in: which files of the folder are carjax's, those of a stopped run among them.
_JOURNAL = ".carjax.json"
# What a result is written under before it moves in, see `files.unique`.
_HIDDEN = "carjax"


def check_apart(
    target: pathlib.Path,
    source: str | os.PathLike[str],
    written: Collection[str] = (SELECTION, SCORES, REPORT, ANNOTATED),
) -> None:
    """Raises a UsageError if the source lies where a file that is written would replace it.

    Args:
        target: the folder of results.
        source: what is read.
        written: names in the folder; by default what `carjax select` writes.
    """
    here, there = (pathlib.Path(os.path.realpath(path)) for path in (target, source))
    if there in {here / name for name in written}:
        raise UsageError(
            f"{source}: would be overwritten by the results in {target}: give another --out"
        )


def check_out(target: pathlib.Path, overwrite: bool, manifest: str = SELECTION) -> None:
    """Raises a CarjaxError unless the folder can be written, before anything is computed.

    Args:
        target: the folder, which need not exist.
        overwrite: a folder of other files will do.
        manifest: the file that marks a folder as one that the same command wrote.
    """
    with errors.writing(target):
        if target.is_dir():
            parts = {*files.left_by(target / _JOURNAL), *files.left_by(target / _HIDDEN)}
            marks = (manifest, _JOURNAL) if manifest == SELECTION else (manifest,)
            ours = any((target / name).is_file() for name in marks)
            if not (ours or overwrite or parts.issuperset(target.iterdir())):
                raise CarjaxError(
                    f"{target}: holds files that carjax did not write: "
                    "give another --out, or --overwrite"
                )
        elif target.exists():
            raise CarjaxError(f"{target}: is a file, not a folder: give another --out")
        existing = next(p for p in (target, *target.absolute().parents) if p.exists())
        if not existing.is_dir():
            raise CarjaxError(f"{target}: {existing} is a file, not a folder: give another --out")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{existing} does not permit it")


@contextlib.contextmanager
def writing(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a hidden folder whose files move into `target` when the block ends without an error.

    What an earlier run wrote there is replaced, and nothing else, even after a run that was stopped
    here; the manifest goes first and comes back last. The folder lies inside `target`, which may be
    a disk of its own, if that exists.
    """
    target = target.absolute()
    folder = files.unique(target / _HIDDEN if target.is_dir() else target)
    try:
        with errors.writing(target):
            (folder / PHOTOS).mkdir(parents=True)
            yield folder
            with interrupts.deferred():  # all but renamed: neither result would be whole
                _move(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Moves a new result into its place; an old one leaves it."""
    target.mkdir(exist_ok=True)
    new = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    old = _ours(target)
    files.write(target / _JOURNAL, json.dumps(sorted(old | new)))
    (target / SELECTION).unlink(missing_ok=True)
    (target / PHOTOS).mkdir(exist_ok=True)
    for path in old - new:
        (target / path).unlink(missing_ok=True)
    for path in sorted(new, key=lambda path: path == SELECTION):
        os.replace(folder / path, target / path)
    # Another run into the same folder may have been first.
    (target / _JOURNAL).unlink(missing_ok=True)


def _ours(target: pathlib.Path) -> set[str]:
    """What earlier runs may have written: paths inside the folder, such as 'photos/type.jpg'."""
    found = {ANNOTATED} if (target / SELECTION).is_file() else set()
    for name, paths in ((SELECTION, photographed), (_JOURNAL, list)):
        # Of a file that cannot be read nothing is known, and nothing is removed.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            content = json.loads((target / name).read_text(encoding="utf-8"))
            # By name: whatever the file says, nothing outside of the folder is meant.
            listed = [pathlib.PurePath(path) for path in paths(content)]
            found |= {f"{PHOTOS}/{path.name}" for path in listed if path.parent.name == PHOTOS}
            found |= {path.name for path in listed if path.name == ANNOTATED}
    return found
