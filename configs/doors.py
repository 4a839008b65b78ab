"""The head for doors, on the crops of Stanford Cars and of phone_photos.

    carjax train --config=configs/doors.py --workdir=out/doors

Result, as the mean of five outer folds (`python benchmarks/nested.py --workdir=DIR`): accuracy
0.928 on known models, 0.736 on unseen ones, 0.876 on unseen families of phone_photos; intervals
in benchmarks/results/nested.json.
What else was tried: configs/sweeps/generalise.py.
"""

from carjax.training.config import default_config


def get_config():
    config = default_config("doors")
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
