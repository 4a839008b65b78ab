"""Which parameters train and which stay: a mask of them, and the optimiser built from it.

The whole model is one pytree {'backbone': …, 'heads': {'type': …, …}, 'localise': …}. The mask has
every leaf, and knows every branch, so that nothing trains, or stays, by accident. `optax.masked`
alone would pass the updates of a masked leaf through unchanged; `optax.partition` with
`set_to_zero` freezes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

from carjax.errors import UsageError

PyTree = Any


@dataclasses.dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with a linear warm-up and a cosine decay.

    Attributes:
        lr: peak learning rate.
        steps: length of the run.
        warmup: steps of the linear warm-up.
        weight_decay: decoupled, of arrays with more than one axis: kernels, and the biases of
            attention, which have an axis of heads; other biases and norms keep theirs.
        clip: largest global norm of the gradient.
    """

    lr: float
    steps: int
    warmup: int = 100
    weight_decay: float = 0.0
    clip: float = 1.0


def head_mask(params: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns a boolean pytree like `params`: True on one head's leaves, or on the car box's.

    Args:
        params: {'backbone': …, 'heads': {name: …}, 'localise': …}, or a part of it.
        name: an attribute, or 'localise'.

    Raises:
        UsageError: `params` holds nothing of that name to train.
        ValueError: `params` has a branch that is none of the three.

    Example:
        >>> params = {"backbone": {"w": 0}, "heads": {"brand": {"w": 0}, "type": {"w": 0}}}
        >>> head_mask(params, "brand")
        {'backbone': {'w': False}, 'heads': {'brand': {'w': True}, 'type': {'w': False}}}
    """
    foreign = params.keys() - {"backbone", "heads", "localise"}
    if foreign:
        raise ValueError(f"neither trained nor frozen: {', '.join(sorted(foreign))}")
    trained = ("localise",) if name == "localise" else ("heads", name)
    flat = flax.traverse_util.flatten_dict(params)
    mask = flax.traverse_util.unflatten_dict(
        {path: path[: len(trained)] == trained for path in flat}
    )
    if not any(jax.tree.leaves(mask)):
        raise UsageError(f"no parameters of {name!r} to train; there are: {', '.join(params)}")
    return mask


def make_optimiser(mask: PyTree, config: OptimiserConfig) -> optax.GradientTransformation:
    """Builds the optimiser: AdamW where the mask is True, nothing at all elsewhere.

    Args:
        mask: boolean pytree over the parameters, from `head_mask`.
        config: rates and lengths.

    Returns:
        A transformation over the whole pytree; its state holds nothing for a frozen leaf.
    """
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.lr,
        warmup_steps=min(config.warmup, config.steps - 1),
        decay_steps=config.steps,
        end_value=config.lr * 1e-3,
    )
    train = optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            schedule,
            weight_decay=config.weight_decay,
            mask=lambda params: jax.tree.map(lambda x: jnp.ndim(x) > 1, params),
        ),
    )
    labels = jax.tree.map(lambda trains: "train" if trains else "freeze", mask)
    return optax.partition({"train": train, "freeze": optax.set_to_zero()}, labels)


def split(params: PyTree, mask: PyTree) -> tuple[PyTree, PyTree]:
    """Splits a pytree into (trained, frozen): each like `params`, None at the other's leaves."""
    trained = jax.tree.map(lambda trains, x: x if trains else None, mask, params)
    frozen = jax.tree.map(lambda trains, x: None if trains else x, mask, params)
    return trained, frozen


def join(trained: PyTree, frozen: PyTree) -> PyTree:
    """Inverts `split`."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, trained, frozen, is_leaf=lambda x: x is None
    )


def update_step(
    optimiser: optax.GradientTransformation,
    loss_fn: Callable[[PyTree], jax.Array],
    trained: PyTree,
    frozen: PyTree,
    state: optax.OptState,
) -> tuple[PyTree, optax.OptState, jax.Array]:
    """One step on the trained leaves; differentiates with respect to nothing else.

    Args:
        optimiser: from `make_optimiser`.
        loss_fn: maps the whole pytree to a scalar.
        trained: from `split`.
        frozen: from `split`.
        state: of the optimiser.

    Returns:
        (trained, state, loss).
    """
    loss, gradient = jax.value_and_grad(lambda x: loss_fn(join(x, frozen)))(trained)
    # The optimiser spans the whole pytree; zeros for frozen leaves are never computed under jit,
    # because nothing reads them.
    whole = join(gradient, jax.tree.map(jnp.zeros_like, frozen))
    updates, state = optimiser.update(whole, state, join(trained, frozen))
    moves = jax.tree.map(lambda x, u: None if x is None else u, trained, updates, is_leaf=_is_none)
    return optax.apply_updates(trained, moves), state, loss


def _is_none(x: Any) -> bool:
    return x is None
