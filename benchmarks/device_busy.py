"""How much of the time a GPU computes while `carjax score` scores videos that lie in memory.

    python benchmarks/device_busy.py

The whole pipeline of `carjax score` (batches, copies to the device, scores, rows, Parquet) over
videos of 640×360 whose frames are decoded beforehand, for the shipped model with its car box, and
for the reference design: Inception-ResNet-v2 with five heads, random weights, no car box. JAX's
profiler tells when kernels ran; busy is the union of their intervals over the time from the first
to the last of a run, copies not counted. The peer of the rate is the bare program on one batch
that lies on the device. Each model is compiled first, which takes minutes.
"""

from __future__ import annotations

import argparse
import functools
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import jax
import machine
import numpy as np
import scaling

from carjax import model, parquet, runtime, scoring, video
from carjax.engine import local, run, run_files
from carjax.sources import expand

FRAMES_PER_VIDEO = 1_000
SIZE = (360, 640, 3)
KEPT = 64  # frames that differ
TURNS = 10


@functools.cache
def pictures() -> np.ndarray:
    """Frames of noise, uint8 [KEPT, H, W, 3]."""
    return np.random.default_rng(0).integers(0, 256, (KEPT, *SIZE), np.uint8)


class Memory:
    """A decoder of videos whose frames are in memory, see `video.Backend`."""

    warnings: Sequence[str] = ()

    def __init__(self, path: object, *, fps: video.Fps, max_side: int | None) -> None:
        pass

    def __iter__(self) -> Iterator[video.Frame]:
        for i in range(FRAMES_PER_VIDEO):
            yield video.Frame(i, i / 30, pictures()[i % KEPT])


def bare_rate(scorer: scoring.Scorer) -> float:
    """Frames a second of the program alone, on a batch that is already on the device."""
    size = scorer.batch_size
    frames = np.resize(pictures(), (size, *SIZE))
    args = jax.device_put(
        (frames, np.ones(size, bool), np.full((size, 2), SIZE[:2], np.float32)), scorer._batch
    )
    program = scorer._programs[frames.shape]
    jax.block_until_ready(program(scorer._params, *args))
    start = time.perf_counter()
    for _ in range(TURNS):
        scores = program(scorer._params, *args)
    jax.block_until_ready(scores)
    return TURNS * size / (time.perf_counter() - start)


def kernel_intervals(folder: pathlib.Path) -> np.ndarray:
    """When kernels ran on the devices in a trace, float64 [N, 2] in seconds, sorted."""
    (path,) = folder.rglob("*.xplane.pb")
    found = [
        (event.start_ns / 1e9, (event.start_ns + event.duration_ns) / 1e9)
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes
        if plane.name.startswith("/device:GPU")
        for line in plane.lines
        if line.name.startswith("Stream")
        for event in line.events
        if not event.name.startswith(("Memcpy", "Memset"))
    ]
    return np.array(sorted(found)).reshape(-1, 2)


def busy(intervals: np.ndarray) -> float:
    """The share of the time from the first start to the last end that some interval covers.

    Example:
        >>> busy(np.array([[0.0, 2.0], [1.0, 3.0], [5.0, 6.0]]))
        0.6666666666666666
    """
    reached = np.maximum.accumulate(intervals[:, 1])
    gaps = np.maximum(intervals[1:, 0] - reached[:-1], 0).sum()
    return float(1 - gaps / (reached[-1] - intervals[0, 0]))


def measure(one: model.Model, videos: int) -> dict[str, float]:
    """Scores videos once to compile, and again under the profiler."""
    engine = local.LocalEngine(one, local.Options(fps="all", decoder=f"{__name__}:Memory"))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "videos").mkdir()
        for i in range(videos):
            (folder / "videos" / f"{i:03d}.mp4").write_bytes(b"in memory")
        sources, _ = expand.expand([str(folder / "videos")])

        def score(sources: Sequence, out: str) -> float:
            start = time.perf_counter()
            run.score_sources(
                sources,
                [],
                run_files.RunFiles(run_files.Target(str(folder / out))),
                {"model": "as above"},
                parquet.arrow_schema(one.spec.schema),
                lambda: engine,
            )
            return len(sources) * FRAMES_PER_VIDEO / (time.perf_counter() - start)

        score(sources[:2], "warm.parquet")
        rate = score(sources, "plain.parquet")
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = options.host_tracer_level = 0  # they would slow the host down
        with jax.profiler.trace(str(folder / "trace"), profiler_options=options):
            traced = score(sources, "traced.parquet")
        intervals = kernel_intervals(folder / "trace")
    alone = bare_rate(engine.scorer)
    return {
        "batch": engine.scorer.batch_size,
        "dtype": str(engine.scorer.dtype),
        "frames": videos * FRAMES_PER_VIDEO,
        "frames_per_s": round(rate, 1),
        "frames_per_s_traced": round(traced, 1),
        "program_alone_frames_per_s": round(alone, 1),
        "of_program_alone": round(rate / alone, 3),
        "device_busy": round(busy(intervals), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=20)
    arguments = parser.parse_args()
    runtime.set_up_jax()
    if jax.default_backend() != "gpu":
        sys.exit("the profiler tells kernels apart on a GPU only; JAX found none here")
    figures = {}
    for name, one in {
        "shipped": model.load(),
        "reference design": scaling.make_model("inception_resnet_v2", 299),
    }.items():
        figures[name] = measure(one, arguments.videos)
        print(name, *(f"{k}={v}" for k, v in figures[name].items()), flush=True)
    command = "python benchmarks/device_busy.py"
    machine.save("device_busy.json", {"command": command, "size": SIZE, **figures})


if __name__ == "__main__":
    main()
