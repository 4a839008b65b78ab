"""From a score table to the photos: one per attribute, eight views, and the covered angles.

Host code on NumPy arrays: pure functions, no files but the JSON Schema that ships with the package.
Which frames may be chosen at all is said in `eligibility`. Frames are weighted by the time they
stand for (`circular.time_weights`), so that the sampling rate changes nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from carjax.attributes import VIEWS, Categorical, find
from carjax.eligibility import (
    MIN_CAR_PROBABILITY,
    car_frames,
    content_of,
    eligible_frames,
    main_car_frames,
    time_weights,
    whole_frames,
    whole_if_any,
)
from carjax.errors import NoCarError, UsageError
from carjax.listing import known as statements
from carjax.listing.known import Known
from carjax.table import ScoreTable, certainty
from carjax.temporal import consensus, grids

if TYPE_CHECKING:
    import pandas

    from carjax.circular import Density
    from carjax.report.notebook import Figure

POLICIES = ("consensus", "entropy")
VIEW_POLICIES = ("best", "first")
SCHEMA_VERSION = 1

# Class probabilities below this count as this: no single frame can veto a class.
PROBABILITY_FLOOR = 1e-4
# Masses and angles closer than this are equal: the model's own error is larger.
MASS_TOLERANCE = 0.01
ANGLE_TOLERANCE_DEG = 2.0
# Alternatives are at least this far apart, in seconds and as a share of the video.
MIN_GAP_S = 1.0
MIN_GAP_SHARE = 0.05


@dataclasses.dataclass(frozen=True)
class Alternative:
    """Another frame that shows an attribute well.

    Attributes:
        frame: 0-based index in presentation order.
        time_s: presentation time in seconds.
        value: the frame's class.
        probability: the frame's probability of that class.
        entropy: the frame's Shannon entropy in nats.
        certainty: 1 − entropy / log K, in [0, 1].
    """

    frame: int
    time_s: float
    value: str
    probability: float
    entropy: float
    certainty: float


@dataclasses.dataclass(frozen=True)
class AttributeChoice:
    """The frame that shows a categorical attribute best; all None but `reason` if there is none.

    Where the class is none that the head knows, `value` is None and `reason` says so, and the best
    frame is given all the same, with the numbers of the known class that is nearest.

    Attributes:
        value: the class, or None.
        probability: the chosen frame's probability of that class.
        entropy: the chosen frame's Shannon entropy in nats.
        certainty: 1 − entropy / log K of the chosen frame, in [0, 1].
        frame: 0-based index in presentation order.
        time_s: presentation time in seconds.
        video_probability: probability of the class after all frames.
        alternatives: the next best frames, best first, distinct in time.
        reason: why there is no value; None if there is one.
        content: what the chosen frame shows of the car, 'whole' or 'part'; None if not known.
        known: what the seller states, against the video; None if nothing was stated.
    """

    value: str | None
    probability: float | None = None
    entropy: float | None = None
    certainty: float | None = None
    frame: int | None = None
    time_s: float | None = None
    video_probability: float | None = None
    alternatives: tuple[Alternative, ...] = ()
    reason: str | None = None
    content: str | None = None
    known: Known | None = None


@dataclasses.dataclass(frozen=True)
class ViewChoice:
    """The frame that fills a view.

    Attributes:
        azimuth_deg: mean direction in degrees [0, 360).
        kappa: concentration of the von Mises component.
        probability: mass of the frame's density inside the view's bin.
        frame: 0-based index in presentation order.
        time_s: presentation time in seconds.
        content: what the frame shows of the car, 'whole' or 'part'; None if not known.
    """

    azimuth_deg: float
    kappa: float
    probability: float
    frame: int
    time_s: float
    content: str | None = None


@dataclasses.dataclass(frozen=True)
class OrientationChoice:
    """The views around the object and the angles that the video covers.

    Attributes:
        views: name → frame, or None where no frame fills the view; in order of azimuth.
        missing: the names with None.
        order: the frames chosen, sorted by azimuth from 0 to 360 degrees.
        coverage: float64 [360]; time-weighted mean density per radian at 0, 1, …, 359 degrees, mean
            1/(2π).
    """

    views: dict[str, ViewChoice | None]
    missing: tuple[str, ...]
    order: tuple[int, ...]
    coverage: np.ndarray


@dataclasses.dataclass(frozen=True)
class Selection:
    """What was chosen from one video.

    Attributes:
        attributes: name of a categorical attribute → choice; only those asked for.
        orientation: the views; None if not asked for or not in the schema.
    """

    attributes: dict[str, AttributeChoice]
    orientation: OrientationChoice | None

    def _repr_html_(self) -> str:
        from carjax.report import notebook

        return notebook.selection_html(self)

    def to_pandas(self) -> pandas.DataFrame:
        """Returns a pandas frame with a row per photo (needs pandas)."""
        from carjax.report import notebook

        return notebook.selection_frame(self)

    def plot(self) -> Figure:
        """Returns the coverage map with the photos' directions, as a notebook shows it.

        Raises:
            ValueError: the selection has no directions.
        """
        from carjax.report import notebook

        return notebook.selection_figure(self)


def select_photos(
    table: ScoreTable,
    *,
    attributes: Sequence[str] | None = None,
    policy: str = "consensus",
    view_policy: str = "best",
    view_threshold: float = 0.8,
    views: int = 8,
    alternatives: int = 3,
    min_car_probability: float = MIN_CAR_PROBABILITY,
    duration_s: float | None = None,
    unknown_above: Mapping[str, float] | None = None,
    known: Mapping[str, str] | None = None,
    repetition: Mapping[str, consensus.Repetition] | None = None,
) -> Selection:
    """Chooses the frame that shows each attribute best, and the views around the car.

    A categorical attribute, by `policy`:

    * `consensus`: the video's class is the most probable one after pooling all eligible frames
      (`pool_probabilities`, or `temporal.consensus.pool`); the photo is the eligible frame of
      lowest entropy whose own most probable class is that class. A frame that is certain but wrong
      is thus not chosen.
    * `entropy`: the frame of lowest entropy among all that show the main car, and its
      class.

    Frames with the whole car come first: where any is eligible, frames with a part of it (a
    close-up, or a car that the border cuts off) neither vote nor win. A video of close-ups alone
    still gets its best ones, and `content` says so. A view takes a part where no whole car fills
    it.

    Ties go to the earliest frame. A view is filled by eligible frames whose density has more than
    `view_threshold` of its mass in the view's bin, the bin being the frame's most probable one. By
    `view_policy`:

    * `first`: the earliest such frame.
    * `best`: the one with the highest mass. Densities are often so narrow that many frames have all
      their mass inside; so masses within 0.01 of the highest count as equal, then the frame nearest
      to the bin's centre wins, then (within 2 degrees of the nearest) the sharpest, then the
      earliest.

    A frame with a score that is not finite is never chosen for what that score describes.

    Args:
        table: scores of the N frames of one video.
        attributes: names to choose for; None means all of the table's schema.
        policy: 'consensus' or 'entropy'.
        view_policy: 'best' or 'first'.
        view_threshold: mass inside the bin that a view needs, in [0, 1).
        views: 8 bins of 45 degrees, or 4 (front, left, rear, right) of 90.
        alternatives: how many next best frames to give per attribute, at most; each is at least
            one second and 5% of the duration away from the chosen frame and from the others.
        min_car_probability: what shows a car, see `car_frames`.
        duration_s: the video's duration in seconds; None means the time between the first and the
            last scored frame.
        unknown_above: attribute name → novelty above which, as a time-weighted mean over the
            frames that vote, its class is none that the head knows (`Spec.unknown_above`).
        known: attribute name → the value that the seller states. The photo is then the frame of the
            highest probability of that class, among those that the policy admits; for a class that
            the model does not know, the one of lowest entropy, whatever the video says.
        repetition: attribute name → how much frames of one video repeat each other; where given,
            the video's probabilities are the consensus of `temporal.consensus.pool`, which grow
            surer with the frames that agree.

    Returns:
        The choices. The schema's order is kept.

    Raises:
        NoCarError: no frame shows a car.
        UsageError: an option has no such value, or the schema no such attribute.

    Example:
        >>> from carjax.attributes import Categorical
        >>> n = 3
        >>> table = ScoreTable(
        ...     schema=(Categorical("doors", ("3", "5")),),
        ...     frame=np.arange(n),
        ...     time_s=np.arange(n) / 10,
        ...     probs={"doors": np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9]], np.float32)},
        ...     entropy={"doors": np.array([0.33, 0.50, 0.33], np.float32)},
        ...     azimuth_deg=np.zeros(n), kappa=np.zeros(n), azimuth_floor=np.zeros(n),
        ...     azimuth_entropy=np.zeros(n), view_probs=np.full((n, 8), 1 / 8),
        ...     car_probability=np.ones(n), box=np.tile([0.0, 0.0, 1.0, 1.0], (n, 1)),
        ...     sharpness=np.full(n, 100.0),
        ... )
        >>> choice = select_photos(table).attributes["doors"]
        >>> choice.value, choice.frame
        ('5', 2)
    """
    _check_option("policy", policy, POLICIES)
    _check_option("view_policy", view_policy, VIEW_POLICIES)
    _check_option("views", views, (8, 4))
    if not 0 <= view_threshold < 1:
        raise UsageError(f"view_threshold is {view_threshold}; it must be at least 0 and below 1")
    if alternatives < 0:
        raise UsageError(f"alternatives is {alternatives}; it must be at least 0")
    names = _wanted(table, attributes)
    statements.check(table.schema, known or {})

    if not car_frames(table, min_car_probability).any():
        raise NoCarError(_no_car(table, min_car_probability))
    car = main_car_frames(table, min_car_probability)
    eligible = eligible_frames(table, min_car_probability)
    whole = whole_frames(table)
    weights = time_weights(table.time_s)
    if duration_s is None:
        duration_s = float(table.time_s[-1] - table.time_s[0])

    chosen = {
        attribute.name: _choose_attribute(
            table,
            attribute,
            candidates=whole_if_any(eligible, whole) if policy == "consensus" else car,
            weights=weights,
            policy=policy,
            alternatives=alternatives,
            gap_s=min_gap_s(duration_s),
            unknown_above=(unknown_above or {}).get(attribute.name),
            stated=(known or {}).get(attribute.name),
            repetition=(repetition or {}).get(attribute.name),
        )
        for attribute in table.categorical
        if attribute.name in names
    }
    orientation = None
    if table.angular is not None and table.angular.name in names:
        orientation = _choose_views(
            table, car, eligible, weights, view_policy, view_threshold, views
        )
    return Selection(chosen, orientation)


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


def view_names(views: int = 8) -> tuple[str, ...]:
    """Returns the names of the views in order of azimuth, the first centred on 0 degrees.

    Example:
        >>> view_names(4)
        ('front', 'left', 'rear', 'right')
    """
    return VIEWS[:: len(VIEWS) // views]


def chosen_frames(selection: Selection) -> dict[str, int]:
    """Returns the photos to write: name without ending ('type', 'view_front') → frame index."""
    frames = {
        name: choice.frame
        for name, choice in selection.attributes.items()
        if choice.frame is not None
    }
    if selection.orientation is not None:
        for name, view in selection.orientation.views.items():
            if view is not None:
                frames[f"view_{name}"] = view.frame
    return frames


def alternative_frames(selection: Selection) -> set[int]:
    """Returns the frames of all alternatives."""
    return {other.frame for c in selection.attributes.values() for other in c.alternatives}


def to_json(
    selection: Selection,
    *,
    video: Mapping[str, Any],
    model: Mapping[str, Any],
    photos: Mapping[str, str] | None = None,
    temporal: str | None = None,
) -> dict[str, Any]:
    """Returns the content of `selection.json`, as `schema()` describes it.

    Args:
        selection: what was chosen.
        video: path, frames, duration_s, width, height, scored_frames.
        model: backbone, bundle, version.
        photos: name as in `chosen_frames` → path relative to the JSON file; names left out are at
            'photos/<name>.jpg'.
        temporal: what neighbouring frames were used for: 'none', 'filter' or 'model'; None: the
            result does not say.

    Returns:
        Dicts, lists, strings, and finite Python numbers.

    Raises:
        ValueError: a number is not finite.
    """
    paths = {name: f"photos/{name}.jpg" for name in chosen_frames(selection)} | dict(photos or {})
    result: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "video": dict(video),
        **({} if temporal is None else {"temporal": temporal}),
        "attributes": {
            name: _attribute_json(choice, paths.get(name))
            for name, choice in selection.attributes.items()
        },
    }
    orientation = selection.orientation
    if orientation is not None:
        result["orientation"] = {
            "views": {
                name: None
                if view is None
                else dataclasses.asdict(view) | {"photo": paths[f"view_{name}"]}
                for name, view in orientation.views.items()
            },
            "missing": orientation.missing,
            "order": orientation.order,
            "coverage": orientation.coverage.round(7),
        }
    result["model"] = dict(model)
    return _plain(result)


@functools.cache
def _schema_text() -> str:
    path = importlib.resources.files("carjax") / "assets" / "selection.schema.json"
    return path.read_text(encoding="utf-8")


def schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of `selection.json`.

    Example:
        >>> schema()["properties"]["schema_version"]["const"]
        1
    """
    return json.loads(_schema_text())


