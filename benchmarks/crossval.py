"""Five-fold cross-validation of the training recipe, on one data set.

    python benchmarks/crossval.py --data_dir="$CARJAX_DATA" --workdir=out/crossval
    python benchmarks/crossval.py --workdir=out/crossval --localise=out/localise
    python benchmarks/crossval.py --workdir=out/by_model --splits=data/splits/by_model \\
        --out=benchmarks/results/crossval_by_model.json
    python benchmarks/crossval.py --workdir=out/crossval --attributes=orientation_cvae

Each of attributes × folds is one `carjax train` run that holds a fold out; finished runs are
reused. Each image is predicted by the run that did not see it. Every figure is the mean over the
folds, with a 95% bootstrap interval over images: too narrow where whole car models are held out.
The first command scores the photos as they are (cropped to the car by the data set);
`--localise=BUNDLE` scores them once more through the whole scoring program, which finds the car
itself, and adds to the same file. The third holds whole car models out. Of a config's data sets
the first is read alone: cars of another may be of models that a fold holds out, which `nested.py`
takes care of.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import pathlib
import runpy
from collections.abc import Sequence
from typing import Any

import machine
import numpy as np
from absl import flags

from carjax import files, runtime
from carjax.attributes import CAR
from carjax.cli import common
from carjax.errors import CarjaxError, UsageError

# Side of the squares that --localise scores, in pixels; the photos are at most 448 wide.
SIDE = 448
RESAMPLES = 1000
HERE = pathlib.Path(__file__).parent
SYNOPSIS = "usage: python benchmarks/crossval.py --workdir=DIR [--attributes=…] [--localise=BUNDLE]"
# Fold by fold: name of each out-of-fold photo, its target, and its predictions.
Fold = dict[str, np.ndarray]


def main(argv: list[str]) -> int:
    values = flags.FlagValues()
    names = [a.name for a in CAR]
    flags.DEFINE_list("attributes", names, "which heads: names of config files", flag_values=values)
    flags.DEFINE_list("folds", ["0", "1", "2", "3", "4"], "which folds", flag_values=values)
    flags.DEFINE_string("configs", str(HERE.parent / "configs"), "config files", flag_values=values)
    flags.DEFINE_string("workdir", None, "one folder per run is made here", flag_values=values)
    flags.DEFINE_string("data_dir", None, "default: $CARJAX_DATA", flag_values=values)
    flags.DEFINE_string("cache_dir", None, "where features are kept", flag_values=values)
    flags.DEFINE_string("splits", "data/splits", "folder of folds", flag_values=values)
    flags.DEFINE_multi_string("set", [], "FIELD=VALUE of every config", flag_values=values)
    flags.DEFINE_string("localise", None, "bundle or run whose car box crops", flag_values=values)
    flags.DEFINE_string(
        "out", str(HERE / "results" / "crossval.json"), "results", flag_values=values
    )
    common.parse(values, argv, SYNOPSIS)
    if not values.workdir:
        raise UsageError("give --workdir=DIR (see --help)")
    runtime.set_up_jax()
    folds = [int(f) for f in values.folds]
    out = pathlib.Path(values.out)
    results = json.loads(out.read_text()) if out.is_file() else {}
    results["machine"] = machine.name()
    results["protocol"] = (
        f"mean over folds {folds} of {values.splits}, by SHA-1; every image predicted "
        "once, by heads that were trained on the other folds; one plain view per image; original "
        f"labels; 95% bootstrap over the images of every fold, {RESAMPLES} resamples"
    )
    runs = {(a, f): train_fold(values, a, f) for a in values.attributes for f in folds}
    predicted: dict[str, list[Fold]] = {}
    for attribute in values.attributes:
        files_of = [runs[attribute, fold] / "held_out.npz" for fold in folds]
        predicted[attribute] = [dict(np.load(file)) for file in files_of]
        report(results, "cropped_photos", attribute, predicted[attribute])
    if "orientation" in predicted:
        corrected = [with_corrections(fold) for fold in predicted["orientation"]]
        report(results, "cropped_photos_corrected_labels", "orientation", corrected)
        changed = sum(
            int((a["targets"] != b["targets"]).sum())
            for a, b in zip(corrected, predicted["orientation"], strict=True)
        )
        results["cropped_photos_corrected_labels"]["orientation"]["labels_corrected"] = changed
    write(results, out)
    if values.localise:
        found: dict[str, list[Fold]] = {attribute: [] for attribute in values.attributes}
        for i, fold in enumerate(folds):
            heads = [runs[attribute, fold] for attribute in values.attributes]
            held_out = {attribute: predicted[attribute][i] for attribute in values.attributes}
            for attribute, columns in localised(values, heads, held_out).items():
                found[attribute].append(columns)
        for attribute in values.attributes:
            report(results, "localised", attribute, found[attribute])
        write(results, out)
    return 0


def write(results: dict[str, Any], out: pathlib.Path) -> None:
    """Writes the results so far."""
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write(out, json.dumps(results, indent=1) + "\n")


def train_fold(values: Any, attribute: str, fold: int) -> pathlib.Path:
    """Trains one run, or reuses it, and returns its folder."""
    from carjax.training import loop

    config = read_config_file(pathlib.Path(values.configs) / f"{attribute}.py")["get_config"]()
    for given in values.set:
        override(config, given)
    config.fold = fold
    config.splits = values.splits
    config.datasets = config.datasets[:1]
    run = pathlib.Path(values.workdir) / f"{attribute}-{fold}"
    result = loop.train_and_evaluate(config, run, values.data_dir, cache_dir=values.cache_dir)
    figures = ", ".join(f"{k} {v:.4f}" for k, v in result["held_out"].items())
    print(f"{attribute} fold {fold}: {figures} ({result['seconds']} s)", flush=True)
    return run


def read_config_file(path: pathlib.Path) -> dict[str, Any]:
    """Runs a config file and returns what it defines."""
    if not path.is_file():
        raise CarjaxError(f"{path}: no such config file")
    return runpy.run_path(str(path))


def override(config: Any, given: str) -> None:
    """Sets one field of a config, `head.hidden=128`, to a value of the field's own type."""
    path, _, text = given.partition("=")
    *parents, field = path.split(".")
    for parent in parents:
        config = config[parent]
    old = config[field]
    config[field] = text == "True" if isinstance(old, bool) else type(old)(text)


