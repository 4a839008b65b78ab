"""Frames among which one is chosen, of albums and of videos, and who chooses which."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from carjax import selection
from carjax.attributes import Categorical, Schema
from carjax.datasets import photos, turntables
from carjax.errors import CarjaxError, NoCarError
from carjax.experiment.predictions import Facts, Predictions, photo_path
from carjax.table import ScoreTable, certainty

if TYPE_CHECKING:
    from carjax.model import Model

ALBUM, VIDEO = "album", "video"
# A car model's photos of one fold are dealt into albums of about this many.
ALBUM_SIZE, MIN_ALBUM = 8, 5
# The sample video shows this car (data/README.md).
SAMPLE = "samples/prius_walkaround.mp4"
SAMPLE_LABELS = {"type": "hatchback", "brand": "Toyota", "doors": "5", "seats": "5"}
# Who chooses; 'random' is not a choice but the mean over all frames.
CONSENSUS, ENTROPY, SHARPEST, MIDDLE, RANDOM = PICKERS = (
    "consensus",
    "entropy",
    "sharpest",
    "middle",
    "random",
)


@dataclasses.dataclass(frozen=True)
class Candidates:
    """N frames of one car, of which one is to show an attribute.

    Attributes:
        kind: `ALBUM` or `VIDEO`.
        source: what it is of: the car model of an album, the name of a video.
        attribute: what is to be shown.
        label: its true class.
        table: scores of the N frames by a model that was not trained on them.
        files: N names of photos; of a video file, its name N times.
        read: index of a frame → its picture, uint8 [H, W, 3] RGB.
    """

    kind: str
    source: str
    attribute: Categorical
    label: int
    table: ScoreTable
    files: tuple[str, ...]
    read: Callable[[int], np.ndarray]

    @property
    def correct(self) -> np.ndarray:
        """Whether each frame's most probable class is the true one, bool [N]."""
        return self.table.probs[self.attribute.name].argmax(axis=1) == self.label

    @property
    def certainty(self) -> np.ndarray:
        """1 − H/log K of each frame, float64 [N]."""
        entropy = np.asarray(self.table.entropy[self.attribute.name], np.float64)
        return certainty(entropy, len(self.attribute.classes))


def picks(among: Candidates) -> dict[str, int | None]:
    """Returns the position that each picker chooses; None where it refuses to.

    `consensus` and `entropy` are the policies of `selection.select_photos`; `sharpest` the frame
    of highest sharpness, `middle` the one in the middle of the time.
    """
    table = among.table
    found: dict[str, int | None] = {}
    for policy in (CONSENSUS, ENTROPY):
        try:
            chosen = selection.select_photos(
                table, attributes=[among.attribute.name], policy=policy, alternatives=0
            ).attributes[among.attribute.name]
        except NoCarError:
            found[policy] = None
            continue
        found[policy] = None if chosen.frame is None else table.frame.tolist().index(chosen.frame)
    found[SHARPEST] = int(np.argmax(table.sharpness))
    halfway = (table.time_s[0] + table.time_s[-1]) / 2
    found[MIDDLE] = int(np.argmin(np.abs(table.time_s - halfway)))
    return found


def albums(
    predictions: Predictions, facts: Facts, data_dir: str | os.PathLike[str] | None
) -> list[Candidates]:
    """Deals held-out photos into albums: of one car model, and all scored by the same head.

    A model's photos of one fold, in the order of their names, become albums of about `ALBUM_SIZE`;
    groups below `MIN_ALBUM` are left out. An album has no real order, so its middle is arbitrary.
    """
    root = photos.data_root(data_dir)
    model = np.array([facts.model[name] for name in predictions.names.tolist()])
    found = []
    for group in sorted(set(model.tolist())):
        for fold in np.unique(predictions.fold[model == group]):
            index = np.flatnonzero((model == group) & (predictions.fold == fold))
            index = index[np.argsort(predictions.names[index])]
            if len(index) < MIN_ALBUM:
                continue
            for part in np.array_split(index, max(1, round(len(index) / ALBUM_SIZE))):
                found.append(_album(predictions.take(part), group, facts, root))
    return found


