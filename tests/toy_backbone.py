"""A backbone from outside the package."""

import tiny_run

from carjax import backbones

NAME = "toy_backbone:tiny"
backbones.register(backbones.Backbone(NAME, tiny_run.SIZE, 127.0, 128.0, tiny_run.Tiny))
