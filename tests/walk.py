"""A small walk-around for tests: a video file, and the scores of its frames made up to match."""

from __future__ import annotations

import fractions

import av
import numpy as np
from score_tables import make_table

from carjax.attributes import CAR, CONTENT
from carjax.table import ScoreTable

# What a phone writes beside the pictures: where, with what, by whom, when.
PLACE, DEVICE, OWNER = "+48.1371+011.5754/", "Fairphone 9 Ultra", "Erika Mustermann"
PRIVATE = {
    "location": PLACE,
    "make": DEVICE,
    "model": DEVICE,
    "artist": OWNER,
    "author": OWNER,
    "title": f"{OWNER}, {DEVICE}",
    "comment": PLACE,
    "creation_time": "2023-05-01T12:00:00.000000Z",
}


def table(frames: int = 40, rate: float = 10.0, seed: int = 0) -> ScoreTable:
    """Once around a car, with all that may happen: blur, dark, close-ups, another car, no car."""
    rng = np.random.default_rng(seed)
    n = frames
    azimuth = (360 * np.arange(n) / n + rng.normal(0, 2, n)) % 360
    kappa = np.exp(rng.uniform(3, 6, n))
    box = np.array([0.25, 0.3, 0.75, 0.8]) + rng.normal(0, 0.01, (n, 4))
    colour = np.tile([0.3, 0.4, 0.7], (n, 1)) + rng.normal(0, 0.01, (n, 3))
    sharpness = 0.6 + rng.normal(0, 0.03, n)
    car = rng.uniform(0.3, 0.9, n)
    content = np.tile([0.9, 0.08, 0.02], (n, 1))

    def stretch(share: float) -> slice:
        start = int(rng.uniform(0, 1 - share) * n)
        return slice(start, start + max(1, int(share * n)))

    sharpness[stretch(0.15)] *= 0.5
    colour[stretch(0.05)] *= 0.2
    content[stretch(0.1)] = [0.1, 0.85, 0.05]
    car[stretch(0.05)] = 0.0
    passing = stretch(0.1)
    box[passing] = [0.0, 0.55, 0.2, 0.75]
    colour[passing] = [0.8, 0.2, 0.1]
    probs = {}
    for attribute in CAR[:-1]:
        logits = rng.normal(0, 1, len(attribute.classes)) + rng.normal(0, 1, (n, 1)) * rng.normal(
            0, 2, (n, len(attribute.classes))
        )
        probs[attribute.name] = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert content.shape[1] == len(CONTENT.classes)
    return make_table(
        CAR,
        time_s=np.arange(n) / rate,
        probs=probs,
        azimuth_deg=azimuth,
        kappa=kappa,
        azimuth_floor=0.01,
        car_probability=car.astype(np.float32),
        box=np.clip(box, 0, 1).astype(np.float32),
        sharpness=sharpness.astype(np.float32),
        car_colour=np.clip(colour, 0, 1).astype(np.float32),
        content_probs=content.astype(np.float32),
    )


def write(
    path, frames: int = 40, size: tuple[int, int] = (320, 180), rate: int = 10, metadata=None
) -> list[np.ndarray]:
    """Writes an MP4 with all of a phone's metadata; returns the pictures, uint8 [H, W, 3] RGB.

    A ramp that moves, and on it, in the middle of the left half, a patch of black and white dots
    that stays.
    """
    width, height = size
    pictures = []
    with av.open(str(path), "w", format="mov" if metadata else "mp4") as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = fractions.Fraction(1, rate)
        x = np.arange(width) / width
        for i in range(frames):
            ramp = 60 + 120 * ((x + i / frames) % 1)
            image = np.repeat(np.tile(ramp, (height, 1))[..., None], 3, axis=2)
            image = image.astype(np.uint8)
            top, left = height // 2 - 16, width // 4 - 16
            dots = (np.indices((32, 32)) // 4).sum(0) % 2 * 255
            image[top : top + 32, left : left + 32] = dots[..., None]
            pictures.append(image)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return pictures