def _album(own: Predictions, group: str, facts: Facts, root: pathlib.Path) -> Candidates:
    names, n = own.names.tolist(), len(own)
    zeros = np.zeros(n, np.float32)
    table = ScoreTable(
        schema=(own.attribute,),
        frame=np.arange(n),
        time_s=np.arange(n, dtype=np.float64),
        probs={own.attribute.name: own.probs},
        entropy={own.attribute.name: own.entropy},
        azimuth_deg=zeros,
        kappa=zeros,
        azimuth_floor=zeros,
        azimuth_entropy=zeros,
        view_probs=np.full((n, 8), 1 / 8, np.float32),
        # Every photo of the data set shows one car and is cropped to it.
        car_probability=np.ones(n, np.float32),
        box=np.tile(np.array([0, 0, 1, 1], np.float32), (n, 1)),
        sharpness=np.array([facts.sharpness[name] for name in names]),
    )
    return Candidates(
        kind=ALBUM,
        source=group,
        attribute=own.attribute,
        label=int(own.label[0]),
        table=table,
        files=tuple(names),
        read=lambda i: photos.decode(photo_path(root, names[i])),
    )


def videos(model: Model, data_dir: str | os.PathLike[str] | None = None) -> list[Candidates]:
    """Scores the videos of known cars through the whole pipeline, a `Candidates` per attribute.

    The turntables of `spins/` and the sample video, none of which any head is trained on; those
    that the folder lacks are left out.

    Raises:
        CarjaxError: one of them cannot be read.
    """
    root = photos.data_root(data_dir)
    found = []
    if (root / "spins" / photos.LABEL_TABLE).is_file():
        found += _spins(model, root / "spins")
    if (root / SAMPLE).is_file():
        found += _sample(model, root / SAMPLE)
    return found


def _spins(model: Model, folder: pathlib.Path) -> list[Candidates]:
    from carjax import scoring
    from carjax.evaluation import run

    found = []
    for name, spin in turntables.read(folder).items():
        labelled = photos.Photos(
            paths=tuple(folder / file for file in spin.files),
            names=spin.files,
            labels={},
            group=np.array([name] * len(spin.files)),
            box=np.full((len(spin.files), 4), np.nan, np.float32),
        )
        scored = run.score_photos(model, labelled)
        if scored.unreadable:
            raise CarjaxError(scored.unreadable[0])
        frame = np.arange(len(spin.files))
        table = scoring.to_table(scored.scores, model.spec, frame, frame / turntables.FPS)
        files = tuple(f"spins/{file}" for file in spin.files)
        found += _by_attribute(name, table, spin.truth, files, labelled.read, model.spec.schema)
    return found


def _sample(model: Model, path: pathlib.Path) -> list[Candidates]:
    from carjax import scan, video

    table, _ = scan.score_video(model, path, fps=video.AUTO_FPS)

    def read(i: int) -> np.ndarray:
        frame = int(table.frame[i])
        return video.Decoder(path).grab({frame})[frame]

    files = (SAMPLE,) * len(table)
    return _by_attribute(path.stem, table, SAMPLE_LABELS, files, read, model.spec.schema)


def _by_attribute(
    name: str,
    table: ScoreTable,
    truth: Mapping[str, str],
    files: tuple[str, ...],
    read: Callable[[int], np.ndarray],
    schema: Schema,
) -> list[Candidates]:
    """A video's `Candidates` for each attribute whose true class the model knows."""
    labels = known_labels(schema, truth)
    return [
        Candidates(VIDEO, name, a, labels[a.name], table, files, read)
        for a in schema
        if isinstance(a, Categorical) and a.name in labels
    ]


def known_labels(schema: Schema, truth: Mapping[str, str]) -> dict[str, int]:
    """Returns attribute → index of its true class, for each whose true class the schema has."""
    return {
        a.name: a.classes.index(truth[a.name])
        for a in schema
        if isinstance(a, Categorical) and truth.get(a.name) in a.classes
    }


def outcomes(groups: Sequence[Candidates]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who was right where.

    Returns:
        (float64 [F, 5] in the order of `PICKERS`: 1 for a chosen frame whose class is right, 0 for
        a wrong one, NaN where the picker refused; of `random` the share of right frames, which is
        the expected value of a random choice. Float64 [F, 5] of the same for the certainty. And
        float64 [F, 5] of the share of `consensus`'s own frame in the picker's choice: 1 where it is
        the same frame, and of `random` one over the frames.)
    """
    right, sure, same = np.full((3, len(groups), len(PICKERS)), np.nan)
    for row, own in enumerate(groups):
        chosen = picks(own)
        for column, picker in enumerate(PICKERS[:-1]):
            position = chosen[picker]
            if position is not None:
                right[row, column] = own.correct[position]
                sure[row, column] = own.certainty[position]
                same[row, column] = position == chosen[CONSENSUS]
        right[row, -1], sure[row, -1] = own.correct.mean(), own.certainty.mean()
        same[row, -1] = 1 / len(own.table)
    return right, sure, same
