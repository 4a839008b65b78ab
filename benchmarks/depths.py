"""EfficientNet-Lite2 whose grid joins three depths: strides 8, 16 and 32, each as stride-16 cells.

Small things, such as badges and lamps, are plainer at stride 8; what the whole car is, at 32. Only
`benchmarks/generalise.py` uses it, as one of the recipes; importing this module registers it.
"""

import dataclasses

import jax
import jax.numpy as jnp

from carjax import pooling
from carjax.backbones import efficientnet_lite, layers, registry
from carjax.features import Features

NAME = "efficientnet_lite2_depths"


class Depths(efficientnet_lite.EfficientNetLite):
    """`EfficientNetLite` with the last block of each of three strides in its grid."""

    def feature_shapes(self, input_size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of one image's features: pooled, and the grid of stride 16."""
        pooled, (rows, columns, _) = super().feature_shapes(input_size)
        ends = [i for i, block in enumerate(self.blocks) if block.stride == 2][2:]
        channels = [self.blocks[i].filters_in for i in ends] + [self.blocks[-1].filters_out]
        return pooled, (rows, columns, sum(channels))

    def __call__(self, images: jax.Array) -> Features:
        """Computes the features of normalised images [B, H, W, 3]."""
        x = self.mbconv[0](images.astype(jnp.float32), self.stem())
        ends = []  # of strides 2, 4, 8 and 16
        for block, apply in zip(self.blocks[1:], self.mbconv[1:], strict=True):
            if block.stride == 2:
                ends.append(x)
            x = apply(x)
        side = ends[3].shape[1]
        coarse = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)[:, :side, :side]
        grid = jnp.concatenate([pooling.pool_grid(ends[2], side), ends[3], coarse], axis=-1)
        return Features(layers.relu6(self.top(x)).mean((1, 2)), grid)


def _build(**kwargs):
    module = registry.create("efficientnet_lite2")
    return Depths(module.blocks, name=NAME, **kwargs)


registry.BACKBONES[NAME] = dataclasses.replace(
    registry.spec_of("efficientnet_lite2"), name=NAME, build=_build
)
