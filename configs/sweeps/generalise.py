"""What was tried for car models that a head never saw: one line per recipe.

    python benchmarks/generalise.py --workdir=out/generalise

RESULTS
"""

from collections.abc import Mapping

# Fields that differ from `configs/brand.py` and `configs/type.py`, which are the first line.
RECIPES: Mapping[str, tuple[str, ...]] = {
    "as shipped: 2 members, one without models": (),
    "one member, models as parts": ("head.members=1", "head.hidden=256"),
    "one member, classes alone": ("head.members=1", "head.hidden=256", "parts=False"),
    "4 smaller members": ("head.members=4", "head.hidden=96"),
    "cells not projected": ("head.channels=0", "head.hidden=128"),
    "cells projected to 16 channels": ("head.channels=16",),
    "top level alone": ("head.grid=0",),
    "8 × 8 cells": ("head.grid=8", "head.channels=24"),
    "attention: 8 queries over 8 × 8 cells": ("head.grid=8", "head.queries=8"),
    "no mixup": ("mixup=0.0",),
    "mixup of 1": ("mixup=1.0",),
    "no label smoothing": ("label_smoothing=0.0",),
    "label smoothing of 0.15": ("label_smoothing=0.15",),
    "neither mixup nor smoothing": ("mixup=0.0", "label_smoothing=0.0"),
    "classes drawn more evenly": ("balance=0.5",),
    "dropout of 0.5": ("dropout=0.5",),
    "2 views (plain, mirrored)": ("views=2",),
    "1 view, 260 pixels": ("views=1", "input_size=260"),
    "1 view, 320 pixels": ("views=1",),
    "1 view, 384 pixels": ("views=1", "input_size=384"),
}
