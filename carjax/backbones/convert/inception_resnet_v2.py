"""Inception-ResNet-v2 from Keras files, and from state dicts of timm and pretrainedmodels.

Foreign names and orders are derived from the tables of `backbones.inception_resnet_v2`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from carjax.backbones import inception_resnet_v2 as architecture
from carjax.backbones.convert import tensors
from carjax.backbones.convert.readers import KerasLayer
from carjax.backbones.pretrained import Params, expected_shapes, faults, unflatten
from carjax.errors import CarjaxError

_NAME = "inception_resnet_v2"
# timm's name of the classifier, and that of pretrainedmodels.
_CLASSIFIERS = ("classif", "last_linear")
# TensorFlow's own weights know a 1001st class, 'background', in the first row.
_CLASSES, _WITH_BACKGROUND = 1000, 1001
# Our kind of block → the torch implementations' list of them.
_TORCH_LISTS = {"block35": "repeat", "block17": "repeat_1", "block8": "repeat_2"}


# --- State dicts ----------------------------------------------------------------------------------


def _torch_block(name: str) -> str:
    """Returns the torch implementations' name of a block.

    Example:
        >>> [_torch_block(name) for name in ("mixed_5b", "block17_3", "block8_0", "block8_9")]
        ['mixed_5b', 'repeat_1.3', 'repeat_2.0', 'block8']
    """
    kind, _, number = name.partition("_")
    if kind not in _TORCH_LISTS:
        return name
    # The last block, which has no ReLU, stands outside their list.
    return kind if name == "block8_9" else f"{_TORCH_LISTS[kind]}.{number}"


def _torch_layers() -> dict[str, str]:
    """Returns our layer's path → theirs, for all but the classifier."""
    stem = [name for name, op in architecture.STEM if isinstance(op, architecture.Conv)]
    layers = {name: name for name in (*stem, "conv2d_7b")}
    for block in architecture.BLOCKS:
        theirs = _torch_block(block.name)
        for i, branch in enumerate(block.branches):
            for j, op in enumerate(branch):
                if isinstance(op, architecture.Conv):
                    # A branch of one layer is no list.
                    at = f"branch{i}.{j}" if len(branch) > 1 else f"branch{i}"
                    layers[f"{block.name}/branch{i}_{j}"] = f"{theirs}.{at}"
        if block.scale is not None:
            layers[f"{block.name}/up"] = f"{theirs}.conv2d"
    return layers


def state_dict_shapes(
    classifier: str = _CLASSIFIERS[0], classes: int = _CLASSES
) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every tensor of a published state dict, by name.

    Args:
        classifier: 'classif' (timm) or 'last_linear' (pretrainedmodels).
        classes: 1000, or 1001 with a background class.
    """
    ours = expected_shapes(_NAME)
    features = ours["classifier/kernel"][0]
    shapes: dict[str, tuple[int, ...]] = {
        f"{classifier}.weight": (classes, features),
        f"{classifier}.bias": (classes,),
    }
    for layer, theirs in _torch_layers().items():
        kernel = ours[f"{layer}/kernel"]
        if _has_norm(layer):
            shapes[f"{theirs}.conv.weight"] = tensors.kernel_shape(kernel)
            shapes |= {f"{theirs}.bn.{part}": kernel[-1:] for part in tensors.NORM_PARTS}
        else:
            shapes[f"{theirs}.weight"] = tensors.kernel_shape(kernel)
            shapes[f"{theirs}.bias"] = kernel[-1:]
    return shapes


def _has_norm(layer: str) -> bool:
    """Whether a batch norm follows a convolution, rather than a bias of its own."""
    return not layer.endswith("/up")


def from_state_dict(state: Mapping[str, np.ndarray]) -> Params:
    """Converts a state dict with the names of timm or of pretrainedmodels, batch norm folded.

    Args:
        state: name → array, in torch's layout (OIHW). Batch norm's step counters are ignored, and
            so is the background class of a classifier of 1001.

    Returns:
        The backbone's parameters, float32 NumPy arrays.

    Raises:
        CarjaxError: tensors are missing, unexpected or misshapen; all are listed.
    """
    found = {k: v.shape for k, v in state.items() if not k.endswith(".num_batches_tracked")}
    classifier = next((c for c in _CLASSIFIERS if f"{c}.weight" in state), _CLASSIFIERS[0])
    rows = found.get(f"{classifier}.weight", (_CLASSES,))[:1]
    classes = _WITH_BACKGROUND if rows == (_WITH_BACKGROUND,) else _CLASSES
    wrong = faults(found, state_dict_shapes(classifier, classes))
    if wrong:
        raise CarjaxError(f"not a state dict of {_NAME}: {wrong}")
    flat = {
        "classifier/kernel": np.asarray(state[f"{classifier}.weight"])[-_CLASSES:].T,
        "classifier/bias": np.asarray(state[f"{classifier}.bias"])[-_CLASSES:],
    }
    shapes = expected_shapes(_NAME)
    for layer, theirs in _torch_layers().items():
        shape = shapes[f"{layer}/kernel"]
        if _has_norm(layer):
            kernel = tensors.kernel_from_torch(state[f"{theirs}.conv.weight"], shape)
            norm = {part: state[f"{theirs}.bn.{part}"] for part in tensors.NORM_PARTS}
            kernel, bias = tensors.fold_batch_norm(kernel, norm)
        else:
            kernel = tensors.kernel_from_torch(state[f"{theirs}.weight"], shape)
            bias = np.asarray(state[f"{theirs}.bias"])
        flat[f"{layer}/kernel"], flat[f"{layer}/bias"] = kernel, bias
    return unflatten({key: value.astype(np.float32) for key, value in flat.items()})


# --- Keras ----------------------------------------------------------------------------------------

_Shapes = dict[str, tuple[int, ...]]
# A batch norm of Keras in our words; this model's have no γ.
_KERAS_NORM = {"beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def _keras_order() -> list[str]:
    """Returns the paths of all convolutions in the order of the Keras model's `layers`.

    Keras sorts layers by their distance from the output, then by branch: of the convolutions of a
    block those come first that have the most convolutions after them in their branch.
    """
    order = [name for name, op in architecture.STEM if isinstance(op, architecture.Conv)]
    for block in architecture.BLOCKS:
        places = [
            (j - len(branch), i, f"{block.name}/branch{i}_{j}")
            for i, branch in enumerate(block.branches)
            for j, op in enumerate(branch)
            if isinstance(op, architecture.Conv)
        ]
        order += [path for *_, path in sorted(places)]
        order += [f"{block.name}/up"] if block.scale is not None else []
    return [*order, "conv2d_7b"]


def keras_shapes() -> dict[str, dict[str, _Shapes]]:
    """Returns what a Keras file must hold: kind of layer → our path, in order → part → shape."""
    ours = expected_shapes(_NAME)
    kinds: dict[str, dict[str, _Shapes]] = {
        "convolution": {},
        "batch norm": {},
        "dense": {
            "classifier": {p: ours[f"classifier/{p}"] for p in ("kernel", "bias")},
        },
    }
    for layer in _keras_order():
        kernel = ours[f"{layer}/kernel"]
        shape = kernel if len(kernel) == 4 else (1, 1, *kernel)
        if _has_norm(layer):
            kinds["convolution"][layer] = {"kernel": shape}
            kinds["batch norm"][layer] = {part: kernel[-1:] for part in _KERAS_NORM}
        else:
            kinds["convolution"][layer] = {"kernel": shape, "bias": kernel[-1:]}
    return kinds


def _parts(layer: KerasLayer) -> tuple[str, dict[str, np.ndarray]]:
    """Returns a layer's kind and its arrays by name, told by their ranks as names vary."""
    if layer.weights[0].ndim == 1:
        names = list(_KERAS_NORM) if len(layer.weights) < 4 else ["gamma", *_KERAS_NORM]
        kind = "batch norm"
    else:
        names = ["kernel", "bias"]
        kind = "convolution" if layer.weights[0].ndim == 4 else "dense"
    names += [str(i) for i in range(len(names), len(layer.weights))]
    return kind, dict(zip(names, layer.weights, strict=False))


