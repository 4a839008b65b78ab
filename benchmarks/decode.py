"""Frames a second by the ways of reading a video: threads, seeking, smaller pictures, OpenCV.

    python benchmarks/decode.py [VIDEO] [--frames=300]

Every way takes the first frames of the same clip (default: the first of `make_clip.py`'s), to RGB
at most 640 pixels wide where nothing else is said, in one process, one after the other; the best
of three turns. CPU milliseconds for each frame stand beside the rate: they say what a way costs
while the cores have other work. The ways that take one frame a second, and the one that skips
frames, count all frames of the video that they pass. Prints one table and writes
results/decode.json.
"""

import argparse
import itertools
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator

import av
import cv2
import machine
import make_clip
from rich.console import Console
from rich.table import Table

from carjax import video
from carjax.sources import stills
from carjax.video import SCORED_SIDE

TURNS = 3
EVERY_S = 1.0
FULL_SIDE = 100_000


def pyav(
    path: pathlib.Path,
    count: int,
    threads: str,
    side: int | None = SCORED_SIDE,
    interpolation: str = "AREA",
    **context: object,
) -> int:
    """Decodes the first frames in order; `side` None leaves them as decoded."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = threads
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for i, frame in enumerate(container.decode(stream), start=1):
            if side is not None:
                width = min(side, frame.width)
                height = round(frame.height * width / frame.width)
                frame.reformat(width, height, "rgb24", interpolation=interpolation).to_ndarray()
            if i == count:
                return count
    return i


def sequential(path: pathlib.Path, count: int, every_s: float) -> int:
    """One frame each second by decoding all, as `carjax score --fps=1`."""
    for frame in video.frames(path, fps=1 / every_s, max_side=SCORED_SIDE):
        if frame.index >= count:
            break
    return count


def seeking(path: pathlib.Path, count: int, every_s: float) -> int:
    """One frame each second by seeking, as the first pass of `carjax select`."""
    with video.Reader(path, max_side=SCORED_SIDE) as reader:
        for frame in reader.sample(1 / every_s):
            if frame.index >= count:
                break
    return count


def opencv(path: pathlib.Path, count: int) -> int:
    """As `carjax score --fps=all --decoder=opencv`."""
    frames = video.load_backend("opencv")(path, fps="all", max_side=SCORED_SIDE)
    return sum(1 for _ in itertools.islice(frames, count))


def images(folder: pathlib.Path) -> int:
    """A folder of JPEG files of the same frames, as `carjax score FOLDER` decodes them."""
    paths = sorted(folder.glob("*.jpg"))
    for path in paths:
        stills.decode(path.read_bytes())
    return len(paths)


def ways(path: pathlib.Path, count: int, folder: pathlib.Path) -> Iterator[tuple[str, Callable]]:
    """Names the ways, each with what reads and returns how many frames."""
    for threads in ("NONE", "SLICE", "FRAME", "AUTO"):
        yield (
            f"PyAV, threads {threads.lower()}",
            lambda threads=threads: pyav(path, count, threads),
        )
    yield "threads auto, no picture made", lambda: pyav(path, count, "AUTO", None)
    yield "threads auto, full-size RGB", lambda: pyav(path, count, "AUTO", FULL_SIDE)
    yield (
        "threads auto, fast bilinear",
        lambda: pyav(path, count, "AUTO", interpolation="FAST_BILINEAR"),
    )
    yield (
        "threads auto, frames nothing refers to skipped",
        lambda: pyav(path, count // 2, "AUTO", skip_frame="NONREF") * 2,
    )
    yield "a frame a second, all decoded", lambda: sequential(path, count, EVERY_S)
    yield "a frame a second, by seeking", lambda: seeking(path, count, EVERY_S)
    yield "OpenCV VideoCapture", lambda: opencv(path, count)
    yield "folder of JPEG files", lambda: images(folder)


def measured(read: Callable[[], int]) -> dict[str, float]:
    """The best rate of some turns, and the least CPU time."""
    rates, costs = [], []
    for _ in range(TURNS):
        start, cpu = time.perf_counter(), time.process_time()
        frames = read()
        rates.append(frames / (time.perf_counter() - start))
        costs.append((time.process_time() - cpu) / frames)
    return {"frames_per_s": round(max(rates), 1), "cpu_ms_per_frame": round(1e3 * min(costs), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", nargs="?", type=pathlib.Path)
    parser.add_argument("--frames", type=int, default=300)
    arguments = parser.parse_args()
    path = arguments.video or make_clip.ensure("walk_5mbit.mp4")
    figures: dict[str, dict] = {}
    table = Table("way", "frames/s", "of PyAV auto", "CPU ms a frame")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for frame in video.frames(path, fps=8):
            if frame.index >= arguments.frames:
                break
            cv2.imwrite(str(folder / f"{frame.index:06}.jpg"), frame.image[..., ::-1])
        for way, read in ways(path, arguments.frames, folder):
            figures[way] = measured(read)
    base = figures["PyAV, threads auto"]["frames_per_s"]
    for way, row in figures.items():
        row["of_pyav_auto"] = round(row["frames_per_s"] / base, 2)
        table.add_row(way, *(str(row[k]) for k in ("frames_per_s", "of_pyav_auto")),
                      str(row["cpu_ms_per_frame"]))  # fmt: skip
    Console().print(table)
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        size = f"{codec.width}×{codec.height} {codec.codec.canonical_name}"
    machine.save(
        "decode.json",
        {
            "command": "python benchmarks/decode.py",
            "video": f"{path.name}, {size}, first {arguments.frames} frames",
            # FFmpeg's `lowres` is for codecs of independent blocks, such as JPEG's: the folder of
            # photos uses it (`sources.stills`); H.264, HEVC, VP9 and AV1 have none.
            "decoding_at_reduced_size": "not in this codec; swscale shrinks what is decoded",
            "ways": figures,
        },
    )


if __name__ == "__main__":
    main()
