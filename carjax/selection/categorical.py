"""The frame that shows a categorical attribute best, and the next best ones.

Host code on NumPy arrays: pure functions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from carjax.attributes import Categorical
from carjax.listing import known as statements
from carjax.selection.eligibility import content_of, sound_classes
from carjax.selection.result import Alternative, AttributeChoice
from carjax.table import ScoreTable, certainty
from carjax.temporal import consensus

# Class probabilities below this count as this: no single frame can veto a class.
PROBABILITY_FLOOR = 1e-4
# Alternatives are at least this far apart, in seconds and as a share of the video.
MIN_GAP_S = 1.0
MIN_GAP_SHARE = 0.05


def choose_attribute(
    table: ScoreTable,
    attribute: Categorical,
    *,
    candidates: np.ndarray,
    weights: np.ndarray,
    policy: str,
    alternatives: int,
    gap_s: float,
    unknown_above: float | None,
    stated: str | None,
    repetition: consensus.Repetition | None,
) -> AttributeChoice:
    """Returns the frame that shows an attribute best, by the rules of `select_photos`.

    Args:
        table: scores of the N frames of one video.
        attribute: one of the table's.
        candidates: bool [N]; the frames that vote and may win.
        weights: float [N]; as from `time_weights`.
        policy: 'consensus' or 'entropy'.
        alternatives: how many next best frames to give, at most.
        gap_s: how far apart they are in seconds.
        unknown_above: mean novelty above which the class is none that the head knows.
        stated: the value that the seller states.
        repetition: how much the frames repeat each other; None pools with `pool_probabilities`.
    """
    probs = np.asarray(table.probs[attribute.name], np.float64)
    frames = "sharp frame" if policy == "consensus" else "frame"
    if not candidates.any():
        return AttributeChoice(None, reason=f"no {frames} shows a car")
    candidates = candidates & sound_classes(table, attribute.name)
    if not candidates.any():
        return AttributeChoice(None, reason=f"no {frames} has a valid score")

    if repetition is None:
        pooled = pool_probabilities(probs[candidates], weights[candidates])
    else:
        pooled = consensus.pool(
            probs[candidates], table.time_s[candidates], weights[candidates], repetition
        )
    label = np.where(candidates, np.argmax(np.where(candidates[:, None], probs, 0), axis=1), -1)
    order = np.asarray(table.entropy[attribute.name], np.float64)
    known = None if stated is None else statements.compare(attribute, stated, pooled)
    reason = None
    if stated is None:
        if unknown_above is not None and table.novelty is not None:
            novelty = table.novelty[attribute.name][candidates]
            if np.average(novelty, weights=weights[candidates]) > unknown_above:
                reason = f"unknown {attribute.name}"
        if policy == "consensus":
            best = int(np.argmax(pooled))
            candidates = candidates & (label == best)
            if not candidates.any():
                return AttributeChoice(
                    None,
                    reason="no sharp frame agrees with the video as a whole, which says "
                    f"{attribute.classes[best]!r}",
                )
    elif (index := statements.class_of(attribute, stated)) is None:
        reason = f"the model knows no {attribute.name} {stated!r}"
    else:
        label, order = np.full(len(table), index), -probs[:, index]

    rows = np.flatnonzero(candidates)
    ranked = rows[np.argsort(order[rows], kind="stable")]
    options = [
        alternative_at(table, attribute, i, int(label[i]))
        for i in distinct(ranked, table.time_s, gap_s, 1 + alternatives)
    ]
    chosen = dataclasses.asdict(options[0])
    if reason is not None:
        chosen |= {"value": None, "nearest": chosen["value"], "reason": reason}
    return AttributeChoice(
        **chosen,
        video_probability=float(pooled[label[ranked[0]]]),
        alternatives=tuple(options[1:]),
        content=content_of(table, int(ranked[0])),
        known=known,
    )


def alternative_at(table: ScoreTable, attribute: Categorical, row: int, column: int) -> Alternative:
    """Returns what a frame says of one class: `row` of the table, `column` of the classes."""
    entropy = float(table.entropy[attribute.name][row])
    return Alternative(
        frame=int(table.frame[row]),
        time_s=float(table.time_s[row]),
        value=attribute.classes[column],
        probability=float(table.probs[attribute.name][row, column]),
        entropy=entropy,
        certainty=float(certainty(entropy, len(attribute.classes))),
    )


def pool_probabilities(probs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Joins the frames' class probabilities into the video's.

    The logarithmic opinion pool, q_k ∝ exp(Σ_n w_n log max(p_nk, 1e-4) / Σ_n w_n) (Genest and
    Zidek, "Combining probability distributions", Statistical Science 1986): the softmax of the mean
    log-probability. It is a geometric mean, not a product: frames of one video repeat each other,
    so a longer video makes it no more certain. The floor keeps one frame from vetoing a class.

    Args:
        probs: float [N, K], finite, N ≥ 1.
        weights: float [N], not negative, not all zero.

    Returns:
        float64 [K], summing to one.

    Example:
        >>> pool_probabilities(np.array([[0.5, 0.5], [0.9, 0.1]]), np.ones(2)).round(2).tolist()
        [0.75, 0.25]
    """
    logs = np.log(np.maximum(np.asarray(probs, np.float64), PROBABILITY_FLOOR))
    mean = np.average(logs, axis=0, weights=weights)
    pooled = np.exp(mean - mean.max())
    return pooled / pooled.sum()


def min_gap_s(duration_s: float) -> float:
    """Returns how far apart in time an attribute's alternatives are, in seconds."""
    return max(MIN_GAP_S, MIN_GAP_SHARE * duration_s)


def distinct(
    ranked: np.ndarray,
    time_s: np.ndarray,
    gap_s: float,
    limit: int,
    apart_from: Sequence[float] = (),
) -> list[int]:
    """Returns the best frames in order, each that far in time from all better ones taken.

    Args:
        ranked: int [M]; rows, best first.
        time_s: float [N]; their times.
        gap_s: the least distance in seconds.
        limit: how many, at most.
        apart_from: further times that they must be as far from.
    """

    def far(rows: np.ndarray, moment: float) -> np.ndarray:
        # A frame exactly one gap away must not fall to the rounding of its timestamp.
        return rows[np.abs(time_s[rows] - moment) >= gap_s - 1e-6]

    for moment in apart_from:
        ranked = far(ranked, moment)
    taken: list[int] = []
    while ranked.size and len(taken) < limit:
        taken.append(int(ranked[0]))
        ranked = far(ranked, time_s[taken[-1]])
    return taken