def from_keras(layers: Sequence[KerasLayer]) -> Params:
    """Converts the layers of a Keras file, batch norm folded.

    Layers are told apart by their order, as Keras itself does: their names hold running numbers
    that depend on what else the process had built.

    Args:
        layers: from `readers.read_keras`.

    Returns:
        The backbone's parameters, float32 NumPy arrays.

    Raises:
        CarjaxError: layers are missing, unexpected or misshapen; all are listed.
    """
    found: dict[str, list[tuple[str, dict[str, np.ndarray]]]] = {}
    for layer in layers:
        kind, parts = _parts(layer)
        found.setdefault(kind, []).append((layer.name, parts))
    matched: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    wrong = []
    for kind, expected in keras_shapes().items():
        matched[kind], listed = _match(found.get(kind, []), expected)
        wrong += [listed] if listed else []
    if wrong:
        raise CarjaxError(f"not a Keras file of {_NAME} with its classifier: {'; '.join(wrong)}")
    flat = {f"classifier/{part}": value for part, value in matched["dense"]["classifier"].items()}
    shapes = expected_shapes(_NAME)
    for path, parts in matched["convolution"].items():
        kernel, bias = parts["kernel"], parts.get("bias")
        if bias is None:
            norm = matched["batch norm"][path]
            kernel, bias = tensors.fold_batch_norm(
                kernel, {ours: norm[theirs] for theirs, ours in _KERAS_NORM.items()}
            )
        flat[f"{path}/kernel"], flat[f"{path}/bias"] = (
            kernel.reshape(shapes[f"{path}/kernel"]),
            bias,
        )
    return unflatten({key: value.astype(np.float32) for key, value in flat.items()})


def _match(
    found: Sequence[tuple[str, dict[str, np.ndarray]]], expected: Mapping[str, _Shapes]
) -> tuple[dict[str, dict[str, np.ndarray]], str]:
    """Pairs layers of one kind by order.

    Where they do not fit, their shapes are aligned first: one lost layer is then told as such, not
    as a fault of every layer after it.

    Returns:
        (our path → arrays, the faults: empty where every layer fits).
    """
    paths = list(expected)
    got = [{part: value.shape for part, value in parts.items()} for _, parts in found]
    want = list(expected.values())
    if got == want:
        return {path: parts for path, (_, parts) in zip(paths, found, strict=True)}, ""
    present: _Shapes = {}
    needed: _Shapes = {}

    def put(into: _Shapes, name: str, shapes: _Shapes) -> None:
        into.update({f"{name}/{part}": shape for part, shape in shapes.items()})

    aligned = difflib.SequenceMatcher(
        None, [str(shapes) for shapes in got], [str(shapes) for shapes in want], autojunk=False
    )
    for _, start, stop, first, last in aligned.get_opcodes():
        pairs = min(stop - start, last - first)
        for k in range(stop - start):
            put(present, found[start + k][0], got[start + k])
        for k in range(last - first):
            # A layer that is there is called by its name in the file, a lost one by ours.
            name = found[start + k][0] if k < pairs else paths[first + k]
            put(needed, name, want[first + k])
    return {}, faults(present, needed)