def _check_option(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} is {value!r}; it must be one of: {', '.join(map(str, allowed))}")


def _wanted(table: ScoreTable, attributes: Sequence[str] | None) -> set[str]:
    if attributes is None:
        return {attribute.name for attribute in table.schema}
    try:
        return {find(table.schema, name).name for name in attributes}
    except ValueError as error:
        raise UsageError(str(error)) from None


def _no_car(table: ScoreTable, min_car_probability: float) -> str:
    finite = table.car_probability[np.isfinite(table.car_probability)]
    if not finite.size:
        return "no car found: the video has no frame with a valid score; try another video"
    if finite.max() >= min_car_probability:  # so it was the content head that refused
        return (
            f"no car found in {len(table)} frames: none shows a car, or a part of one; "
            "film the whole car from nearer or in better light"
        )
    return (
        f"no car found in {len(table)} frames (highest car probability {finite.max():.2f}, "
        f"needed {min_car_probability:.2f}); film the whole car from nearer or in better light"
    )


def _choose_attribute(
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
    probs = np.asarray(table.probs[attribute.name], np.float64)
    entropy = np.asarray(table.entropy[attribute.name], np.float64)
    frames = "sharp frame" if policy == "consensus" else "frame"
    if not candidates.any():
        return AttributeChoice(None, reason=f"no {frames} shows a car")
    candidates = candidates & np.isfinite(probs).all(axis=1) & np.isfinite(entropy)
    if not candidates.any():
        return AttributeChoice(None, reason=f"no {frames} has a valid score")

    if repetition is None:
        pooled = pool_probabilities(probs[candidates], weights[candidates])
    else:
        pooled = consensus.pool(
            probs[candidates], table.time_s[candidates], weights[candidates], repetition
        )
    label = np.where(candidates, np.argmax(np.where(candidates[:, None], probs, 0), axis=1), -1)
    order = entropy
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
        Alternative(
            frame=int(table.frame[i]),
            time_s=float(table.time_s[i]),
            value=attribute.classes[label[i]],
            probability=float(probs[i, label[i]]),
            entropy=float(entropy[i]),
            certainty=float(certainty(entropy[i], len(attribute.classes))),
        )
        for i in distinct(ranked, table.time_s, gap_s, 1 + alternatives)
    ]
    chosen = dataclasses.asdict(options[0])
    if reason is not None:
        chosen |= {"value": None, "reason": reason}
    return AttributeChoice(
        **chosen,
        video_probability=float(pooled[label[ranked[0]]]),
        alternatives=tuple(options[1:]),
        content=content_of(table, int(ranked[0])),
        known=known,
    )


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


