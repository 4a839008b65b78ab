"""Real footage: the sample, the turntables and a car in a bend, and recordings of one's own."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from carjax import parquet, scan, scoring, selection
from carjax.attributes import Categorical, class_name
from carjax.datasets import csv_table, frame_labels, frame_sequences, photos, turntables
from carjax.datasets.sequence_batches import AZIMUTH
from carjax.errors import CarjaxError
from carjax.experiment.candidates import SAMPLE, SAMPLE_LABELS, known_labels
from carjax.experiment.temporal import VIDEO, Footage
from carjax.features import Level
from carjax.selection import smoothing
from carjax.table import ScoreTable

if TYPE_CHECKING:
    from carjax.model import Model
    from carjax.temporal.sequence_model import SequenceModel

# A car drives through a bend; nobody knows its azimuths (DAVIS).
BEND = "videos/car-turn.mp4"
# Of labels: frames that are known to be spoilt have a value other than 0 here.
SPOILT = "spoilt"


def read(model: Model, data_dir: str | os.PathLike[str] | None = None) -> list[Footage]:
    """Scores every frame of the real footage in a folder of data sets, whatever it has of it.

    Args:
        model: scores frames through its car box; trained on none of them.
        data_dir: see `photos.data_root`.

    Raises:
        CarjaxError: one of them cannot be read.
    """
    root = photos.data_root(data_dir)
    found = []
    if (root / SAMPLE).is_file():
        found.append(_sample(model, root / SAMPLE))
    if (root / "spins" / photos.LABEL_TABLE).is_file():
        found += _spins(model, root / "spins")
    if (root / BEND).is_file():
        table, _ = scan.score_video(model, root / BEND, fps="all", features="grid")
        unknown = np.full(len(table), np.nan)
        found.append(_footage("car-turn", table, unknown, np.zeros(len(table), bool), {}))
    return found


def labelled(
    scores: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    model: Model,
    heads: Collection[SequenceModel] = (),
) -> list[Footage]:
    """Reads one's own recordings from their scores and a table of labels.

    Args:
        scores: what `carjax score` wrote; with features if there are heads.
        labels: a CSV file, see `frame_labels.read`: `azimuth_deg`, attributes of the model, whose
            value is one in each recording, and `spoilt`; all of them may be missing.
        model: whose attributes were scored.
        heads: sequence heads that will read the features.

    Returns:
        A footage for each source that the labels name, in the order of names; with probabilities of
        the attributes that the labels have.

    Raises:
        CarjaxError: a file is missing or broken, or does not fit the labels, the model or a head.
    """
    known = frame_labels.read(labels)
    for head in heads:
        _check_features(scores, head)
    table, of_row = parquet.read(scores, features=bool(heads), sources=known.rows)
    known.check_sources(set(of_row), scores)
    if table.schema != model.spec.schema:
        raise CarjaxError(
            f"{scores}: scored by a model of other attributes: pass that one as --model"
        )
    source = np.array(of_row)
    found = []
    for name in sorted(known.rows):
        own = table.take(np.flatnonzero(source == name))
        own = own.take(np.argsort(own.frame, kind="stable"))
        if len(own) < 2:
            raise CarjaxError(f"{scores}: {name!r} has a single frame; a recording needs two")
        if not smoothing.informing(own).any():
            raise CarjaxError(f"{scores}: no frame of {name!r} shows a car")
        at, lost = known.at(name, own.time_s)
        if lost:
            message = "%s: %d labels of %s are near no scored frame"
            logging.getLogger(__name__).warning(message, labels, lost, name)
        azimuth = np.asarray(at.get(AZIMUTH, np.full(len(own), np.nan)), np.float64)
        spoilt = np.zeros(len(own), bool)
        if SPOILT in at:
            wrong = [not _is_zero(text) for text in known.classes[SPOILT]]
            spoilt = np.array([*wrong, False])[at[SPOILT]]  # −1, unknown, is the last
        attributes = [a for a in own.categorical if a.name in at]
        classes = {a.name: _one_class(known, name, a, at[a.name]) for a in attributes}
        truth = {a: text for a, text in classes.items() if text is not None}
        for attribute in own.categorical:
            text = truth.get(attribute.name)
            if text is not None and text not in attribute.classes:
                logging.getLogger(__name__).warning(
                    "%s: the %s of %s, %r, is none that the model knows: it is not measured",
                    *(labels, attribute.name, name, text),
                )
        footage = _footage(name, own, azimuth, spoilt, truth)
        probs = {a.name: footage.probs[a.name] for a in attributes}
        found.append(dataclasses.replace(footage, probs=probs))
    return found


def _is_zero(text: str) -> bool:
    if text.lower() == "false":
        return True
    try:
        return float(text) == 0.0
    except ValueError:
        return False


def _check_features(scores: str | os.PathLike[str], head: SequenceModel) -> None:
    """The scores hold the features that a head reads."""
    with parquet.errors_of(scores):
        level: Level = "grid" if head.spec.head.grid else "pooled"
        weights = head.card["backbone_sha256"]
        info = frame_sequences.described(parquet.parts(scores), level, weights)
        if info.input_size != head.spec.input_size:
            raise CarjaxError(
                f"its features are of {info.input_size} pixels, and {head.spec.model} reads those "
                f"of {head.spec.input_size}"
            )


def _one_class(
    known: frame_labels.FrameLabels, source: str, attribute: Categorical, codes: np.ndarray
) -> str | None:
    """The class of a recording's car, None if unknown."""
    texts = [known.classes[attribute.name][code] for code in np.unique(codes[codes >= 0])]
    values = sorted({class_name(text, attribute.classes) for text in texts})
    if len(values) > 1:
        raise CarjaxError(
            f"{known.path}: {source!r} is of one {attribute.name}: {' or '.join(values)}?"
        )
    return values[0] if values else None


