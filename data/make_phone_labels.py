"""Writes data/label_tables/phone_photos.csv: what the cars of `phone_photos` are, a row per photo.

    python data/make_phone_labels.py "$CARJAX_DATA"

`phone_photos_cars.csv` says which model each photo shows, and how much of it; that was looked at.
`phone_photos_models.csv` has the attributes of each model; the family of models that look alike,
which becomes its `class_name`, so that a split by model keeps it together; and the classes of
Stanford Cars that are the same car (`same_as`, separated by semicolons).

Photos that show half of a car or less are left out, and those whose car could not be named. Windows
are the boxes of `boxes.csv`.
"""

import csv
import pathlib
import sys

from carjax import files
from carjax.datasets.photos import SIDES

HERE = pathlib.Path(__file__).parent
TABLE = HERE / "label_tables" / "phone_photos.csv"
ATTRIBUTES = ("family", "make", "type", "doors", "seats", "same_as")


def read(path: pathlib.Path, key: str) -> dict[str, dict[str, str]]:
    """Returns the rows of a table by the text in one of its columns.

    Raises:
        SystemExit: two rows have the same.
    """
    with path.open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    by_key = {row[key]: row for row in rows}
    if len(by_key) < len(rows):
        sys.exit(f"{path}: two rows of the same {key}")
    return by_key


def main(root: pathlib.Path) -> None:
    boxes = read(root / "phone_photos" / "boxes.csv", "file")
    models = read(HERE / "phone_photos_models.csv", "model")
    cars = read(HERE / "phone_photos_cars.csv", "file")
    unboxed = sorted(cars.keys() - boxes.keys())
    if unboxed:
        sys.exit(f"boxes.csv has no row for {len(unboxed)} photos, the first {unboxed[0]}")
    TABLE.parent.mkdir(exist_ok=True)
    used = 0
    with (
        files.replacing(TABLE) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as f,
    ):
        writer = csv.writer(f, lineterminator="\n")
        header = ["class_name" if name == "family" else name for name in ATTRIBUTES]
        writer.writerow(["file", *SIDES, *header])
        for file, car in sorted(cars.items()):
            if car["content"] not in ("whole", "most") or car["model"] not in models:
                continue
            box = [boxes[file][side] for side in SIDES]
            model = models[car["model"]]
            writer.writerow([file, *box, *(model[name] for name in ATTRIBUTES)])
            used += 1
    print(f"{TABLE}: {used} of {len(cars)} photos, {len(models)} models")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
