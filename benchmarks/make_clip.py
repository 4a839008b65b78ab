"""Makes the clips that speed is measured on: 60 s, 1920×1080, 30 frames a second, H.264.

    python benchmarks/make_clip.py [--out=out/clips] [NAME …]

Each is the sample video, once around the car in 60 s: frames between its frames follow the optical
flow, a hand-held window pans and zooms smoothly, and every frame gets new grain, so that there is
something to spend the bits on. The same command gives the same pictures every time.

| name | Mb/s | key frame every |
|---|---|---|
| walk_5mbit.mp4 | 4.8 | second, as phones record |
| walk_20mbit.mp4 | 19.5 | second |
| walk_5mbit_gop250.mp4 | 4.8 | 250 frames, the encoder's own default |
"""

import argparse
import pathlib
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
import cv2
import numpy as np
from rich.progress import track

from carjax.files import replacing

ROOT = pathlib.Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "prius_walkaround.mp4"
FOLDER = ROOT / "out" / "clips"
SECONDS, RATE = 60, 30
WIDTH, HEIGHT = 1920, 1080
GRAIN_FIELDS = 16


class Clip(NamedTuple):
    """How one clip is encoded.

    Attributes:
        mbit: bits a second, in millions.
        grain: standard deviation of the luma noise.
        gop: frames from one key frame to the next.
    """

    mbit: float
    grain: float
    gop: int


CLIPS = {
    "walk_5mbit.mp4": Clip(4.8, 3.0, 30),
    "walk_20mbit.mp4": Clip(19.5, 6.0, 30),
    "walk_5mbit_gop250.mp4": Clip(4.8, 3.0, 250),
}


def source_time(frame: np.ndarray, count: int) -> np.ndarray:
    """Which frame of the sample, in fractions, a frame of the clip shows."""
    return np.asarray(frame) * (count - 1) / (SECONDS * RATE - 1)


def between(frames: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames of the walk at the clip's rate, each moved along the flow from its neighbours."""
    flow_of = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    height, width = grey[0].shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    last = -1
    for time in source_time(np.arange(SECONDS * RATE), len(frames)):
        i = min(int(time), len(frames) - 2)
        t = np.float32(time - i)
        if i != last:
            flow, last = flow_of.calc(grey[i], grey[i + 1], None), i
        a = cv2.remap(
            frames[i], grid - t * flow, None, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE
        )
        b = cv2.remap(
            frames[i + 1], grid + (1 - t) * flow, None, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE
        )
        yield cv2.addWeighted(a, 1 - float(t), b, float(t), 0)


def hand_held(frame: np.ndarray, seconds: float) -> np.ndarray:
    """The part of a frame that a hand-held camera shows at that time, at the clip's size."""
    height, width = frame.shape[:2]
    zoom = 0.93 + 0.04 * np.sin(2 * np.pi * seconds / 13)
    room = (1 - zoom) / 2
    x = width * room * np.sin(2 * np.pi * seconds / 3.7)
    y = height * room * np.sin(2 * np.pi * seconds / 2.9 + 1)
    # From the clip's pixels to the sample's, pixel centres at halves.
    scale = zoom * width / WIDTH
    matrix = np.array(
        [
            [scale, 0, width * room + x + scale / 2 - 0.5],
            [0, scale, height * room + y + scale / 2 - 0.5],
        ]
    )
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(frame, matrix, (WIDTH, HEIGHT), None, flags, cv2.BORDER_REPLICATE)


def make(name: str, path: pathlib.Path) -> None:
    """Writes one clip, under its name only when it is complete."""
    clip = CLIPS[name]
    with av.open(str(SAMPLE)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    rng = np.random.default_rng(0)
    # A little soft, as a sensor's noise is after its own processing.
    grain = [
        cv2.GaussianBlur(rng.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32), (3, 3), 0.6)
        for _ in range(GRAIN_FIELDS)
    ]
    grain = [np.round(clip.grain * field / field.std()).astype(np.int16) for field in grain]
    rate = str(round(clip.mbit * 1e6))
    options = {"preset": "fast", "b": rate, "maxrate": rate, "bufsize": str(2 * int(rate))}
    options |= {"g": str(clip.gop), "profile": "high"}
    with replacing(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, RATE)
        walk = track(between(frames), f"{name}:", total=SECONDS * RATE)
        for index, picture in enumerate(walk):
            picture = hand_held(picture, index / RATE)
            planes = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")
            yuv = planes.to_ndarray()
            field = np.roll(grain[index % GRAIN_FIELDS], int(rng.integers(WIDTH)), axis=1)
            yuv[:HEIGHT] = np.clip(yuv[:HEIGHT] + field, 16, 235)
            frame = av.VideoFrame.from_ndarray(yuv, "yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    mbit = path.stat().st_size * 8 / SECONDS / 1e6
    print(f"{path}: {SECONDS} s, {WIDTH}×{HEIGHT}, {mbit:.2f} Mb/s, key frame every {clip.gop}")


def ensure(name: str, folder: pathlib.Path = FOLDER) -> pathlib.Path:
    """The clip's path; it is made first where it is not there."""
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        make(name, path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER)
    parser.add_argument("names", nargs="*", default=list(CLIPS), metavar="NAME")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in CLIPS:
            parser.error(f"no clip {name!r}; there are: {', '.join(CLIPS)}")
        print(ensure(name, arguments.out))


if __name__ == "__main__":
    main()
