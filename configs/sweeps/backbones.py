"""Accuracy against compute: three backbones at six input sizes, for type and orientation.

    python benchmarks/sweep.py --config=configs/sweeps/backbones.py --workdir=out/sweep

Fold 0 of the Stanford Cars crops is held out; one view of each photo, the plain one, so that all 36
runs take half an hour on two cores: the figures are below those of eight views. Lite0 and Lite1
need their weights (`carjax weights import`, see the README).
Result: type 0.834 (Lite0 at 160) to 0.882 (Lite2 at 320, Lite0 at 384), azimuth 2.85 to 3.07°;
every number in benchmarks/results/backbones.json, drawn in docs/images/backbones.svg.
"""

from carjax.training.config import default_config

BACKBONES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
INPUT_SIZES = (160, 192, 224, 260, 320, 384)


def get_configs():
    return [
        get_config(attribute, backbone, size)
        for size in INPUT_SIZES
        for backbone in BACKBONES
        for attribute in ("type", "orientation")
    ]


def get_config(attribute="type", backbone=BACKBONES[-1], size=320):
    config = default_config(attribute)
    config.backbone = backbone
    config.input_size = size
    config.fold = 0
    config.views = 1
    config.steps = 600
    if attribute == "orientation":
        config.head.grid = 8
        config.head.channels = 32
        config.balance = 0.5
    else:
        config.mixup = 0.2
    return config
