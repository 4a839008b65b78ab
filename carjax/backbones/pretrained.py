"""Pretrained weights: load what is shipped or converted, convert what others published."""

from __future__ import annotations

import importlib.resources
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from carjax import files
from carjax.backbones import registry
from carjax.errors import CarjaxError

Params = dict[str, Any]
_BATCH_NORM_EPSILON = 1e-3


def shipped_path(name: str) -> pathlib.Path:
    """Returns where the package keeps the weights of a backbone, whether or not it has them."""
    return pathlib.Path(str(importlib.resources.files("carjax") / "assets" / f"{name}.safetensors"))


def load_pretrained(
    name: str, path: str | os.PathLike[str] | None = None
) -> tuple[nn.Module, Params]:
    """Loads a backbone and its ImageNet weights.

    Args:
        name: a key of `registry.BACKBONES`.
        path: a file that `carjax weights import` wrote; default: the one in the package.

    Returns:
        (module, params): params are float32 on the default device.

    Raises:
        CarjaxError: no such file, or its tensors do not fit the backbone (all are listed).
        UsageError: no such backbone.
    """
    module = registry.create(name)
    source = pathlib.Path(path) if path is not None else shipped_path(name)
    if not source.is_file():
        hint = (
            "the package ships weights for efficientnet_lite2 only; make a file with "
            f"`carjax weights import --backbone={name} --source=FILE --out=FILE.safetensors`"
            if path is None
            else "check the path"
        )
        raise CarjaxError(f"{source}: no weights for {name}: {hint}")
    try:
        flat = safetensors.numpy.load_file(source)
    except (safetensors.SafetensorError, OSError) as error:
        raise CarjaxError(f"{source}: not a safetensors file ({error})") from None
    params = unflatten(flat)
    check(params, name, source)
    return module, jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)


def flatten(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Flattens a pytree of dicts to 'a/b/c' → array."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    return {key: np.asarray(value) for key, value in flat.items()}


def unflatten(flat: Mapping[str, np.ndarray]) -> Params:
    """Inverts `flatten`."""
    return flax.traverse_util.unflatten_dict(dict(flat), sep="/")


def expected_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter of a backbone, by path, without computing any."""
    module = registry.create(name)
    size = registry.spec_of(name).input_size
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(
        lambda x: module.init(jax.random.key(0), x, method="logits"), images
    )
    flat = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    return {key: value.shape for key, value in flat.items()}


def check(params: Mapping[str, Any], name: str, source: str | os.PathLike[str]) -> None:
    """Raises one CarjaxError that lists every missing, extra or misshapen tensor."""
    expected = expected_shapes(name)
    found = {k: v.shape for k, v in flax.traverse_util.flatten_dict(params, sep="/").items()}
    faults = [f"missing {k} {expected[k]}" for k in expected.keys() - found.keys()]
    faults += [f"unexpected {k} {found[k]}" for k in found.keys() - expected.keys()]
    faults += [
        f"{k} is {found[k]}, not {expected[k]}"
        for k in expected.keys() & found.keys()
        if found[k] != expected[k]
    ]
    if faults:
        raise CarjaxError(f"{source}: not {name}'s weights: {'; '.join(sorted(faults))}")


def save(params: Mapping[str, Any], path: str | os.PathLike[str], dtype: Any = np.float16) -> None:
    """Writes a backbone's parameters as safetensors of that type."""
    tensors = {k: np.ascontiguousarray(v.astype(dtype)) for k, v in flatten(params).items()}
    with files.replacing(path) as temporary:
        safetensors.numpy.save_file(tensors, temporary)


def fold_batch_norm(
    kernel: np.ndarray, norm: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Folds a batch norm into the convolution before it.

    y = γ (k∗x − μ) / √(σ² + ε) + β  =  (k γ/√(σ² + ε)) ∗ x + (β − μ γ/√(σ² + ε))

    Args:
        kernel: float [..., C], output channels last.
        norm: `weight` γ, `bias` β, `running_mean` μ, `running_var` σ², each [C].

    Returns:
        (kernel [..., C], bias [C]).
    """
    factor = norm["weight"] / np.sqrt(norm["running_var"] + _BATCH_NORM_EPSILON)
    return kernel * factor, norm["bias"] - norm["running_mean"] * factor


def convert_efficientnet_lite(state: Mapping[str, np.ndarray], name: str) -> Params:
    """Converts a state dict of PyPI's `efficientnet-lite-pytorch`, batch norm folded.

    The name of each tensor is derived from the module's structure, so that a missing or an extra
    one is reported.

    Args:
        state: name → array, in torch's layout (OIHW).
        name: the backbone that it belongs to.

    Raises:
        CarjaxError: tensors are missing, extra or misshapen; all are listed.
    """
    module = registry.create(name)
    left = {k: np.asarray(v, np.float64) for k, v in state.items()}
    missing: list[str] = []

    def take(key: str) -> np.ndarray:
        if key not in left:
            missing.append(key)
            return np.zeros(1)
        return left.pop(key)

    def conv(conv_key: str, norm_key: str, kind: str) -> dict[str, np.ndarray]:
        kernel = take(f"{conv_key}.weight")
        if kernel.ndim == 4:
            kernel = kernel.transpose(2, 3, 1, 0)
            kernel = {"dense": kernel, "point": kernel[0, 0], "depth": kernel[:, :, 0]}[kind]
        parts = ("weight", "bias", "running_mean", "running_var")
        norm = {part: take(f"{norm_key}.{part}") for part in parts}
        left.pop(f"{norm_key}.num_batches_tracked", None)
        kernel, bias = fold_batch_norm(kernel, norm)
        return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}

    params: Params = {"stem": conv("_conv_stem", "_bn0", "dense")}
    for i, block in enumerate(module.blocks):
        at = f"_blocks.{i}"
        tree = {}
        if block.expand != 1:
            tree["expand"] = conv(f"{at}._expand_conv", f"{at}._bn0", "point")
        tree["depthwise"] = conv(f"{at}._depthwise_conv", f"{at}._bn1", "depth")
        tree["project"] = conv(f"{at}._project_conv", f"{at}._bn2", "point")
        params[f"mbconv_{i}"] = tree
    params["top"] = conv("_conv_head", "_bn1", "point")
    params["classifier"] = {
        "kernel": take("_fc.weight").T.astype(np.float32),
        "bias": take("_fc.bias").astype(np.float32),
    }
    faults = [f"missing {key}" for key in missing] + [f"unexpected {key}" for key in left]
    if faults:
        raise CarjaxError(f"not a state dict of {name}: {'; '.join(sorted(faults))}")
    check(params, name, "state dict")
    return params


def import_weights(
    name: str, source: str | os.PathLike[str], out: str | os.PathLike[str], dtype: Any = np.float16
) -> None:
    """Converts a published weights file (`.pth`, or safetensors of the same state dict).

    Only the tensors of a `.pth` are read (`weights_only=True`), never its code. Needs the extra
    `convert` for `.pth`.

    Raises:
        CarjaxError: the file cannot be read, or its tensors do not fit.
    """
    path = pathlib.Path(source)
    if not path.is_file():
        raise CarjaxError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        state = safetensors.numpy.load_file(path)
    else:
        try:
            import torch
        except ImportError:
            raise CarjaxError(
                "reading a .pth needs torch: pip install 'carjax[convert]'"
            ) from None
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types for a file that is not its own
            raise CarjaxError(f"{path}: not a file of torch tensors ({error})") from None
        state = {k: v.numpy() for k, v in loaded.items()}
    save(convert_efficientnet_lite(state, name), out, dtype)
