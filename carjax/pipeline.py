"""From a video to a folder: decode, score, select, write."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from carjax import video
from carjax.errors import CarjaxError, UsageError
from carjax.files import readable, replacing, unique
from carjax.listing import redaction
from carjax.listing.photos import FORMATS, cropped, encode
from carjax.scan import Ahead, score_video
from carjax.selection import VIEW_THRESHOLD, refine
from carjax.stopwatch import Stopwatch
from carjax.temporal import consensus

if TYPE_CHECKING:
    from carjax.model import Model
    from carjax.table import ScoreTable

# Alternatives are shown in the report, and nowhere else.
_PREVIEW_SIDE = 640
_MANIFEST = "selection.json"
_PART = re.compile(r"\.carjax\.[0-9a-f]+\.part")
ANNOTATED = "annotated.mp4"
TEMPORAL = ("none", "filter", "model")


@dataclasses.dataclass(frozen=True)
class Options:
    """What `select` is asked for; the fields are the flags of `carjax select`."""

    attributes: tuple[str, ...] | None = None
    policy: str = "consensus"
    view_policy: str = "best"
    view_threshold: float = VIEW_THRESHOLD
    views: int = 8
    fps: video.Fps = "auto"
    known: Mapping[str, str] = dataclasses.field(default_factory=dict)
    crop: str = "none"
    format: str = "jpg"
    redact: tuple[redaction.Box, ...] = ()
    strip_paths: bool = False
    annotate: str | None = None
    temporal: str | None = None
    temporal_model: str | None = None

    @property
    def time(self) -> str:
        """What neighbouring frames are used for, one of `TEMPORAL`.

        If not said: the filter, unless the first frame that passes is wanted, as a stream would
        take it without knowing of later ones.
        """
        return self.temporal or ("none" if self.view_policy == "first" else "filter")


def select(
    model: Model,
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: Options,
    *,
    overwrite: bool = False,
    ahead: Ahead | None = None,
    progress: Callable[[int], None] = lambda frames: None,
    drawing: Callable[[int], None] = lambda frames: None,
    watch: Stopwatch | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Chooses the best photos of a video and writes them, the scores and the report to a folder.

    `selection.json` is written last, so a folder that holds it is complete. Only the annotated
    video may be missing, if it could not be drawn to its end.

    Args:
        model: from `carjax.load_model`.
        path: a video file.
        out: the folder to write.
        options: what is asked for; with `annotate`, 'all' or an attribute, every frame is scored;
            `temporal` is one of `TEMPORAL`, and 'model' needs a `temporal_model`.
        overwrite: write into a folder that carjax did not write.
        ahead: the video at the options' `fps`, where its decoding has begun already.
        progress: called with the number of frames scored so far.
        drawing: called with the number of frames of the annotated video drawn so far.
        watch: is told what the time is spent on.

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
    if options.redact:
        info = video.probe(path)
        boxes = [redaction.fractions(box, info.width, info.height) for box in options.redact]
    else:
        boxes = []
    smooth = _smoother(model, options)
    scored, source = score_video(
        model,
        path,
        fps="all" if options.annotate else options.fps,
        ahead=ahead,
        attributes=options.attributes,
        views=options.views,
        progress=progress,
        watch=watch,
        features="grid" if options.time == "model" else None,
    )
    info = source.info
    with watch("choose"):
        table = smooth(scored)
        chosen = selection.select_photos(
            table,
            attributes=options.attributes,
            policy=options.policy,
            view_policy=options.view_policy,
            view_threshold=options.view_threshold,
            views=options.views,
            duration_s=info.duration_s,
            unknown_above=model.spec.unknown_above,
            known=options.known,
            repetition=_repetition(model, options),
        )
    name = readable(pathlib.PurePath(info.path).name if options.strip_paths else info.path)
    frames = selection.chosen_frames(chosen)
    paths = {name: f"photos/{name}.{options.format}" for name in frames}
    content = selection.to_json(
        chosen,
        video={
            "path": name,
            "frames": info.frames,
            "duration_s": info.duration_s,
            "width": info.width,
            "height": info.height,
            "scored_frames": len(table),
        },
        model={key: model.card[key] for key in ("backbone", "bundle", "version")},
        photos=paths,
        temporal=options.time,
    )
    warnings = source.warnings
    previews = selection.alternative_frames(chosen) - set(frames.values())
    with watch("decode"):
        images = source.grab(
            {*frames.values(), *previews}, max_sides=dict.fromkeys(previews, _PREVIEW_SIDE)
        )
    images = {frame: redaction.blurred(image, boxes) for frame, image in images.items()}
    photos = {
        paths[name]: cropped(images[frame], table.box[table.frame == frame][0], options.crop)
        for name, frame in frames.items()
    }
    failure: BaseException | None = None
    with watch("write"), writing(target) as folder:
        recorded = video.recorded_at(path)
        for name, frame in frames.items():
            taken = recorded and recorded + datetime.timedelta(
                seconds=float(table.time_s[table.frame == frame][0])
            )
            data = encode(photos[paths[name]], options.format, taken)
            (folder / paths[name]).write_bytes(data)
        # What frames say by themselves; what they say together can be had of it again.
        alone = dataclasses.replace(scored, features=None)
        parquet.write(alone, content["video"]["path"], folder / "scores.parquet")
        if options.annotate:
            # Long after the rest is known: if it fails, or is interrupted, the rest is kept.
            try:
                _annotate(path, scored, folder / ANNOTATED, content, options, boxes, drawing)
            except (Exception, KeyboardInterrupt) as error:
                failure = error
                (folder / ANNOTATED).unlink(missing_ok=True)
        annotated = ANNOTATED if (folder / ANNOTATED).exists() else None
        report.write_report(content, table, photos, folder, previews=images, annotated=annotated)
        with replacing(folder / _MANIFEST) as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    if failure is not None:
        raise failure
    return content, warnings


def _smoother(model: Model, options: Options) -> Callable[[ScoreTable], ScoreTable]:
    """Returns what makes azimuths that know of their neighbours; whatever is wrong is found now."""
    if options.time == "none":
        return lambda table: table
    from carjax.selection import smoothing

    if options.time == "filter":
        return smoothing.smoothed
    if options.temporal_model is None:
        raise UsageError("--temporal=model needs --temporal_model=FILE of `carjax train`")
    return smoothing.by_model(options.temporal_model, model)


def _repetition(model: Model, options: Options) -> dict[str, consensus.Repetition]:
    """How much frames repeat each other, of the attributes whose classes are a consensus."""
    if options.time == "none":
        return {}
    # Where a class may be none that the head knows, how sure a video may be was measured on the
    # mean of its frames.
    unknown = model.spec.unknown_above or {}
    return {name: numbers for name, numbers in consensus.FITTED.items() if name not in unknown}


def check_out(target: pathlib.Path, overwrite: bool, manifest: str = _MANIFEST) -> None:
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
            (folder / "photos").mkdir(parents=True)
            yield folder
            target.mkdir(exist_ok=True)
            old = _photos_of(target / _MANIFEST)
            # Those of a run that was stopped before it had written its manifest.
            old |= {
                f"{new.stem}.{kind}" for new in (folder / "photos").iterdir() for kind in FORMATS
            }
            (target / _MANIFEST).unlink(missing_ok=True)
            (target / "photos").mkdir(exist_ok=True)
            (target / ANNOTATED).unlink(missing_ok=True)
            for photo in old:
                (target / "photos" / photo).unlink(missing_ok=True)
            for new in sorted(folder.rglob("*"), key=lambda p: p.name == _MANIFEST):
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
    from carjax import selection

    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        return {pathlib.PurePath(path).name for path in selection.photographed(content)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _annotate(
    path: str | os.PathLike[str],
    table: ScoreTable,
    out: pathlib.Path,
    content: dict[str, Any],
    options: Options,
    boxes: list[redaction.Box],
    drawing: Callable[[int], None],
) -> None:
    from carjax.annotate import annotate

    asked = [*content["attributes"]]
    if "orientation" in content and table.angular is not None:
        asked.append(table.angular.name)
    asked_causal = (options.policy, options.view_policy, options.time)
    causal = asked_causal == ("entropy", "first", "none") and all(
        "known" not in choice and (choice["value"] or "frame" not in choice)
        for choice in content["attributes"].values()
    )
    annotate(
        path,
        table,
        out,
        attributes=asked if options.annotate == "all" else [str(options.annotate)],
        views=options.views,
        view_threshold=options.view_threshold,
        final=None if causal else content,
        final_name=f"{options.policy}, {options.view_policy} view",
        redact=lambda image: redaction.blurred(image, boxes),
        progress=drawing,
    )


def expected_frames(info: video.VideoInfo, fps: video.Fps) -> int:
    """Estimates how many frames will be scored, for a progress bar."""
    if fps == "auto":
        coarse = round(info.duration_s * refine.coarse_rate(info.duration_s))
        return max(1, min(info.frames, refine.budget(info.duration_s, coarse)))
    rate = info.average_rate if fps == "all" else fps
    return max(1, round(min(info.frames, info.duration_s * float(rate))))
