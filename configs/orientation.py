"""The head for orientation, on the Stanford Cars crops.

    carjax train --config=configs/orientation.py --workdir=out/orientation

Result, as the mean of five outer folds (`python benchmarks/nested.py --workdir=DIR`): median error
2.46° on known models, 2.78° on unseen ones; within 30° 0.9887 and 0.9852; log-likelihood,
calibrated, 1.05 and 0.95 nats per radian. All models in training, uncalibrated
(benchmarks/crossval.py): 2.54°, 0.9895, flips 0.48%, log-likelihood 0.97; against 24 corrected
labels, flips 0.15%.
"""

from carjax.training.config import default_config


def get_config():
    config = default_config("orientation")
    config.input_size = 320
    config.views = 8
    config.steps = 2000
    config.head.grid = 8
    config.head.channels = 64
    config.head.hidden = 384
    config.balance = 0.5  # rear and side views are rare
    return config
