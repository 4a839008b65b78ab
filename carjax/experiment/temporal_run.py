"""The experiment about time, from runs and footage to the content of `temporal.json`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from carjax import model as models
from carjax import selection
from carjax.attributes import Categorical, find
from carjax.errors import CarjaxError
from carjax.experiment import cast, methods, recordings, statistics, temporal
from carjax.experiment.temporal import Footage
from carjax.selection import eligibility
from carjax.temporal import consensus, sequence_model, walks
from carjax.temporal.consensus import Repetition
from carjax.temporal.motion import Motion

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4)
# The share that the consensus and the gains are measured at.
USUAL_SHARE = 0.2
SEED = 0
MEAN, PRODUCT, CONSENSUS = "mean of the frames", "product of the frames", "consensus"
# Nearly `selection.pool_probabilities` (which clips at that floor), and frames taken for
# independent.
_WAYS = {
    MEAN: Repetition(shared=1.0, floor=1e-4),
    PRODUCT: Repetition(shared=0.0, time_s=1e-6, floor=1e-4),
}


def measure(
    runs: str | os.PathLike[str] | None,
    *,
    fold: int = 0,
    calibration_fold: int = 1,
    heads: Sequence[str | os.PathLike[str]] = (),
    model: str | os.PathLike[str] | None = None,
    backbone_weights: str | os.PathLike[str] | None = None,
    per_model: int = 4,
    videos: bool = True,
    own: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    samples: int = statistics.RESAMPLES,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measures every method on simulated walks and on real footage.

    Args:
        runs: of `benchmarks/crossval.py` with `--splits=data/splits/by_model`: heads that did not
            see the car models of a fold; None: no walks.
        fold: whose car models the walks are around.
        calibration_fold: whose car models the heads' calibrations are fitted to; another one.
        heads: sequence heads, trained without the fold; named as their registered models are.
        model: bundle that scores the real footage; None: the one that ships.
        backbone_weights: weights of its backbone, where the package does not ship them.
        per_model: walks around each car model, per share of spoilt frames.
        videos: also the real footage in the folder of data sets.
        own: one's own recordings: their scores, and a table of labels (`recordings.labelled`). A
            head is not measured on those that it was trained on.
        data_dir: the folder of data sets, see `photos.data_root`.
        cache_dir: where features are kept.
        samples: resamples of every bootstrap, which draws whole car models.
        on_progress: called with (photos done, photos to do) while features are computed.

    Raises:
        CarjaxError: an input is missing or broken.
    """
    bundle = models.load(model, backbone_weights=backbone_weights)
    loaded = {str(path): sequence_model.load(path) for path in heads}
    ways = methods.standard(Motion()) | methods.sequences(loaded)
    recorded = recordings.labelled(*own, bundle, loaded.values()) if own else []
    content: dict[str, Any] = {
        "schema_version": temporal.SCHEMA_VERSION,
        "protocol": {"model": bundle.origin},
    }
    if runs is not None:
        folds = {
            number: cast.read(runs, number, data_dir, cache_dir=cache_dir, on_progress=on_progress)
            for number in (fold, calibration_fold)
        }
        _check_unseen(loaded, folds[fold], fold)
        calibrations = cast.fit_calibrations(folds[calibration_fold])
        told = f"of fold {fold} of the runs; calibrations of fold {calibration_fold}"
        walked = _of_walks(folds[fold], calibrations, told, ways, per_model, samples)
        content["protocol"] |= walked.pop("protocol")
        content |= walked
    if videos:
        recorded = recordings.read(bundle, data_dir) + recorded
    names = [f.source for f in recorded]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise CarjaxError(f"two recordings are named {twice!r}: rename one of the sources")
    seen = {n: set(h.card.get("recordings", ())) for n, h in methods.named(loaded).items()}
    content["videos"] = {
        f.source: _of_video(f, {n: w for n, w in ways.items() if f.source not in seen.get(n, ())})
        for f in recorded
    }
    content["video_classes"] = {
        f.source: _classes_of_video(f, consensus.FITTED, bundle) for f in recorded
    }
    return content


