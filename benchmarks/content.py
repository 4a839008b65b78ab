"""How well whole car, part of a car and no car are told apart, on photos labelled by looking.

    for k in 0 1 2 3 4; do carjax train --config=configs/content.py --config.fold=$k \\
        --workdir=work/crossval/content-$k; done
    python benchmarks/content.py --runs=work/crossval

Every window of data/content_labels.csv that was labelled by looking is scored by the head of the
run that held its fold out, through both looks of the shipped car box (which was trained on folds
1 to 4: fold 0 is told apart). Prints the recall of each class and their mean, and how often a box
at the frame's border says that the border cuts the car. Writes results/content.json.
"""

import argparse
import csv
import pathlib

import jax
import machine
import numpy as np

from carjax import backbones, content, localise, runtime
from carjax import model as models
from carjax.attributes import CONTENT
from carjax.datasets import photos

ROOT = pathlib.Path(__file__).parents[1]
TABLE = ROOT / "data" / "content_labels.csv"
DATASETS = ("car_boxes", "phone_photos")
FOLDS = 5
SIDE = 480
# A box that ends this near to the frame's border, as a share of its side, is cut off by it.
BORDER = 0.01


def looked_at(data: pathlib.Path) -> tuple[photos.Photos, np.ndarray, np.ndarray]:
    """The windows labelled by looking, the fold of each, and whether its border cuts the car."""
    with TABLE.open(newline="") as f:
        rows = list(csv.DictReader(f))
    parts, folds, cuts = [], [], []
    for name in DATASETS:
        own = [row for row in rows if row["dataset"] == name]
        index = np.flatnonzero([row["by"] == "looked" for row in own])
        part = photos.read_content(TABLE, data / name).take(index)
        parts.append(part)
        folds.append(photos.read_folds(ROOT / "data" / "splits" / f"{name}.csv", part.names))
        cuts += [float(own[i]["cut"] or np.nan) for i in index]
    joined = photos.Photos(
        sum((p.paths for p in parts), ()),
        sum((p.names for p in parts), ()),
        {CONTENT.name: np.concatenate([p.labels[CONTENT.name] for p in parts])},
        np.concatenate([p.group for p in parts]),
        np.concatenate([p.box for p in parts]),
        crop=np.concatenate([p.crop for p in parts]),
    )
    return joined, np.concatenate(folds), np.array(cuts)


def figures(predicted: np.ndarray, labels: np.ndarray) -> dict:
    """Recall of each class, their mean, and the confusion matrix (rows: what was seen)."""
    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (labels, predicted), 1)
    recall = np.diag(confusion) / confusion.sum(1)
    return {
        "photos": int(confusion.sum()),
        "balanced_accuracy": round(float(recall.mean()), 4),
        **{f"recall_{n}": round(float(r), 4) for n, r in zip(CONTENT.classes, recall, strict=True)},
        "confusion": confusion.tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", required=True)
    runs = pathlib.Path(parser.parse_args().runs)
    runtime.set_up_jax()
    shipped = models.load()
    backbone = backbones.create(shipped.spec.backbone)
    frozen, box = shipped.params["backbone"], shipped.params["localise"]
    parts = [models.load(runs / f"content-{k}") for k in range(FOLDS)]
    spec = parts[0].spec.heads[0]

    @jax.jit
    def show(params, image):
        found = localise.find(box, backbone, frozen, image[None], shipped.spec.localise)
        probs = content.content_probs(params, spec, backbone, frozen, found.features)
        return probs[0], found.box[0] / SIDE

    every, fold, cut = looked_at(photos.data_root())
    probs, boxes = [], []
    for i in range(len(every)):
        image = photos.square(every.read(i), SIDE)
        one = show(parts[fold[i]].params["heads"][CONTENT.name], image)
        probs.append(np.asarray(one[0]))
        boxes.append(np.asarray(one[1]))
    labels, predicted = every.labels[CONTENT.name], np.array(probs).argmax(1)
    whole_photo = np.isnan(every.crop).any(1)
    box = np.array(boxes)
    border = ((box[:, :2] <= BORDER) | (box[:, 2:] >= 1 - BORDER)).any(1)
    rows = {
        "all windows": figures(predicted, labels),
        "fold 0": figures(predicted[fold == 0], labels[fold == 0]),
        "whole photos alone, none excepted": figures(
            predicted[whole_photo | (labels == 2)], labels[whole_photo | (labels == 2)]
        ),
        "border": {
            "photos": int((~np.isnan(cut)).sum()),
            "cut, and the box is at the border": round(float(border[cut == 1].mean()), 4),
            "not cut, and the box is not": round(float((~border[cut == 0]).mean()), 4),
        },
    }
    for name, row in rows.items():
        print(name, row)
    size = sum(x.size for x in jax.tree.leaves(parts[0].params["heads"][CONTENT.name]))
    machine.save(
        "content.json",
        {"command": "python benchmarks/content.py", "head_kB": round(size * 2 / 1000, 1), **rows},
    )


if __name__ == "__main__":
    main()
