"""EfficientNet-Lite 0–2 in Flax Linen, batch norm folded into the convolutions.

Architecture: Tan & Le, "EfficientNet" (ICML 2019), in the Lite variant published with its TPU
reference code: no squeeze-and-excitation, ReLU6, and stem and head of fixed width.
"""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from carjax.backbones import bottleneck, layers
from carjax.features import Features


@dataclasses.dataclass(frozen=True)
class Block:
    """One inverted bottleneck: 1×1 expansion, depthwise convolution, 1×1 projection."""

    filters_in: int
    filters_out: int
    kernel_size: int
    stride: int
    expand: int


# (repeats, kernel size, stride, expansion, filters out) of each stage, before scaling.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_FILTERS = 32
TOP_FILTERS = 1280


def _round_filters(filters: int, width: float) -> int:
    """Scales a width to a multiple of 8, at most 10% below the scaled value."""
    scaled = filters * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def block_list(width: float, depth: float) -> tuple[Block, ...]:
    """Returns the blocks of a variant; the first and last stage are never repeated more.

    Example:
        >>> len(block_list(1.1, 1.2))
        21
    """
    blocks: list[Block] = []
    filters_in = STEM_FILTERS
    for stage, (repeats, kernel_size, stride, expand, filters) in enumerate(_STAGES):
        filters_out = _round_filters(filters, width)
        if 0 < stage < len(_STAGES) - 1:
            repeats = math.ceil(repeats * depth)
        for i in range(repeats):
            blocks.append(
                Block(filters_in, filters_out, kernel_size, stride if i == 0 else 1, expand)
            )
            filters_in = filters_out
    return tuple(blocks)


class EfficientNetLite(nn.Module):
    """A frozen EfficientNet-Lite that works at any input size.

    Attributes:
        blocks: the blocks, from `block_list`.
        num_classes: size of the ImageNet classifier.
        dtype: type of kernels and activations; features are float32.
    """

    blocks: tuple[Block, ...]
    num_classes: int = 1000
    dtype: jnp.dtype = jnp.float32

    def setup(self) -> None:
        """Builds the layers."""
        self.stem = layers.Parameters((3, 3, 3, STEM_FILTERS), dtype=self.dtype)
        self.mbconv = [InvertedBottleneck(b, dtype=self.dtype) for b in self.blocks]
        self.top = layers.PointwiseConv(TOP_FILTERS, dtype=self.dtype)
        self.classifier = nn.Dense(self.num_classes)

    @nn.nowrap
    def feature_shapes(self, input_size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the shapes of one image's features, without tracing: pooled, and the grid."""
        side = -(-input_size // 16)
        return (TOP_FILTERS,), (side, side, self.blocks[self._last_stride].filters_in)

    @property
    def _last_stride(self) -> int:
        """Index of the block that goes from stride 16 to stride 32."""
        return max(i for i, block in enumerate(self.blocks) if block.stride == 2)

    def __call__(self, images: jax.Array) -> Features:
        """Computes the features of normalised images.

        Args:
            images: float [B, H, W, 3], normalised by `registry.normalize` for this family.

        Returns:
            Features(pooled [B, 1280], grid [B, ⌈H/16⌉, ⌈W/16⌉, C]).
        """
        top, grid = self._maps(images)
        return Features(pooled=top.mean((1, 2)), grid=grid)

    def _maps(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Computes the top features before pooling, and the last stride-16 block's output."""
        x = self.mbconv[0](images.astype(jnp.float32), self.stem())
        for i, block in enumerate(self.mbconv[1:], start=1):
            if i == self._last_stride:
                grid = x
            x = block(x)
        return layers.relu6(self.top(x)).astype(jnp.float32), grid.astype(jnp.float32)

    def logits(self, images: jax.Array) -> jax.Array:
        """Computes the ImageNet logits [B, num_classes] of normalised images [B, H, W, 3]."""
        return self.classify(self(images))

    def classify(self, features: Features) -> jax.Array:
        """Computes the ImageNet logits [B, num_classes] from features already at hand."""
        return self.classifier(features.pooled)


class InvertedBottleneck(nn.Module):
    """Expansion → depthwise → projection, with a residual where the shape allows it."""

    block: Block
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, stem: layers.Weights | None = None) -> jax.Array:
        """Maps [B, H, W, filters_in] to [B, ⌈H/stride⌉, ⌈W/stride⌉, filters_out].

        The first block expands nothing: it takes the stem in the expansion's place, and images.
        """
        b = self.block
        channels = b.filters_in * b.expand

        def weights(name: str, *shape: int) -> layers.Weights:
            return layers.Parameters(shape, dtype=self.dtype, name=name)()

        first = weights("expand", b.filters_in, channels) if stem is None else stem
        depthwise = weights("depthwise", b.kernel_size, b.kernel_size, channels)
        project = weights("project", channels, b.filters_out)
        y = bottleneck.inverted_bottleneck(x, first, depthwise, project, stride=b.stride)
        return x + y if b.stride == 1 and b.filters_in == b.filters_out else y
