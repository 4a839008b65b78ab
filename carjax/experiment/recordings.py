"""Real footage that nothing is trained on: the sample, the turntables, and a car in a bend."""

from __future__ import annotations

import csv
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from carjax import pipeline, scoring, selection
from carjax.backbones.features import Features
from carjax.datasets import photos
from carjax.errors import CarjaxError
from carjax.experiment.sequences import SAMPLE, SAMPLE_LABELS, SPIN_FPS
from carjax.experiment.temporal import VIDEO, Footage
from carjax.table import ScoreTable
from carjax.temporal import smoothing

if TYPE_CHECKING:
    from carjax.model import Model

# A car drives through a bend; nobody knows its azimuths (DAVIS).
BEND = "videos/car-turn.mp4"


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
    if (root / "spins" / "labels.csv").is_file():
        found += _spins(model, root / "spins")
    if (root / BEND).is_file():
        table, _ = pipeline.score_video(model, root / BEND, fps="all", features="grid")
        unknown = np.full(len(table), np.nan)
        found.append(_footage("car-turn", table, unknown, np.zeros(len(table), bool), {}))
    return found


def _sample(model: Model, path: pathlib.Path) -> Footage:
    table, _ = pipeline.score_video(model, path, fps="all", features="grid")
    with path.with_suffix(".csv").open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    azimuth = np.array([float(rows[i]["azimuth_deg"]) for i in table.frame])
    spoilt = np.array([rows[i]["degraded"] != "0" for i in table.frame])
    return _footage("sample", table, azimuth, spoilt, SAMPLE_LABELS)


def _spins(model: Model, folder: pathlib.Path) -> list[Footage]:
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    scorer = scoring.Scorer(model, features="grid")
    found = []
    for name in sorted({row["file"].split("/")[0] for row in rows}):
        own = [row for row in rows if row["file"].split("/")[0] == name]
        images = [photos.decode(folder / row["file"]) for row in own]
        if len({image.shape for image in images}) > 1:
            raise CarjaxError(f"{folder / name}: pictures of several sizes")
        frame = np.arange(len(own))
        table = scoring.to_table(scorer(np.stack(images)), model.spec, frame, frame / SPIN_FPS)
        azimuth = np.array([float(row["azimuth_deg"]) for row in own])
        truth = {"brand": own[0]["make"], **own[0]}
        found.append(_footage(name, table, azimuth, np.zeros(len(own), bool), truth))
    return found


def _footage(
    name: str,
    table: ScoreTable,
    azimuth_deg: np.ndarray,
    spoilt: np.ndarray,
    truth: Mapping[str, str],
) -> Footage:
    speaks = smoothing.informing(table)
    features: Any = table.features
    return Footage(
        kind=VIDEO,
        source=name,
        time_s=np.asarray(table.time_s, np.float64),
        azimuth_deg=azimuth_deg,
        offset_deg=np.zeros(len(table)),
        spoilt=spoilt,
        speaks=speaks,
        density=jax.tree.map(np.asarray, selection.density_of(table, speaks)),
        probs={a.name: np.asarray(table.probs[a.name], np.float64) for a in table.categorical},
        labels={
            a.name: a.classes.index(truth[a.name])
            for a in table.categorical
            if truth.get(a.name) in a.classes
        },
        features=Features(**features),
    )
