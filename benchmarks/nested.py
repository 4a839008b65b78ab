"""Nested cross-validation on cars that a head knows, on models it never saw, on unknown brands.

    python benchmarks/nested.py --data_dir="$CARJAX_DATA" --workdir=out/nested

Each outer fold holds out a fifth of the car models, the makes with a single model among them, and
a fifth of the photos of all other models. Within the rest, an inner fold holds out the same way;
on it alone the calibration and the threshold for unknown brands are fitted, and then applied as
they are to the outer fold. So every figure comes from photos that neither the heads nor their
calibration saw:

* known: photos of models that were trained on;
* unseen: photos of models that were not; for brand, their make has another model in training;
* unknown: photos of makes that were not trained on at all (brand only).

Each of attributes × outer folds × {inner, outer} is one `carjax train` run; finished runs are
reused.
"""

from __future__ import annotations

import csv
import hashlib
import pathlib
import sys
from typing import Any, NamedTuple

import crossval
import numpy as np
from absl import flags

from carjax.attributes import CAR
from carjax.cli import common
from carjax.errors import CarjaxError, UsageError

FOLDS = 5
DATA_SET = "stanford_cars"
SYNOPSIS = "usage: python benchmarks/nested.py --workdir=DIR [--attributes=…]"
HERE = pathlib.Path(__file__).parent
# What a photo is in a split; the first is trained on.
TRAIN, KNOWN, UNSEEN, UNKNOWN, LEFT_OUT = range(5)
PARTS = {"known": KNOWN, "unseen": UNSEEN, "unknown": UNKNOWN}


class Cars(NamedTuple):
    """The photos' names and what they show, N each."""

    file: np.ndarray
    make: np.ndarray
    model: np.ndarray


def read_cars(root: pathlib.Path) -> Cars:
    """Reads the label table."""
    with (root / DATA_SET / "labels.csv").open(newline="") as f:
        rows = [(r["file"], r["make"], r["class_name"]) for r in csv.DictReader(f)]
    return Cars(*(np.array(column) for column in zip(*rows, strict=True)))


def _sha1(text: str) -> int:
    return int(hashlib.sha1(text.encode()).hexdigest(), 16)


def model_folds(cars: Cars) -> np.ndarray:
    """Returns each photo's fold by model, int [N]; the models of a make lie in different folds."""
    fold = {}
    for make in np.unique(cars.make):
        models = sorted(set(cars.model[cars.make == make]), key=_sha1)
        fold |= {model: (_sha1(make) + i) % FOLDS for i, model in enumerate(models)}
    return np.array([fold[model] for model in cars.model])


def split(cars: Cars, attribute: str, outer: int, inner: int | None) -> np.ndarray:
    """Returns what every photo is in a split, int [N].

    Args:
        cars: the photos.
        attribute: for 'brand', models whose make is not trained on are unknown, not unseen.
        outer: the fold that is measured; left out entirely where …
        inner: … an inner fold is held out instead.
    """
    by_model, by_photo = model_folds(cars), np.array([_sha1(f) % FOLDS for f in cars.file])
    single = np.array([len(set(cars.model[cars.make == make])) == 1 for make in cars.make])
    kind = np.full(len(cars.file), TRAIN)
    for fold in (outer,) if inner is None else (outer, inner):
        free = kind == TRAIN
        kind[free & (by_photo == fold)] = KNOWN
        lone = single if attribute == "brand" else np.zeros_like(single)
        kind[free & (by_model == fold)] = UNSEEN
        kind[free & (by_model == fold) & lone] = UNKNOWN
        if inner is not None and fold == outer:
            kind[kind != TRAIN] = LEFT_OUT
    return kind


def train(values: Any, cars: Cars, attribute: str, outer: int, inner: int | None) -> pathlib.Path:
    """Trains one run, or reuses it, and returns its folder."""
    from carjax.training import loop

    workdir = pathlib.Path(values.workdir)
    name = f"{attribute}-{outer}-{'outer' if inner is None else 'inner'}"
    folds = workdir / "splits" / name
    folds.mkdir(parents=True, exist_ok=True)
    kind = split(cars, attribute, outer, inner)
    fold = np.select([kind == TRAIN, kind == LEFT_OUT], [0, -1], 1)
    with (folds / f"{DATA_SET}.csv").open("w", newline="") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(["file", "fold"])
        writer.writerows(zip(cars.file.tolist(), fold.tolist(), strict=True))
    configs = pathlib.Path(values.configs)
    config = crossval.read_config_file(configs / f"{attribute}.py")["get_config"]()
    config.fold = 1
    config.splits = str(folds)
    for override in values.set:
        crossval.override(config, override)
    result = loop.train_and_evaluate(
        config, workdir / name, values.data_dir, cache_dir=values.cache_dir
    )
    figures = ", ".join(f"{k} {v:.4f}" for k, v in result["held_out"].items())
    print(f"{name}: {figures} ({result['seconds']} s)", flush=True)
    return workdir / name


def held_out(cars: Cars, run: pathlib.Path, kind: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Returns 'known', 'unseen', 'unknown' → the columns of `held_out.npz` of those photos."""
    columns = dict(np.load(run / "held_out.npz"))
    position = {f"{DATA_SET}/{name}": i for i, name in enumerate(cars.file.tolist())}
    found = kind[[position[name] for name in columns["names"].tolist()]]
    return {part: {k: v[found == code] for k, v in columns.items()} for part, code in PARTS.items()}


def main(argv: list[str]) -> int:
    values = flags.FlagValues()
    names = [a.name for a in CAR]
    flags.DEFINE_list("attributes", names, "which heads: names of config files", flag_values=values)
    flags.DEFINE_list("outer", [str(i) for i in range(FOLDS)], "outer folds", flag_values=values)
    flags.DEFINE_string("configs", str(HERE.parent / "configs"), "config files", flag_values=values)
    flags.DEFINE_list("set", [], "fields of every config: head.hidden=128,…", flag_values=values)
    flags.DEFINE_string("workdir", None, "one folder per run is made here", flag_values=values)
    flags.DEFINE_string("data_dir", None, "default: $CARJAX_DATA", flag_values=values)
    flags.DEFINE_string("cache_dir", None, "where features are kept", flag_values=values)
    flags.DEFINE_string("out", str(HERE / "results" / "nested.json"), "results", flag_values=values)
    try:
        common.parse(values, argv, SYNOPSIS)
    except common.HelpShown:
        return 0
    if not values.workdir:
        raise UsageError("give --workdir=DIR (see --help)")
    common.set_up_jax()
    from carjax.datasets import photos

    cars = read_cars(photos.data_root(values.data_dir))
    for attribute in values.attributes:
        for outer in [int(i) for i in values.outer]:
            for inner in ((outer + 1) % FOLDS, None):
                train(values, cars, attribute, outer, inner)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except CarjaxError as error:
        sys.exit(f"nested: {error}")
