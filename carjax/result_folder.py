"""The folder of a command's results: whether it may be written, and what `carjax select` writes."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator

from carjax.errors import CarjaxError
from carjax.files import unique
from carjax.listing.photos import FORMATS
from carjax.selection import photographed

# The manifest: written last, so that a folder which holds it is complete.
SELECTION = "selection.json"
SCORES = "scores.parquet"
REPORT = "report.html"
ANNOTATED = "annotated.mp4"
PHOTOS = "photos"
_PART = re.compile(r"\.carjax\.[0-9a-f]+\.part")


def check_out(target: pathlib.Path, overwrite: bool, manifest: str = SELECTION) -> None:
    """Raises a CarjaxError unless the folder can be written, before anything is computed.

    Args:
        target: the folder, which need not exist.
        overwrite: a folder of other files will do.
        manifest: the file that marks a folder as one that the same command wrote.
    """
    if target.is_dir():
        files = (path for path in target.iterdir() if not _PART.fullmatch(path.name))
        ours = (target / manifest).is_file() or not any(files)
        if not (ours or overwrite):
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
        raise CarjaxError(
            f"{target}: cannot be written ({existing} does not permit it): give another --out"
        )


@contextlib.contextmanager
def writing(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a hidden folder whose files move into `target` when the block ends without an error.

    What an earlier run wrote there is replaced, and nothing else; the manifest goes first and comes
    back last. The folder lies inside `target`, which may be a disk of its own, if that exists.
    """
    target = target.absolute()
    folder = unique(target / "carjax" if target.is_dir() else target)
    try:
        try:
            (folder / PHOTOS).mkdir(parents=True)
            yield folder
            target.mkdir(exist_ok=True)
            old = _photos_of(target / SELECTION)
            # Those of a run that was stopped before it had written its manifest.
            old |= {f"{new.stem}.{kind}" for new in (folder / PHOTOS).iterdir() for kind in FORMATS}
            (target / SELECTION).unlink(missing_ok=True)
            (target / PHOTOS).mkdir(exist_ok=True)
            (target / ANNOTATED).unlink(missing_ok=True)
            for photo in old:
                (target / PHOTOS / photo).unlink(missing_ok=True)
            for new in sorted(folder.rglob("*"), key=lambda p: p.name == SELECTION):
                if new.is_file():
                    os.replace(new, target / new.relative_to(folder))
        except OSError as error:
            raise CarjaxError(
                f"cannot write {target}: {error.strerror or error}; give another --out"
            ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _photos_of(manifest: pathlib.Path) -> set[str]:
    """The names of the photos of an earlier run; none where that cannot be read."""
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        return {pathlib.PurePath(path).name for path in photographed(content)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
