"""One pure function from uint8 frames to every statistic that selection reads."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from carjax import (
    certainty,
    circular,
    content,
    crops,
    heads,
    localise,
    pooling,
    precision,
)
from carjax.attributes import VEHICLE_CLASSES, VIEWS, Categorical
from carjax.backbones import registry
from carjax.features import KEPT_CELLS, Features, Level
from carjax.model import Spec
from carjax.scoring import peaks
from carjax.table import LUMA, ScoreTable

if TYPE_CHECKING:
    import pandas

    from carjax.report.notebook import Figure


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class FrameScores:
    """Statistics of a batch of B frames; rows that the mask excludes are zeros.

    Compares by identity, as arrays have no single answer.

    Attributes:
        mask: bool [B]; True for real frames, False for padding.
        probs: attribute name → float32 [B, K]; softmax probabilities.
        entropy: attribute name → float32 [B]; entropy of `probs` in nats.
        disagreement: attribute name → float32 [B]; see `heads.ClassPrediction`.
        novelty: attribute name → float32 [B] in [0, 1]; see `heads.ClassPrediction`.
        azimuth: the azimuth density of every frame, or None without an angular head.
        azimuth_entropy: float32 [B]; its differential entropy in nats (uniform: 1.8379).
        view_probs: float32 [B, 8]; its mass in each bin of `attributes.VIEWS`.
        car_probability: float32 [B]; mass of the ImageNet vehicle classes; 1 of other objects.
        box: float32 [B, 4]; left, top, right, bottom of the scored crop, fractions of the frame.
        sharpness: float32 [B]; of the crop, in 0..1, see `sharpness`.
        car_colour: float32 [B, 3]; mean red, green and blue of the crop's middle, in 0..1.
        content_probs: float32 [B, 3]; probabilities of `attributes.CONTENT`: the frame shows a
            whole car, a part of one, none; None without a content head or without the car box.
        features: float16 Features of the crop, the very ones that the heads saw; pooled [B, C] and
            the grid averaged to [B, 8, 8, Cm], or of 'pooled' [B, 0, 0, Cm]; None if not kept.
    """

    mask: jax.Array
    probs: dict[str, jax.Array]
    entropy: dict[str, jax.Array]
    disagreement: dict[str, jax.Array]
    novelty: dict[str, jax.Array]
    azimuth: circular.Density | None
    azimuth_entropy: jax.Array
    view_probs: jax.Array
    car_probability: jax.Array
    box: jax.Array
    sharpness: jax.Array
    car_colour: jax.Array
    content_probs: jax.Array | None
    features: Features | None = None

    def _repr_html_(self) -> str:
        from carjax.report import notebook

        return notebook.scores_html(self)

    def to_pandas(self, spec: Spec | None = None) -> pandas.DataFrame:
        """Returns a pandas frame with a row per frame that is no padding (needs pandas).

        Args:
            spec: `Model.spec`, whose class names then stand in the columns `type`, `brand`, …;
                without it they hold the index of the most probable class.
        """
        from carjax.report import notebook

        return notebook.scores_frame(self, None if spec is None else spec.schema)

    def plot(self, time_s: np.ndarray | None = None) -> Figure:
        """Returns charts of the certainties and the direction, as a notebook shows them.

        Args:
            time_s: float [N]; times of the frames in seconds, increasing; None counts frames.
        """
        from carjax.report import notebook

        return notebook.scores_figure(self, time_s)


# Exported programs (`jax.export`) name these types in their serialised form.
jax.export.register_pytree_node_serialization(
    FrameScores,
    serialized_name="carjax.FrameScores",
    serialize_auxdata=lambda _: b"",
    deserialize_auxdata=lambda _: (),
)
jax.export.register_namedtuple_serialization(circular.Density, serialized_name="carjax.Density")
jax.export.register_namedtuple_serialization(Features, serialized_name="carjax.Features")


def sharpness(grey: jax.Array) -> jax.Array:
    """How much of an image's detail a further blur would take away, in 0..1; larger is sharper.

    One minus the no-reference blur metric of Crete et al., "The blur effect" (SPIE 2007): along
    each axis, the share of the neighbour differences that a 9-pixel mean removes; the smaller of
    the two. A share, and not an energy as the Laplacian's variance, it hardly depends on what is
    seen: a plain rear is as sharp as a grille.

    Args:
        grey: float [H, W], both above 9.

    Returns:
        A scalar; 0 for an image without any detail.
    """

    def kept(image: jax.Array) -> jax.Array:
        padded = jnp.pad(image, ((4, 4), (0, 0)), mode="reflect")
        mean = sum(padded[k : k + image.shape[0]] for k in range(9)) / 9.0
        detail = jnp.abs(jnp.diff(image, axis=0))
        lost = jnp.maximum(detail - jnp.abs(jnp.diff(mean, axis=0)), 0.0)
        return lost.sum() / jnp.maximum(detail.sum(), 1e-6)

    return jnp.minimum(kept(grey), kept(grey.T))


def middle_colour(crop: jax.Array) -> jax.Array:
    """Mean colour of the middle half of a crop's rows and columns, where the car is.

    Args:
        crop: float [S, S, 3], in 0..255.

    Returns:
        float32 [3]; red, green and blue in 0..1.
    """
    side = crop.shape[0]
    middle = slice(side // 4, side - side // 4)
    return crop[middle, middle].mean((0, 1)) / 255.0


def score(
    params: Mapping[str, Any],
    frames: np.ndarray | jax.Array,
    mask: ArrayLike,
    valid: ArrayLike | None = None,
    *,
    spec: Spec,
    dtype: Any = jnp.float32,
    features: Level | None = None,
) -> FrameScores:
    """Finds the car in every frame, scores the crop, and computes all statistics.

    Pure: works under the caller's `jit` (with `spec` static), `vmap` over videos, `eval_shape`,
    `grad` with respect to a head, and `jax.export` of a batch of given shape. What is sharded lies
    on a mesh whose axes are of `AxisType.Auto`; `Scorer` makes one.

    Args:
        params: {'backbone': …, 'heads': …, 'localise': …, 'content': …} as `Model.params`.
        frames: uint8 [B, H, W, 3], RGB.
        mask: bool [B]; False marks padding.
        valid: [B, 2]; height and width of each frame, of which the rest of [H, W] is padding
            (default: none is). Beyond rounding, scores do not depend on it.
        spec: `Model.spec`; the car is found first where `spec.localise` is set and `params` has
            'localise'.
        dtype: type of the backbone's weights and activations over the crop, static; all else is
            float32, see `precision`.
        features: which features are returned as well, static.

    Returns:
        FrameScores with B rows.

    Raises:
        ValueError: the frames are not uint8 [B, H, W, 3], or there are no such features.
    """
    check_frames(frames)
    check_level(features)
    frames, mask = jnp.asarray(frames), jnp.asarray(mask, bool)
    with precision.exact_products():
        valid = crops.frame_sizes(frames) if valid is None else jnp.asarray(valid, jnp.float32)
        variables = {"params": params["backbone"]}
        exact: Any = registry.create(spec.backbone)
        whole = crops.whole_boxes(valid)
        size = jnp.tile(whole[:, 2:], (1, 2))
        shows = None
        if spec.localise is not None and "localise" in params:
            # Rough factors here would move the box, and everything that is seen in it.
            box, look = localise.find(
                params["localise"], exact, params["backbone"], frames, spec.localise, valid
            )
            if spec.content is not None and "content" in params:
                shows = content.content_probs(
                    params["content"], spec.content, exact, params["backbone"], look
                )
            box = localise.snap(localise.grow(box, 1.0 + 2.0 * spec.localise.margin, size), size)
        else:
            box = whole
        crop = crops.crop_and_resize(frames, box, spec.input_size, valid=valid)
        backbone: Any = registry.create(spec.backbone, dtype=dtype)
        seen = backbone.apply(variables, registry.normalize(spec.backbone, crop))
        logits = exact.apply(variables, seen, method="classify")
        return jax.vmap(functools.partial(_statistics, params["heads"], spec, features))(
            seen, logits, crop, box / size, shows, mask
        )


def _statistics(
    head_params: Mapping[str, Any],
    spec: Spec,
    level: Level | None,
    features: Features,
    logits: jax.Array,
    crop: jax.Array,
    box: jax.Array,
    shows: jax.Array | None,
    mask: jax.Array,
) -> FrameScores:
    """Computes the statistics of one frame; called under `vmap`."""
    one = jax.tree.map(lambda x: x[None], features)
    probs: dict[str, jax.Array] = {}
    entropy: dict[str, jax.Array] = {}
    disagreement: dict[str, jax.Array] = {}
    novelty: dict[str, jax.Array] = {}
    azimuth, azimuth_entropy, view_probs = None, jnp.zeros(()), jnp.zeros(len(VIEWS))
    for head in spec.heads:
        name = head.attribute.name
        out: Any = heads.create(head).apply({"params": head_params[name]}, one)
        if isinstance(head.attribute, Categorical):
            probs[name] = jax.nn.softmax(out.logits[0])
            entropy[name] = certainty.entropy_from_logits(out.logits[0])
            disagreement[name] = out.disagreement[0]
            novelty[name] = out.novelty[0]
        else:
            azimuth = jax.tree.map(lambda x: x[0], heads.stated(out, head))
            azimuth_entropy = circular.entropy(azimuth)
            view_probs = circular.view_probs(azimuth, len(VIEWS))
    scores = FrameScores(
        mask=mask,
        probs=probs,
        entropy=entropy,
        disagreement=disagreement,
        novelty=novelty,
        azimuth=azimuth,
        azimuth_entropy=azimuth_entropy,
        view_probs=view_probs,
        car_probability=_car_probability(logits) if spec.of_cars else jnp.ones(()),
        box=box,
        sharpness=sharpness(crop @ LUMA),
        car_colour=middle_colour(crop),
        content_probs=shows,
        features=None if level is None else jax.tree.map(lambda x: x[0], _kept(one, level)),
    )
    return jax.tree.map(lambda x: jnp.where(mask, x, jnp.zeros_like(x)), scores)


def _car_probability(logits: jax.Array) -> jax.Array:
    return jax.nn.softmax(logits)[np.array(VEHICLE_CLASSES)].sum()


def _kept(features: Features, level: Level) -> Features:
    """What `FrameScores.features` holds of the features of B images."""
    if level == "pooled":
        return pooling.compact(features._replace(grid=features.grid[:, :0, :0]), 0)
    return pooling.compact(features, KEPT_CELLS)


def check_frames(frames: np.ndarray | jax.Array) -> None:
    """Raises a ValueError for what is no uint8 [B, H, W, 3] with pixels; B may be 0."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
        got = f"{frames.dtype} {frames.shape}"
        raise ValueError(f"frames must be uint8 [B, H, W, 3], not {got}")
    if 0 in frames.shape[1:3]:
        raise ValueError(f"frames must have pixels; these are {frames.shape}")


