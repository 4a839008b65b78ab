"""Predictions of photos by heads that never saw them: what the runs of a cross-validation hold."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import zipfile
from collections.abc import Callable, Sequence

import numpy as np

from carjax import certainty, table
from carjax.attributes import CAR, Categorical
from carjax.datasets import csv_table, photos
from carjax.errors import CarjaxError

KNOWN, UNSEEN = "known models", "unseen models"
# Sharpness is compared at one scale: every photo is squashed to this side, in pixels.
SIDE = 320
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Predictions:
    """One attribute of N photos, each predicted by a run that was trained without it.

    Attributes:
        attribute: what was predicted.
        names: str [N]; data set and file, such as 'stanford_cars/00019.jpg'.
        fold: int [N]; the fold that the photo's run held out.
        label: int [N]; true class.
        probs: float64 [N, K].
        entropy: float64 [N]; of `probs` in nats.
    """

    attribute: Categorical
    names: np.ndarray
    fold: np.ndarray
    label: np.ndarray
    probs: np.ndarray
    entropy: np.ndarray

    def __len__(self) -> int:
        """The number of photos."""
        return len(self.names)

    @property
    def certainty(self) -> np.ndarray:
        """1 − H/log K, float64 [N]."""
        return table.certainty(self.entropy, len(self.attribute.classes))

    @property
    def correct(self) -> np.ndarray:
        """Whether the most probable class is the true one, bool [N]."""
        return self.probs.argmax(axis=1) == self.label

    def take(self, index: np.ndarray) -> Predictions:
        """Returns the photos at those positions, or of that mask."""
        columns = (self.names, self.fold, self.label, self.probs, self.entropy)
        return Predictions(self.attribute, *(column[index] for column in columns))


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of every labelled photo, whatever a head says; all maps go by its name.

    Attributes:
        model: the car's model.
        azimuth_deg: true azimuth, NaN where it is unknown.
        sharpness: `scoring.sharpness` of the photo at `SIDE` pixels.
        pixels: width times height as stored.
    """

    model: dict[str, str]
    azimuth_deg: dict[str, float]
    sharpness: dict[str, float]
    pixels: dict[str, float]


def read_runs(folder: str | os.PathLike[str]) -> dict[str, Predictions]:
    """Reads the out-of-fold predictions of a folder of runs, as `benchmarks/crossval.py` makes it.

    Args:
        folder: holds `ATTRIBUTE-FOLD/held_out.npz`; attributes without a run are left out.

    Returns:
        Attribute → its predictions, folds one after another.

    Raises:
        CarjaxError: no run, a file that is no prediction of that attribute, or a photo that two
            folds held out.
    """
    root = pathlib.Path(folder)
    found = {}
    for attribute in CAR:
        if isinstance(attribute, Categorical):
            folders = root.glob(f"{attribute.name}-*/held_out.npz")
            runs = sorted(p for p in folders if re.fullmatch(r".*-\d+", p.parent.name))
            if runs:
                found[attribute.name] = _join(attribute, runs)
    if not found:
        raise CarjaxError(
            f"{root}: no ATTRIBUTE-FOLD/held_out.npz: give --runs=DIR of benchmarks/crossval.py"
        )
    return found


def _join(attribute: Categorical, runs: Sequence[pathlib.Path]) -> Predictions:
    columns = []
    for path in runs:
        try:
            with np.load(path, allow_pickle=False) as archive:
                names, label = archive["names"], archive["targets"][:, 0]
                log_probs = archive["log_probs"].astype(np.float64)
        except (OSError, KeyError, IndexError, ValueError, zipfile.BadZipFile) as error:
            raise CarjaxError(f"{path}: not the predictions of a class head ({error})") from None
        shape = (len(names), len(attribute.classes))
        if log_probs.shape != shape or not np.isfinite(log_probs).all():
            raise CarjaxError(
                f"{path}: log_probs {log_probs.shape}, expected finite {shape} for {attribute.name}"
            )
        # Rounded to float32, the stored rows do not quite sum to one.
        probs = np.exp(log_probs)
        probs /= probs.sum(axis=1, keepdims=True)
        fold = np.full(len(names), int(path.parent.name.rpartition("-")[2]))
        columns.append((names, fold, label, probs, certainty.entropy_from_probs(probs)))
    names, fold, label, probs, entropy = map(np.concatenate, zip(*columns, strict=True))
    if len(np.unique(names)) < len(names):
        raise CarjaxError(f"{runs[0].parents[1]}: {attribute.name}: two folds hold out one photo")
    return Predictions(attribute, names, fold, label, probs, np.asarray(entropy, np.float64))


