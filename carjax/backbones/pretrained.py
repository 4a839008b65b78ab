"""Pretrained weights: load what is shipped or converted, convert what others published."""

from __future__ import annotations

import functools
import importlib.resources
import os
import pathlib
import types
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
_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def shipped_path(name: str) -> pathlib.Path:
    """Returns where the package keeps the weights of a backbone, whether or not it has them."""
    return pathlib.Path(str(importlib.resources.files("carjax") / "assets" / f"{name}.safetensors"))


def load_pretrained(
    name: str, path: str | os.PathLike[str] | None = None, *, dtype: Any = jnp.float32
) -> tuple[nn.Module, Params]:
    """Loads a backbone and its ImageNet weights.

    Args:
        name: a key of `registry.BACKBONES`.
        path: a file that `carjax weights import` wrote; default: the one in the package.
        dtype: type of the module's computation.

    Returns:
        (module, params): params are float32 on the default device.

    Raises:
        CarjaxError: no such file, or its tensors do not fit the backbone (all are listed).
        UsageError: no such backbone.
    """
    params, source = read(name, path)
    check(params, name, source)
    return registry.create(name, dtype=dtype), params


def read(name: str, path: str | os.PathLike[str] | None = None) -> tuple[Params, pathlib.Path]:
    """Reads the parameters of a backbone without looking at what they are.

    For a caller that knows their hash; `load_pretrained` checks every tensor's name and shape.

    Returns:
        (params float32 on the default device, the file).

    Raises:
        CarjaxError: no such file, or not one of tensors.
        UsageError: no such backbone.
    """
    registry.spec_of(name)
    source = pathlib.Path(path) if path is not None else shipped_path(name)
    if not source.is_file():
        hint = (
            "the package ships weights for efficientnet_lite2 only; make a file with "
            f"`carjax weights import --backbone={name} --source=FILE --out=FILE.safetensors`"
            if path is None
            else "check the path"
        )
        raise CarjaxError(f"{source}: no weights for {name}: {hint}")
    flat = _read_safetensors(source)
    return to_device(flat), source


def to_device(flat: Mapping[str, np.ndarray]) -> Params:
    """Returns tensors by path as a pytree of float32 arrays on the default device."""
    # NumPy converts, and nothing is computed: on the device every shape would be compiled.
    return jax.device_put(unflatten({k: v.astype(np.float32) for k, v in flat.items()}))


def flatten(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Flattens a pytree of dicts to 'a/b/c' → array."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    return {key: np.asarray(value) for key, value in flat.items()}


def unflatten(flat: Mapping[str, np.ndarray]) -> Params:
    """Inverts `flatten`."""
    return flax.traverse_util.unflatten_dict(dict(flat), sep="/")


@functools.cache
def expected_shapes(name: str) -> Mapping[str, tuple[int, ...]]:
    """Returns the shape of every parameter of a backbone, by path, without computing any."""
    module = registry.create(name)
    size = registry.spec_of(name).input_size
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, method="logits"), images)
    flat = flax.traverse_util.flatten_dict(variables["params"], sep="/")
    return types.MappingProxyType({key: value.shape for key, value in flat.items()})


def check(params: Mapping[str, Any], name: str, source: str | os.PathLike[str]) -> None:
    """Raises one CarjaxError that lists every missing, extra or misshapen tensor."""
    found = {k: v.shape for k, v in flax.traverse_util.flatten_dict(params, sep="/").items()}
    faults = _faults(found, expected_shapes(name))
    if faults:
        raise CarjaxError(f"{source}: not {name}'s weights: {faults}")


