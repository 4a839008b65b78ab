"""How fast features are cached, against how fast the same photos are scored.

    python benchmarks/caching.py

Caches one augmented view of every Stanford Cars photo into an empty folder, decoding included, and
scores a part of them as whole frames with `Scorer`, decoded and resized beforehand. Then trains the
orientation head, the dearest one, from cached features.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
import time

import crossval
import machine
import numpy as np

from carjax import backbones, runtime, scoring
from carjax import model as models
from carjax.datasets import feature_cache, photos
from carjax.training import config as configs
from carjax.training import data, loop

ROOT = pathlib.Path(__file__).parents[1]
SCORED, BATCH = 768, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", default=None)
    parser.add_argument("--train", action="store_true", help="also time a head's training")
    arguments = parser.parse_args()
    runtime.set_up_jax()
    root = photos.data_root(arguments.data_dir)
    config = crossval.read_config_file(ROOT / "configs" / "orientation.py")["get_config"]()
    found = data.read_partition(config, root, "stanford_cars").photos
    size = configs.input_size(config)

    images = [photos.square(found.read(i), crossval.SIDE) for i in range(SCORED)]
    scorer = scoring.Scorer(models.load().with_localise(False), BATCH)
    scorer(np.stack(images[:BATCH]))  # compiles
    start = time.perf_counter()
    scorer(np.stack(images))
    scored = SCORED / (time.perf_counter() - start)

    backbone, params = backbones.load_pretrained(config.backbone)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("compile", "measure"):
            part = found.take(np.arange(BATCH)) if name == "compile" else found
            key = feature_cache.CacheKey(
                config.backbone, name, size, config.cells, "", configs.augmentation(config)
            )
            start = time.perf_counter()
            feature_cache.build(
                part, key, backbone, params, [0], cache_dir=folder, batch_size=BATCH
            )
            seconds = time.perf_counter() - start
    cached = len(found) / seconds
    figures = {
        "photos": len(found),
        "input_size": size,
        "cached_per_s": round(cached, 1),
        "scored_per_s": round(scored, 1),
        "ratio": round(cached / scored, 2),
    }
    if arguments.train:
        with tempfile.TemporaryDirectory() as folder:
            result = loop.train_and_evaluate(config, folder, root, quiet=True)
        figures["train_orientation_s"] = result["seconds"]
    print(figures)
    machine.save("caching.json", {"command": "python benchmarks/caching.py --train", **figures})


if __name__ == "__main__":
    main()
