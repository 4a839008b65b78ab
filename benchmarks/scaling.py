"""How `carjax score` scales: rows a second by devices and frames, and peak memory up to 1e5 frames.

python benchmarks/scaling.py             # about ten minutes on two cores
python benchmarks/scaling.py --rates     # only the rates
python benchmarks/scaling.py --memory    # only memory

EfficientNet-Lite0 at 96 pixels with random weights, which change neither time nor memory, and the
car's five heads, without the car box. Frames come from H.264 videos of 100 frames of 96×96
through the whole pipeline: decoding, batches, devices, rows, Parquet, manifest. Every figure is a
process of its own. The peer of a rate is the bare `Scorer` on frames in memory, in the same
process. Memory is VmHWM: of the whole process, and again from after compilation on
(/proc/self/clear_refs).
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import machine

FRAMES_PER_VIDEO = 100
SIDE = 96
SEED = 0
BASE_TURNS = 5


def write_video(path: pathlib.Path, frames: int) -> None:
    """A moving gradient with noise: cheap to make, and no frame is like another."""
    import av
    import numpy as np

    rng = np.random.default_rng(SEED)
    noise = rng.integers(0, 40, (SIDE, SIDE, 3), np.uint8)
    ramp = np.add.outer(np.arange(SIDE), np.arange(SIDE))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        for i in range(frames):
            image = ((ramp + 3 * i) % 200).astype(np.uint8)[..., None] + np.roll(noise, i, 0)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def repeat(path: pathlib.Path, times: int, out: pathlib.Path) -> None:
    """Writes a video that shows another one many times, without coding it again."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        length = sum(packet.duration for packet in packets)
        with av.open(str(out), "w") as copy:
            target = copy.add_stream_from_template(stream)
            for i in range(times):
                for packet in packets:
                    packet.stream = target
                    if i:
                        packet.pts, packet.dts = packet.pts + length, packet.dts + length
                    copy.mux(packet)


def make_model(backbone_name: str = "efficientnet_lite0", input_size: int = SIDE):
    """The car's heads on a backbone, without the car box; all weights random."""
    import jax
    import numpy as np

    from carjax import attributes, heads, model
    from carjax.backbones import pretrained

    spec = model.Spec(
        backbone=backbone_name,
        heads=tuple(heads.HeadSpec(a) for a in attributes.CAR),
        localise=None,
        input_size=input_size,
    )
    rng = np.random.default_rng(SEED)

    def random(shape: tuple[int, ...]) -> np.ndarray:
        scale = 1.0 if len(shape) < 2 else np.prod(shape[:-1]) ** -0.5
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    shapes = pretrained.expected_shapes(spec.backbone)
    backbone = pretrained.unflatten({key: random(shape) for key, shape in shapes.items()})
    tree = jax.tree.map(lambda leaf: random(leaf.shape), model.expected_params(spec))
    card = {"backbone_sha256": model.weights_hash(backbone)}
    return model.Model({"backbone": backbone, **tree}, spec, card)


def status(field: str) -> float:
    """A size in /proc/self/status, in MB."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise KeyError(field)


def child(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Scores the videos of a folder; prints rate and memory as JSON."""
    import numpy as np

    from carjax import parquet, runtime, video
    from carjax.engine import local, run, run_files
    from carjax.sources import expand

    runtime.set_up_jax()
    model = make_model()
    sources, _ = expand.expand([str(folder)])
    engine = local.LocalEngine(model, local.Options(fps="all"))
    first = next(video.frames(sources[0].path, fps="all")).image
    frames = np.repeat(first[None], engine.scorer.batch_size, axis=0)
    bare = [len(frames) / s for s in machine.turns(lambda: engine.scorer(frames), 20)]
    whole_peak = status("VmHWM")
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    summary = run.score_sources(
        sources,
        [],
        run_files.RunFiles(run_files.Target(str(out))),
        {"model": "random"},
        parquet.arrow_schema(model.spec.schema),
        lambda: engine,
    )
    seconds = time.perf_counter() - start
    peak = status("VmHWM")
    figures = {
        "rows": summary.rows,
        "rows_per_s": round(summary.rows / seconds, 1),
        "scorer_alone_per_s": round(float(np.median(bare)), 1),
        "peak_mb": round(max(peak, whole_peak), 1),
        "peak_after_compiling_mb": round(peak, 1),
    }
    print(json.dumps(figures))


