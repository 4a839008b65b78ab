"""Azimuth on whole videos and spins that were never trained on, through the car box.

    python benchmarks/videos.py [--model=FILE]

The sample's ground truth is exact; the spins' labels are good to about 5 degrees. Prints the median
error, the share within 30 degrees, the flips (> 150 degrees), and on spins the mean log-likelihood
of the whole density, in nats per radian; writes results/videos.json.
"""

import argparse
import csv
import os
import pathlib

import machine
import numpy as np

from carjax import circular, grids, runtime, scan, scoring
from carjax import model as models
from carjax.datasets import turntables
from carjax.evaluation import metrics

ROOT = pathlib.Path(__file__).parents[1]


def summary(error: np.ndarray) -> dict[str, float]:
    return {
        "frames": len(error),
        "median_deg": round(float(np.median(error)), 2),
        "within_30": round(float((error <= 30).mean()), 4),
        "flips": round(float((error > metrics.FLIP_DEG).mean()), 4),
    }


def sample(model: models.Model) -> dict[str, float]:
    with (ROOT / "data" / "prius_walkaround.csv").open() as f:
        rows = list(csv.DictReader(f))
    table, _ = scan.score_video(model, ROOT / "data" / "prius_walkaround.mp4", fps="all")
    sound = np.array([row["degraded"] == "0" for row in rows])
    truth = np.array([float(row["azimuth_deg"]) for row in rows])
    return summary(grids.apart_deg(table.azimuth_deg, truth)[sound])


def spins(model: models.Model, folder: pathlib.Path) -> dict[str, dict[str, float]]:
    import cv2

    found, every = {}, []
    for name, spin in turntables.read(folder).items():
        frames = np.stack([cv2.imread(str(folder / file))[..., ::-1] for file in spin.files])
        scores = scoring.Scorer(model)(frames)
        error = grids.apart_deg(circular.azimuth_deg(scores.azimuth), spin.azimuth_deg)
        angle = np.deg2rad(spin.azimuth_deg).astype(np.float32)
        loglik = np.asarray(circular.log_prob(scores.azimuth, angle))
        found[name] = summary(error) | {"loglik_nats": round(float(loglik.mean()), 3)}
        every.append((error, loglik))
    error, loglik = (np.concatenate(column) for column in zip(*every, strict=True))
    found["all"] = summary(error) | {"loglik_nats": round(float(loglik.mean()), 3)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    runtime.set_up_jax()
    model = models.load(parser.parse_args().model)
    figures = {"sample": sample(model), "sample_nolocalise": sample(model.with_localise(False))}
    if data := os.environ.get("CARJAX_DATA"):
        figures["spins"] = spins(model, pathlib.Path(data) / "spins")
    for name, row in figures.items():
        print(name, row)
    machine.save("videos.json", {"command": "python benchmarks/videos.py", **figures})


if __name__ == "__main__":
    main()
