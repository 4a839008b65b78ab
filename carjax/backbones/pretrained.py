"""Pretrained weights as this package keeps them: find, load, check and save them.

What others published is read by `carjax.backbones.convert` and downloaded by
`carjax.backbones.fetch`.
"""

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


def shipped_path(name: str) -> pathlib.Path:
    """Returns where the package keeps the weights of a backbone, whether or not it has them."""
    return pathlib.Path(str(importlib.resources.files("carjax") / "assets" / f"{name}.safetensors"))


def fetched_path(name: str) -> pathlib.Path:
    """Returns where `carjax weights fetch` keeps the weights of a backbone, there or not."""
    return files.cache_dir() / "weights" / f"{name}.safetensors"


def load_pretrained(
    name: str, path: str | os.PathLike[str] | None = None, *, dtype: Any = jnp.float32
) -> tuple[nn.Module, Params]:
    """Loads a backbone and its ImageNet weights.

    Args:
        name: a key of `registry.BACKBONES`.
        path: a file that `carjax weights import` or `fetch` wrote; default: the one in the package,
            else the one that was fetched.
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
    source = locate(name, path)
    return to_device(read_safetensors(source)), source


def locate(name: str, path: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Returns the file of a backbone's weights: as given, in the package, or fetched.

    Raises:
        CarjaxError: there is none; the line says how to get it.
        UsageError: no such backbone.
    """
    spec = registry.spec_of(name)
    own = [shipped_path(name), fetched_path(name)]
    candidates = own if path is None else [pathlib.Path(path)]
    source = next((file for file in candidates if file.is_file()), None)
    if source is None:
        convert = f"`carjax weights import --backbone={name} --source=FILE --out=FILE.safetensors`"
        if path is not None:
            raise CarjaxError(f"{path}: no weights for {name}: check the path")
        if ":" in name:
            hint = "give the file that `carjax.backbones.pretrained.save` wrote (backbone_weights)"
        elif spec.published:
            hint = f"download them with `carjax weights fetch {name}`, or convert a file: {convert}"
        else:
            hint = f"the package ships weights for efficientnet_lite2 only; make a file: {convert}"
        raise CarjaxError(f"no weights for {name}: {hint}")
    return source


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
    return types.MappingProxyType(shapes(variables["params"]))


def check(params: Mapping[str, Any], name: str, source: str | os.PathLike[str]) -> None:
    """Raises one CarjaxError that lists every missing, extra or misshapen tensor."""
    wrong = faults(shapes(params), expected_shapes(name))
    if wrong:
        raise CarjaxError(f"{source}: not {name}'s weights: {wrong}")


def shapes(params: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every array, or what has one, of a pytree of dicts, by path."""
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    return {key: value.shape for key, value in flat.items()}


def faults(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]) -> str:
    """Names every missing, unexpected or misshapen tensor; empty where all is well.

    Example:
        >>> faults({"a": (2,), "c": (1,)}, {"a": (3,), "b": ()})
        'a is (2,), not (3,); missing b (); unexpected c (1,)'
    """
    listed = [f"missing {key} {expected[key]}" for key in expected.keys() - found.keys()]
    listed += [f"unexpected {key} {found[key]}" for key in found.keys() - expected.keys()]
    listed += [
        f"{key} is {found[key]}, not {expected[key]}"
        for key in expected.keys() & found.keys()
        if found[key] != expected[key]
    ]
    return "; ".join(sorted(listed))


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads all tensors of a safetensors file; raises CarjaxError where it is none of weights."""
    try:
        flat = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CarjaxError(f"{path}: not a whole safetensors file ({error})") from None
    try:
        check_tensors(flat)
    except ValueError as error:
        raise CarjaxError(f"{path}: {error}") from None
    return flat


def check_tensors(flat: Mapping[str, np.ndarray]) -> None:
    """Checks that tensors are of numbers, and their paths those of a tree.

    Raises:
        ValueError: one is not finite, or lies under another one.
    """
    inner = {key[:i] for key in flat for i, letter in enumerate(key) if letter == "/"}
    for key in sorted(inner & flat.keys()):
        raise ValueError(f"{key} is a tensor, and a folder of tensors")
    for key, value in flat.items():
        if not _finite(value):
            raise ValueError(f"{key} holds numbers that are not finite")


def _finite(value: np.ndarray) -> bool:
    """Whether all is finite; also of types that NumPy does not know, such as bfloat16."""
    known = value if np.issubdtype(value.dtype, np.number) else value.astype(np.float32)
    return bool(np.isfinite(known).all())


def save(params: Mapping[str, Any], path: str | os.PathLike[str], dtype: Any = np.float16) -> None:
    """Writes a backbone's parameters as safetensors of that type.

    Raises:
        CarjaxError: a value is not finite, or too large for the type.
        OSError: it cannot be written.
    """
    write_safetensors(flatten(params), path, dtype)


def write_safetensors(
    flat: Mapping[str, np.ndarray],
    path: str | os.PathLike[str],
    dtype: Any,
    metadata: dict[str, str] | None = None,
) -> None:
    """Writes tensors by path: those of floats in that type, others as they are.

    Raises:
        CarjaxError: a value is not finite, or too large for the type.
        OSError: it cannot be written; what to do about it the caller knows (`errors.writing`).
    """
    tensors = {}
    for key, value in flat.items():
        if not jnp.issubdtype(value.dtype, jnp.floating):
            tensors[key] = value
            continue
        if not _finite(value):
            raise CarjaxError(f"{path}: {key} holds numbers that are not finite")
        with np.errstate(over="ignore"):
            tensors[key] = np.array(value, dtype, order="C")
        if np.isinf(tensors[key]).any():
            raise CarjaxError(f"{path}: {key} is too large for {np.dtype(dtype)}: take float32")
    # Not by `save_file`, which has an error of its own for a full disk.
    files.write(path, safetensors.numpy.save(tensors, metadata))
