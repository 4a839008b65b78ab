"""tfds builders of published data sets: from the files as downloaded to ArrayRecord.

TensorFlow is not needed. A builder reads one published layout and yields one example per object:
the photo's own encoded bytes, its box, its model, and each attribute as a class name or a number.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from carjax.datasets.builders.base import PhotoBuilder

# Name → the class in the module of that name.
BUILDERS = {
    "pascal3d_car": "Pascal3dCar",
    "compcars_web": "CompcarsWeb",
    "stanford_cars_attributes": "StanfordCarsAttributes",
    "labelled_folder": "LabelledFolder",
}


def load(name: str) -> type[PhotoBuilder]:
    """Returns a builder's class, and registers it with tfds.

    Raises:
        KeyError: no builder has that name.
        ImportError: a package of the extra `train` is missing.
    """
    return getattr(importlib.import_module(f"{__name__}.{name}"), BUILDERS[name])
