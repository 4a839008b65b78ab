"""The reference design's head for type: Inception-ResNet-v2's pooled features, on CompCars.

    carjax train --config=configs/reference/type_compcars_irv2.py --workdir=out/reference/type

Result: not run: needs CompCars (`carjax prepare compcars_web`, see data/README.md) and the ImageNet
weights (`carjax weights fetch inception_resnet_v2`).
"""

from carjax.training.config import default_config


def get_config():
    config = default_config("type")
    config.backbone = "inception_resnet_v2"
    config.dtype = "bfloat16"
    config.datasets = ("compcars_web",)
    config.train_split = "train+rest"
    config.eval_split = "test"
    config.parts = False
    config.views = 4
    # A softmax on pooled features, as transfer learning does it.
    config.head.grid = 0
    config.steps = 4000
    config.mixup = 0.0
    return config
