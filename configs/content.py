"""Whole car, part of a car, or no car, at the input size of the car box, whose look it reads.

    carjax train --config=configs/content.py --workdir=out/content

Result over five folds (benchmarks/content.py, 877 windows labelled by looking): balanced accuracy
0.960; whole 0.960, part 0.935, none 0.984. Windows and labels: data/content_labels.csv.
"""

from carjax.training.config import default_config


def get_config():
    config = default_config("content")
    config.datasets = ("car_boxes", "phone_photos", "stanford_cars")
    config.input_size = 160
    config.head.grid = 3
    config.head.channels = 16
    config.head.hidden = 24
    config.cells = 3
    config.parts = False
    config.balance = 1.0
    # A window that moves shows another part: views hardly move, and are never zoomed out.
    config.augmentation.crop = 0.03
    config.augmentation.margin = 0.0
    config.augmentation.blur = 2.0
    config.views = 3
    config.batch = 128
    config.steps = 600
    config.lr = 2e-3
    return config