def check_level(features: Level | None) -> None:
    """Raises a ValueError where there are no such features."""
    if features not in (None, "pooled", "grid"):
        raise ValueError(f"features must be 'pooled', 'grid' or None, not {features!r}")


def to_host(scores: FrameScores, rows: int | None = None) -> FrameScores:
    """Copies scores to NumPy arrays, the first `rows` of them."""
    return jax.tree.map(lambda x: x[:rows], jax.device_get(scores))


def concatenate(parts: list[FrameScores]) -> FrameScores:
    """Joins the rows of several scores on the host."""
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def to_table(scores: FrameScores, spec: Spec, frame: np.ndarray, time_s: np.ndarray) -> ScoreTable:
    """Joins the scores of N frames with when they were seen, as selection reads them.

    Args:
        scores: N rows on the host, none of them padding.
        spec: of the model that gave them.
        frame: int64 [N]; presentation indices.
        time_s: float64 [N]; presentation times.

    Raises:
        ValueError: scores, frames and times are not equally many, or frames no integers.
    """
    frame, time_s = np.asarray(frame), np.asarray(time_s, np.float64)
    if frame.dtype.kind not in "iu" and len(frame):
        raise ValueError(f"frame must be integers, not {frame.dtype}")
    frame = frame.astype(np.int64)
    counts = len(scores.car_probability), len(frame), len(time_s)
    if len(set(counts)) > 1:
        raise ValueError("{} scores, {} frames and {} times".format(*counts))
    azimuth = kappa = floor = np.zeros(len(frame), np.float32)
    if scores.azimuth is not None:
        azimuth, kappa, floor = peaks.main_peak(scores.azimuth)
    return ScoreTable(
        schema=spec.schema,
        frame=frame,
        time_s=time_s,
        probs={name: np.asarray(value) for name, value in scores.probs.items()},
        entropy={name: np.asarray(value) for name, value in scores.entropy.items()},
        azimuth_deg=azimuth,
        kappa=kappa,
        azimuth_floor=floor,
        azimuth_entropy=np.asarray(scores.azimuth_entropy),
        view_probs=np.asarray(scores.view_probs),
        car_probability=np.asarray(scores.car_probability),
        box=np.asarray(scores.box),
        sharpness=np.asarray(scores.sharpness),
        car_colour=np.asarray(scores.car_colour),
        content_probs=None if scores.content_probs is None else np.asarray(scores.content_probs),
        disagreement={name: np.asarray(value) for name, value in scores.disagreement.items()},
        novelty={name: np.asarray(value) for name, value in scores.novelty.items()},
        features=scores.features,
    )
