"""A finished job's folder: the photos as they are exported, and what the page shows beside them.

Runs in a child process. The folder holds `out/` (as `carjax select` writes it), `original/` (each
chosen frame, whole and untouched), `first.json` (carjax's own choice for each photo), `edits.json`,
`frames/` (scored frames at a limited size, untouched: the chosen ones, and all once they are asked
for), and what follows from these after every edit: `out/photos`, `out/selection.json`, `small/`,
`details.json` and `photos.zip`. An edit that cannot be written in full changes nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from carjax import files, parquet, pictures, report, result_folder, selection, video
from carjax.errors import CarjaxError, UsageError
from carjax.listing import photos, redaction
from carjax.report import page
from carjax.report.series import series
from carjax.selection import smoothing, swap
from carjax.table import ScoreTable

EDITS = "edits.json"
FIRST = "first.json"
SMALL_SIDE = 960
_SMALL_QUALITY = 85
# Of the frames for the timeline and for the editor of blurred regions.
_FRAME_SIDE = 640
_FRAME_QUALITY = 75


class Edits:
    """What was changed by hand: the blurred regions of each frame, and the shape of the photos."""

    def __init__(self, folder: pathlib.Path) -> None:
        path = folder / EDITS
        held = json.loads(path.read_text()) if path.exists() else {}
        self.boxes: dict[int, list[redaction.Box]] = {
            int(frame): [tuple(box) for box in boxes]
            for frame, boxes in held.get("boxes", {}).items()
        }
        self.crop: str = held.get("crop", "none")

    def as_text(self) -> str:
        """The content of `edits.json`."""
        return json.dumps({"boxes": self.boxes, "crop": self.crop})


def publish_first(folder: pathlib.Path) -> None:
    """Makes the rest of the folder out of what `pipeline.select` wrote to `out/`."""
    content, table = _read(folder)
    (folder / "original").mkdir()
    for path, frame in _frames(content).items():
        original = _original(folder, frame)
        if not original.exists():
            os.link(folder / "out" / path, original)
    files.write(folder / FIRST, json.dumps(_by_photo(content)))
    _publish(folder, content, table, Edits(folder))


def swap_photo(folder: pathlib.Path, photo: str, frame: int) -> None:
    """Takes another frame for a photo.

    Raises:
        UsageError: there is no such photo or frame, or it shows another view.
    """
    content, table = _read(folder)
    content = swap.swapped(table, content, photo, frame)
    original = _original(folder, frame)
    if not original.exists():
        taken = next(_video_frames(folder, table, [frame]), None)
        if taken is None:
            raise CarjaxError(f"frame {frame} of the video cannot be decoded")
        files.write(original, _encoded(folder, table, frame, taken.image))
    _publish(folder, content, table, Edits(folder))


def redact(folder: pathlib.Path, frame: int, boxes: Sequence[redaction.Box]) -> None:
    """Sets the regions of a chosen frame that every export of it shows blurred.

    Args:
        folder: of the job.
        frame: its index.
        boxes: left, top, width, height as fractions of the frame; empty removes all.

    Raises:
        UsageError: no photo is of that frame, or a box is none.
    """
    content, table = _read(folder)
    if frame not in _frames(content).values():
        raise UsageError(f"no photo is of frame {frame}")
    edits = Edits(folder)
    edits.boxes[frame] = [redaction.inside(box) for box in boxes]
    _publish(folder, content, table, edits)


def crop(folder: pathlib.Path, shape: str) -> None:
    """Cuts the photos to the car: `none`, `4:3` or `16:9`.

    Raises:
        UsageError: there is no such shape.
    """
    edits = Edits(folder)
    edits.crop = photos.parse_crop(shape)
    _publish(folder, *_read(folder), edits)


def small_frames(folder: pathlib.Path) -> None:
    """Writes every scored frame at a limited size, for the timeline, in order."""
    _, table = _read(folder)
    (folder / "frames").mkdir(exist_ok=True)
    missing = [i for i in table.frame.tolist() if not _small_frame(folder, i).exists()]
    for frame in _video_frames(folder, table, missing, max_side=_FRAME_SIDE):
        files.write(_small_frame(folder, frame.index), pictures.jpeg(frame.image, _FRAME_QUALITY))


def _small_frame(folder: pathlib.Path, frame: int) -> pathlib.Path:
    return folder / "frames" / f"{frame}.jpg"


def _publish(
    folder: pathlib.Path, content: Mapping[str, Any], table: ScoreTable, edits: Edits
) -> None:
    with contextlib.ExitStack() as staged:
        # All is renamed at the end, last in first out, and only if all could be written. So what
        # the next edit starts from, which is here first, is renamed last.
        def write(path: pathlib.Path, data: bytes) -> None:
            staged.enter_context(files.replacing(path)).write_bytes(data)

        write(folder / EDITS, edits.as_text().encode())
        write(folder / "out" / result_folder.SELECTION, selection.as_text(content).encode())
        exported: dict[str, np.ndarray] = {}
        for name in ("small", "frames"):
            (folder / name).mkdir(exist_ok=True)
        unseen = {i for i in _frames(content).values() if not _small_frame(folder, i).exists()}
        encoded: dict[str, bytes] = {}
        for path, frame in _frames(content).items():
            original = _original(folder, frame).read_bytes()
            image = _decoded(original)
            if frame in unseen:  # else the whole video would be decoded for it
                unseen.remove(frame)
                shown = pictures.jpeg(pictures.shrunk(image, _FRAME_SIDE), _FRAME_QUALITY)
                write(_small_frame(folder, frame), shown)
            edited = redaction.blurred(image, edits.boxes.get(frame, ()))
            edited = photos.cropped(edited, table.box[table.row_of(frame)], edits.crop)
            exported[path] = edited
            same = edited is image
            encoded[path] = original if same else _encoded(folder, table, frame, edited)
            write(folder / "out" / path, encoded[path])
            small = pictures.jpeg(pictures.shrunk(edited, SMALL_SIDE), _SMALL_QUALITY)
            write(folder / "small" / pathlib.PurePath(path).name, small)
        archive = staged.enter_context(files.replacing(folder / "photos.zip"))
        _write_zip(archive, content, table, exported, encoded)
        details = {
            "video": {key: value for key, value in content["video"].items() if key != "path"},
            "crop": edits.crop,
            "boxes": {str(frame): boxes for frame, boxes in edits.boxes.items() if boxes},
            "polar": page.polar(content.get("orientation")),
            "timelines": [
                {"name": t.name, "heading": t.heading, "chart": t.chart, "note": t.note}
                for t in page.timelines(content, table)
            ],
            "series": series(table),
            "alternatives": _alternatives(folder, content, table),
        }
        write(folder / "details.json", json.dumps(details, allow_nan=False).encode())


def _by_photo(content: Mapping[str, Any]) -> dict[str, int]:
    """Name of a photo → its frame."""
    return {pathlib.PurePath(path).stem: frame for path, frame in _frames(content).items()}


def _alternatives(
    folder: pathlib.Path, content: Mapping[str, Any], table: ScoreTable
) -> dict[str, list[dict[str, Any]]]:
    """Name of a photo → the next best frames; after a swap, carjax's own choice before them."""
    first, now = json.loads((folder / FIRST).read_text()), _by_photo(content)
    found = {}
    for photo in swap.photo_names(content):
        others = swap.next_best(table, content, photo)
        frame = first.get(photo)
        if frame != now.get(photo) and frame is not None:
            own = swap.described(table, content, photo, frame) | {"first": True}
            others = [own, *(other for other in others if other["frame"] != frame)]
        found[photo] = others
    return found