def _choose_views(
    table: ScoreTable,
    car: np.ndarray,
    eligible: np.ndarray,
    weights: np.ndarray,
    view_policy: str,
    view_threshold: float,
    views: int,
) -> OrientationChoice:
    whole = whole_frames(table)
    sound = sound_directions(table)
    eligible = eligible & sound
    mass = view_masses(table, eligible, views)

    chosen: dict[str, ViewChoice | None] = {}
    for view, name in enumerate(view_names(views)):
        index = frames_of_view(mass, view, view_threshold, eligible, whole)
        if not index.size:
            chosen[name] = None
            continue
        if view_policy == "first":
            best = int(index[0])
        else:
            best = _best_in_bin(
                index, mass[:, view], table.azimuth_deg, table.sharpness, 360 / views * view
            )
        chosen[name] = ViewChoice(
            azimuth_deg=float(table.azimuth_deg[best]),
            kappa=float(table.kappa[best]),
            probability=float(mass[best, view]),
            frame=int(table.frame[best]),
            time_s=float(table.time_s[best]),
            content=content_of(table, best),
        )
    filled = [view for view in chosen.values() if view is not None]
    return OrientationChoice(
        views=chosen,
        missing=tuple(name for name, view in chosen.items() if view is None),
        order=tuple(view.frame for view in sorted(filled, key=lambda view: view.azimuth_deg)),
        coverage=_coverage(table, car & sound, weights),
    )