def _check_unseen(
    loaded: Mapping[str, sequence_model.SequenceModel], shown: cast.Cast, fold: int
) -> None:
    """Nothing is measured on the car models that it was trained on."""
    for path, head in loaded.items():
        if known := sorted(set(head.card.get("models", ())) & set(shown.group)):
            raise CarjaxError(
                f"{path}: was trained on {len(known)} of the car models that are measured, such "
                f"as {known[0]}: train it with --config.fold={fold}"
            )


def _of_walks(
    shown: cast.Cast,
    calibrations: cast.Calibrations,
    told: str,
    ways: Mapping[str, methods.Method],
    per_model: int,
    samples: int,
) -> dict[str, Any]:
    """What is measured on simulated walks around the car models of a cast; `told` says which."""
    by_share = {
        f"{share:.0%}": cast.footage(
            shown, walks.WalkSpec(spoilt=share), per_model, SEED, calibrations
        )
        for share in SHARES
    }
    usual = by_share[f"{USUAL_SHARE:.0%}"]
    walked = {
        share: {name: _figures(footage, way, samples) for name, way in ways.items()}
        for share, footage in by_share.items()
    }
    return {
        "protocol": {
            "walks": f"{len(usual)} walks per share of spoilt frames around the "
            f"{len({f.source for f in usual})} car models {told}; 95% percentile "
            f"intervals, {samples} resamples of whole car models",
            "offset_median_deg": float(np.median(np.concatenate([f.offset_deg for f in usual]))),
        },
        "walks": walked,
        "shared_error": cast.shared_error(shown),
        "gains": {share: gains(own) for share, own in walked.items()},
        "classes": {
            name: temporal.class_figures(
                [f for f in usual if name in f.labels], name, _WAYS | {CONSENSUS: numbers}
            )
            for name, numbers in consensus.FITTED.items()
        },
        "cost_ms": {
            name: 1e3 * seconds for name, seconds in methods.timed(ways, usual[:20]).items()
        },
    }


def gains(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """What each method adds to single frames: ratios of errors and flips, nats of likelihood."""
    alone = figures[methods.SINGLE]

    def ratio(own: Mapping[str, Any], key: str) -> float | None:
        return own[key] / alone[key] if alone[key] else None

    return {
        name: {
            "mederr_ratio": ratio(own, "mederr_deg"),
            "flip_ratio": ratio(own, "flip_rate"),
            "loglik_gain": None if own["loglik"] is None else own["loglik"] - alone["loglik"],
        }
        for name, own in figures.items()
        if name != methods.SINGLE
    }


def _figures(footage: Sequence[Footage], way: methods.Method, samples: int) -> dict[str, Any]:
    return temporal.azimuth_figures(footage, [way(one) for one in footage], samples)


def _of_video(footage: Footage, ways: Mapping[str, methods.Method]) -> dict[str, Any]:
    found = {}
    for name, way in ways.items():
        estimate = way(footage)
        known: dict[str, Any] = {}
        rows = np.flatnonzero(~np.isnan(footage.azimuth_deg))
        if len(rows):
            part = temporal.Estimate(*(x[rows] for x in estimate))
            # One source: there is nothing to resample.
            known = temporal.azimuth_figures([footage.take(rows)], [part], samples=1)
            del known["ci95"]
        found[name] = known | temporal.steadiness(estimate)
    return found


def _classes_of_video(
    footage: Footage, repetition: Mapping[str, Repetition], model: models.Model
) -> dict[str, Any]:
    found = {}
    weights = eligibility.time_weights(footage.time_s)[footage.speaks]
    for name, numbers in repetition.items():
        if name not in footage.probs:
            continue
        attribute = find(model.spec.schema, name)
        assert isinstance(attribute, Categorical)
        probs = footage.probs[name][footage.speaks]
        pooled = consensus.pool(probs, footage.time_s[footage.speaks], weights, numbers)
        mean = selection.pool_probabilities(probs, weights)
        best = int(pooled.argmax())
        label = footage.labels.get(name)
        found[name] = {
            "truth": None if label is None else attribute.classes[label],
            "value": attribute.classes[best],
            "probability": float(pooled[best]),
            "mean_value": attribute.classes[int(mean.argmax())],
            "mean_probability": float(mean.max()),
            "agreement": float((probs.argmax(axis=1) == best).mean()),
        }
    return found