def localised(
    values: Any, heads: Sequence[pathlib.Path], held_out: dict[str, Fold]
) -> dict[str, Fold]:
    """Predicts a fold's photos again, each cropped to the box that is found in it.

    Args:
        values: the flags.
        heads: one run per attribute, all without this fold.
        held_out: attribute → its photos and targets.
    """
    from carjax import bundle, model, scoring
    from carjax.datasets import photos

    box = model.load(values.localise)
    box = dataclasses.replace(box, spec=dataclasses.replace(box.spec, heads=()))
    parts = [model.load(run) for run in heads]
    joined = bundle.join([*parts, box], [*map(str, heads), values.localise], "held out")
    scorer = scoring.Scorer(joined)
    root = photos.data_root(values.data_dir)
    names = sorted({str(name) for fold in held_out.values() for name in fold["names"]})
    rows = []
    for start in range(0, len(names), scorer.batch_size):
        chunk = [name.split("/", 1) for name in names[start : start + scorer.batch_size]]
        images = [photos.decode(root / dataset / "images" / file) for dataset, file in chunk]
        rows.append(scorer(np.stack([photos.square(image, SIDE) for image in images])))
    scores = scoring.concatenate(rows)
    found = {}
    for attribute, fold in held_out.items():
        index = np.searchsorted(names, [str(name) for name in fold["names"]])
        columns: Fold = {"names": fold["names"], "targets": fold["targets"]}
        if "log_probs" in fold:
            log_probs = np.log(np.maximum(scores.probs[attribute][index], 1e-12))
            found[attribute] = columns | {"log_probs": log_probs}
        else:
            density = scores.azimuth._asdict()
            found[attribute] = columns | {k: v[index] for k, v in density.items()}
    return found


def with_corrections(fold: Fold) -> Fold:
    """A fold's azimuths with those replaced that were looked at and found wrong."""
    with (HERE.parent / "data" / "corrections" / "stanford_cars.csv").open(newline="") as f:
        known = {
            f"stanford_cars/{row['file']}": float(row["azimuth_deg"]) for row in csv.DictReader(f)
        }
    pairs = zip(fold["names"].tolist(), fold["targets"].tolist(), strict=True)
    return {**fold, "targets": np.array([known.get(name, target) for name, target in pairs])}


def rows_of(fold: Fold) -> Any:
    """Reduces the predictions of one fold to what the metrics read."""
    from carjax.evaluation import metrics
    from carjax.training import tasks

    if "log_probs" in fold:
        return metrics.classified(np.exp(fold["log_probs"]), fold["targets"][:, 0])
    return metrics.directed(tasks.density_of(fold), fold["targets"])


def summarise(folds: Sequence[Fold]) -> dict[str, Any]:
    """Returns the mean over folds of every metric, with a bootstrap interval.

    Each fold is resampled by itself, and the mean over folds taken as of the folds themselves:
    whole car models where the column `model` names them, as photos of one are not independent,
    images otherwise. What resampling adds on average (to a calibration error it adds noise) is
    taken off, so that the interval is about the mean.
    """
    from carjax.evaluation import metrics

    rows = [rows_of(fold) for fold in folds]
    groups = [fold.get("model", np.arange(len(r[0]))) for fold, r in zip(folds, rows, strict=True)]
    members = [[np.flatnonzero(g == name) for name in np.unique(g)] for g in groups]
    table: Any = metrics.CATEGORICAL_METRICS if "log_probs" in folds[0] else metrics.ANGULAR_METRICS
    rng = np.random.default_rng(0)

    def resampled() -> list[float]:
        parts = []
        for row, own in zip(rows, members, strict=True):
            index = np.concatenate([own[i] for i in rng.integers(len(own), size=len(own))])
            parts.append(metrics.take(row, index))
        return [float(np.mean([metric(part) for part in parts])) for metric in table.values()]

    drawn = np.array([resampled() for _ in range(RESAMPLES)])
    summary: dict[str, Any] = {
        "images": sum(len(row[0]) for row in rows),
        "resampled": "car models" if "model" in folds[0] else "images",
    }
    for column, (name, metric) in enumerate(table.items()):
        values = [metric(row) for row in rows]
        mean = float(np.mean(values))
        ends = np.quantile(drawn[:, column], [0.025, 0.975]) - drawn[:, column].mean() + mean
        summary[name] = {"mean": mean, "ci95": ends.tolist(), "folds": values}
    return summary


def report(results: dict[str, Any], section: str, attribute: str, folds: Sequence[Fold]) -> None:
    """Adds an attribute's summary to a section of the results, and prints it."""
    summary = summarise(folds)
    results.setdefault(section, {})[attribute] = summary
    print(f"{attribute} ({section}, {summary['images']} images)")
    for name, value in summary.items():
        if isinstance(value, dict):
            low, high = value["ci95"]
            print(f"  {name:<18} {value['mean']:.4f}  [{low:.4f}, {high:.4f}]", flush=True)


if __name__ == "__main__":
    common.script("crossval", main)
