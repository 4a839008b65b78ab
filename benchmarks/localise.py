"""How well the car is found, on photos that were not trained on.

    carjax train --config=configs/localise.py --config.fold=0 --workdir=work/crossval/localise-0
    python benchmarks/localise.py --box=work/crossval/localise-0 [--heads=DIR,DIR,…]

Prints mean IoU and recall at IoU 0.5 on fold 0 of `car_boxes` and `phone_photos` (boxes of a
detector, those it is sure of), whole photos, for the box head and for the class activation of the
ImageNet vehicle classes. With heads trained without fold 0 of `stanford_cars`, also what zooming
its photos out to 30% of their size costs, and what the loss of pixels alone would. Writes
results/localise.json.
"""

import argparse
import csv
import pathlib

import cv2
import jax
import jax.numpy as jnp
import machine
import numpy as np

from carjax import backbones, circular, crops, grids, localise, runtime, scoring
from carjax import bundle as bundles
from carjax import model as models
from carjax.attributes import CAR, VEHICLE_CLASSES, Categorical
from carjax.backbones import registry
from carjax.datasets import photos

ROOT = pathlib.Path(__file__).parents[1]
FOLD = 0
ZOOM = 0.3
SIDE = 480


def class_activation_box(activation, image: np.ndarray) -> np.ndarray:
    """The box of the largest region above half of the vehicle classes' range, in pixels."""
    heat = cv2.resize(np.array(activation(image)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    region = (heat > (heat.min() + heat.max()) / 2).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(region)
    left, top, w, h = stats[1:][np.argmax(stats[1:, cv2.CC_STAT_AREA])][:4]
    return np.array([left, top, left + w, top + h], np.float32)


def boxes(model: models.Model, data: pathlib.Path) -> dict:
    backbone = backbones.create(model.spec.backbone)
    params = model.params["backbone"]
    size = registry.spec_of(backbone.name).input_size

    @jax.jit
    def find(image):
        return localise.find(
            model.params["localise"], backbone, params, image[None], model.spec.localise
        ).box[0]

    @jax.jit
    def activation(image):
        inputs = crops.crop_and_resize(
            image[None], crops.whole_boxes(crops.frame_sizes(image[None])), size
        )
        inputs = registry.normalize(backbone.name, inputs)
        # Class activations (Zhou et al. 2016): the classifier at every place of the top features.
        logits = backbone.apply(
            {"params": params}, inputs, method=lambda net, x: net.classifier(net._maps(x)[0])
        )
        return jax.nn.logsumexp(logits[0][..., np.array(VEHICLE_CLASSES)], axis=-1)

    figures = {}
    for name in ("car_boxes", "phone_photos"):
        every = photos.read_boxes(data / name)
        fold = photos.read_folds(ROOT / "data" / "splits" / f"{name}.csv", every.names)
        sure = np.ones(len(every), bool)
        if name == "phone_photos":
            with (data / name / "boxes.csv").open() as f:
                sure = np.array([float(r["score"] or 0) >= 0.5 for r in csv.DictReader(f)])
        index = np.flatnonzero((fold == FOLD) & sure & ~np.isnan(every.box).any(1))
        ious = {"box head": [], "class activation": []}
        for i in index:
            image = cv2.imread(str(every.paths[i]))[..., ::-1]
            # Every look squashes its window to a square; squashed at once, one shape compiles.
            height, width = image.shape[:2]
            scale = np.array([SIDE / width, SIDE / height] * 2, np.float32)
            square = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
            truth = jnp.asarray(every.box[i] * scale)
            ious["box head"].append(float(localise.iou(find(square), truth)))
            ious["class activation"].append(
                float(localise.iou(class_activation_box(activation, square), truth))
            )
        for kind, values in ious.items():
            figures[f"{name}, {kind}"] = {
                "photos": len(values),
                "mean_iou": round(float(np.mean(values)), 4),
                "recall_at_0.5": round(float(np.mean(np.array(values) >= 0.5)), 4),
                "recall_at_0.75": round(float(np.mean(np.array(values) >= 0.75)), 4),
            }
    return figures


def blunted(image: np.ndarray, side: int, scale: float) -> np.ndarray:
    """The photo at `scale` of a square of `side`, and from there back to its own size."""
    height, width = image.shape[:2]
    fit = side * scale / max(height, width)
    size = max(1, round(width * fit)), max(1, round(height * fit))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def sharpened(image: np.ndarray) -> np.ndarray:
    soft = cv2.GaussianBlur(image, (0, 0), 1.0)
    return cv2.addWeighted(image, 1.7, soft, -0.7, 0)


def enlarged(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)


def zoomed_out(image: np.ndarray, side: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """The photo at `scale` of the canvas, anywhere on it, over soft random colours."""
    height, width = image.shape[:2]
    fit = side * scale / max(height, width)
    small = cv2.resize(
        image,
        (max(1, round(width * fit)), max(1, round(height * fit))),
        interpolation=cv2.INTER_AREA,
    )
    coarse = rng.integers(40, 216, (6, 6, 3), dtype=np.uint8)
    canvas = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    top, left = (rng.integers(0, side - n + 1) for n in small.shape[:2])
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas


def zoom(model: models.Model, data: pathlib.Path) -> dict:
    every = photos.read_labels(data / "stanford_cars", CAR)
    fold = photos.read_folds(ROOT / "data" / "splits" / "stanford_cars.csv", every.names)
    held_out = every.take(np.flatnonzero(fold == FOLD))
    scorer = scoring.Scorer(model)
    images = [cv2.imread(str(p))[..., ::-1] for p in held_out.paths]
    figures = {}
    small = f"longest side {ZOOM:.0%} of the frame"
    for name, shown, scale, change in (
        ("longest side 100% of the frame", images, 1.0, None),
        (small, images, ZOOM, None),
        # How much of that is lost with the pixels, wherever the car is found.
        (f"100% of the frame, with the pixels of {ZOOM:.0%}",
         [blunted(image, 640, ZOOM) for image in images], 1.0, None),
        # What was tried to win some of it back.
        (f"{small}, sharpened", images, ZOOM, sharpened),
        (f"{small}, enlarged twice by cubic interpolation", images, ZOOM, enlarged),
    ):  # fmt: skip
        rng = np.random.default_rng(0)
        frames = np.stack([zoomed_out(image, 640, scale, rng) for image in shown])
        if change is not None:
            frames = np.stack([change(frame) for frame in frames])
        scores = scorer(frames)
        row: dict[str, float] = {}
        for attribute in model.spec.schema:
            labels = held_out.labels[attribute.name]
            if isinstance(attribute, Categorical):
                known = labels >= 0
                right = scores.probs[attribute.name].argmax(1)[known] == labels[known]
                row[attribute.name] = round(float(right.mean()), 4)
            else:
                error = grids.apart_deg(circular.azimuth_deg(scores.azimuth), labels)
                row["azimuth_median_deg"] = round(float(np.nanmedian(error)), 2)
        figures[name] = row
    return figures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--box", required=True)
    parser.add_argument("--heads", default="")
    arguments = parser.parse_args()
    runtime.set_up_jax()
    data = photos.data_root()
    folders = [f for f in arguments.heads.split(",") if f]
    sources = [arguments.box, *folders]
    parts = [models.load(source) for source in sources]
    model = bundles.join(parts, sources, "without fold 0")
    figures = {"boxes": boxes(model, data)}
    if folders:
        figures["zoom"] = zoom(model, data)
    for part in figures.values():
        for name, row in part.items():
            print(name, row)
    machine.save("localise.json", {"command": "python benchmarks/localise.py", **figures})


if __name__ == "__main__":
    main()
