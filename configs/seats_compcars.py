"""The head for seats on CompCars, the shipped backbone.

    carjax train --config=configs/seats_compcars.py --workdir=out/seats_compcars

Measured on the published test list; on car models that were not trained on with
--config.train_split=by_model --config.eval_split=by_model.
Result: not run: needs CompCars (`carjax prepare compcars_web`, see data/README.md).
"""

from carjax.training.config import default_config


def get_config():
    config = default_config("seats")
    config.datasets = ("compcars_web",)
    config.train_split = "train+rest"
    config.eval_split = "test"
    config.input_size = 320
    config.views = 4
    config.steps = 4000
    config.mixup = 0.2
    return config
