"""The measurements: is a head certain where its attribute is well shown, and is that a help?"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from carjax import certainty
from carjax.attributes import VIEWS
from carjax.errors import CarjaxError
from carjax.evaluation import metrics
from carjax.experiment import candidates, statistics
from carjax.experiment.candidates import Candidates
from carjax.experiment.held import Held
from carjax.experiment.pairs import Pair
from carjax.experiment.predictions import Facts, Predictions

SCHEMA_VERSION = 1
BINS = 10
COVERAGES = tuple(i / 20 for i in range(1, 21))
# The kernel over azimuth has a standard deviation of 10 degrees.
KERNEL_KAPPA = 33.0
AZIMUTHS = tuple(float(a) for a in range(0, 360, 5))
# A correlation with two controls of fewer photos says nothing.
MIN_CORRELATED = 10


def measure(
    held: Held,
    judged: tuple[Sequence[Pair], Mapping[str, Mapping[int, str]]] | None = None,
    *,
    samples: int = statistics.RESAMPLES,
) -> dict[str, Any]:
    """Measures everything; the result is the content of `hypothesis.json`.

    Args:
        held: from `held.read`.
        judged: the key of the blind pairs, and viewer → {pair: 'A', 'B' or 'tie'}; None: no part
            'pairs'.
        samples: resamples of every bootstrap, which draws whole car models.
    """
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "bootstrap": f"95% percentile intervals, {samples} resamples of whole car models",
        "photos": {
            protocol: {
                name: {
                    "photos": len(own),
                    "models": len({held.facts.model[n] for n in own.names.tolist()}),
                    "left_out": held.excluded[protocol][name],
                    "accuracy": float(own.correct.mean()),
                    "choice": choice(
                        [a for a in held.albums[protocol] if a.attribute.name == name], samples
                    ),
                    "entropy": by_entropy(own),
                    "views": by_view(own, held.facts, samples),
                    "proxy": side_proxy(own, held.facts, samples),
                }
                for name, own in run.items()
                if len(own)
            }
            for protocol, run in held.protocols.items()
        },
        "video_model": held.model,
        "videos": [of_video(own) for own in held.videos],
    }
    if judged is not None:
        content["pairs"] = of_pairs(*judged)
    return content


# ------------------------------------------------------------------- a. whose frame is right


def choice(albums: Sequence[Candidates], samples: int = statistics.RESAMPLES) -> dict[str, Any]:
    """How often each picker's frame is right, over the albums in which none refuses.

    Returns:
        'albums', 'models', 'refused'; 'pickers': picker → {accuracy, ci95, certainty, same: how
        often it takes the very frame that consensus takes}; 'gains': 'consensus' and 'entropy' →
        each rival → {mean, ci95} of the paired difference. Without an album the two are empty.
    """
    right, sure, same = candidates.outcomes(albums)
    kept = np.isfinite(right).all(axis=1)
    groups = np.array([own.source for own in albums])[kept] if len(albums) else np.zeros(0, str)
    right, sure = right[kept], sure[kept]
    column = {picker: i for i, picker in enumerate(candidates.PICKERS)}
    result: dict[str, Any] = {
        "albums": len(groups),
        "models": len(set(groups.tolist())),
        "refused": int((~kept).sum()),
        "pickers": {},
        "gains": {},
    }
    if not len(groups):
        return result
    for picker, i in column.items():
        accuracy, interval = statistics.mean_interval(right[:, i], groups, samples)
        result["pickers"][picker] = {
            "accuracy": accuracy,
            "ci95": interval,
            "certainty": float(sure[:, i].mean()),
            "same": float(same[kept, i].mean()),
        }
    for own in (candidates.CONSENSUS, candidates.ENTROPY):
        result["gains"][own] = {}
        for rival in (candidates.RANDOM, candidates.SHARPEST, candidates.MIDDLE):
            difference = right[:, column[own]] - right[:, column[rival]]
            mean, interval = statistics.mean_interval(difference, groups, samples)
            result["gains"][own][rival] = {"mean": mean, "ci95": interval}
    return result


def of_video(among: Candidates) -> dict[str, Any]:
    """One video and attribute: the frame of each picker, whether it is right, and its certainty."""
    chosen = candidates.picks(among)
    frames = {
        picker: None
        if position is None
        else {
            "frame": int(among.table.frame[position]),
            "correct": bool(among.correct[position]),
            "certainty": float(among.certainty[position]),
        }
        for picker, position in chosen.items()
    }
    return {
        "video": among.source,
        "attribute": among.attribute.name,
        "truth": among.attribute.classes[among.label],
        "frames": len(among.table),
        "random_accuracy": float(among.correct.mean()),
        "random_certainty": float(among.certainty.mean()),
        "pickers": frames,
    }


# -------------------------------------------------------------------- b. accuracy by entropy


def by_entropy(own: Predictions) -> dict[str, Any]:
    """Accuracy in bins of equal mass of the entropy, and what refusing the least certain gains.

    Returns:
        'bins': rows {entropy: [low, high] in nats, certainty: mean, n, accuracy, ci95 (Wilson)},
        surest first; 'risk_coverage': {coverage, risk: the wrong share of the surest photos,
        aurc, aurc_random: of a random order, aurc_best: of the order that puts all errors last}.
    """
    order = np.argsort(own.entropy, kind="stable")
    rows = []
    for index in np.array_split(order, min(BINS, len(order))):
        hits, n = int(own.correct[index].sum()), len(index)
        rows.append(
            {
                "entropy": [float(own.entropy[index[0]]), float(own.entropy[index[-1]])],
                "certainty": float(own.certainty[index].mean()),
                "n": n,
                "accuracy": hits / n,
                "ci95": list(statistics.wilson(hits, n)),
            }
        )
    wrong = (~own.correct).astype(np.float64)
    _, risk = certainty.risk_coverage_curve(-own.entropy, wrong)
    shown = [round(len(risk) * share) - 1 for share in COVERAGES]
    return {
        "bins": rows,
        "risk_coverage": {
            "coverage": list(COVERAGES),
            "risk": [float(risk[max(i, 0)]) for i in shown],
            "aurc": float(risk.mean()),
            "aurc_random": float(wrong.mean()),
            "aurc_best": certainty.aurc(-wrong, wrong),
        },
    }


# ------------------------------------------------------------------ c. which views are preferred


def by_view(own: Predictions, facts: Facts, samples: int = statistics.RESAMPLES) -> dict[str, Any]:
    """Mean certainty and accuracy over the true azimuth, smoothed, and in the eight views.

    Photos of one model differ in azimuth, but models differ in certainty too; `within` compares
    each photo with the mean of its own model, so that no view gains by the cars it shows.

    Returns:
        'azimuth_deg' and, per direction, 'certainty', 'accuracy' and the 95% bands 'certainty_ci95'
        and 'accuracy_ci95'; 'best_deg', the direction of the highest mean certainty; 'photos' with
        a known azimuth; 'views': name → {n, certainty, accuracy, within: {mean, ci95}}.
    """
    azimuth = np.array([facts.azimuth_deg[n] for n in own.names.tolist()])
    seen = np.isfinite(azimuth)
    own, azimuth = own.take(seen), azimuth[seen]
    if not len(own):
        return {"photos": 0}
    model = np.array([facts.model[n] for n in own.names.tolist()])
    times = statistics.multiplicities(model, samples)
    result: dict[str, Any] = {"photos": len(own), "azimuth_deg": list(AZIMUTHS)}
    for name, values in (("certainty", own.certainty), ("accuracy", own.correct.astype(float))):
        around = functools.partial(
            statistics.angular_mean, azimuth, values, AZIMUTHS, kappa=KERNEL_KAPPA
        )
        result[name] = around().tolist()
        spread = around(times=times)
        result[f"{name}_ci95"] = np.quantile(spread, [0.025, 0.975], axis=0).T.tolist()
    result["best_deg"] = AZIMUTHS[int(np.argmax(result["certainty"]))]
    _, index = np.unique(model, return_inverse=True)
    of_model = np.bincount(index, weights=own.certainty) / np.bincount(index)
    relative = own.certainty - of_model[index]
    result["views"] = {}
    for i, view in enumerate(VIEWS):
        inside = metrics.view_bin(azimuth) == i
        if inside.any():
            mean, interval = statistics.mean_interval(relative[inside], model[inside], samples)
            result["views"][view] = {
                "n": int(inside.sum()),
                "certainty": float(own.certainty[inside].mean()),
                "accuracy": float(own.correct[inside].mean()),
                "within": {"mean": mean, "ci95": interval},
            }
    return result


# ------------------------------------------------------------------- d. side shown, as a proxy


def side_proxy(
    own: Predictions, facts: Facts, samples: int = statistics.RESAMPLES
) -> dict[str, Any]:
    """Rank correlation of the certainty with how much side is seen, |sin azimuth|.

    Returns:
        {rho, ci95} of each: 'plain' (Spearman's), 'partial' at equal sharpness and size in pixels
        (`statistics.partial_rank_correlation`), 'within_models', the same inside each model, and
        'equally_familiar', which holds equal how common the view is among the photos, too: heads
        may be certain of what they have seen often. 'photos' with a known azimuth.
    """
    names = own.names.tolist()
    azimuth = np.array([facts.azimuth_deg[n] for n in names])
    seen = np.isfinite(azimuth)
    model = np.array([facts.model[n] for n in names])[seen]
    controls = [
        np.array([column[n] for n in names])[seen] for column in (facts.sharpness, facts.pixels)
    ]
    azimuth = azimuth[seen]
    side, sure = np.abs(np.sin(np.radians(azimuth))), own.certainty[seen]
    # Mirrored photos are trained on as well, so both sides count for one.
    familiar = _density(azimuth, azimuth) + _density(azimuth, -azimuth)
    result: dict[str, Any] = {"photos": int(seen.sum())}
    if seen.sum() < MIN_CORRELATED:
        return result
    times = statistics.multiplicities(model, samples)
    for name, held_equal, groups in (
        ("plain", [], None),
        ("partial", controls, None),
        ("within_models", controls, model),
        ("equally_familiar", [*controls, familiar], model),
    ):
        rho = functools.partial(
            statistics.partial_rank_correlation, sure, side, held_equal, groups=groups
        )
        spread = np.nanquantile([rho(weights=row) for row in times], [0.025, 0.975])
        result[name] = {"rho": rho(), "ci95": spread.tolist()}
    return result


def _density(azimuth_deg: np.ndarray, at_deg: np.ndarray) -> np.ndarray:
    """How many photos lie around each of N directions, to the nearest degree, float64 [N]."""
    apart = np.radians(np.arange(360)[:, None] - azimuth_deg[None])
    kernel = np.exp(KERNEL_KAPPA * (np.cos(apart) - 1))
    return kernel.sum(axis=1)[np.round(at_deg).astype(int) % 360]


# --------------------------------------------------------------------- e. blind pairs


def of_pairs(key: Sequence[Pair], judgements: Mapping[str, Mapping[int, str]]) -> dict[str, Any]:
    """How often viewers preferred the frame that carjax chose, and how far they agree.

    A pair scores the mean over its viewers of 1 for the chosen frame, ½ for a tie and 0 for the
    rival; the win rate is the mean over pairs, with the Wilson interval of as many trials as pairs
    (a mean of several viewers varies less; pairs of one video or car model vary together, which
    the interval leaves out).

    Returns:
        'pairs' judged, their 'attributes', number of 'viewers', share of 'ties', 'agreement': rows
        {viewers, n, raw, kappa}, and 'win_rate': part → rival, or 'all' → {n, wins, ci95}. Parts
        are 'all', each attribute, each protocol ('video' is one), and 'large_gap' and 'small_gap'
        of certainty (split at the median).
    """
    scores: dict[int, list[float]] = {}
    by_number = {pair.pair: pair for pair in key}
    for answers in judgements.values():
        for number, answer in answers.items():
            won = 0.5 if answer == "tie" else float(answer == by_number[number].chosen)
            scores.setdefault(number, []).append(won)
    judged = [pair for pair in key if pair.pair in scores]
    if not judged:
        raise CarjaxError("no pair is judged")
    gaps = {pair.pair: pair.chosen_certainty - pair.rival_certainty for pair in judged}
    middle = float(np.median(list(gaps.values())))
    parts = {"all": judged}
    for of in (
        lambda pair: pair.attribute,
        lambda pair: pair.protocol,
        lambda pair: "large_gap" if gaps[pair.pair] > middle else "small_gap",
    ):
        for pair in judged:
            parts.setdefault(of(pair), []).append(pair)
    agreement = []
    for first, second in itertools.combinations(sorted(judgements), 2):
        both = sorted(judgements[first].keys() & judgements[second].keys())
        if both:
            a, b = ([judgements[viewer][n] for n in both] for viewer in (first, second))
            kappa = statistics.cohen_kappa(a, b)
            agreement.append(
                {
                    "viewers": [first, second],
                    "n": len(both),
                    "raw": float(np.mean([x == y for x, y in zip(a, b, strict=True)])),
                    "kappa": None if math.isnan(kappa) else kappa,
                }
            )
    answers_given = [answer for answers in judgements.values() for answer in answers.values()]
    return {
        "pairs": len(judged),
        "attributes": list(dict.fromkeys(pair.attribute for pair in judged)),
        "viewers": len(judgements),
        "ties": answers_given.count("tie") / len(answers_given),
        "agreement": agreement,
        "win_rate": {
            part: {
                rival: _win_rate([pair for pair in own if rival in ("all", pair.rival)], scores)
                for rival in ("all", *dict.fromkeys(pair.rival for pair in own))
            }
            for part, own in parts.items()
        },
    }


def _win_rate(pairs: Sequence[Pair], scores: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    wins = float(sum(np.mean(scores[pair.pair]) for pair in pairs))
    return {
        "n": len(pairs),
        "wins": wins / len(pairs),
        "ci95": list(statistics.wilson(min(wins, len(pairs)), len(pairs))),
    }
