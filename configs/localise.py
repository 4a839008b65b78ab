"""The main car's box, on whole photos and on zoomed-out views of them.

    carjax train --config=configs/localise.py --workdir=out/localise

Result on fold 0, held out (`--config.fold=0`, one look): mean IoU 0.898, recall at IoU 0.5 0.985;
with both looks: see MODEL_CARD.md.
"""

from carjax.training.config import default_config


def get_config():
    config = default_config("localise")
    # A small car anywhere in the frame, and windows that cut it off, must be found as well.
    config.augmentation.crop = 0.2
    config.augmentation.zoom_out = 3.5
    config.augmentation.zoom_out_rate = 0.7
    config.augmentation.backdrop_rate = 0.6
    config.augmentation.blur = 2.0
    config.views = 6
    config.batch = 128
    config.steps = 1500
    config.lr = 2e-3
    return config
