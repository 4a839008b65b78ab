"""The head for seats, on the crops of Stanford Cars and of phone_photos.

    carjax train --config=configs/seats.py --workdir=out/seats

Result, as the mean of five outer folds (`python benchmarks/nested.py --workdir=DIR`): accuracy
0.919 on known models, 0.723 on unseen ones, 0.895 on unseen families of phone_photos; intervals
in benchmarks/results/nested.json.
What else was tried: configs/sweeps/generalise.py.
"""

from carjax.training.config import default_config


def get_config():
    config = default_config("seats")
    config.datasets = ("stanford_cars", "phone_photos")
    config.input_size = 320
    config.views = 8
    config.steps = 1400
    config.model_cap = 36  # as many as Stanford Cars has
    config.mixup = 0.2
    config.head.members = 2
    config.head.channels = 64
    config.head.hidden = 172
    return config
