"""Five-fold cross-validation of the training recipe: the figures of the model card.

    python benchmarks/crossval.py --data_dir="$CARJAX_DATA" --workdir=out/crossval
    python benchmarks/crossval.py --workdir=out/crossval --localise=out/localise

Each of attributes × folds is one `carjax train` run that holds a fold out; finished runs are
reused. Every figure is the mean over the folds, with a 95% bootstrap interval over all images,
each predicted by the run that did not see it. The first command scores the photos as they are
(cropped to the car by the data set); `--localise=BUNDLE` scores them once more through the whole
scoring program, which finds the car itself, and adds to the same results file.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import platform
import sys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from absl import flags

from carjax import files
from carjax.attributes import CAR, Categorical, find
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
    flags.DEFINE_list("attributes", names, "which heads", flag_values=values)
    flags.DEFINE_list("folds", ["0", "1", "2", "3", "4"], "which folds", flag_values=values)
    flags.DEFINE_string("configs", str(HERE.parent / "configs"), "config files", flag_values=values)
    flags.DEFINE_string("workdir", None, "one folder per run is made here", flag_values=values)
    flags.DEFINE_string("data_dir", None, "default: $CARJAX_DATA", flag_values=values)
    flags.DEFINE_string("cache_dir", None, "where features are kept", flag_values=values)
    flags.DEFINE_string("localise", None, "bundle or run whose car box crops", flag_values=values)
    flags.DEFINE_string(
        "out", str(HERE / "results" / "crossval.json"), "results", flag_values=values
    )
    try:
        common.parse(values, argv, SYNOPSIS)
    except common.HelpShown:
        return 0
    if not values.workdir:
        raise UsageError("give --workdir=DIR (see --help)")
    unknown = set(values.attributes) - set(names)
    if unknown:
        raise UsageError(f"no attribute {', '.join(sorted(unknown))}; there are: {names}")
    common.set_up_jax()
    folds = [int(f) for f in values.folds]
    out = pathlib.Path(values.out)
    results = json.loads(out.read_text()) if out.is_file() else {}
    results["machine"] = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }
    results["protocol"] = (
        f"mean over folds {folds} by SHA-1 of the file name (data/splits); every image predicted "
        "once, by heads that were trained on the other folds; one plain view per image; original "
        f"labels; 95% percentile bootstrap over images, {RESAMPLES} resamples"
    )
    for attribute in values.attributes:
        runs = [train_fold(values, attribute, fold) for fold in folds]
        predicted = [dict(np.load(run / "held_out.npz")) for run in runs]
        report(results, "cropped_photos", attribute, predicted)
        if values.localise:
            found = [localised(values, run, p) for run, p in zip(runs, predicted, strict=True)]
            report(results, "localised", attribute, found)
        with files.replacing(out) as temporary:
            temporary.write_text(json.dumps(results, indent=1) + "\n")
    return 0


def train_fold(values: Any, attribute: str, fold: int) -> pathlib.Path:
    """Trains one run, or reuses it, and returns its folder."""
    from carjax.training import loop

    config = load_config(pathlib.Path(values.configs) / f"{attribute}.py")
    config.fold = fold
    run = pathlib.Path(values.workdir) / f"{attribute}-{fold}"
    result = loop.train_and_evaluate(config, run, values.data_dir, cache_dir=values.cache_dir)
    figures = ", ".join(f"{k} {v:.4f}" for k, v in result["held_out"].items())
    print(f"{attribute} fold {fold}: {figures} ({result['seconds']} s)", flush=True)
    return run


def load_config(path: pathlib.Path) -> Any:
    """Runs a config file and returns its settings."""
    if not path.is_file():
        raise CarjaxError(f"{path}: no such config file")
    space: dict[str, Any] = {}
    exec(compile(path.read_text(), path, "exec"), space)
    return space["get_config"]()


def localised(values: Any, run: pathlib.Path, predicted: Fold) -> Fold:
    """Predicts a run's held-out photos again, each cropped to the box that is found in it."""
    from carjax import model, scoring
    from carjax.datasets import photos

    head = model.load(run / "head.safetensors")
    given = pathlib.Path(values.localise)
    box = model.load(given / "head.safetensors" if given.is_dir() else given).with_localise(True)
    joined = dataclasses.replace(
        head,
        params={**head.params, "localise": box.params["localise"]},
        spec=dataclasses.replace(head.spec, localise=box.spec.localise),
    )
    scorer = scoring.Scorer(joined)
    root = photos.data_root(values.data_dir)
    paths = []
    for name in predicted["names"]:
        dataset, file = str(name).split("/", 1)
        paths.append(root / dataset / "images" / file)
    parts = []
    for start in range(0, len(paths), scorer.batch_size):
        frames = np.stack([square(photos.decode(p)) for p in paths[start:][: scorer.batch_size]])
        parts.append(scoring.to_host(scorer.dispatch(frames), len(frames)))
    scores = scoring.concatenate(parts)
    columns: Fold = {"names": predicted["names"], "targets": predicted["targets"]}
    if scores.azimuth is not None:
        return columns | scores.azimuth._asdict()
    (probs,) = scores.probs.values()
    return columns | {"log_probs": np.log(np.maximum(probs, 1e-12))}


def square(image: np.ndarray) -> np.ndarray:
    """Resizes a BGR photo to one RGB square for all, so that scoring compiles once.

    Every later step squashes its window to a square, so the change of aspect changes nothing.
    """
    shrinks = max(image.shape[:2]) > SIDE
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (SIDE, SIDE), interpolation=method)[..., ::-1]


def metrics_of(attribute: str, fold: Fold) -> dict[str, float]:
    """Returns the metrics of predictions in one fold, or in a resample of all."""
    from carjax.training import evaluation, tasks

    if isinstance(find(CAR, attribute), Categorical):
        return evaluation.categorical_metrics(fold["log_probs"], fold["targets"])
    return evaluation.angular_metrics(tasks.density_of(fold), fold["targets"])


def summarise(attribute: str, folds: Sequence[Fold]) -> dict[str, Any]:
    """Returns the mean over folds of every metric, with a bootstrap interval over images."""
    per_fold = [metrics_of(attribute, fold) for fold in folds]
    pooled = {k: np.concatenate([f[k] for f in folds]) for k in folds[0]}
    summary: dict[str, Any] = {"images": len(pooled["targets"])}
    rng = np.random.default_rng(0)
    resamples = []
    for _ in range(RESAMPLES):
        index = rng.integers(len(pooled["targets"]), size=len(pooled["targets"]))
        resamples.append(metrics_of(attribute, {k: v[index] for k, v in pooled.items()}))
    for name in per_fold[0]:
        low, high = np.quantile([m[name] for m in resamples], [0.025, 0.975])
        summary[name] = {
            "mean": float(np.mean([m[name] for m in per_fold])),
            "ci95": [float(low), float(high)],
            "folds": [m[name] for m in per_fold],
        }
    return summary


def report(results: dict[str, Any], section: str, attribute: str, folds: Sequence[Fold]) -> None:
    """Adds an attribute's summary to a section of the results, and prints it."""
    summary = summarise(attribute, folds)
    results.setdefault(section, {})[attribute] = summary
    print(f"{attribute} ({section}, {summary['images']} images)")
    for name, value in summary.items():
        if name != "images":
            low, high = value["ci95"]
            print(f"  {name:<18} {value['mean']:.4f}  [{low:.4f}, {high:.4f}]", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except CarjaxError as error:
        sys.exit(f"crossval: {error}")
