"""Files of weights that others write, read as named arrays and nothing else."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from carjax.backbones.pretrained import read_safetensors
from carjax.errors import CarjaxError, first_line, needing


class KerasLayer(NamedTuple):
    """A layer of a Keras weights file.

    Attributes:
        name: in the file.
        weights: its arrays, in the order that the layer made them; never none.
    """

    name: str
    weights: tuple[np.ndarray, ...]


def _existing(path: pathlib.Path) -> None:
    if not path.is_file():
        raise CarjaxError(f"{path}: no such file")


def read_state_dict(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads name → array from a `.pth` or safetensors file; raises CarjaxError for any other."""
    _existing(path)
    if path.suffix.lower() == ".safetensors":
        return read_safetensors(path)
    with needing("convert", f"{path}: reading a torch file"):
        import torch
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a file that is not its own
        # Of a file that holds code torch says how to run it all the same: nobody should.
        code = type(error).__name__ == "UnpicklingError"
        reason = "cut off, or it holds more than tensors" if code else first_line(error)
        raise CarjaxError(f"{path}: not a whole file of torch tensors ({reason})") from None
    if not isinstance(loaded, Mapping) or not all(
        isinstance(key, str) and torch.is_tensor(value) for key, value in loaded.items()
    ):
        raise CarjaxError(f"{path}: not a state dict: it must map names to tensors")
    for key, value in loaded.items():
        if value.layout != torch.strided or value.is_complex() or value.is_quantized:
            raise CarjaxError(f"{path}: {key}: not a dense tensor of real numbers")
    # NumPy lacks bfloat16, and needs no gradients.
    return {
        key: (value.float() if value.is_floating_point() else value).detach().numpy()
        for key, value in loaded.items()
    }


def require_h5py(path: str | pathlib.Path) -> Any:
    """Returns the module h5py; raises a CarjaxError that says how to get it."""
    try:
        import h5py
    except ImportError:
        raise CarjaxError(
            f"{path}: reading a Keras file needs h5py: pip install h5py (or 'carjax[convert]')"
        ) from None
    return h5py


def read_keras(path: pathlib.Path) -> list[KerasLayer]:
    """Reads the layers of a Keras weights file, in the order of the model's own `layers`.

    Both layouts are read: the legacy one of the published `.h5` files (an attribute names the
    layers in order; whole models of that time keep it in `model_weights`), and `.weights.h5` of
    Keras 3, where a group is the layer's class with a running number per class.

    Args:
        path: the file.

    Returns:
        Every layer that has weights. Only the order within a class of layers means anything.

    Raises:
        CarjaxError: no file, h5py is not installed, or it is no such file.
    """
    _existing(path)
    h5py = require_h5py(path)
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            if "layer_names" in root.attrs:
                layers = [_legacy_layer(root, name) for name in _names(root, "layer_names")]
            elif "layers" in root:
                names = sorted(root["layers"], key=_natural)
                layers = [_layer(root["layers"], name) for name in names]
            else:
                raise CarjaxError(f"{path}: no Keras weights: neither `layer_names` nor `layers`")
    except (OSError, KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise CarjaxError(f"{path}: not a whole Keras weights file ({error})") from None
    return [layer for layer in layers if layer.weights]


def _names(group: Any, attribute: str) -> list[str]:
    values = group.attrs[attribute]
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def _legacy_layer(root: Any, name: str) -> KerasLayer:
    group = root[name]
    return KerasLayer(name, tuple(group[key][()] for key in _names(group, "weight_names")))


def _layer(root: Any, name: str) -> KerasLayer:
    variables = root[name].get("vars", {})
    keys = sorted(variables, key=_natural)
    return KerasLayer(name, tuple(variables[key][()] for key in keys))


def _natural(name: str) -> tuple[str, int]:
    """Sorts 'conv2d' before 'conv2d_2' before 'conv2d_10'."""
    stem, number = re.fullmatch(r"(.*?)_?(\d*)", name).groups()  # type: ignore[union-attr]
    return stem, int(number or 0)