def sound_directions(table: ScoreTable) -> np.ndarray:
    """Returns which frames have a finite density of the direction, bool [N]."""
    return (
        np.isfinite(table.azimuth_deg)
        & np.isfinite(table.kappa)
        & np.isfinite(table.azimuth_floor)
        & np.isfinite(table.view_probs).all(axis=1)
    )


def frames_of_view(
    mass: np.ndarray, view: int, threshold: float, eligible: np.ndarray, whole: np.ndarray
) -> np.ndarray:
    """Returns the rows that fill a view: with the whole car if any does, int [M], increasing.

    Args:
        mass: float [N, views]; as from `view_masses`.
        view: the view's column.
        threshold: the mass that fills a view.
        eligible: bool [N]; the frames that may become photos.
        whole: bool [N]; the frames that show the whole car.
    """
    fills = eligible & (np.argmax(mass, axis=1) == view) & (mass[:, view] > threshold)
    return np.flatnonzero(whole_if_any(fills, whole))


def _best_in_bin(
    index: np.ndarray,
    mass: np.ndarray,
    azimuth_deg: np.ndarray,
    sharpness: np.ndarray,
    centre_deg: float,
) -> int:
    """Highest mass; among equals nearest to the centre, then sharpest, then earliest."""
    index = index[mass[index] >= mass[index].max() - MASS_TOLERANCE]
    azimuth = np.asarray(azimuth_deg, np.float64)[index]
    distance = np.abs((azimuth - centre_deg + 180) % 360 - 180)
    index = index[distance <= distance.min() + ANGLE_TOLERANCE_DEG]
    return int(index[np.argmax(sharpness[index])])


