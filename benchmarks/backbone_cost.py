"""What each backbone costs on this CPU, at its own input size.

    python benchmarks/backbone_cost.py

Per backbone: parameters (with classifier), GFLOP per image as XLA counts them (a multiply-add is
two), images per second in float32 (best and median of the turns, batch of 8, one device with all
cores), the largest resident memory of a process that does nothing else, and how closely bfloat16
computation follows float32 (cosine of the pooled features, the worst image of a batch).
The weights are random: neither speed nor memory depends on their values. Speeds are those of a
machine that is also busy with `load_average_before` other things.
"""

import math
import multiprocessing
import os
import resource
import statistics
import time

import flax.traverse_util
import jax
import jax.numpy as jnp
import machine
import numpy as np

from carjax.backbones import pretrained, registry

BATCH = 8
TURNS = 5


def random_params(name: str) -> dict:
    """Weights that keep the signal's power through ReLUs, and small biases."""
    rng = np.random.default_rng(0)
    flat = {}
    for key, shape in pretrained.expected_shapes(name).items():
        # A depthwise kernel [h, w, C] reads h · w values, any other all but its last axis.
        scale = 0.1 if len(shape) == 1 else math.sqrt(2 / math.prod(shape[:-1]))
        flat[key] = jnp.asarray(scale * rng.standard_normal(shape, np.float32))
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def forward(
    name: str, params: dict, images: jax.Array, dtype: jnp.dtype = jnp.float32
) -> jax.stages.Compiled:
    """The compiled program (params, images) → features of a backbone."""
    module = registry.create(name, dtype=dtype)
    return jax.jit(lambda p, x: module.apply({"params": p}, x)).lower(params, images).compile()


def measure(name: str) -> dict:
    jax.config.update("jax_platforms", "cpu")
    others = os.getloadavg()[0]
    params = random_params(name)
    size = registry.spec_of(name).input_size
    pixels = np.random.default_rng(1).integers(0, 256, (BATCH, size, size, 3), np.uint8)
    images = registry.normalize(name, jnp.asarray(pixels))

    start = time.perf_counter()
    exact = forward(name, params, images)
    compile_s = time.perf_counter() - start
    seconds = machine.turns(lambda: exact(params, images), TURNS)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    rounded = forward(name, params, images, jnp.bfloat16)
    a = np.asarray(rounded(params, images).pooled, np.float64)
    b = np.asarray(exact(params, images).pooled, np.float64)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return {
        "input_size": size,
        "parameters": sum(x.size for x in jax.tree.leaves(params)),
        "gflop_per_image": round(exact.cost_analysis()["flops"] / BATCH / 1e9, 2),
        "images_per_s": round(BATCH / min(seconds), 2),
        "median_images_per_s": round(BATCH / statistics.median(seconds), 2),
        "trace_and_compile_s": round(compile_s, 1),
        "peak_resident_mb": round(peak_kb / 1024),
        "bfloat16_cosine": round(float(cosine.min()), 5),
        "load_average_before": round(others, 1),
    }


def main() -> None:
    figures = {}
    # A process each, so that none sees the memory of another.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in registry.BACKBONES:
            figures[name] = pool.apply(measure, (name,))
            print(name, figures[name])
    machine.save("backbone_cost.json", {"batch": BATCH, "turns": TURNS, "backbones": figures})


if __name__ == "__main__":
    main()