def measure(folder: pathlib.Path, out: pathlib.Path, devices: int) -> dict:
    """Runs `child` in a process of its own."""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, __file__, "--child", str(folder), str(out)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def rates(work: pathlib.Path, folders: dict[int, pathlib.Path]) -> dict:
    """Rows a second on one and two devices; the rows of eight are those of one."""
    import pyarrow.parquet as pq

    figures = {}
    for frames in (1_000, 10_000):
        for devices in (1, 2):
            row = measure(folders[frames], work / f"{frames}-{devices}.parquet", devices)
            row["of_scorer_alone"] = round(row["rows_per_s"] / row["scorer_alone_per_s"], 3)
            figures[f"{frames} frames, {devices} devices"] = row
            print(f"{frames:>7} frames, {devices} devices:", row, flush=True)
    measure(folders[1_000], work / "eight.parquet", 8)
    one, eight = (pq.read_table(work / n) for n in ("1000-1.parquet", "eight.parquet"))
    figures["eight devices give the rows of one, bit for bit"] = one.equals(eight)
    print("eight devices give the rows of one:", one.equals(eight), flush=True)
    return figures


def memory(work: pathlib.Path, folders: dict[int, pathlib.Path]) -> Iterator[dict]:
    """Yields peak memory by the number of frames, and of one long video; more each time."""
    figures: dict[str, dict] = {}
    cases = {f"{frames} frames": folder for frames, folder in folders.items()}
    most = max(folders)
    long = work / "long"
    long.mkdir()
    repeat(work / "video.mp4", most // FRAMES_PER_VIDEO, long / "long.mp4")
    # A process that compiles keeps some of the compiler's memory: that is no pipeline's.
    measure(folders[min(folders)], work / "memory warm.parquet", 2)
    least: dict[str, float] = {}
    for name, folder in {**cases, f"{most} frames, one video": long}.items():
        # The base of the ratios varies by 4% from run to run, and is quick to have: its median.
        turns = 1 if least else BASE_TURNS
        rows = [measure(folder, work / f"memory {name} {i}.parquet", 2) for i in range(turns)]
        row = sorted(rows, key=lambda r: r["peak_mb"])[turns // 2]
        figures[name] = {key: row[key] for key in ("rows", "peak_mb", "peak_after_compiling_mb")}
        least = least or {key: row[key] for key in ("peak_mb", "peak_after_compiling_mb")}
        figures[name] |= {f"{key}_ratio": round(row[key] / least[key], 3) for key in least}
        print(f"{name:>25}:", figures[name], flush=True)
        yield figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs=2, type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--rates", action="store_true")
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    both = arguments.rates == arguments.memory
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        write_video(work / "video.mp4", FRAMES_PER_VIDEO)
        folders = {}
        for frames in (1_000, 10_000, 100_000):
            folders[frames] = work / str(frames)
            folders[frames].mkdir()
            for i in range(frames // FRAMES_PER_VIDEO):
                shutil.copy(work / "video.mp4", folders[frames] / f"{i:04d}.mp4")
        path = machine.RESULTS / "scaling.json"
        figures = json.loads(path.read_text()) if path.exists() else {}
        figures.pop("machine", None)
        figures["model"] = f"EfficientNet-Lite0 at {SIDE} px, five heads, random weights"
        if both or arguments.rates:
            figures["rates"] = rates(work, folders)
            machine.save(path.name, figures)
        if both or arguments.memory:
            for figures["memory"] in memory(work, folders):
                machine.save(path.name, figures)


if __name__ == "__main__":
    main()
