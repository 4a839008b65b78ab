"""Inception-ResNet-v2 in Flax Linen, batch norm folded into the convolutions.

Architecture: Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual
Connections on Learning" (AAAI 2017), with the filters of the published TF-Slim weights. They differ
from the paper's in places; the ports to Keras and torch share them.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from carjax.backbones import layers
from carjax.errors import UsageError
from carjax.features import Features

GRID_FILTERS = 1088
TOP_FILTERS = 1536
# Below this side the last reduction has nothing left to read.
MIN_SIDE = 75


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution, its batch norm and a ReLU; VALID where it halves the resolution."""

    filters: int
    kernel_size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


@dataclasses.dataclass(frozen=True)
class Pool:
    """3×3 pooling: 'max' (stride 2, VALID), or 'mean' (stride 1, over the cells that exist)."""

    kind: str


Branch = tuple[Conv | Pool, ...]


@dataclasses.dataclass(frozen=True)
class Block:
    """Parallel branches, concatenated; with a `scale`, the residual x + scale · up(branches(x)).

    Attributes:
        name: of its parameters.
        branches: what each does, in order.
        scale: None without a residual.
        relu: whether a ReLU follows the sum.
    """

    name: str
    branches: tuple[Branch, ...]
    scale: float | None = None
    relu: bool = True


def _square(filters: int, side: int) -> Conv:
    return Conv(filters, (side, side))


def _halving(filters: int) -> Conv:
    return Conv(filters, (3, 3), stride=2, padding="VALID")


STEM: tuple[tuple[str, Conv | Pool], ...] = (
    ("conv2d_1a", _halving(32)),
    ("conv2d_2a", Conv(32, (3, 3), padding="VALID")),
    ("conv2d_2b", _square(64, 3)),
    ("maxpool_3a", Pool("max")),
    ("conv2d_3b", Conv(80)),
    ("conv2d_4a", Conv(192, (3, 3), padding="VALID")),
    ("maxpool_5a", Pool("max")),
)

_MIXED_5B: tuple[Branch, ...] = (
    (Conv(96),),
    (Conv(48), _square(64, 5)),
    (Conv(64), _square(96, 3), _square(96, 3)),
    (Pool("mean"), Conv(64)),
)
_BLOCK35: tuple[Branch, ...] = (
    (Conv(32),),
    (Conv(32), _square(32, 3)),
    (Conv(32), _square(48, 3), _square(64, 3)),
)
_MIXED_6A: tuple[Branch, ...] = (
    (_halving(384),),
    (Conv(256), _square(256, 3), _halving(384)),
    (Pool("max"),),
)
_BLOCK17: tuple[Branch, ...] = (
    (Conv(192),),
    (Conv(128), Conv(160, (1, 7)), Conv(192, (7, 1))),
)
_MIXED_7A: tuple[Branch, ...] = (
    (Conv(256), _halving(384)),
    (Conv(256), _halving(288)),
    (Conv(256), _square(288, 3), _halving(320)),
    (Pool("max"),),
)
_BLOCK8: tuple[Branch, ...] = (
    (Conv(192),),
    (Conv(192), Conv(224, (1, 3)), Conv(256, (3, 1))),
)

BLOCKS: tuple[Block, ...] = (
    Block("mixed_5b", _MIXED_5B),
    *(Block(f"block35_{i}", _BLOCK35, scale=0.17) for i in range(10)),
    Block("mixed_6a", _MIXED_6A),
    *(Block(f"block17_{i}", _BLOCK17, scale=0.1) for i in range(20)),
    Block("mixed_7a", _MIXED_7A),
    *(Block(f"block8_{i}", _BLOCK8, scale=0.2) for i in range(9)),
    Block("block8_9", _BLOCK8, scale=1.0, relu=False),
)
# This block reads the grid: the output of the 17×17×1088 stage.
_AFTER_GRID = "mixed_7a"


def _pool(x: jax.Array, kind: str) -> jax.Array:
    if kind == "max":
        return nn.max_pool(x, (3, 3), (2, 2), "VALID")
    # Nine values of half precision are summed in float32, as products are.
    wide = x.astype(jnp.float32)
    return nn.avg_pool(wide, (3, 3), (1, 1), "SAME", count_include_pad=False).astype(x.dtype)


