"""From a video to a folder: decode, score, select, write."""

from __future__ import annotations

import dataclasses
import datetime
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from carjax import errors, files, result_folder, selection, video
from carjax.errors import UsageError
from carjax.listing import known, redaction
from carjax.listing.photos import cropped, encode
from carjax.scan import Ahead, ScoredVideo, score_video
from carjax.selection import VIEW_THRESHOLD, eligibility
from carjax.stopwatch import Stopwatch
from carjax.temporal import consensus

if TYPE_CHECKING:
    from carjax.model import Model
    from carjax.table import ScoreTable

# Alternatives are shown in the report, and nowhere else.
_PREVIEW_SIDE = 640
_DARK = "the car is very dark throughout the video, and so are the photos: film in more light"
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

    def __post_init__(self) -> None:
        """Raises a UsageError for what `temporal` cannot be, or not with this `temporal_model`."""
        if self.resolved_temporal not in TEMPORAL:
            raise UsageError(
                f"temporal: no {self.resolved_temporal!r}; there are: {', '.join(TEMPORAL)}"
            )
        if self.resolved_temporal == "model" and not self.temporal_model:
            raise UsageError("--temporal=model needs --temporal_model=FILE of `carjax train`")
        if self.resolved_temporal != "model" and self.temporal_model:
            raise UsageError(
                f"--temporal_model is not used with --temporal={self.resolved_temporal}"
            )

    @property
    def resolved_temporal(self) -> str:
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
) -> dict[str, Any]:
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
        The content of selection.json.

    Raises:
        CarjaxError: the video cannot be read, or the folder cannot be written.
        NoCarError: no frame shows a car.
        UsageError: an option has no such value.
    """
    from carjax import parquet, report

    target = pathlib.Path(out)
    check_options(model, options)
    result_folder.check_apart(target, path)
    result_folder.check_out(target, overwrite)
    watch = watch or Stopwatch()
    boxes = _regions(path, options.redact)
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
        features="grid" if options.resolved_temporal == "model" else None,
    )
    with watch("choose"):
        table = smooth(scored)
        chosen = _choose(model, table, source.info.duration_s, options)
    frames = selection.chosen_frames(chosen)
    previews = selection.alternative_frames(chosen) - set(frames.values())
    with watch("decode"):
        images = source.grab(
            {*frames.values(), *previews}, max_sides=dict.fromkeys(previews, _PREVIEW_SIDE)
        )
    paths = {name: f"{result_folder.PHOTOS}/{name}.{options.format}" for name in frames}
    content = selection.to_json(
        chosen,
        video=_video(source, table, strip_path=options.strip_paths),
        model=model.origin,
        photos=paths,
        temporal=options.resolved_temporal,
    )
    images = {frame: redaction.blurred(image, boxes) for frame, image in images.items()}
    photos = {
        paths[name]: cropped(images[frame], table.box[table.row_of(frame)], options.crop)
        for name, frame in frames.items()
    }
    taken = {paths[name]: float(table.time_s[table.row_of(f)]) for name, f in frames.items()}
    with watch("write"), result_folder.writing(target) as folder:
        _write_photos(folder, photos, taken, video.recorded_at(path), options.format)
        # What frames say by themselves; what they say together can be had of it again.
        alone = dataclasses.replace(scored, features=None)
        parquet.write(alone, content["video"]["path"], folder / result_folder.SCORES)
        annotated = failure = None
        if options.annotate:
            # Long after the rest is known: if it fails, or is interrupted, the rest is kept.
            try:
                _annotate(path, scored, folder, content, options, boxes, drawing)
                annotated = result_folder.ANNOTATED
            except (Exception, KeyboardInterrupt) as error:
                failure = error
                (folder / result_folder.ANNOTATED).unlink(missing_ok=True)
        report.write_report(content, table, photos, folder, previews=images, annotated=annotated)
        files.write(folder / result_folder.SELECTION, selection.as_text(content))
    if failure is not None:
        with errors.writing(target):
            raise failure
    return content


def check_options(model: Model, options: Options) -> None:
    """Raises a UsageError if the options name an attribute that the model does not have.

    Or one that is not chosen, to state its value or to draw it.
    """
    schema = model.spec.schema
    selection.wanted_names(schema, options.attributes, options.views)
    known.check(schema, options.known, options.attributes)
    shown = options.attributes or [attribute.name for attribute in schema]
    if options.annotate not in (None, "all", *shown):
        raise UsageError(
            f"annotate: no {options.annotate!r}; it is none, all, or one of: {', '.join(shown)}"
        )


def _regions(path: str | os.PathLike[str], boxes: tuple[redaction.Box, ...]) -> list[redaction.Box]:
    """The boxes to blur, as fractions of the frame."""
    if not boxes:
        return []
    info = video.probe(path)
    return [redaction.fractions(box, info.width, info.height) for box in boxes]


def choose(
    model: Model,
    table: ScoreTable,
    *,
    duration_s: float | None = None,
    options: Options | None = None,
) -> selection.Selection:
    """Chooses the best photos of a scored video as `carjax select` does, and writes nothing.

    Directions know of their neighbours, classes are a consensus, and a brand may be none that the
    model knows: `selection.select_photos` with what the model says on that.

    Args:
        model: that scored it.
        table: of `score_video`; with features on the grid for a `temporal_model`.
        duration_s: of the video; None: until the last frame.
        options: what is asked for; fields that say how to score or to write are not read.

    Raises:
        NoCarError: no frame shows a car.
        UsageError: an option has no such value, or the table is of another model.

    Example:
        >>> import carjax
        >>> model = carjax.load_model()
        >>> table, video = carjax.score_video(model, "walk.mp4")  # doctest: +SKIP
        >>> chosen = carjax.choose_photos(  # doctest: +SKIP
        ...     model, table, duration_s=video.info.duration_s
        ... )
        >>> chosen.attributes["doors"].value  # doctest: +SKIP
        '4'
    """
    options = options or Options()
    check_options(model, options)
    if table.schema != model.spec.schema:
        raise UsageError("the table has other attributes than the model: give the one that scored")
    return _choose(model, _smoother(model, options)(table), duration_s, options)


def _choose(
    model: Model, table: ScoreTable, duration_s: float | None, options: Options
) -> selection.Selection:
    return selection.select_photos(
        table,
        attributes=options.attributes,
        policy=options.policy,
        view_policy=options.view_policy,
        view_threshold=options.view_threshold,
        views=options.views,
        duration_s=duration_s,
        unknown_above=model.spec.unknown_above,
        known=options.known,
        repetition=_repetition(model, options),
    )


def _video(source: ScoredVideo, table: ScoreTable, *, strip_path: bool) -> dict[str, Any]:
    """What `selection.json` says of the video."""
    info = source.info
    warnings = [*source.warnings, *([_DARK] if eligibility.is_dark(table) else [])]
    return {
        "path": files.readable(pathlib.PurePath(info.path).name if strip_path else info.path),
        "frames": info.frames,
        "duration_s": info.duration_s,
        "width": info.width,
        "height": info.height,
        "scored_frames": len(table),
        **({"warnings": warnings} if warnings else {}),
    }


def _write_photos(
    folder: pathlib.Path,
    photos: Mapping[str, np.ndarray],
    time_s: Mapping[str, float],
    began: datetime.datetime | None,
    kind: str,
) -> None:
    """Writes photos, by path, with the time each was taken at if the video says when it began."""
    for name, image in photos.items():
        taken = began and began + datetime.timedelta(seconds=time_s[name])
        (folder / name).write_bytes(encode(image, kind, taken))


def _smoother(model: Model, options: Options) -> Callable[[ScoreTable], ScoreTable]:
    """Returns what makes azimuths that know of their neighbours; whatever is wrong is found now."""
    if options.resolved_temporal == "none":
        return lambda table: table
    from carjax.selection import smoothing

    if options.resolved_temporal == "filter":
        return smoothing.smoothed
    assert options.temporal_model is not None
    return smoothing.by_model(options.temporal_model, model)


def _repetition(model: Model, options: Options) -> dict[str, consensus.Repetition]:
    """How much frames repeat each other, of the attributes whose classes are a consensus."""
    if options.resolved_temporal == "none":
        return {}
    # Where a class may be none that the head knows, how sure a video may be was measured on the
    # mean of its frames.
    unknown = model.spec.unknown_above
    return {name: numbers for name, numbers in consensus.FITTED.items() if name not in unknown}


def _annotate(
    path: str | os.PathLike[str],
    table: ScoreTable,
    folder: pathlib.Path,
    content: dict[str, Any],
    options: Options,
    boxes: list[redaction.Box],
    drawing: Callable[[int], None],
) -> None:
    from carjax.annotate import annotate

    asked = [*content["attributes"]]
    if "orientation" in content and table.angular is not None:
        asked.append(table.angular.name)
    asked_causal = (options.policy, options.view_policy, options.resolved_temporal)
    causal = asked_causal == ("entropy", "first", "none") and all(
        "known" not in choice and (choice["value"] or "frame" not in choice)
        for choice in content["attributes"].values()
    )
    annotate(
        path,
        table,
        folder / result_folder.ANNOTATED,
        attributes=asked if options.annotate == "all" else [str(options.annotate)],
        views=options.views,
        view_threshold=options.view_threshold,
        final=None if causal else content,
        final_name=f"{options.policy}, {options.view_policy} view",
        redact=lambda image: redaction.blurred(image, boxes),
        progress=drawing,
    )
