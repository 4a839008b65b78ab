"""What keeps the filter from halving the median error: the photos, or the walk?

    python benchmarks/crossval.py --workdir=out/by_model --splits=data/splits/by_model \\
        --folds=0,1 --set=views=4 --attributes=orientation --out=out/by_model.json
    python benchmarks/temporal_bound.py --runs=out/by_model

On the simulated walks of `carjax experiment temporal` (fold 0; calibration of fold 1): single
frames; the filter; the filter with 21 speeds in place of 11 and rates that suit them; and the
filter where the camera's path is known but for its start, which no filter can know. Then single
frames and the filter on the same walks, where each photo is as wrong as one of another car model,
so that neighbours do not share their errors. Writes results/temporal_bound.json.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import machine
import numpy as np

from carjax import circular, grids, runtime
from carjax.experiment import cast, methods
from carjax.experiment.temporal import Footage
from carjax.experiment.temporal_run import SEED
from carjax.temporal import circular_filter, walks
from carjax.temporal.motion import Motion

SPOILT = (0.0, 0.2, 0.4)
PER_MODEL = 4
FRAMES = 128
# Errors are exchanged among so many photos of other car models.
NEIGHBOURS = 12
_SPEEDS = (3, 6, 9, 12, 15, 18, 22, 28, 38, 60)
FINER = Motion(
    speeds_deg_s=(*(-float(s) for s in reversed(_SPEEDS)), 0.0, *map(float, _SPEEDS)),
    drift_deg=4.0,
    change_rate=0.5,
    turn_rate=0.05,
    floor=0.3,
)
# In the frame of the path the camera stands still, but for a hair.
KNOWN_PATH = Motion(speeds_deg_s=(-1e-3, 0.0, 1e-3), drift_deg=0.3, turn_rate=0.0)


def smooth(footage: Sequence[Footage], motion: Motion, *, path_known: bool) -> list[np.ndarray]:
    """The smoothed densities of every walk, [T, cells], in the path's own frame if it is known."""
    columns = [methods.padded(one, FRAMES) for one in footage]
    density, time_s, mask = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *columns)
    if path_known:
        turned = np.zeros(time_s.shape, np.float32)
        for row, one in enumerate(footage):
            turned[row, : len(one)] = np.deg2rad(one.azimuth_deg)
        density = density._replace(mu=density.mu - turned[..., None])

    @jax.jit
    def run(density: circular.Density, time_s: jax.Array, mask: jax.Array) -> jax.Array:
        def one(walk: tuple) -> jax.Array:
            return circular_filter.smooth(*walk, motion).density

        return jax.lax.map(one, (density, time_s, mask), batch_size=8)

    found = np.asarray(run(density, time_s, mask))
    return [found[row, : len(one)] for row, one in enumerate(footage)]


def exchanged(shown: cast.Cast) -> cast.Cast:
    """The photos, each as wrong as one from about the same side of another car model."""
    truth = shown.azimuth_deg
    apart = grids.apart_deg(truth[:, None], truth)
    apart[shown.group[:, None] == shown.group] = np.inf
    near = np.argsort(apart, axis=1)[:, :NEIGHBOURS]
    other = np.random.default_rng(SEED).permuted(near, axis=1)[:, 0]
    turned = np.deg2rad(truth - truth[other])
    # Every second view is mirrored.
    shift = np.stack([turned, -turned, turned, -turned])[..., None].astype(np.float32)
    density = jax.tree.map(lambda x: x[:, other], shown.density)
    return dataclasses.replace(shown, density=density._replace(mu=density.mu + shift))


def alone(footage: Sequence[Footage]) -> list[np.ndarray]:
    """The densities of single frames, [T, cells]."""
    return [np.asarray(circular.on_grid(one.density, 360)) for one in footage]


def figures(densities: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> dict[str, float]:
    """Median error in degrees and mean log-likelihood in nats, over all frames."""
    angle = np.arange(densities[0].shape[1]) * (2 * np.pi / densities[0].shape[1])
    said = [np.degrees(np.angle(d @ np.exp(1j * angle))) for d in densities]
    error = np.concatenate([grids.apart_deg(a, b) for a, b in zip(said, truth, strict=True)])
    height = [grids.log_density(d, t) for d, t in zip(densities, truth, strict=True)]
    return {
        "mederr_deg": round(float(np.median(error)), 3),
        "loglik_nats": round(float(np.concatenate(height).mean()), 3),
    }


def measure(
    footage: Sequence[Footage], unshared: Sequence[Footage]
) -> Mapping[str, dict[str, float]]:
    truth = [one.azimuth_deg for one in footage]
    still = [np.zeros(len(one)) for one in footage]
    filters = {"filter, 11 speeds (shipped)": Motion(), "filter, 21 speeds": FINER}
    return {
        "single frames": figures(alone(footage), truth),
        **{
            name: figures(smooth(footage, motion, path_known=False), truth)
            for name, motion in filters.items()
        },
        "path known but for its start": figures(
            smooth(footage, KNOWN_PATH, path_known=True), still
        ),
        "errors not shared: single frames": figures(alone(unshared), truth),
        "errors not shared: filter, 11 speeds (shipped)": figures(
            smooth(unshared, Motion(), path_known=False), truth
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", required=True)
    parser.add_argument("--data_dir")
    arguments = parser.parse_args()
    runtime.set_up_jax()
    folds = {fold: cast.read(arguments.runs, fold, arguments.data_dir) for fold in (0, 1)}
    # The walks need what the photos say, not their features.
    shown = dataclasses.replace(
        folds[0], features=jax.tree.map(lambda x: x[..., :0], folds[0].features)
    )
    unshared = exchanged(shown)
    calibrations = cast.fit_calibrations(folds[1])
    found = {}
    for share in SPOILT:
        spec = walks.WalkSpec(frames=FRAMES, spoilt=share)
        found[f"{share:.0%} spoilt"] = measure(
            *(cast.footage(c, spec, PER_MODEL, SEED, calibrations) for c in (shown, unshared))
        )
        for name, row in found[f"{share:.0%} spoilt"].items():
            print(f"{share:.0%} {name}:", *(f"{k} {v}" for k, v in row.items()), flush=True)
    command = "python benchmarks/temporal_bound.py --runs=out/by_model"
    machine.save("temporal_bound.json", {"command": command, **found})


if __name__ == "__main__":
    main()
