"""Score labelled photos and report every metric: from a label table to a folder of results."""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import importlib.resources
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from carjax import errors, files, scoring
from carjax.attributes import VIEWS, Attribute, Categorical
from carjax.datasets import photos
from carjax.datasets.photos import Photos
from carjax.errors import CarjaxError
from carjax.evaluation import metrics, page
from carjax.evaluation.labels import Labels
from carjax.evaluation.metrics import Classified, Directed
from carjax.model import Model
from carjax.prefetch import prefetch
from carjax.scoring import peaks
from carjax.table import certainty

SCHEMA_VERSION = 1
# Photos are squashed to squares of this side, in pixels: all sizes then share one program.
SIDE = 640
_BATCH_SIZE = 12


@dataclasses.dataclass(frozen=True)
class Scored:
    """The photos that could be read, and what the model says of them.

    Attributes:
        photos: M of them.
        index: int [M]; the position of each among the photos that were given.
        seen: bool [M]; a head or the car box was trained on this very file.
        scores: M rows.
        unreadable: one line for each photo that could not be read.
    """

    photos: Photos
    index: np.ndarray
    seen: np.ndarray
    scores: scoring.FrameScores
    unreadable: tuple[str, ...]


@functools.cache
def schema() -> dict[str, Any]:
    """Returns the JSON Schema of metrics.json, which ships with the package."""
    text = importlib.resources.files("carjax").joinpath("assets/metrics.schema.json").read_text()
    return json.loads(text)


def score_photos(
    model: Model, labelled: Photos, on_progress: Callable[[int], None] = lambda done: None
) -> Scored:
    """Scores photos of any size; one that cannot be read is left out.

    Args:
        model: from `carjax.load_model`.
        labelled: N photos.
        on_progress: called with the number of photos read so far.

    Raises:
        CarjaxError: no photo can be read.
    """
    scorer = scoring.Scorer(model, _BATCH_SIZE)
    read: list[int] = []
    seen: list[bool] = []
    unreadable: list[str] = []
    waiting: list[np.ndarray] = []
    parts: list[scoring.FrameScores] = []

    def load() -> Iterator[tuple[int, str, np.ndarray | str]]:
        for i, path in enumerate(labelled.paths):
            try:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                yield i, digest, photos.square(labelled.read(i), SIDE)
            except OSError as error:
                yield i, "", f"{path}: {error.strerror}"
            except CarjaxError as error:
                yield i, "", str(error)

    with prefetch(load(), depth=2 * _BATCH_SIZE) as loaded:
        for i, digest, image in loaded:
            if isinstance(image, str):
                unreadable.append(image)
            else:
                read.append(i)
                seen.append(digest in model.training_hashes)
                waiting.append(image)
            if len(waiting) == scorer.batch_size:
                parts.append(scorer(np.stack(waiting)))
                waiting = []
            on_progress(i + 1)
    if waiting:
        parts.append(scorer(np.stack(waiting)))
    if not parts:
        raise CarjaxError(f"none of the {len(labelled)} photos can be read; {unreadable[0]}")
    return Scored(
        labelled.take(np.array(read)),
        np.array(read),
        np.array(seen, bool),
        scoring.concatenate(parts),
        tuple(unreadable),
    )


def reduce(attribute: Attribute, scored: Scored) -> tuple[Classified | Directed, np.ndarray]:
    """Reduces an attribute's predictions to rows.

    Returns:
        (the rows of the photos with a label, the positions int [n] of those photos).
    """
    labels = scored.photos.labels[attribute.name]
    if isinstance(attribute, Categorical):
        known = np.nonzero(labels >= 0)[0]
        if not len(known):
            return Classified(*(np.zeros(0),) * len(Classified._fields)), known
        return metrics.classified(scored.scores.probs[attribute.name][known], labels[known]), known
    known = np.nonzero(~np.isnan(labels))[0]
    if not len(known):
        return Directed(*(np.zeros(0),) * len(Directed._fields)), known
    density = scored.scores.azimuth
    assert density is not None
    chosen = jax.tree.map(lambda x: x[known], density)
    return metrics.directed(chosen, labels[known]), known


def report(
    attribute: Attribute,
    rows: Classified | Directed,
    models: np.ndarray | None = None,
    samples: int = 1000,
) -> dict[str, Any]:
    """Every metric of one attribute: with confusion for classes, and per view for a direction."""
    if isinstance(rows, Classified):
        assert isinstance(attribute, Categorical)
        return {
            **metrics.summarise(rows, metrics.CATEGORICAL_METRICS, models, samples),
            "confusion": {
                "classes": list(attribute.classes),
                "counts": metrics.confusion(rows, len(attribute.classes)).tolist(),
            },
        }
    bins = metrics.view_bin(rows.azimuth_deg)
    return {
        **metrics.summarise(rows, metrics.ANGULAR_METRICS, models, samples),
        "bins": {
            name: metrics.summarise(
                metrics.take(rows, bins == i),
                metrics.ANGULAR_METRICS,
                None if models is None else models[bins == i],
                samples,
            )
            for i, name in enumerate(VIEWS)
        },
    }


