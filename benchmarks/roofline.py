"""How near the backbones come to what this machine can do: FLOPs and bytes over the time.

    python benchmarks/roofline.py

Ceilings are measured first: a product of matrices of 1536 rows and columns on every core at once,
and a copy of 256 MB (read and written). FLOPs and bytes of an image are counted twice: by XLA, of
the plain program (every operation by itself, nothing fused), and by formula: two operations for a
multiply-add of each convolution; every convolution's input and output once, and the weights once a
batch. Then the rate of carjax, one virtual device per core, gives the share of both ceilings, and
of the larger of the two times that a machine at its ceilings would need. Float32.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import machine
import numpy as np
from backbone_cost import random_params
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from carjax import runtime
from carjax.backbones import efficientnet_lite, inception_resnet_v2, registry

NAMES = ("efficientnet_lite0", "efficientnet_lite2", "inception_resnet_v2")
DEVICE_BATCH = 8
TURNS = 7
SIDE, COPY_BYTES = 1536, 256 * 2**20

# (multiply-adds, values of the input, of the output, of the weights) of one convolution.
Convolution = tuple[int, int, int, int]


def convolution(
    inputs: tuple[int, int, int], outputs: tuple[int, int, int], taps: int, *, depthwise: bool
) -> Convolution:
    """The counts of a convolution from [H, W, I] to [H', W', O]."""
    weights = taps * outputs[2] * (1 if depthwise else inputs[2])
    pixels = outputs[0] * outputs[1]
    return pixels * weights, int(np.prod(inputs)), int(np.prod(outputs)), weights


def lite(width: float, depth: float, size: int) -> Iterator[Convolution]:
    side = -(-size // 2)
    stem = (side, side, efficientnet_lite.STEM_FILTERS)
    yield convolution((size, size, 3), stem, 9, depthwise=False)
    for block in efficientnet_lite.block_list(width, depth):
        wide = block.filters_in * block.expand
        if block.expand != 1:
            narrow = (side, side, block.filters_in)
            yield convolution(narrow, (side, side, wide), 1, depthwise=False)
        before, side = side, -(-side // block.stride)
        taps = block.kernel_size**2
        yield convolution((before, before, wide), (side, side, wide), taps, depthwise=True)
        yield convolution((side, side, wide), (side, side, block.filters_out), 1, depthwise=False)
    top = (side, side, efficientnet_lite.TOP_FILTERS)
    yield convolution((side, side, block.filters_out), top, 1, depthwise=False)


def inception(size: int) -> Iterator[Convolution]:
    def apply(op, shape: tuple[int, int, int]) -> tuple[tuple[int, int, int], list[Convolution]]:
        side, _, channels = shape
        if isinstance(op, inception_resnet_v2.Pool):
            side = (side - 3) // 2 + 1 if op.kind == "max" else side
            return (side, side, channels), []
        if op.padding == "VALID":
            side = (side - op.kernel_size[0]) // op.stride + 1
        out = (side, side, op.filters)
        taps = op.kernel_size[0] * op.kernel_size[1]
        return out, [convolution(shape, out, taps, depthwise=False)]

    shape = (size, size, 3)
    for _, op in inception_resnet_v2.STEM:
        shape, found = apply(op, shape)
        yield from found
    for block in inception_resnet_v2.BLOCKS:
        ends = []
        for branch in block.branches:
            end = shape
            for op in branch:
                end, found = apply(op, end)
                yield from found
            ends.append(end)
        joined = (*ends[0][:2], sum(end[2] for end in ends))
        if block.scale is None:
            shape = joined
        else:
            yield convolution(joined, shape, 1, depthwise=False)
    yield convolution(shape, (*shape[:2], inception_resnet_v2.TOP_FILTERS), 1, depthwise=False)


FORMULAS: dict[str, Callable[[], Iterator[Convolution]]] = {
    "efficientnet_lite0": lambda: lite(1.0, 1.0, 224),
    "efficientnet_lite2": lambda: lite(1.1, 1.2, 260),
    "inception_resnet_v2": lambda: inception(299),
}


def seconds(step: Callable[[], object]) -> float:
    """The median of the turns, after two to warm up."""
    return statistics.median(machine.turns(step, TURNS, warm=2))


def over_devices(function: Callable, mesh: Mesh, *replicated: bool) -> Callable:
    specs = tuple(PartitionSpec() if r else PartitionSpec("data") for r in replicated)
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("data"), check_vma=False
    )
    return jax.jit(mapped)


def ceilings(mesh: Mesh) -> dict[str, float]:
    n = mesh.size
    rows = NamedSharding(mesh, PartitionSpec("data"))
    a = jax.device_put(np.random.default_rng(0).random((n, SIDE, SIDE), np.float32), rows)
    product = over_devices(lambda a: a @ a, mesh, False)
    copied = [jax.device_put(np.zeros((n, COPY_BYTES // 4 // n), np.float32), rows)]
    # Into its own memory: new pages would cost more than the copy.
    copy = jax.jit(lambda x: x + 1, donate_argnums=0)

    def again() -> jax.Array:
        copied.append(copy(copied.pop()))
        return copied[0]

    return {
        "matrix_product_gflop_per_s": round(2 * n * SIDE**3 / seconds(lambda: product(a)) / 1e9, 1),
        "copy_gbyte_per_s": round(2 * COPY_BYTES / seconds(again) / 1e9, 1),
    }


def measure(name: str, mesh: Mesh, ceiling: dict[str, float]) -> dict[str, float]:
    module, params = registry.create(name), random_params(name)
    size, batch = registry.spec_of(name).input_size, DEVICE_BATCH * mesh.size

    def apply(params, images):
        return module.apply({"params": params}, images)

    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    # The program for other platforms than CPU is the plain one.
    plain = jax.jit(apply).trace(params, images).lower(lowering_platforms=("tpu",)).cost_analysis()
    found = np.array(list(FORMULAS[name]()), np.float64).sum(0)
    flops, activations, weights = 2 * found[0], 4 * (found[1] + found[2]), 4 * found[3]

    rows = NamedSharding(mesh, PartitionSpec("data"))
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    x = jax.device_put(np.ones((batch, size, size, 3), np.float32), rows)
    taken = seconds(functools.partial(over_devices(apply, mesh, True, False), params, x)) / batch
    compute_s = flops / ceiling["matrix_product_gflop_per_s"] / 1e9
    moved = activations + weights / DEVICE_BATCH
    memory_s = moved / ceiling["copy_gbyte_per_s"] / 1e9
    return {
        "gflop_formula": round(flops / 1e9, 3),
        "gflop_xla": round(plain["flops"] / 1e9, 3),
        "mbyte_formula": round(moved / 1e6, 1),
        "mbyte_xla_unfused": round(plain["bytes accessed"] / 1e6, 1),
        "images_per_s": round(1 / taken, 2),
        "gflop_per_s": round(flops / taken / 1e9, 1),
        "of_product_ceiling": round(compute_s / taken, 3),
        "of_copy_ceiling": round(memory_s / taken, 3),
        "of_roofline": round(max(compute_s, memory_s) / taken, 3),
    }


def main() -> None:
    runtime.set_up_jax()
    mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
    ceiling = ceilings(mesh)
    print(*(f"{k}={v}" for k, v in ceiling.items()))
    figures = {}
    for name in NAMES:
        figures[name] = measure(name, mesh, ceiling)
        print(name, *(f"{k}={v}" for k, v in figures[name].items()), flush=True)
    machine.save(
        "roofline.json",
        {
            "command": "python benchmarks/roofline.py",
            "devices": mesh.size,
            "batch_per_device": DEVICE_BATCH,
            "ceilings": ceiling,
            "backbones": figures,
        },
    )


if __name__ == "__main__":
    main()
