"""Writes data/stanford_cars_classes.csv: the attributes of each class of Stanford Cars.

    python data/make_stanford_classes.py "$CARJAX_DATA"

They were assigned by hand per class and stand in every row of `stanford_cars/labels.csv`. A class
whose rows disagree is an error.
"""

import csv
import pathlib
import sys

COLUMNS = ("class_name", "make", "type", "doors", "seats")
TABLE = pathlib.Path(__file__).parent / "stanford_cars_classes.csv"


def main(root: pathlib.Path) -> None:
    with (root / "stanford_cars" / "labels.csv").open(newline="", encoding="utf-8") as f:
        rows = {tuple(row[c] for c in COLUMNS) for row in csv.DictReader(f)}
    names = [row[0] for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        sys.exit(f"rows of one class disagree: {', '.join(twice)}")
    with TABLE.open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(sorted(rows))
    print(f"{TABLE}: {len(rows)} classes")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