def _sample(model: Model, path: pathlib.Path) -> Footage:
    table, _ = scan.score_video(model, path, fps="all", features="grid")
    truth = csv_table.read(path.with_suffix(".csv"), ["azimuth_deg", "degraded"])
    azimuth = np.array([truth.number(i, "azimuth_deg") for i in table.frame])
    spoilt = np.array([truth.rows[i]["degraded"] != "0" for i in table.frame])
    return _footage("sample", table, azimuth, spoilt, SAMPLE_LABELS)


def _spins(model: Model, folder: pathlib.Path) -> list[Footage]:
    scorer = scoring.Scorer(model, features="grid")
    found = []
    for name, spin in turntables.read(folder).items():
        images = [photos.decode(folder / file) for file in spin.files]
        if len({image.shape for image in images}) > 1:
            raise CarjaxError(f"{folder / name}: pictures of several sizes")
        frame = np.arange(len(images))
        table = scoring.to_table(
            scorer(np.stack(images)), model.spec, frame, frame / turntables.FPS
        )
        clean = np.zeros(len(images), bool)
        found.append(_footage(name, table, spin.azimuth_deg, clean, spin.truth))
    return found


def _footage(
    name: str,
    table: ScoreTable,
    azimuth_deg: np.ndarray,
    spoilt: np.ndarray,
    truth: Mapping[str, str],
) -> Footage:
    speaks = smoothing.informing(table)
    return Footage(
        kind=VIDEO,
        source=name,
        time_s=np.asarray(table.time_s, np.float64),
        azimuth_deg=azimuth_deg,
        offset_deg=np.zeros(len(table)),
        spoilt=spoilt,
        speaks=speaks,
        # A frame that does not speak still says something when it is asked alone.
        density=selection.density_of(table, selection.sound_directions(table)),
        probs={a.name: np.asarray(table.probs[a.name], np.float64) for a in table.categorical},
        labels=known_labels(table.schema, truth),
        features=table.features,
    )
