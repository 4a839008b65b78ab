"""Tensors of other frameworks as ours: kernels of torch reordered, batch norms folded."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# Batch norm's ε: TensorFlow's value, in every backbone here.
EPSILON = 1e-3
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def fold_batch_norm(
    kernel: np.ndarray, norm: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Folds a batch norm into the convolution before it.

    y = γ (k∗x − μ) / √(σ² + ε) + β  =  (k γ/√(σ² + ε)) ∗ x + (β − μ γ/√(σ² + ε))

    Args:
        kernel: float [..., C], output channels last.
        norm: `weight` γ (left out where it is 1), `bias` β, `running_mean` μ, `running_var` σ²,
            each [C].

    Returns:
        (kernel [..., C], bias [C]), float64.
    """
    parts = {key: np.asarray(value, np.float64) for key, value in norm.items()}
    with np.errstate(invalid="ignore"):  # a negative variance gives no number, which is refused
        factor = parts.get("weight", 1.0) / np.sqrt(parts["running_var"] + EPSILON)
    return np.asarray(kernel, np.float64) * factor, parts["bias"] - parts["running_mean"] * factor


def kernel_shape(ours: tuple[int, ...]) -> tuple[int, ...]:
    """Returns torch's shape of a convolution's kernel, from ours.

    Example:
        >>> [kernel_shape(s) for s in ((8, 16), (3, 3, 8), (1, 7, 8, 16))]
        [(16, 8, 1, 1), (8, 1, 3, 3), (16, 8, 1, 7)]
    """
    if len(ours) == 2:  # pointwise [I, O]
        return (ours[1], ours[0], 1, 1)
    if len(ours) == 3:  # depthwise [h, w, C]
        return (ours[2], 1, *ours[:2])
    return (ours[3], ours[2], *ours[:2])  # dense [h, w, I, O]


def kernel_from_torch(weight: np.ndarray, ours: tuple[int, ...]) -> np.ndarray:
    """Reorders a convolution's kernel from torch's OIHW to our shape."""
    # Reshaping drops the axes of size one of depthwise and pointwise kernels.
    return np.asarray(weight).transpose(2, 3, 1, 0).reshape(ours)
