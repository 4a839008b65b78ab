"""From a video to a folder: decode, score, select, write."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from carjax import refine, video
from carjax.errors import CarjaxError
from carjax.files import replacing
from carjax.scan import score_video
from carjax.stopwatch import Stopwatch

if TYPE_CHECKING:
    from carjax.model import Model

_JPEG_QUALITY = 95
_MANIFEST = "selection.json"


@dataclasses.dataclass(frozen=True)
class Options:
    """What `select` is asked for; the fields are the flags of `carjax select`."""

    attributes: tuple[str, ...] | None = None
    policy: str = "consensus"
    view_policy: str = "best"
    view_threshold: float = 0.8
    views: int = 8
    fps: video.Fps = "auto"


def select(
    model: Model,
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: Options,
    *,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda frames: None,
    watch: Stopwatch | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Chooses the best photos of a video and writes them, the scores and the report to a folder.

    `selection.json` is written last, so a folder that holds it is complete.

    Returns:
        (the content of selection.json, what was lost of a damaged video: one line each).

    Raises:
        CarjaxError: the video cannot be read, or the folder cannot be written.
        NoCarError: no frame shows a car.
        UsageError: an option has no such value.
    """
    from carjax import parquet, report, selection

    target = pathlib.Path(out)
    check_out(target, overwrite)
    watch = watch or Stopwatch()
    table, source = score_video(
        model,
        path,
        fps=options.fps,
        attributes=options.attributes,
        views=options.views,
        progress=progress,
        watch=watch,
    )
    info = source.info
    with watch("choose"):
        chosen = selection.select_photos(
            table,
            attributes=options.attributes,
            policy=options.policy,
            view_policy=options.view_policy,
            view_threshold=options.view_threshold,
            views=options.views,
            duration_s=info.duration_s,
            unknown_above=model.spec.unknown_above,
        )
    content = selection.to_json(
        chosen,
        video={
            "path": info.path,
            "frames": info.frames,
            "duration_s": info.duration_s,
            "width": info.width,
            "height": info.height,
            "scored_frames": len(table),
        },
        model={key: model.card[key] for key in ("backbone", "bundle", "version")},
    )
    frames = selection.chosen_frames(chosen)
    warnings = source.warnings
    with watch("decode"):
        images = source.grab(set(frames.values()))
    photos = {f"photos/{name}.jpg": images[index] for name, index in frames.items()}
    with watch("write"), writing(target) as folder:
        _write_photos(photos, folder)
        parquet.write(table, info.path, folder / "scores.parquet")
        report.write_report(content, table, photos, folder)
        with replacing(folder / _MANIFEST) as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    return content, warnings


def check_out(target: pathlib.Path, overwrite: bool, manifest: str = _MANIFEST) -> None:
    """Raises a CarjaxError unless the folder can be written, before anything is computed.

    Args:
        target: the folder, which need not exist.
        overwrite: a folder of other files will do.
        manifest: the file that marks a folder as one that the same command wrote.
    """
    if target.is_dir():
        ours = (target / manifest).is_file() or not any(target.iterdir())
        if not (ours or overwrite):
            raise CarjaxError(
                f"{target}: holds files that carjax did not write: "
                "give another --out, or --overwrite"
            )
    elif target.exists():
        raise CarjaxError(f"{target}: is a file, not a folder: give another --out")
    existing = next(p for p in (target, *target.absolute().parents) if p.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise CarjaxError(f"{target}: cannot be written ({existing} does not permit it)")


@contextlib.contextmanager
def writing(target: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a hidden folder whose files move into `target` when the block ends without an error.

    What an earlier run wrote there is replaced; the manifest goes first and comes back last.
    """
    folder = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        try:
            (folder / "photos").mkdir(parents=True)
            yield folder
            target.mkdir(exist_ok=True)
            (target / _MANIFEST).unlink(missing_ok=True)
            (target / "photos").mkdir(exist_ok=True)
            for old in (target / "photos").glob("*.jpg"):
                old.unlink()
            for new in sorted(folder.rglob("*"), key=lambda p: p.name == _MANIFEST):
                if new.is_file():
                    os.replace(new, target / new.relative_to(folder))
        except OSError as error:
            raise CarjaxError(
                f"cannot write {target}: {error.strerror or error}; give another --out"
            ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_photos(photos: Mapping[str, np.ndarray], folder: pathlib.Path) -> None:
    import cv2

    for name, image in photos.items():
        encoded, data = cv2.imencode(
            ".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        )
        if not encoded:
            raise CarjaxError(f"{name}: this frame cannot be encoded as JPEG")
        (folder / name).write_bytes(data.tobytes())


def expected_frames(info: video.VideoInfo, fps: video.Fps) -> int:
    """Estimates how many frames will be scored, for a progress bar."""
    if fps == "auto":
        coarse = round(info.duration_s * refine.coarse_rate(info.duration_s))
        return max(1, min(info.frames, refine.budget(info.duration_s, coarse)))
    rate = info.average_rate if fps == "all" else fps
    return max(1, round(min(info.frames, info.duration_s * float(rate))))
