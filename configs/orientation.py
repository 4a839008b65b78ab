"""The head for orientation, on the Stanford Cars crops.

    carjax train --config=configs/orientation.py --workdir=out/orientation

Result, as the mean of five folds (`python benchmarks/crossval.py --workdir=DIR`):
median error 2.54°, within 30° 0.9895, flips 0.48%, log-likelihood 0.97 nats per radian; against
labels of which 24 are corrected (data/corrections), flips 0.15%. Intervals in
benchmarks/results/crossval.json.
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
