"""Frozen ImageNet feature extractors, all through one registry.

Example:
    >>> from carjax import backbones
    >>> import numpy as np
    >>> module, params = backbones.load_pretrained("efficientnet_lite2")
    >>> frames = np.zeros((1, 90, 160, 3), np.uint8)
    >>> features = backbones.features(module, params, frames)
    >>> features.pooled.shape, features.grid.shape
    ((1, 1280), (1, 17, 17, 120))
"""

from carjax.backbones.pretrained import load_pretrained
from carjax.backbones.registry import BACKBONES, Backbone, create, features, register, spec_of
from carjax.features import Features

__all__ = [
    "BACKBONES",
    "Backbone",
    "Features",
    "create",
    "features",
    "load_pretrained",
    "register",
    "spec_of",
]
