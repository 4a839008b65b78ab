"""Calibrations against each other: how right stated probabilities are on known and unseen models.

    python benchmarks/nested.py --workdir=out/nested
    python benchmarks/calibrations.py --workdir=out/nested

Reads the finished runs of the nested cross-validation. Every calibration is fitted on the inner
folds of an outer fold and measured on its photos; ECE of 15 bins, means over the outer folds.
`card_tables.py` writes the table into docs/certainty.md.
"""

from __future__ import annotations

import argparse
import os
import pathlib
from collections.abc import Callable

import jax.numpy as jnp
import machine
import nested
import numpy as np

from carjax import calibration
from carjax.attributes import CAR, Categorical
from carjax.calibration import ClassCalibration
from carjax.evaluation import metrics

ATTRIBUTES = [a.name for a in CAR if isinstance(a, Categorical)]
Fit = Callable[[dict[str, nested.Columns]], ClassCalibration]


def temperature(inner: dict[str, nested.Columns]) -> ClassCalibration:
    """One inverse temperature, of known and unseen photos alike."""
    from scipy.optimize import minimize_scalar

    photos, weights = nested.together(inner)
    labels = photos["targets"][:, 0]

    def loss(sharpness: float) -> float:
        stated = calibration.state_classes(
            jnp.asarray(photos["log_probs"]), ClassCalibration(sharpness)
        )
        return float(-weights @ np.asarray(stated)[np.arange(len(labels)), labels])

    return ClassCalibration(float(minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded").x))


def by_novelty(parts: tuple[str, ...], *, among_models: bool) -> Fit:
    """An inverse temperature that novelty changes, fitted on the photos of some parts alone."""

    def fit(inner: dict[str, nested.Columns]) -> ClassCalibration:
        photos, weights = nested.together(inner, parts)
        return calibration.fit_classes(
            photos["log_probs"],
            photos["targets"][:, 0],
            weights,
            photos["part_novelty"] if among_models else None,
        )

    return fit


CALIBRATIONS: dict[str, Fit] = {
    "none": lambda _: ClassCalibration(),
    "one temperature": temperature,
    "by novelty among the classes": by_novelty(nested.MEASURED, among_models=False),
    "by both novelties (shipped)": by_novelty(nested.MEASURED, among_models=True),
    "the same, of known models alone": by_novelty(("known",), among_models=True),
    "the same, of unseen models alone": by_novelty(("unseen",), among_models=True),
}


def read(cars: nested.Cars, workdir: pathlib.Path, attribute: str, outer: int) -> tuple:
    """The inner folds' columns, joined, and the outer fold's."""
    runs = []
    for name, inner in nested.runs_of(outer).items():
        kind = nested.split(cars, attribute, outer, inner, nested.INNER_FOLDS)
        columns = dict(np.load(workdir / f"{attribute}-{outer}-{name}" / "held_out.npz"))
        runs.append(nested.parts_of(cars, columns, kind))
    return nested.joined(runs[:-1]), runs[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--data_dir", default=os.environ.get("CARJAX_DATA"))
    parser.add_argument("--attributes", default=",".join(ATTRIBUTES))
    arguments = parser.parse_args()
    cars = nested.read_cars(pathlib.Path(arguments.data_dir))
    figures: dict[str, dict] = {name: {} for name in CALIBRATIONS}
    for attribute in arguments.attributes.split(","):
        folds = [read(cars, arguments.workdir, attribute, i) for i in range(nested.FOLDS)]
        for name, fit in CALIBRATIONS.items():
            found: dict[str, list[float]] = {}
            for inner, outer in folds:
                fitted = fit(inner)
                for part in nested.MEASURED:
                    probs = np.exp(nested.state(outer[part], fitted)["log_probs"])
                    rows = metrics.classified(probs, outer[part]["targets"][:, 0])
                    for key in ("ece", "nll"):
                        value = metrics.CATEGORICAL_METRICS[key](rows)
                        found.setdefault(f"{part}: {key}", []).append(value)
            figures[name][attribute] = {k: round(float(np.mean(v)), 4) for k, v in found.items()}
            told = " ".join(f"{k} {v:.3f}" for k, v in figures[name][attribute].items())
            print(f"{attribute}, {name}: {told}", flush=True)
    command = f"python benchmarks/calibrations.py --attributes={arguments.attributes}"
    machine.save("calibrations.json", {"command": command, "calibrations": figures})


if __name__ == "__main__":
    main()
