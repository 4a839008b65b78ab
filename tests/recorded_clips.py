"""Clips of the sample video with their labels, and what a tiny model scores of them, for tests."""

import csv
import pathlib

import av
import numpy as np

from carjax import video

ROOT = pathlib.Path(__file__).parents[1]
DATA = ROOT / "data"
SAMPLE = DATA / "prius_walkaround.mp4"
# Frames of each clip, one after another; ragged.
A, B, C, D, E = SOURCES = tuple(f"walks/{name}.mp4" for name in "abcde")
CLIPS = dict(zip(SOURCES, (40, 25, 33, 12, 28), strict=True))
RATE = 12


def truth():
    """The rows of the sample's own table."""
    with SAMPLE.with_suffix(".csv").open(newline="") as f:
        return list(csv.DictReader(f))


def images(count):
    """The first frames of the sample, uint8 RGB, small."""
    decoder = video.Decoder(SAMPLE, fps="all", max_side=160)
    return [np.asarray(frame.image) for frame, _ in zip(decoder, range(count), strict=False)]


def write(folder):
    """Writes the clips, and `walks.csv`: every third azimuth is blank, but B has every one."""
    (folder / "walks").mkdir()
    rows, first = truth(), 0
    frames = images(sum(CLIPS.values()))
    with (folder / "walks.csv").open("w", newline="") as f:
        table = csv.writer(f)
        table.writerow(["source", "time_s", "azimuth_deg", "doors", "car"])
        for name, count in CLIPS.items():
            write_clip(folder / name, frames[first : first + count])
            for i in range(count):
                known = name == B or i % 3
                azimuth = rows[first + i]["azimuth_deg"] if known else ""
                car = "one" if name in (A, D) else name
                table.writerow([name, f"{i / RATE:.4f}", azimuth, "5", car])
            first += count


def write_clip(path, images):
    """Writes frames as a video of the sample's rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "20"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in images:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
