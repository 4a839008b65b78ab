"""How fast is the annotated video: drawing alone, and decode + draw + encode of scored frames?

    python benchmarks/annotate.py

The clip is the sample's pictures at 1280 × 720 and 30 frames a second, each of them twice; the
table is the sample's, stretched the same way. The peer is FFmpeg through PyAV without the drawing:
the clip decoded, and encoded with the same settings. Times are medians of three runs, in turn.
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import tempfile
import time

import av
import cv2
import machine
import numpy as np

from carjax import model as models
from carjax import runtime, scan, video
from carjax.annotate import annotate, render, running
from carjax.annotate.encode import Mp4Writer
from carjax.table import ScoreTable

SAMPLE = pathlib.Path(__file__).parents[1] / "data" / "prius_walkaround.mp4"
SIZE, RATE, REPEAT = (1280, 720), 30, 2


def make_clip(path: pathlib.Path) -> int:
    """Writes the clip; returns its number of frames."""
    count = 0
    with Mp4Writer(path, *SIZE, RATE) as writer:
        for frame in video.frames(SAMPLE, fps="all"):
            image = cv2.resize(frame.image, SIZE, interpolation=cv2.INTER_CUBIC)
            for _ in range(REPEAT):
                writer.write(image, count / RATE)
                count += 1
    return count


def stretched(table: ScoreTable) -> ScoreTable:
    """The table with each row twice, at the clip's times."""

    def repeat(value):
        if isinstance(value, np.ndarray):
            return np.repeat(value, REPEAT, axis=0)
        return {k: repeat(v) for k, v in value.items()} if isinstance(value, dict) else value

    fields = {f.name: repeat(getattr(table, f.name)) for f in dataclasses.fields(table)}
    n = len(table) * REPEAT
    return ScoreTable(**fields | {"frame": np.arange(n), "time_s": np.arange(n) / RATE})


def plain(source: pathlib.Path, out: pathlib.Path) -> None:
    """The peer: decode, scale, encode."""
    with Mp4Writer(out, *SIZE, RATE) as writer, av.open(str(source)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for i, frame in enumerate(container.decode(video=0)):
            writer.write(frame.to_ndarray(format="rgb24"), i / RATE)


def drawing(table: ScoreTable, clip: pathlib.Path, attributes: list[str]) -> float:
    """Frames drawn in a second, decoded and with their states known."""
    states = list(running.states(table, attributes=attributes))
    frames = list(video.frames(clip, fps="all", max_side=640))
    start = time.perf_counter()
    count = sum(1 for _ in render.moments(table, states, frames, 16 / 9, attributes))
    return count / (time.perf_counter() - start)


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    runtime.set_up_jax()
    table = stretched(scan.score_video(models.load(), SAMPLE, fps="all")[0])
    every = [a.name for a in table.schema]
    results: dict = {"clip": "1280x720, 30 frames a second"}
    with tempfile.TemporaryDirectory() as folder:
        clip, out = pathlib.Path(folder) / "clip.mp4", pathlib.Path(folder) / "out.mp4"
        frames = make_clip(clip)
        results["frames"] = frames
        annotate(clip, table, out, attributes=every)  # compiles
        for name, attributes in (("all", every), ("type", ["type"])):
            draw, whole, peer = [], [], []
            for _ in range(3):
                draw.append(drawing(table, clip, attributes))
                whole.append(timed(lambda a=attributes: annotate(clip, table, out, attributes=a)))
                peer.append(timed(lambda: plain(clip, out)))
            seconds = statistics.median(whole)
            results[name] = {
                "drawing_frames_per_s": round(statistics.median(draw), 1),
                "whole_frames_per_s": round(frames / seconds, 1),
                "times_real_time": round(frames / RATE / seconds, 2),
                "plain_transcode_frames_per_s": round(frames / statistics.median(peer), 1),
                "time_over_plain_transcode": round(seconds / statistics.median(peer), 2),
            }
            print(name, results[name], flush=True)
    machine.save("annotate.json", results)


if __name__ == "__main__":
    main()
