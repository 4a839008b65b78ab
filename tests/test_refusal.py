"""Real frames through the real model: other cars, darkness, close-ups, emptiness are refused."""

import csv
import pathlib

import av
import cv2
import numpy as np
import pytest

from carjax import localise, scoring, selection
from carjax import model as models
from carjax.errors import NoCarError
from carjax.selection import eligibility

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "prius_walkaround.mp4"
RATE = 6.0
SPOILT = range(30, 45)


def decode(path, stride=1):
    with av.open(str(path)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    return np.stack(frames[::stride])


@pytest.fixture(scope="module")
def walk():
    return decode(SAMPLE, 2)


@pytest.fixture(scope="module")
def score():
    """(frames, frames a second) → their score table."""
    model = models.load()
    scorer = scoring.Scorer(model, 12)

    def table(frames, rate=RATE):
        count = np.arange(len(frames))
        return scoring.to_table(scorer(np.asarray(frames)), model.spec, count, count / rate)

    table.tells_content = model.spec.content is not None
    return table


def chosen(table):
    return set(selection.chosen_frames(selection.select_photos(table)).values())


@pytest.mark.parametrize(("photo", "width"), [(0, 0.45), (2, 0.6), (5, 0.35)])
def test_a_car_that_passes_in_front_is_not_chosen(carjax_data, walk, score, photo, width):
    with (carjax_data / "car_boxes" / "boxes.csv").open(newline="") as f:
        row = list(csv.DictReader(f))[photo]
    left, top, right, bottom = (int(float(row[k])) for k in ("left", "top", "right", "bottom"))
    image = cv2.imread(str(carjax_data / "car_boxes" / "images" / row["file"]))
    car = image[top:bottom, left:right, ::-1]
    height, side = walk.shape[1], walk.shape[2]
    w = int(side * width)
    car = cv2.resize(car, (w, car.shape[0] * w // car.shape[1]), interpolation=cv2.INTER_AREA)
    car = car[:height]
    y = max(int(0.95 * height) - len(car), 0)
    frames, where = walk.copy(), np.full((len(walk), 4), np.nan)
    for k, i in enumerate(SPOILT):
        x = round(side - (side + w) * (k + 0.5) / len(SPOILT))
        low, high = max(x, 0), min(x + w, side)
        frames[i, y : y + len(car), low:high] = car[: height - y, low - x : high - x]
        where[i] = np.array([low, y, high, y + len(car)]) / [side, height, side, height]
    table = score(frames)
    on_it = np.nan_to_num(np.asarray(localise.iou(table.box, where))) > 0.5
    assert on_it.sum() >= 4  # it takes the car box over
    main = eligibility.main_car_frames(table)
    assert not main[on_it].any()
    apart = np.delete(np.arange(len(walk)), SPOILT)
    np.testing.assert_array_equal(main[apart], eligibility.car_frames(table)[apart])
    assert not chosen(table) & set(np.flatnonzero(on_it))


def test_a_car_that_drives_through_a_bend_is_one_car(carjax_data, score):
    table = score(decode(carjax_data / "videos" / "car-turn.mp4", 3), 10.0)
    assert eligibility.main_car_frames(table).all()


def test_frames_in_the_dark_are_not_chosen(walk, score):
    frames = walk.copy()
    frames[SPOILT] //= 6
    assert not chosen(score(frames)) & set(SPOILT)


def test_close_ups_are_not_chosen(walk, score):
    if not score.tells_content:
        pytest.skip("the shipped bundle has no content head")
    frames = walk.copy()
    height, side = walk.shape[1:3]
    table = score(walk)
    for i in SPOILT:
        left, top, right, bottom = table.box[i] * [side, height, side, height]
        x, y = (3 * left + right) / 4, (3 * top + bottom) / 4
        part = walk[i, int(y) : int(y + 0.4 * (bottom - top)), int(x) : int(x + (right - left) / 3)]
        frames[i] = cv2.resize(part, (side, height), interpolation=cv2.INTER_CUBIC)
    table = score(frames)
    assert not eligibility.whole_frames(table)[SPOILT].mean() > 0.2
    picked = selection.select_photos(table)
    for choice in picked.attributes.values():
        assert choice.frame not in SPOILT


def drawing(shape):
    image = np.full(shape, 255, np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(30):
        ends = rng.integers(0, shape[1], 4).tolist()
        cv2.line(image, tuple(ends[:2]), tuple(ends[2:]), (200, 30, 30), 3)
        cv2.circle(image, tuple(ends[:2]), 20, (20, 90, 30), 2)
    return image


@pytest.mark.parametrize("kind", ["black", "noise", "drawing", "street"])
def test_a_video_without_a_car_is_refused(kind, carjax_data, score):
    shape, count = (360, 640, 3), 24
    if kind == "street":  # a pan over what is beside the cars of three photos
        with (ROOT / "data" / "content_labels.csv").open(newline="") as f:
            rows = [r for r in csv.DictReader(f) if r["content"] == "none"][5::200]
        frames = []
        for row in rows:
            image = cv2.imread(str(carjax_data / row["dataset"] / "images" / row["file"]))
            left, top, right, bottom = (int(row[k]) for k in ("left", "top", "right", "bottom"))
            image = cv2.resize(image[top:bottom, left:right, ::-1], (960, 540))
            frames += [image[5 * k : 5 * k + 360, 10 * k : 10 * k + 640] for k in range(count)]
    else:
        still = {"black": np.zeros(shape, np.uint8), "drawing": drawing(shape)}.get(kind)
        rng = np.random.default_rng(1)
        frames = [
            rng.integers(0, 256, shape, np.uint8) if still is None else np.roll(still, 5 * k, 1)
            for k in range(count)
        ]
    with pytest.raises(NoCarError, match="no car found"):
        selection.select_photos(score(frames))
