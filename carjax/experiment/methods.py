"""Ways to tell the azimuth of every frame of a video: alone, or knowing of its neighbours."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from carjax import circular, grids
from carjax.experiment.temporal import Estimate, Footage
from carjax.selection import smoothing
from carjax.temporal import circular_filter, viterbi
from carjax.temporal.motion import Motion
from carjax.temporal.sequence_model import SequenceModel

Method = Callable[[Footage], Estimate]
SINGLE = "single frames"


def standard(motion: Motion) -> dict[str, Method]:
    """Returns the methods that need no training: name → function of one footage."""
    return {
        SINGLE: single,
        "filter": functools.partial(smoothed, motion=motion),
        "filter, causal": functools.partial(smoothed, motion=motion, causal=True),
        "most probable path": functools.partial(path, motion=motion),
    }


def named(heads: Mapping[str, SequenceModel]) -> dict[str, SequenceModel]:
    """Returns sequence heads by the names of their methods; `heads` are by where they lie."""
    names = {
        path: head.spec.model + (", causal" if head.spec.causal else "")
        for path, head in heads.items()
    }
    return {
        # Two of one kind are told apart by their folders.
        name if list(names.values()).count(name) == 1 else f"{name} ({path})": heads[path]
        for path, name in names.items()
    }


def sequences(heads: Mapping[str, SequenceModel]) -> dict[str, Method]:
    """Returns the methods of sequence heads: name → function; `heads` are by where they lie."""
    return {name: functools.partial(sequence, head=head) for name, head in named(heads).items()}


def single(footage: Footage) -> Estimate:
    """What each frame's own density says."""
    return of_density(footage.density, footage.azimuth_deg)


def smoothed(footage: Footage, *, motion: Motion, causal: bool = False) -> Estimate:
    """What the circular filter says."""
    run = circular_filter.filtered if causal else circular_filter.smooth
    found = run(*padded(footage), motion)
    count = len(footage)
    density = np.asarray(found.density)[:count]
    return Estimate(
        np.asarray(found.mean_deg, np.float64)[:count],
        grids.log_density(density, footage.azimuth_deg),
        grids.bin_masses(density),
    )


def path(footage: Footage, *, motion: Motion) -> Estimate:
    """The most probable path: a direction per frame, and no density."""
    found = viterbi.viterbi(*padded(footage), motion)
    azimuth = np.asarray(found.azimuth_deg, np.float64)[: len(footage)]
    nothing = np.full(len(footage), np.nan)
    return Estimate(azimuth, nothing, np.full((len(footage), 8), np.nan))


def sequence(footage: Footage, *, head: SequenceModel) -> Estimate:
    """What a sequence head says, from the frames' features."""
    count = len(footage)
    rows, mask = smoothing.padding(count, footage.speaks)
    features = jax.tree.map(lambda x: x[rows], footage.features)
    density = jax.tree.map(lambda x: x[:count], head(features, footage.time_s[rows], mask))
    return of_density(density, footage.azimuth_deg)


def of_density(density: circular.Density, azimuth_deg: np.ndarray) -> Estimate:
    """Reads an estimate off analytic densities of batch [T]."""
    truth = np.deg2rad(np.nan_to_num(azimuth_deg)).astype(np.float32)
    azimuth, loglik, mass = (np.asarray(x, np.float64) for x in _read(density, truth))
    return Estimate(azimuth, np.where(np.isnan(azimuth_deg), np.nan, loglik), mass)


@jax.jit
def _read(density: circular.Density, truth: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    return (
        circular.azimuth_deg(density),
        circular.log_prob(density, truth),
        circular.view_probs(density),
    )


def padded(
    footage: Footage, least: int = smoothing.LEAST_FRAMES
) -> tuple[circular.Density, np.ndarray, np.ndarray]:
    """Density, times and mask of a footage, padded at the end (`smoothing.padding`)."""
    rows, mask = smoothing.padding(len(footage), footage.speaks, least)
    density = jax.tree.map(lambda x: np.asarray(x)[rows], footage.density)
    return density, footage.time_s[rows] - footage.time_s[0], mask


def timed(methods: Mapping[str, Method], footage: Sequence[Footage]) -> dict[str, float]:
    """Seconds that each method takes per frame, warm, on footage that it has seen before."""
    frames = sum(map(len, footage))
    result = {}
    for name, method in methods.items():
        start = time.perf_counter()
        for one in footage:
            method(one)
        result[name] = (time.perf_counter() - start) / frames
    return result