def _layer(op: Conv, dtype: jnp.dtype, name: str | None = None) -> nn.Module:
    if op.kernel_size == (1, 1):
        return layers.PointwiseConv(op.filters, dtype=dtype, name=name)
    return layers.Conv(op.filters, op.kernel_size, op.stride, op.padding, dtype=dtype, name=name)


def _grid_side(side: int) -> int:
    """Returns the side of the feature grid, from every layer that does not keep the side."""
    if side < MIN_SIDE:
        raise UsageError(f"inception_resnet_v2 needs images of {MIN_SIDE} pixels or more: {side}")
    for op in (*(op for _, op in STEM), Pool("max")):  # the last one stands for mixed_6a
        if isinstance(op, Pool):
            side = (side - 3) // 2 + 1
        elif op.padding == "VALID":
            side = (side - op.kernel_size[0]) // op.stride + 1
    return side


class InceptionResNetV2(nn.Module):
    """A frozen Inception-ResNet-v2 that works at any input size from 75 pixels.

    Attributes:
        blocks: what follows the stem.
        num_classes: size of the ImageNet classifier.
        dtype: type of kernels and activations; features are float32.
    """

    blocks: tuple[Block, ...] = BLOCKS
    num_classes: int = 1000
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        """Builds the layers, each under the name that its table gives."""
        for name, op in STEM:
            if isinstance(op, Conv):
                setattr(self, name, _layer(op, self.dtype))
        for block in self.blocks:
            setattr(self, block.name, InceptionBlock(block, dtype=self.dtype))
        self.conv2d_7b = _layer(Conv(TOP_FILTERS), self.dtype)
        self.classifier = nn.Dense(self.num_classes)

    @nn.nowrap
    def feature_shapes(self, input_size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the shapes of one image's features, without tracing: pooled, and the grid.

        Raises:
            UsageError: an input of less than 75 pixels.
        """
        side = _grid_side(input_size)
        return (TOP_FILTERS,), (side, side, GRID_FILTERS)

    def __call__(self, images: jax.Array) -> Features:
        """Computes the features of normalised images.

        Args:
            images: float [B, H, W, 3], normalised by `registry.normalize`.

        Returns:
            Features(pooled [B, 1536], grid [B, g, g, 1088]); g is 17 at 299 pixels.

        Raises:
            UsageError: images of less than 75 pixels.
        """
        top, grid = self._maps(images)
        return Features(pooled=top.mean((1, 2)), grid=grid)

    def _maps(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Computes the top features before pooling, and the output of the 17×17 stage."""
        _grid_side(min(images.shape[1:3]))  # raises where the images are too small
        x = images.astype(jnp.float32)
        for name, op in STEM:
            x = _pool(x, op.kind) if isinstance(op, Pool) else layers.relu(getattr(self, name)(x))
        grid = x
        for block in self.blocks:
            if block.name == _AFTER_GRID:
                grid = x
            x = getattr(self, block.name)(x)
        top = layers.relu(self.conv2d_7b(x))
        return top.astype(jnp.float32), grid.astype(jnp.float32)

    def logits(self, images: jax.Array) -> jax.Array:
        """Computes the ImageNet logits [B, num_classes] of normalised images [B, H, W, 3]."""
        return self.classify(self(images))

    def classify(self, features: Features) -> jax.Array:
        """Computes the ImageNet logits [B, num_classes] from features already at hand."""
        return self.classifier(features.pooled)


class InceptionBlock(nn.Module):
    """One `Block`; its layers are `branch{i}_{j}` and, of a residual, `up`."""

    block: Block
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', C']; a residual keeps the shape."""
        outputs = []
        for i, branch in enumerate(self.block.branches):
            y = x
            for j, op in enumerate(branch):
                if isinstance(op, Pool):
                    y = _pool(y, op.kind)
                else:
                    y = layers.relu(_layer(op, self.dtype, name=f"branch{i}_{j}")(y))
            outputs.append(y)
        y = jnp.concatenate(outputs, axis=-1)
        if self.block.scale is None:
            return y
        y = x + self.block.scale * layers.PointwiseConv(x.shape[-1], self.dtype, name="up")(y)
        return layers.relu(y) if self.block.relu else y
