"""The head for orientation, on the Stanford Cars crops.

    carjax train --config=configs/orientation.py --workdir=out/orientation

Result, as the mean of five folds (`python benchmarks/crossval.py --workdir=DIR`):
median error 2.64°, within 30° 0.9867,
flips 0.63%, log-likelihood 1.00; intervals in benchmarks/results/crossval.json.
"""

from carjax.training.config import default_config


def get_config():
    config = default_config("orientation")
    config.input_size = 320
    config.views = 4
    config.steps = 1200
    config.head.grid = 8
    config.head.channels = 32
    config.balance = 0.5  # rear and side views are rare
    return config
