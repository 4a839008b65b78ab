"""The machine that a figure was measured on, how its seconds are taken, and where it is kept."""

import json
import os
import pathlib
import platform
import time
from collections.abc import Callable

import jax

RESULTS = pathlib.Path(__file__).parent / "results"


def name() -> str:
    """CPU model and cores, accelerator, Python and JAX."""
    model = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    cores = len(os.sched_getaffinity(0))
    device = jax.devices()[0]
    accelerator = device.platform if device.platform == "cpu" else device.device_kind
    return (
        f"{model}, {cores} cores, {accelerator}, "
        f"Python {platform.python_version()}, jax {jax.__version__}"
    )


def turns(
    step: Callable[[], object],
    count: int,
    warm: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Seconds of each of several calls, after some to warm up; what JAX computes is awaited."""
    taken = []
    for _ in range(warm + count):
        start = clock()
        jax.block_until_ready(step())
        taken.append(clock() - start)
    return taken[warm:]


def save(file: str, figures: dict) -> None:
    """Writes figures as JSON with the machine's name, and prints where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / file
    path.write_text(json.dumps({"machine": name(), **figures}, indent=1) + "\n")
    print(f"written: {path}")