def _faults(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> str:
    """Names every missing, unexpected or misshapen tensor; empty where all is well."""
    faults = [f"missing {key} {expected[key]}" for key in expected.keys() - found.keys()]
    faults += [f"unexpected {key} {found[key]}" for key in found.keys() - expected.keys()]
    faults += [
        f"{key} is {found[key]}, not {expected[key]}"
        for key in expected.keys() & found.keys()
        if found[key] != expected[key]
    ]
    return "; ".join(sorted(faults))


def save(params: Mapping[str, Any], path: str | os.PathLike[str], dtype: Any = np.float16) -> None:
    """Writes a backbone's parameters as safetensors of that type."""
    tensors = {k: np.array(v, dtype, order="C") for k, v in flatten(params).items()}
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


def _torch_layers(name: str) -> dict[str, tuple[str, str]]:
    """Returns our layer's path → (convolution, batch norm) in the published state dict's names.

    Derived from the module's structure, so that no list of tensors has to be kept.
    """
    layers = {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}
    for i, block in enumerate(registry.create(name).blocks):
        ours, theirs = f"mbconv_{i}", f"_blocks.{i}"
        if block.expand != 1:
            layers[f"{ours}/expand"] = (f"{theirs}._expand_conv", f"{theirs}._bn0")
        layers[f"{ours}/depthwise"] = (f"{theirs}._depthwise_conv", f"{theirs}._bn1")
        layers[f"{ours}/project"] = (f"{theirs}._project_conv", f"{theirs}._bn2")
    return layers


def state_dict_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor of a published EfficientNet-Lite state dict, by name."""
    ours = expected_shapes(name)
    inputs, classes = ours["classifier/kernel"]
    shapes: dict[str, tuple[int, ...]] = {"_fc.weight": (classes, inputs), "_fc.bias": (classes,)}
    for layer, (conv, norm) in _torch_layers(name).items():
        kernel = ours[f"{layer}/kernel"]
        if len(kernel) == 2:  # pointwise [I, O]
            shapes[f"{conv}.weight"] = (kernel[1], kernel[0], 1, 1)
        elif len(kernel) == 3:  # depthwise [k, k, C]
            shapes[f"{conv}.weight"] = (kernel[2], 1, *kernel[:2])
        else:  # dense [k, k, I, O]
            shapes[f"{conv}.weight"] = (kernel[3], kernel[2], *kernel[:2])
        shapes |= {f"{norm}.{part}": kernel[-1:] for part in _NORM_PARTS}
    return shapes


def convert_efficientnet_lite(state: Mapping[str, np.ndarray], name: str) -> Params:
    """Converts a state dict of PyPI's `efficientnet-lite-pytorch`, batch norm folded.

    Args:
        state: name → array, in torch's layout (OIHW). Batch norm's step counters are ignored.
        name: the backbone that it belongs to.

    Returns:
        The backbone's parameters, float32 NumPy arrays.

    Raises:
        CarjaxError: tensors are missing, unexpected or misshapen; all are listed.
    """
    found = {k: v.shape for k, v in state.items() if not k.endswith(".num_batches_tracked")}
    faults = _faults(found, state_dict_shapes(name))
    if faults:
        raise CarjaxError(f"not a state dict of {name}: {faults}")
    flat = {
        "classifier/kernel": np.asarray(state["_fc.weight"]).T,
        "classifier/bias": np.asarray(state["_fc.bias"]),
    }
    shapes = expected_shapes(name)
    for layer, (conv, norm) in _torch_layers(name).items():
        # OIHW → HWIO; reshaping drops the axes of size one of depthwise and pointwise kernels.
        kernel = np.asarray(state[f"{conv}.weight"], np.float64)
        kernel = kernel.transpose(2, 3, 1, 0).reshape(shapes[f"{layer}/kernel"])
        parts = {part: np.asarray(state[f"{norm}.{part}"], np.float64) for part in _NORM_PARTS}
        flat[f"{layer}/kernel"], flat[f"{layer}/bias"] = fold_batch_norm(kernel, parts)
    return unflatten({key: value.astype(np.float32) for key, value in flat.items()})


def _read_state_dict(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads name → array from a `.pth` or safetensors file; raises CarjaxError for any other."""
    if not path.is_file():
        raise CarjaxError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        import torch
    except ImportError:
        raise CarjaxError(
            f"{path}: reading a torch file needs torch: pip install 'carjax[convert]'"
        ) from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a file that is not its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CarjaxError(f"{path}: not a whole file of torch tensors ({reason})") from None
    if not isinstance(loaded, Mapping) or not all(torch.is_tensor(v) for v in loaded.values()):
        raise CarjaxError(f"{path}: not a state dict: it must map names to tensors")
    return {key: value.numpy() for key, value in loaded.items()}


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads all tensors of a safetensors file; raises CarjaxError where it is none."""
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CarjaxError(f"{path}: not a whole safetensors file ({error})") from None


def import_weights(
    name: str, source: str | os.PathLike[str], out: str | os.PathLike[str], dtype: Any = np.float16
) -> None:
    """Converts a published weights file (`.pth`, or safetensors of the same state dict).

    Only the tensors of a `.pth` are read (`weights_only=True`), never its code. Needs the extra
    `convert` for `.pth`.

    Args:
        name: the backbone that the weights belong to.
        source: the published file.
        out: the safetensors file to write; `load_pretrained` reads it.
        dtype: type of the written tensors, float16 or float32.

    Raises:
        CarjaxError: the file cannot be read or written, or its tensors do not fit.
        UsageError: no such backbone.
    """
    registry.spec_of(name)
    params = convert_efficientnet_lite(_read_state_dict(pathlib.Path(source)), name)
    try:
        save(params, out, dtype)
    except OSError as error:
        raise CarjaxError(f"{out}: cannot be written ({error.strerror or error})") from None
