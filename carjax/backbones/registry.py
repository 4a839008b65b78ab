"""The backbones by name: how to build each, and the input it was trained on."""

from __future__ import annotations

import dataclasses
import functools
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from carjax import crops, plugins
from carjax.backbones import efficientnet_lite, inception_resnet_v2
from carjax.errors import UsageError
from carjax.features import Features


@dataclasses.dataclass(frozen=True)
class Published:
    """A file of weights on the network: its address and its MD5 in hexadecimal."""

    url: str
    md5: str


@dataclasses.dataclass(frozen=True)
class Backbone:
    """What a name in the registry stands for.

    Attributes:
        name: key in `BACKBONES`.
        input_size: side of the square input in pixels.
        mean, scale: an input is (pixel − mean) / scale, pixel in 0..255.
        build: makes the Flax module; takes `dtype`.
        published: the weights that `carjax weights fetch` downloads, if it can.
    """

    name: str
    input_size: int
    mean: float
    scale: float
    build: Callable[..., nn.Module]
    published: Published | None = None


def _lite(name: str, width: float, depth: float, input_size: int) -> Backbone:
    def build(**kwargs: Any) -> nn.Module:
        blocks = efficientnet_lite.block_list(width, depth)
        return efficientnet_lite.EfficientNetLite(blocks, **kwargs)

    return Backbone(name, input_size, mean=127.0, scale=128.0, build=build)


def _inception_resnet_v2() -> Backbone:
    # The file that keras.applications.InceptionResNetV2 downloads.
    published = Published(
        "https://storage.googleapis.com/tensorflow/keras-applications/inception_resnet_v2/"
        "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels.h5",
        md5="e693bd0210a403b3192acc6073ad2e96",
    )
    return Backbone(
        "inception_resnet_v2",
        299,
        mean=127.5,
        scale=127.5,
        build=inception_resnet_v2.InceptionResNetV2,
        published=published,
    )


_PROCESS = secrets.token_hex(8)
BACKBONES: dict[str, Backbone] = {
    b.name: b
    for b in (
        _lite("efficientnet_lite0", 1.0, 1.0, 224),
        _lite("efficientnet_lite1", 1.0, 1.1, 240),
        _lite("efficientnet_lite2", 1.1, 1.2, 260),
        _inception_resnet_v2(),
    )
}


def register(backbone: Backbone) -> Backbone:
    """Adds a backbone of one's own; its name is 'MODULE:NAME', with the module that calls this.

    That module is imported where a config or a file names the backbone: with another one in the
    name it would not be found again.

    Its Flax module has a field `dtype`; maps normalised images float32 [B, S, S, 3] to `Features`;
    and has the methods `feature_shapes(input_size)` → the shapes of one image's (pooled, grid), and
    `classify(Features)` and `logits(images)` → ImageNet logits [B, 1000], zeros if it has none.

    Raises:
        ValueError: the name is not of that form.
    """
    module, _, name = backbone.name.partition(":")
    if not (module and name):
        raise ValueError(f"a backbone of one's own is named MODULE:NAME, not {backbone.name!r}")
    BACKBONES[backbone.name] = backbone
    return backbone


def spec_of(name: str) -> Backbone:
    """Returns the registry entry of that name; a module that it names is imported.

    Raises:
        UsageError: no such backbone, or no such module.
    """
    if name not in BACKBONES:
        plugins.load(module_of(name), f"backbone {name!r}")
    if name not in BACKBONES:
        raise UsageError(f"no backbone {name!r}; there are: {', '.join(BACKBONES)}")
    return BACKBONES[name]


def module_of(name: str) -> str:
    """The Python module that registers a backbone of one's own; '' of those of carjax."""
    module, colon, _ = name.partition(":")
    return module if colon else ""


def code_of(name: str) -> str:
    """What the features of a backbone of one's own depend on besides its weights; '' of ours."""
    if not module_of(name):
        return ""
    backbone = spec_of(name)
    # Where there is no file nobody can tell whether it changed: no other process shares it.
    code = plugins.code_of([module_of(name)]) or _PROCESS
    return f"{backbone.mean} {backbone.scale} {code}"


def create(name: str, **kwargs: Any) -> nn.Module:
    """Builds the Flax module of a backbone, called as it; `dtype=jnp.bfloat16` computes in that.

    `module.apply({'params': p}, images)` gives `Features`, `method='logits'` the ImageNet logits.

    Raises:
        UsageError: no such backbone.
    """
    return spec_of(name).build(**kwargs).clone(name=name)


def example_features(backbone: str, input_size: int) -> Features:
    """Returns zero features of one image, of the shapes that a backbone gives."""
    module: Any = create(backbone)
    pooled, grid = module.feature_shapes(input_size)
    return Features(jnp.zeros((1, *pooled)), jnp.zeros((1, *grid)))


def normalize(name: str, images: jax.Array) -> jax.Array:
    """Maps pixels 0..255 [..., 3] to the range that the backbone was trained on, float32."""
    backbone = spec_of(name)
    return (images.astype(jnp.float32) - backbone.mean) / backbone.scale


def features(
    module: nn.Module,
    params: Mapping[str, Any],
    frames: np.ndarray | jax.Array,
    *,
    input_size: int | None = None,
) -> Features:
    """Computes the features of whole frames, squashed to the backbone's square input.

    Args:
        module: from `create` or `load_pretrained`.
        params: its parameters.
        frames: uint8 [B, H, W, 3], RGB.
        input_size: another side of the input than the backbone's own.

    Returns:
        Features(pooled [B, C], grid [B, g, g, Cm]).

    Raises:
        ValueError: the frames are not uint8 [B, H, W, 3].
    """
    frames = np.asarray(frames) if isinstance(frames, list | tuple) else frames
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 [B, H, W, 3], not {frames.dtype} {frames.shape}")
    return _features(module, params, frames, input_size or spec_of(str(module.name)).input_size)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _features(
    module: nn.Module, params: Mapping[str, Any], frames: jax.Array, input_size: int
) -> Features:
    """Compiled as a whole: called outside of `jit`, its loops would be compiled at every call."""
    boxes = crops.whole_boxes(crops.frame_sizes(frames))
    inputs = crops.crop_and_resize(frames, boxes, input_size)
    outputs: Any = module.apply({"params": params}, normalize(str(module.name), inputs))
    return outputs