def _write_zip(
    path: pathlib.Path,
    content: Mapping[str, Any],
    table: ScoreTable,
    exported: Mapping[str, np.ndarray],
    encoded: Mapping[str, bytes],
) -> None:
    names = photos.listing_names(content)
    listed = json.loads(json.dumps(content))
    for photo, choice in selection.photographed(listed).items():
        choice["photo"] = names[photo]
    images = {names[photo]: image for photo, image in exported.items()}
    html = report.page.render(listed, table, images)
    # Photos are compressed already.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for photo, name in names.items():
            archive.writestr(name, encoded[photo])
        text = selection.as_text(listed)
        archive.writestr(result_folder.SELECTION, text, zipfile.ZIP_DEFLATED)
        archive.writestr(result_folder.REPORT, html, zipfile.ZIP_DEFLATED)


def _read(folder: pathlib.Path) -> tuple[dict[str, Any], ScoreTable]:
    content = json.loads((folder / "out" / result_folder.SELECTION).read_text(encoding="utf-8"))
    table, _ = parquet.read(folder / "out" / result_folder.SCORES)
    # The file has what frames say by themselves.
    return content, smoothing.smoothed(table) if content.get("temporal") == "filter" else table


def _frames(content: Mapping[str, Any]) -> dict[str, int]:
    """Path of a photo → its frame."""
    return {path: choice["frame"] for path, choice in selection.photographed(content).items()}


def _video(folder: pathlib.Path) -> pathlib.Path:
    return next((folder / "video").iterdir())


def _video_frames(
    folder: pathlib.Path,
    table: ScoreTable,
    indices: Sequence[int],
    *,
    max_side: int | None = None,
) -> Iterator[video.Frame]:
    """Frames of the video by the indices of its scores, in order; anew if an index was wrong.

    Where packets are lost, a reader that seeks counts on, and one that decodes from the start does
    not: the times of the frames tell which of them scored the video.
    """
    for seek in (True, False):
        with video.Reader(_video(folder), max_side=max_side, seek=seek) as reader:
            if reader.seeks and not _numbers(reader, table):
                continue
            try:
                yield from reader.read(indices)
                return
            except video.UnprovenIndexError:
                continue


def _numbers(reader: video.Reader, table: ScoreTable) -> bool:
    """Whether the frames of the scores are those of a reader that seeks."""
    if table.frame.max() >= len(reader.time_s):
        return False
    return np.allclose(reader.time_s[table.frame], table.time_s, rtol=0, atol=1e-6)


def _encoded(folder: pathlib.Path, table: ScoreTable, frame: int, image: np.ndarray) -> bytes:
    """A JPEG with the time at which the frame was taken, where the video says when it began."""
    began = video.recorded_at(_video(folder))
    after = datetime.timedelta(seconds=float(table.time_s[table.row_of(frame)]))
    return photos.encode(image, "jpg", began and began + after)


def _original(folder: pathlib.Path, frame: int) -> pathlib.Path:
    return folder / "original" / f"{frame}.jpg"


def _decoded(data: bytes) -> np.ndarray:
    image = pictures.decoded(data)
    if image is None:
        raise CarjaxError("a photo in the job's folder is damaged")
    return image
