"""Writes data/splits/*.csv: five folds by SHA-1, near-duplicates of the box sets kept together.

    python data/make_splits.py "$CARJAX_DATA"

`stanford_cars` folds by the SHA-1 of the file name, and in `by_model/` by that of the model's name,
so that no model is on both sides. That holds within a data set: of the 15 pairs of models that
`same_as` in `label_tables/` links across the two, 12 lie in different folds, for which
`benchmarks/nested.py` leaves the twin out, and `crossval.py` reads one data set alone. `car_boxes`
and `phone_photos` hold mirrored copies and bursts of the same car, so there photos whose difference
hashes (16×16, also mirrored) agree within 40 of 256 bits form a group, and the group's first file
name gives the fold.
"""

import csv
import pathlib
import sys

import cv2
import numpy as np

from carjax.datasets.folds import fold_of

FOLDS = 5
SAME_BITS = 40


def difference_hash(image: np.ndarray) -> np.ndarray:
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(gray, (17, 16), interpolation=cv2.INTER_AREA).astype(int)
    return (small[:, 1:] > small[:, :-1]).ravel()


def groups(images: list[np.ndarray]) -> list[int]:
    """Index of each image's group: that of its first near-duplicate, over chains of them."""
    straight = np.array([difference_hash(i) for i in images])
    mirrored = np.array([difference_hash(i[:, ::-1]) for i in images])
    group = np.arange(len(images))
    for i in range(len(images)):
        apart = np.minimum((straight != straight[i]).sum(1), (mirrored != straight[i]).sum(1))
        members = np.unique(group[apart <= SAME_BITS])
        group[np.isin(group, members)] = members.min()
    return group.tolist()


def write(name: str, files: list[str], keys: list[str]) -> None:
    path = pathlib.Path(__file__).parent / "splits" / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(["file", "fold"])
        writer.writerows((file, fold_of(key, FOLDS)) for file, key in zip(files, keys, strict=True))
    print(name, np.bincount([fold_of(k, FOLDS) for k in keys], minlength=FOLDS))


def main(root: pathlib.Path) -> None:
    with (root / "stanford_cars" / "labels.csv").open() as f:
        rows = list(csv.DictReader(f))
    files = [row["file"] for row in rows]
    write("stanford_cars", files, files)
    write("by_model/stanford_cars", files, [row["class_name"] for row in rows])
    for name in ("car_boxes", "phone_photos"):
        with (root / name / "boxes.csv").open() as f:
            files = [row["file"] for row in csv.DictReader(f)]
        group = groups([cv2.imread(str(root / name / "images" / file)) for file in files])
        write(name, files, [files[g] for g in group])
        print(
            f"  {len(files)} files in {len(set(group))} groups, largest {max(np.bincount(group))}"
        )
        table = pathlib.Path(__file__).parent / "label_tables" / f"{name}.csv"
        if table.is_file():
            with table.open() as f:
                rows = list(csv.DictReader(f))
            models = [row["class_name"] for row in rows]
            write(f"by_model/{name}", [row["file"] for row in rows], models)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
