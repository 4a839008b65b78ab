"""The losses of the tasks, as pure functions of a head's output."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp

from carjax import circular, localise
from carjax.features import Features
from carjax.heads import LatentTerms

# A cell teaches the car's centre if it lies in the middle of the box, this share of its sides.
_CENTRAL = 0.4

Targets = TypeVar("Targets")


def mixup(
    key: jax.Array, alpha: float, features: Features, targets: Targets
) -> tuple[Features, Targets]:
    """Blends each sample with its neighbour (Zhang et al., "mixup", ICLR 2018), one λ a batch.

    Args:
        key: of the draw λ ~ Beta(alpha, alpha).
        alpha: strength; 0 leaves everything as it is.
        features: of B images.
        targets: float [B, K], or a pytree of such.

    Returns:
        Features and targets of B blends.
    """
    if not alpha:
        return features, targets
    share = jax.random.beta(key, alpha, alpha)

    def blend(x: jax.Array) -> jax.Array:
        return share * x + (1.0 - share) * jnp.roll(x, 1, axis=0)

    return jax.tree.map(blend, features), jax.tree.map(blend, targets)


def angular_loss(density: circular.Density, azimuth: jax.Array) -> jax.Array:
    """Mean negative log-likelihood of azimuths [B] in radians, nats per radian."""
    return -circular.log_prob(density, azimuth).mean()


def biternion_loss(density: circular.Density, azimuth: jax.Array) -> jax.Array:
    """Mean cosine loss 1 − cos(a − μ) of azimuths [B] in radians (Beyer et al., GCPR 2015).

    The negative log-likelihood is added with μ held fixed: it moves κ alone, where κ is learned,
    and so to its maximum-likelihood value for the directions that the cosine loss gives.
    """
    cosine = 1.0 - jnp.cos(azimuth - density.mu[..., 0])
    held = density._replace(mu=jax.lax.stop_gradient(density.mu))
    return cosine.mean() + angular_loss(held, azimuth)


def elbo_loss(terms: LatentTerms) -> jax.Array:
    """Negative evidence lower bound, a mean over images, in nats per radian.

    E_q[log p(a|x, z)] − KL(q(z|x, a) ‖ p(z|x)) ≤ log p(a|x) (Kingma and Welling, ICLR 2014, eq. 3;
    conditional on x as in Prokudin et al., ECCV 2018, eq. 18).
    """
    return (terms.kl - terms.log_likelihood.mean(axis=1)).mean()


def importance_weighted_loss(terms: LatentTerms) -> jax.Array:
    """Negative importance-weighted bound of S draws, a mean over images, in nats per radian.

    log 1/S Σ_s p(a|x, z_s)·p(z_s|x)/q(z_s|x, a), whose mean grows with S towards log p(a|x) (Burda,
    Grosse and Salakhutdinov, ICLR 2016, eq. 8).
    """
    weights = terms.log_likelihood + terms.log_prior - terms.log_posterior
    samples = weights.shape[1]
    return -(jax.nn.logsumexp(weights, axis=1) - jnp.log(float(samples))).mean()


def giou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Generalised intersection over union of boxes [..., 4] (Rezatofighi et al., CVPR 2019).

    Example:
        >>> float(giou(jnp.array([0.0, 0, 1, 1]), jnp.array([2.0, 0, 3, 1]))) < -0.3
        True
    """
    hull = jnp.concatenate(
        [jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])], axis=-1
    )
    hull_area = _area(hull)
    low = jnp.maximum(a[..., :2], b[..., :2])
    high = jnp.minimum(a[..., 2:], b[..., 2:])
    both = jnp.prod(jnp.maximum(high - low, 0.0), axis=-1)
    union = _area(a) + _area(b) - both
    return localise.iou(a, b) - (hull_area - union) / jnp.maximum(hull_area, 1e-9)


def _area(box: jax.Array) -> jax.Array:
    return jnp.prod(jnp.maximum(box[..., 2:] - box[..., :2], 0.0), axis=-1)


def centre_targets(box: jax.Array, side: int) -> tuple[jax.Array, jax.Array]:
    """Which cells of a side × side grid stand for the car's centre, and which lie on the car.

    Args:
        box: float [4]; left, top, right, bottom as fractions of the window.
        side: of the grid.

    Returns:
        (centre float32 [side²], sums to 1; on_car bool [side²]); both hold at least the cell
        nearest to the middle of the box.
    """
    at = (jnp.arange(side) + 0.5) / side
    y, x = (a.reshape(-1) for a in jnp.meshgrid(at, at, indexing="ij"))
    middle_x, middle_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    width, height = box[2] - box[0], box[3] - box[1]
    off_x, off_y = jnp.abs(x - middle_x), jnp.abs(y - middle_y)
    nearest = jnp.arange(side * side) == jnp.argmin(off_x**2 + off_y**2)
    on_car = ((off_x <= width / 2) & (off_y <= height / 2)) | nearest
    centre = ((off_x <= _CENTRAL * width / 2) & (off_y <= _CENTRAL * height / 2)) | nearest
    return centre / centre.sum(), on_car


def box_loss(logits: jax.Array, boxes: jax.Array, target: jax.Array) -> jax.Array:
    """Loss of the car box: where its centre is, and its edges as seen from every cell on the car.

    Cross-entropy of the softmax over cells against the cells in the middle of the box, plus, as a
    mean over the cells on the car, 1 − GIoU and the mean absolute error of the four edges (as
    Carion et al., ECCV 2020, join the two). A target without area counts for nothing.

    Args:
        logits: float [B, n]; n a square number.
        boxes: float [B, n, 4]; fractions of the window.
        target: float [B, 4]; fractions of the window.

    Returns:
        A scalar.
    """
    side = round(logits.shape[1] ** 0.5)

    def one(logits: jax.Array, boxes: jax.Array, target: jax.Array) -> jax.Array:
        centre, on_car = centre_targets(target, side)
        where = -(centre * jax.nn.log_softmax(logits)).sum()
        edges = 1.0 - giou(boxes, target) + 2.0 * jnp.abs(boxes - target).mean(-1)
        return where + (on_car * edges).sum() / on_car.sum()

    seen = _area(target) > 0.0
    losses = jnp.where(seen, jax.vmap(one)(logits, boxes, target), 0.0)
    return losses.sum() / jnp.maximum(seen.sum(), 1)
