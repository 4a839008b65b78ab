"""Fits what the circular filter and the consensus assume: `Motion()` and `consensus.FITTED`.

    python benchmarks/crossval.py --workdir=out/by_model --splits=data/splits/by_model \\
        --folds=0,1 --set=views=4 --out=out/by_model.json
    python benchmarks/temporal_fit.py --runs=out/by_model

On simulated walks around the car models of one fold, shown by heads that never saw them: the
filter's rates maximise the mean log-density of the smoothed densities at the truth, the consensus'
numbers the likelihood of the walks' classes. `carjax experiment temporal` measures on another fold.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import machine
import numpy as np
from absl import flags

from carjax import runtime
from carjax.cli import common
from carjax.errors import UsageError
from carjax.experiment import cast, methods
from carjax.experiment.temporal import Footage
from carjax.selection.eligibility import time_weights
from carjax.temporal import circular_filter, consensus, walks
from carjax.temporal.motion import Motion

SYNOPSIS = "usage: python benchmarks/temporal_fit.py --runs=DIR [--fold=1]"
# Videos are as bad as this, in turn.
SPOILT = (0.0, 0.2, 0.4)
RATES = ("drift_deg", "change_rate", "turn_rate", "floor", "correlation_s")
START = np.array([5.0, 1.0, 0.05, 0.05, 0.25])
FRAMES = 128


def main(argv: list[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string("runs", None, "of benchmarks/crossval.py, by_model", flag_values=values)
    flags.DEFINE_integer("fold", 1, "car models to fit on", flag_values=values)
    flags.DEFINE_integer("per_model", 2, "walks per car model and share", flag_values=values)
    flags.DEFINE_string("data_dir", None, "default: $CARJAX_DATA", flag_values=values)
    flags.DEFINE_string("cache_dir", None, "where features are kept", flag_values=values)
    common.parse(values, argv, SYNOPSIS)
    if not values.runs:
        raise UsageError("give --runs=DIR (see --help)")
    runtime.set_up_jax()
    photos = cast.read(values.runs, values.fold, values.data_dir, cache_dir=values.cache_dir)
    calibrations = cast.fit_calibrations(photos)
    footage = [
        one
        for share in SPOILT
        for one in cast.footage(
            photos, walks.WalkSpec(frames=FRAMES, spoilt=share), values.per_model, 1, calibrations
        )
    ]
    print(f"{len(footage)} walks, {sum(map(len, footage))} frames", flush=True)
    repetition = {
        name: consensus.fit(
            [
                consensus.Video(f.probs[name], f.time_s, time_weights(f.time_s), f.labels[name])
                for f in footage
                if name in f.labels
            ]
        )
        for name in photos.log_probs
    }
    for name, numbers in repetition.items():
        print(name, numbers, flush=True)
    motion = fit_motion(footage)
    content = {
        "motion": {name: getattr(motion, name) for name in RATES},
        "repetition": {name: dataclasses.asdict(found) for name, found in repetition.items()},
        "command": "python benchmarks/temporal_fit.py --runs=out/by_model",
        "protocol": (
            f"{len(footage)} simulated walks around the {len(np.unique(photos.group))} car models "
            f"of fold {values.fold} of data/splits/by_model, spoilt frames "
            f"{', '.join(f'{s:.0%}' for s in SPOILT)}; heads that saw none of these car models"
        ),
    }
    machine.save("temporal_fit.json", content)
    print(json.dumps(content["motion"]))
    return 0


def fit_motion(footage: Sequence[Footage]) -> Motion:
    """The rates of highest mean log-density at the true azimuths, over all frames."""
    from scipy.optimize import minimize

    columns = [methods.padded(one, FRAMES) for one in footage]
    density, time_s, mask = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *columns)
    truth = np.zeros(time_s.shape)
    for row, one in enumerate(footage):
        truth[row, : len(one)] = one.azimuth_deg
    start = Motion()

    @jax.jit
    def score(rates: jax.Array) -> jax.Array:
        motion = dataclasses.replace(start, **dict(zip(RATES, rates, strict=True)))

        def one(video: Any) -> jax.Array:
            density, time_s, mask, truth = video
            found = circular_filter.smooth(density, time_s, mask, motion)
            at = jnp.deg2rad(truth) / (2 * jnp.pi) * motion.cells
            left = jnp.floor(at).astype(int)
            share = at - left
            log = jnp.log(jnp.maximum(found.density, 1e-20))
            rows = jnp.arange(len(left))
            height = (1 - share) * log[rows, left % motion.cells]
            height += share * log[rows, (left + 1) % motion.cells]
            return jnp.sum(jnp.where(mask, height, 0.0))

        total = jax.lax.map(one, (density, time_s, mask, jnp.asarray(truth)), batch_size=8)
        return total.sum() / mask.sum()

    def numbers(x: np.ndarray) -> np.ndarray:
        floor = 0.5 / (1 + np.exp(-x[3]))
        return np.array([*np.exp(x[:3]), floor, np.exp(x[4])], np.float32)

    def loss(x: np.ndarray) -> float:
        value = -float(score(jnp.asarray(numbers(x))))
        print(f"{-value:.4f} nats per frame at {numbers(x).round(4).tolist()}", flush=True)
        return value

    x = np.log(START)
    x[3] = np.log(2 * START[3] / (1 - 2 * START[3]))
    found = minimize(
        loss, x, method="Nelder-Mead", options={"maxfev": 120, "xatol": 0.05, "fatol": 1e-4,
        "initial_simplex": np.vstack([x, x + 0.7 * np.eye(5)])},
    )  # fmt: skip
    fitted = (float(f"{value:.4g}") for value in numbers(found.x))
    return dataclasses.replace(start, **dict(zip(RATES, fitted, strict=True)))


if __name__ == "__main__":
    common.script("temporal_fit", main)
