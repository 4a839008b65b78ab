"""The head for orientation on PASCAL3D+, protocol of the papers: VOC val without hard objects.

    carjax train --config=configs/orientation_pascal3d.py --workdir=out/orientation_pascal3d

Measured on VOC val without truncated, occluded and difficult objects; for the ImageNet photos add
--config.datasets="('pascal3d_car/imagenet',)".
Result: not run: needs PASCAL3D+ (`carjax prepare pascal3d_car`, see data/README.md).
"""

from carjax.training.config import default_config


def get_config():
    config = default_config("orientation")
    config.datasets = ("pascal3d_car/voc",)
    config.eval_split = "val"
    config.input_size = 320
    config.views = 8
    config.steps = 2000
    config.head.grid = 8
    config.head.channels = 64
    config.head.hidden = 384
    config.balance = 0.5
    return config
