"""Compiles scoring and one training step for TPU v5e ahead of time, on a machine without a TPU.

    pip install libtpu
    python benchmarks/tpu_compile.py

For one chip (v5e-1) and a host of eight (v5e-8): memory per chip, FLOPs and bytes per image, and
the largest power of two of frames per chip that fits its 16 GB. Scoring must compile without any
communication between chips. Says so and stops where libtpu is not installed.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
import machine
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from carjax import model, scoring
from carjax.backbones import registry
from carjax.training import config as configs
from carjax.training import data, optimiser, steps, tasks

TOPOLOGIES = {"v5e-1": "v5e:1x1", "v5e-8": "v5e:2x4"}
HBM_BYTES = 16e9
FRAME = (360, 640, 3)
LARGEST = 4096
PHOTOS, VIEWS = 6454, 8
_COLLECTIVES = re.compile(
    r"\b(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(-start)?\("
)


def shapes(tree: Any, sharding: NamedSharding) -> Any:
    """The shapes of a pytree's arrays, placed."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def mesh_of(topology: str) -> Mesh:
    """A mesh of chips that are only described."""
    described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    return Mesh(described.devices, ("data",), axis_types=(AxisType.Auto,))


def figures_of(compiled: Any, images: int) -> dict[str, float]:
    """What the compiler says of one chip's program, per image of that chip."""
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    used = (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )
    return {
        "images_per_chip": images,
        "memory_gb_per_chip": round(used / 1e9, 3),
        "gflop_per_image": round(cost["flops"] / images / 1e9, 3),
        "mbyte_per_image": round(cost["bytes accessed"] / images / 1e6, 1),
    }


def compile_score(one: model.Model, mesh: Mesh, frames_per_chip: int) -> Any:
    """Compiles `score` as `Scorer` runs it."""
    rows, everywhere = PartitionSpec("data"), PartitionSpec()
    program = jax.jit(
        jax.shard_map(
            functools.partial(scoring.score, spec=one.spec),
            mesh=mesh,
            in_specs=(everywhere, rows, rows),
            out_specs=rows,
            check_vma=False,
        )
    )
    n = frames_per_chip * mesh.size
    sharded = NamedSharding(mesh, rows)
    return program.lower(
        shapes(one.params, NamedSharding(mesh, everywhere)),
        jax.ShapeDtypeStruct((n, *FRAME), jnp.uint8, sharding=sharded),
        jax.ShapeDtypeStruct((n,), jnp.bool_, sharding=sharded),
    ).compile()


def largest_batch(one: model.Model, mesh: Mesh) -> dict[str, Any]:
    """Doubles the batch until the program no longer fits a chip."""
    best: dict[str, Any] = {}
    frames = 256
    while frames <= LARGEST:
        try:
            compiled = compile_score(one, mesh, frames)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            break
        found = _COLLECTIVES.findall(compiled.as_text())
        if found:
            sys.exit(f"scoring communicates between chips: {sorted(set(found))}")
        best = figures_of(compiled, frames)
        print(f"  score, {frames} frames a chip: {best}", flush=True)
        frames *= 2
    return best


def train_step(one: model.Model, mesh: Mesh) -> dict[str, Any]:
    """Compiles one step of training the brand head on cached features."""
    config = configs.default_config("brand")
    spec = one.spec.head("brand")
    task = tasks.CategoricalTask(
        spec, tuple((str(i), c) for i, c in enumerate(spec.parts)), 0.3, 0.2, 0.05, 0.0
    )
    everywhere = NamedSharding(mesh, PartitionSpec())
    params = {"backbone": one.params["backbone"], "heads": one.params["heads"]}
    mask = optimiser.head_mask(params, "brand")
    adamw = optimiser.make_optimiser(mask, optimiser.OptimiserConfig(1e-3, 800, 100, 0.05, 1.0))
    trained, frozen = optimiser.split(params, mask)
    state = steps.TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32),
        trained=trained,
        optimiser=jax.eval_shape(adamw.init, params),
        average=None,
        best=None,
        best_figure=jax.ShapeDtypeStruct((), jnp.float32),
    )
    features = registry.example_features(one.spec.backbone, one.spec.input_size)
    half = {
        "pooled": jax.ShapeDtypeStruct((VIEWS, PHOTOS, features.pooled.shape[-1]), jnp.float16),
        "grid": jax.ShapeDtypeStruct(
            (VIEWS, PHOTOS, spec.grid, spec.grid, features.grid.shape[-1]), jnp.float16
        ),
    }
    training_set = data.TrainingSet(
        type(features)(**half),
        jax.ShapeDtypeStruct((VIEWS, PHOTOS, 2), jnp.int32),
        jax.ShapeDtypeStruct((PHOTOS,), jnp.float32),
    )
    run_chunk = steps.make_run_chunk(config, task, adamw, mesh)
    args = shapes((state, frozen, training_set), everywhere)
    compiled = run_chunk.lower(*args, length=1).compile()
    return figures_of(compiled, config.batch // mesh.size)


def main() -> None:
    if importlib.util.find_spec("libtpu") is None:
        print("skipped: libtpu is not installed (pip install libtpu)")
        return
    one = model.load()
    figures: dict[str, Any] = {}
    for name, topology in TOPOLOGIES.items():
        print(name, flush=True)
        mesh = mesh_of(topology)
        figures[name] = {"score": largest_batch(one, mesh), "train_step": train_step(one, mesh)}
        print(f"  training step: {figures[name]['train_step']}", flush=True)
    machine.save(
        "tpu_compile.json",
        {
            "command": "python benchmarks/tpu_compile.py",
            "compiler": f"libtpu {importlib.metadata.version('libtpu')}, ahead of time, no TPU",
            "frame": list(FRAME),
            "hbm_gb": HBM_BYTES / 1e9,
            **figures,
        },
    )


if __name__ == "__main__":
    # The chips are only described: nothing is looked up in a cloud or run on a device.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main()
