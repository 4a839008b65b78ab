"""The reference design's head for orientation: a von Mises on Inception-ResNet-v2, PASCAL3D+.

    carjax train --config=configs/reference/orientation_pascal3d_irv2.py \\
        --workdir=out/reference/orientation

Result: not run: needs PASCAL3D+ (`carjax prepare pascal3d_car/imagenet`, data/README.md) and the
ImageNet weights (`carjax weights fetch inception_resnet_v2`).
"""

from carjax.training.config import default_config


def get_config():
    config = default_config("orientation")
    config.backbone = "inception_resnet_v2"
    config.dtype = "bfloat16"
    config.datasets = ("pascal3d_car/imagenet",)
    config.eval_split = "val"
    config.views = 8
    config.head.grid = 8
    config.head.channels = 64
    config.steps = 3000
    config.balance = 0.5
    return config