def protocol_of(predictions: Predictions, facts: Facts) -> str:
    """Says what the folds held out: whole car models (`UNSEEN`), or photos (`KNOWN`)."""
    folds: dict[str, set[int]] = {}
    for name, fold in zip(predictions.names.tolist(), predictions.fold.tolist(), strict=True):
        folds.setdefault(facts.model[name], set()).add(fold)
    return KNOWN if any(len(held) > 1 for held in folds.values()) else UNSEEN


def learnable(predictions: Predictions) -> np.ndarray:
    """Returns which photos' class other folds have too, bool [N].

    A fold of whole car models can hold a brand that no other fold has: its head never saw it, and
    cannot be right.
    """
    folds = [
        set(predictions.fold[predictions.label == c]) for c in range(predictions.probs.shape[1])
    ]
    return np.array([len(folds[label]) > 1 for label in predictions.label], bool)


def read_facts(
    data_dir: str | os.PathLike[str] | None,
    names: Sequence[str],
    on_progress: Callable[[int], None] = lambda done: None,
) -> Facts:
    """Reads what is known of photos, and measures their sharpness.

    Args:
        data_dir: the folder of data sets, see `photos.data_root`.
        names: data set and file of each.
        on_progress: called with the number of photos measured so far.

    Raises:
        CarjaxError: a photo or its label is missing, or an azimuth is not a number.
    """
    root = photos.data_root(data_dir)
    model, azimuth = {}, {}
    for dataset in sorted({name.split("/", 1)[0] for name in names}):
        labels = csv_table.read(root / dataset / photos.LABEL_TABLE, ["file"])
        directed = "azimuth_deg" in labels.columns
        for i, row in enumerate(labels.rows):
            name = f"{dataset}/{row['file']}"
            model[name] = row.get("class_name", "")
            azimuth[name] = labels.number_or_nan(i, "azimuth_deg") if directed else np.nan
    unknown = [name for name in names if name not in model]
    if unknown:
        raise CarjaxError(f"{len(unknown)} photos have no row in labels.csv, e.g. {unknown[0]}")
    sharpness, pixels = _measure(root, names, on_progress)
    return Facts(
        {name: model[name] for name in names},
        {name: azimuth[name] for name in names},
        dict(zip(names, sharpness.tolist(), strict=True)),
        dict(zip(names, pixels.tolist(), strict=True)),
    )


def photo_path(root: pathlib.Path, name: str) -> pathlib.Path:
    """Where the photo of a name lies.

    Example:
        >>> photo_path(pathlib.Path("data"), "stanford_cars/1.jpg").as_posix()
        'data/stanford_cars/images/1.jpg'
    """
    dataset, file = name.split("/", 1)
    return root / dataset / "images" / file


def _measure(
    root: pathlib.Path, names: Sequence[str], on_progress: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Sharpness and number of pixels of photos, float64 [N] each."""
    import jax
    import jax.numpy as jnp

    from carjax import scoring

    grey = jnp.asarray(table.LUMA)
    measure = jax.jit(lambda batch: jax.vmap(scoring.sharpness)(batch.astype(jnp.float32) @ grey))
    sharpness, pixels = np.zeros(len(names)), np.zeros(len(names))
    for start in range(0, len(names), _BATCH):
        batch = np.zeros((_BATCH, SIDE, SIDE, 3), np.uint8)
        chunk = range(start, min(start + _BATCH, len(names)))
        for row, i in enumerate(chunk):
            image = photos.decode(photo_path(root, names[i]))
            pixels[i] = image.shape[0] * image.shape[1]
            batch[row] = photos.square(image, SIDE)
        sharpness[start : start + len(chunk)] = np.asarray(measure(batch))[: len(chunk)]
        on_progress(start + len(chunk))
    return sharpness, pixels
