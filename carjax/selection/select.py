"""From a score table to the photos: one per attribute, eight views, and the covered angles.

Host code on NumPy arrays. Frames are weighted by the time they stand for
(`eligibility.time_weights`), so that the sampling rate changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from carjax.attributes import Schema, find
from carjax.errors import NoCarError, UsageError
from carjax.listing import known as statements
from carjax.selection.categorical import choose_attribute, min_gap_s
from carjax.selection.eligibility import (
    MIN_CAR_PROBABILITY,
    car_frames,
    eligible_frames,
    main_car_frames,
    time_weights,
    whole_frames,
    whole_if_any,
)
from carjax.selection.result import Selection
from carjax.selection.views import VIEW_THRESHOLD, choose_views
from carjax.table import ScoreTable
from carjax.temporal import consensus

POLICIES = ("consensus", "entropy")
VIEW_POLICIES = ("best", "first")


def select_photos(
    table: ScoreTable,
    *,
    attributes: Sequence[str] | None = None,
    policy: str = "consensus",
    view_policy: str = "best",
    view_threshold: float = VIEW_THRESHOLD,
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

    With `consensus`, frames with the whole car come first: where any is eligible, frames with a
    part of it (a close-up, or a car that the border cuts off) neither vote nor win. A video of
    close-ups alone still gets its best ones, and `content` says so. A view takes a part where no
    whole car fills it.

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
    names = wanted_names(table.schema, attributes, views)
    if not 0 <= view_threshold < 1:
        raise UsageError(f"view_threshold is {view_threshold}; it must be at least 0 and below 1")
    if alternatives < 0:
        raise UsageError(f"alternatives is {alternatives}; it must be at least 0")
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
        attribute.name: choose_attribute(
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
        orientation = choose_views(
            table, car, eligible, weights, view_policy, view_threshold, views
        )
    return Selection(chosen, orientation)


def _check_option(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} is {value!r}; it must be one of: {', '.join(map(str, allowed))}")


def wanted_names(schema: Schema, attributes: Sequence[str] | None, views: int) -> set[str]:
    """Returns the names of the attributes to choose for.

    Args:
        schema: the attributes that there are.
        attributes: names; None: all.
        views: 8 or 4.

    Raises:
        UsageError: no such attribute, or other views.
    """
    _check_option("views", views, (8, 4))
    if attributes is None:
        return {attribute.name for attribute in schema}
    if isinstance(attributes, str):
        raise UsageError(f"attributes is {attributes!r}; it must be a sequence of names")
    try:
        return {find(schema, name).name for name in attributes}
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
