"""Recipes against each other on inner grouped folds: known models, unseen models, unknown brands.

    python benchmarks/generalise.py --config=configs/sweeps/generalise.py --workdir=out/generalise

Runs every recipe of the config for each of its attributes on inner folds of the nested
cross-validation (`benchmarks/nested.py`), by default that of outer fold 0, whose own photos are
left out: the choice of a recipe never sees what the nested figures are measured on in that fold.
Each recipe is also measured with the mirrored view averaged in (test-time flip). Finished runs are
reused.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import crossval
import depths  # noqa: F401 - registers its backbone
import jax
import jax.numpy as jnp
import machine
import nested
import numpy as np
from absl import flags

from carjax import model, runtime
from carjax.cli import common
from carjax.errors import UsageError
from carjax.evaluation import metrics

HERE = pathlib.Path(__file__).parent
SYNOPSIS = "usage: python benchmarks/generalise.py --config=FILE --workdir=DIR"


def figures(parts: dict[str, nested.Columns]) -> dict[str, float]:
    """Accuracy, NLL and calibration error of known and unseen photos, and how both are told."""
    found = {}
    for part in nested.MEASURED:
        log_probs, label = parts[part]["log_probs"], parts[part]["targets"][:, 0]
        rows = metrics.classified(np.exp(log_probs), label)
        for name in ("accuracy", "nll", "ece"):
            found[f"{part}: {name}"] = metrics.CATEGORICAL_METRICS[name](rows)
    for part in ("unseen", "unknown"):
        if len(parts[part]["targets"]):
            own = (nested.novelty_of(parts[p]) for p in ("known", part))
            found[f"{part}: auroc"] = nested.auroc(*own)
    return found


def mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Averages the figures of several folds."""
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def flipped(run: pathlib.Path, config: Any, values: Any) -> np.ndarray:
    """Log-probabilities of the held-out photos' mirrored views, [m, K]."""
    from carjax import backbones
    from carjax.datasets import photos
    from carjax.training import data, prediction, tasks

    root = photos.data_root(values.data_dir)
    task = tasks.create(config, data.part_keys(config, root))
    head = model.load(run)
    backbone, _ = backbones.load_pretrained(config.backbone)
    sources = data.load_sources(
        config, task, root, backbone, head.params["backbone"], head.card["backbone_sha256"],
        cache_dir=values.cache_dir,
    )  # fmt: skip
    params = head.params["heads"][config.attribute]
    found = prediction.predict_all(
        jax.jit(task.predict), data.held_out_set(sources, task, view=1).features, params
    )
    return found["log_probs"]


def main(argv: list[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "file with RECIPES and get_config()", flag_values=values)
    flags.DEFINE_list("recipes", None, "only these", flag_values=values)
    flags.DEFINE_list("attributes", None, "only these", flag_values=values)
    flags.DEFINE_list("outer", ["0"], "outer folds whose inner folds serve", flag_values=values)
    flags.DEFINE_bool("flip", True, "also with the mirrored view", flag_values=values)
    flags.DEFINE_string("workdir", None, "one folder per run is made here", flag_values=values)
    flags.DEFINE_string("data_dir", None, "default: $CARJAX_DATA", flag_values=values)
    flags.DEFINE_string("cache_dir", None, "where features are kept", flag_values=values)
    flags.DEFINE_string(
        "out", str(HERE / "results" / "generalise.json"), "results", flag_values=values
    )
    common.parse(values, argv, SYNOPSIS)
    if not values.config or not values.workdir:
        raise UsageError("give --config=FILE and --workdir=DIR (see --help)")
    runtime.set_up_jax()
    from carjax.datasets import photos

    sweep = crossval.read_config_file(pathlib.Path(values.config))
    cars = nested.read_cars(photos.data_root(values.data_dir))
    out = pathlib.Path(values.out)
    rows: list[dict[str, Any]] = json.loads(out.read_text())["rows"] if out.is_file() else []
    for recipe in values.recipes or sweep["RECIPES"]:
        for attribute in values.attributes or sweep["ATTRIBUTES"]:
            config = sweep["get_config"](attribute, recipe)
            plain, both = [], []
            for outer in [int(fold) for fold in values.outer]:
                kind = nested.split(cars, attribute, outer, (outer + 1) % nested.FOLDS)
                config = sweep["get_config"](attribute, recipe)
                name = f"{recipe}-{attribute}-{outer}".replace("/", "_")
                run = nested.train(values, cars, config, name, kind)
                columns = dict(np.load(run / "held_out.npz"))
                plain.append(figures(nested.parts_of(cars, columns, kind)))
                if values.flip and config.views > 1:
                    sums = jnp.logaddexp(columns["log_probs"], flipped(run, config, values))
                    columns["log_probs"] = np.asarray(sums - jnp.log(2.0))
                    both.append(figures(nested.parts_of(cars, columns, kind)))
            row = {"recipe": recipe, "attribute": attribute, "plain": mean(plain)}
            row["fields"] = dict(sweep["RECIPES"][recipe])
            if both:
                row["with flip"] = mean(both)
            # A row of an earlier call gives way; others stay.
            rows = [r for r in rows if (r["recipe"], r["attribute"]) != (recipe, attribute)] + [row]
            told = " ".join(f"{k} {v:.3f}" for k, v in row["plain"].items())
            print(f"{recipe}, {attribute}: {told}", flush=True)
            results = {
                "machine": machine.name(),
                "protocol": f"inner folds of outer folds {values.outer}, {config.steps} steps",
                "rows": rows,
            }
            crossval.write(results, out)
    print(json.dumps(results["protocol"]))
    return 0


if __name__ == "__main__":
    common.script("generalise", main)