def view_masses(table: ScoreTable, mask: np.ndarray, views: int) -> np.ndarray:
    """Mass in each bin, float [N, views]; zeros outside the mask."""
    if views == len(VIEWS):
        masses = table.view_probs
    elif table.azimuth_density is not None:
        masses = grids.bin_masses(table.azimuth_density, views)
    else:
        import jax

        from carjax import circular

        masses = np.asarray(
            jax.jit(circular.view_probs, static_argnames="views")(
                density_of(table, mask), views=views
            )
        )
    return np.where(mask[:, None], masses, 0)


def _coverage(table: ScoreTable, mask: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean density of the frames in the mask, float64 [360], per radian."""
    if not mask.any():  # nothing is known of the direction: the density of that is uniform
        return np.full(360, 1 / (2 * np.pi))
    if table.azimuth_density is not None:
        mean = np.average(table.azimuth_density[mask], axis=0, weights=weights[mask])
        return grids.resampled(mean, 360)
    import jax

    from carjax import circular

    weights = np.where(mask, weights, 0)
    coverage = jax.jit(circular.coverage_map, static_argnames="n")(
        density_of(table, mask), weights / weights.sum(), n=360
    )
    return np.asarray(coverage, np.float64)


def density_of(table: ScoreTable, mask: np.ndarray) -> Density:
    """The azimuth densities; uniform outside the mask, so that every number is finite."""
    from carjax import circular

    # All frames, masked, and not a subset: one shape per video is compiled once.
    mu, kappa, floor = (
        np.where(mask, column, 0).astype(np.float32)
        for column in (np.radians(table.azimuth_deg), table.kappa, table.azimuth_floor)
    )
    return circular.from_single(mu, kappa, floor)


def _attribute_json(choice: AttributeChoice, photo: str | None) -> dict[str, Any]:
    if choice.frame is None:
        return {"value": None, "reason": choice.reason}
    fields = dataclasses.asdict(choice)
    for name in ("reason", "known"):
        if fields[name] is None:
            del fields[name]
    return fields | {"photo": photo}


def _plain(value: Any) -> Any:
    """The same value in JSON's own types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"selection.json cannot hold the number {value}")
    return value
