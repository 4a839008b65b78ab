"""What a child process can be asked to do. Arguments and results are JSON."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from carjax.errors import CarjaxError
from carjax.web import limits as bounds

if TYPE_CHECKING:
    from carjax.model import Model

Report = Callable[[dict[str, Any]], None]

# The sizes that phones film in, as they are scored: compiled before the first video comes.
_USUAL_SIZES = {"landscape": (360, 640), "portrait": (640, 360)}


@functools.cache
def _model(name: str | None, weights: str | None) -> Model:
    from carjax import runtime

    runtime.set_up_jax()
    from carjax import model

    return model.load(name, backbone_weights=weights)


def load(report: Report, model: str | None, weights: str | None) -> list[dict[str, Any]]:
    """Loads the model; returns its attributes with their classes (none for a direction)."""
    schema = _model(model, weights).spec.schema
    return [{"name": a.name, "classes": list(getattr(a, "classes", []))} for a in schema]


def warm(report: Report, model: str | None, weights: str | None, shape: str) -> None:
    """Compiles the scoring program for a shape of `_USUAL_SIZES`."""
    import numpy as np

    from carjax import scan, scoring

    scorer = scoring.kept_scorer(_model(model, weights), scan.BATCH_SIZE)
    images = np.zeros((scorer.batch_size, *_USUAL_SIZES[shape], 3), np.uint8)
    scoring.to_host(scorer.dispatch(images, np.ones(scorer.batch_size, bool)), 1)


def check(
    report: Report, folder: str, name: str, limits: Mapping[str, float]
) -> dict[str, float | int]:
    """Refuses what is no video or over the limits; see `limits.check`."""
    os.chdir(pathlib.Path(folder) / "video")
    try:
        return bounds.check(f"./{name}", bounds.Limits(**limits))  # type: ignore[arg-type]
    except CarjaxError as error:
        raise _named(error, name) from None


def select(
    report: Report,
    folder: str,
    name: str,
    options: Mapping[str, Any],
    limits: Mapping[str, float],
    model: str | None,
    weights: str | None,
) -> list[str]:
    """Runs `carjax select` on an upload; returns what to know of the video: one line each."""
    from carjax import pipeline
    from carjax.web import results

    most = bounds.frames_allowed(bounds.Limits(**limits))  # type: ignore[arg-type]
    job = pathlib.Path(folder)

    def progress(frames: int) -> None:
        if frames > most:
            raise CarjaxError("the video is longer than it says, and longer than this server takes")
        report({"stage": "scoring", "frames": frames})

    loaded = _model(model, weights)  # before the first report: from it on the pace is measured
    # Relative paths: nothing that is written, and no message, can name a folder of the server.
    os.chdir(job / "video")
    try:
        report({"stage": "decoding", "frames": 0})
        content = pipeline.select(loaded, name, "../out", _options(options), progress=progress)
        report({"stage": "writing"})
        results.publish_first(job)
    except CarjaxError as error:
        raise _named(error, name) from None
    return content["video"].get("warnings", [])


def swap(report: Report, folder: str, photo: str, frame: int) -> None:
    """Takes another frame for a photo."""
    from carjax.web import results

    results.swap_photo(pathlib.Path(folder), photo, frame)


def redact(report: Report, folder: str, frame: int, boxes: list[list[float]]) -> None:
    """Blurs regions of a frame in every export."""
    from carjax.web import results

    results.redact(pathlib.Path(folder), frame, boxes)  # type: ignore[arg-type]


def crop(report: Report, folder: str, shape: str) -> None:
    """Cuts the photos to the car."""
    from carjax.web import results

    results.crop(pathlib.Path(folder), shape)


def frames(report: Report, folder: str) -> None:
    """Writes every scored frame at a limited size."""
    from carjax.web import results

    results.small_frames(pathlib.Path(folder))


TASKS: dict[str, Callable[..., Any]] = {
    task.__name__: task for task in (load, warm, check, select, swap, redact, crop, frames)
}


def _options(options: Mapping[str, Any]) -> Any:
    from carjax import pipeline

    attributes = options.get("attributes")
    return pipeline.Options(
        attributes=None if attributes is None else tuple(attributes),
        views=options["views"],
        known=options.get("known", {}),
        strip_paths=True,
    )


def _named(error: CarjaxError, name: str) -> CarjaxError:
    """The same error without `./` or the file's name in front: the user knows which file it was."""
    text = str(error).replace(f"./{name}", name).removeprefix(f"{name}: ")
    if text.split(" ", 1)[0] in ("is", "has", "holds", "cannot"):
        text = f"the file {text}"
    return type(error)(text)