def parts_of(
    scored: Scored, known_models: frozenset[str], splits: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the parts that are reported apart: name → bool [M]; empty parts are left out.

    Args:
        scored: M photos.
        known_models: car models that the heads were trained on; empty: not known.
        splits: name → str [M], the part of each photo, '' for none.
    """
    unseen = ~scored.seen
    parts = {"seen_images": scored.seen}
    if known_models:
        named = scored.photos.group != ""
        trained = np.isin(scored.photos.group, sorted(known_models))
        parts["known_models"] = unseen & named & trained
        parts["unknown_models"] = unseen & named & ~trained
    for name, values in splits.items():
        for value in sorted(set(values.tolist()) - {""}):
            parts[f"{name}:{value}"] = values == value
    return {name: mask for name, mask in parts.items() if mask.any()}


def evaluate(
    model: Model,
    labels: Labels,
    out: str | os.PathLike[str],
    *,
    splits: Mapping[str, np.ndarray] | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
    samples: int = 1000,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Evaluates a model on labelled photos and writes a folder; `metrics.json` comes last.

    The figures of `attributes` and `orientation` are those of photos that are not in the model's
    training list; photos that are, and other parts, are reported under `parts`.

    Args:
        model: with or without its car box, as `Model.with_localise` left it.
        labels: from `labels.read`, with the model's schema.
        out: a folder; made if it does not exist.
        splits: name → str [N], the part of each row of `labels`; '' for none.
        on_progress: called with the number of photos read so far.
        samples: resamples of every bootstrap interval.

    Returns:
        (the content of metrics.json, one line for each photo that could not be read).

    Raises:
        CarjaxError: no photo can be read, or the folder cannot be written.
    """
    scored = score_photos(model, labels.photos, on_progress)
    parts = parts_of(
        scored,
        frozenset(model.card.get("models", ())),
        {name: values[scored.index] for name, values in (splits or {}).items()},
    )
    attributes = [a for a in model.spec.schema if a.name in labels.photos.labels]
    reduced = {a.name: reduce(a, scored) for a in attributes}

    def section(mask: np.ndarray) -> dict[str, Any]:
        """The report of the photos that a mask [M] selects."""
        found: dict[str, Any] = {"attributes": {}}
        for attribute in attributes:
            rows, known = reduced[attribute.name]
            models = scored.photos.group[known][mask[known]]
            figures = report(attribute, metrics.take(rows, mask[known]), models, samples)
            if isinstance(attribute, Categorical):
                found["attributes"][attribute.name] = figures
            else:
                found["orientation"] = {"name": attribute.name, **figures}
        return found

    content = {
        "schema_version": SCHEMA_VERSION,
        "n": len(scored.photos),
        "seen": int(scored.seen.sum()),
        "unreadable": len(scored.unreadable),
        "unknown_classes": labels.unknown_classes,
        "model": model.origin,
        "localise": model.spec.localise is not None,
        **section(~scored.seen),
        "parts": {name: {"n": int(mask.sum()), **section(mask)} for name, mask in parts.items()},
    }
    target = pathlib.Path(out)
    with errors.writing(target):
        target.mkdir(parents=True, exist_ok=True)
        (target / page.METRICS_FILE).unlink(missing_ok=True)
        _write_predictions(target / page.PREDICTIONS_FILE, attributes, scored, reduced)
        plotted = {
            name: metrics.take(rows, ~scored.seen[known] | scored.seen.all())
            for name, (rows, known) in reduced.items()
        }
        files.write(target / page.PAGE_FILE, page.render(content, plotted))
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        files.write(target / page.METRICS_FILE, text)
    return content, scored.unreadable


def _write_predictions(
    path: pathlib.Path,
    attributes: list[Attribute],
    scored: Scored,
    reduced: Mapping[str, tuple[Classified | Directed, np.ndarray]],
) -> None:
    """Writes a row per photo (or window): what is true, what is predicted, and how surely."""
    columns: dict[str, list[Any]] = {"file": list(scored.photos.names)}
    if scored.photos.crop is not None:
        sides = zip(photos.SIDES, scored.photos.crop.T, strict=True)
        columns |= {name: ["" if np.isnan(x) else f"{x:g}" for x in side] for name, side in sides}
    columns["seen"] = scored.seen.astype(int).tolist()
    for attribute in attributes:
        rows, known = reduced[attribute.name]
        if isinstance(attribute, Categorical):
            columns |= _class_columns(attribute, scored)
        else:
            assert isinstance(rows, Directed)
            columns |= _direction_columns(scored, rows, known)
    columns["car_probability"] = _digits(scored.scores.car_probability)
    with files.replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _class_columns(attribute: Categorical, scored: Scored) -> dict[str, list[Any]]:
    name, probs = attribute.name, scored.scores.probs[attribute.name]
    entropy = np.asarray(scored.scores.entropy[name])
    classes = attribute.classes
    sure = certainty(entropy, len(classes))
    return {
        f"{name}_true": [classes[i] if i >= 0 else "" for i in scored.photos.labels[name]],
        name: [classes[i] for i in probs.argmax(1)],
        f"{name}_probability": _digits(probs.max(1)),
        f"{name}_entropy": _digits(entropy),
        f"{name}_certainty": _digits(sure),
    }


def _direction_columns(scored: Scored, rows: Directed, known: np.ndarray) -> dict[str, list[Any]]:
    assert scored.scores.azimuth is not None
    azimuth_deg, kappa, floor = peaks.main_peak(scored.scores.azimuth)

    def of_known(values: np.ndarray) -> list[Any]:
        """Spreads the values of labelled photos over all; the others stay blank."""
        column: list[Any] = [""] * len(scored.photos)
        for i, value in zip(known, _digits(values), strict=True):
            column[i] = value
        return column

    return {
        "azimuth_deg_true": of_known(rows.azimuth_deg),
        "azimuth_deg": _digits(azimuth_deg),
        "kappa": _digits(kappa),
        "azimuth_floor": _digits(floor),
        "azimuth_entropy": _digits(scored.scores.azimuth_entropy),
        "azimuth_error_deg": of_known(rows.error_deg),
        "azimuth_loglik": of_known(rows.loglik),
        "azimuth_hdr_mass": of_known(rows.hdr_mass),
    }


def _digits(values: Any) -> list[str]:
    """Seven significant digits: what a float32 holds."""
    return [f"{value:.7g}" for value in np.asarray(values, np.float64)]
