"""Prints the Markdown tables of MODEL_CARD.md: what the training photos show, and what they lack.

    python data/describe.py [--data_dir=DIR]

DIR (default: `$CARJAX_DATA`) is the folder of data sets; see data/README.md. Nothing is trained and
no photo is opened: all is read from the label tables and data/splits/.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from carjax.attributes import CAR, VIEWS, Categorical, find
from carjax.datasets import photos
from carjax.errors import CarjaxError
from carjax.evaluation import metrics

HERE = pathlib.Path(__file__).parent
SPLITS, LABEL_TABLES = HERE / "splits", HERE / "label_tables"
LABELLED, LENT, BOXED = "stanford_cars", "phone_photos", ("car_boxes", "phone_photos")
# A box that comes this near to an edge of its photo, as a fraction of the side, is cut off by it.
AT_BORDER = 0.01


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a Markdown table; columns that hold integers only are aligned right.

    Example:
        >>> print(table(["class", "photos"], [["SUV", 1118]]))
        | class | photos |
        |---|--:|
        | SUV | 1,118 |
    """
    cells = [list(row) for row in rows]
    right = [all(isinstance(row[i], int) for row in cells) for i in range(len(header))]
    lines = [list(header), ["--:" if r else "---" for r in right]]
    lines += [[f"{c:,}" if isinstance(c, int) else str(c) for c in row] for row in cells]
    texts = ["| " + " | ".join(line) + " |" for line in lines]
    texts[1] = "|" + "|".join(lines[1]) + "|"
    return "\n".join(texts)


def percent(part: int, whole: int) -> str:
    """Returns a share such as '12.5%', or '–' of nothing."""
    return f"{100 * part / whole:.1f}%" if whole else "–"


def split_class(name: str) -> tuple[str, int]:
    """Splits the name of a model class into the model and its year.

    Raises:
        CarjaxError: the name does not end with a year.

    Example:
        >>> split_class("Acura TL Sedan 2012")
        ('Acura TL Sedan', 2012)
    """
    model, _, year = name.rpartition(" ")
    if not (model and len(year) == 4 and year.isdecimal()):
        raise CarjaxError(f"labels.csv: class_name {str(name)!r} does not end with a year")
    return model, int(year)


def classes_of(name: str) -> tuple[str, ...]:
    """Returns the classes of a categorical attribute."""
    attribute = find(CAR, name)
    assert isinstance(attribute, Categorical)
    return attribute.classes


def class_counts(cars: photos.Photos, name: str) -> list[tuple[str, str, int, int]]:
    """Rows (attribute, class, photos, models) of a categorical attribute; unknown comes last."""
    rows = []
    for index, text in [*enumerate(classes_of(name)), (-1, "unknown")]:
        chosen = cars.labels[name] == index
        rows.append((name, text, int(chosen.sum()), len(set(cars.group[chosen]))))
    return rows


def class_table(cars: photos.Photos, lent: photos.Photos) -> str:
    """Photos and models per class of type, doors and seats, in either data set."""
    rows = []
    for name in ("type", "doors", "seats"):
        both = zip(class_counts(cars, name), class_counts(lent, name), strict=True)
        rows += [(*own, *other[2:]) for own, other in both]
    header = ["attribute", "class", "photos", "models"]
    return table([*header, f"{LENT}, photos", "families"], rows)


def unknown_table(cars: photos.Photos) -> str:
    """Photos with and without a label, per attribute."""
    rows = []
    for attribute in CAR:
        labels = cars.labels[attribute.name]
        known = labels >= 0 if isinstance(attribute, Categorical) else ~np.isnan(labels)
        lacking = int((~known).sum())
        rows.append((attribute.name, int(known.sum()), lacking, percent(lacking, len(cars))))
    return table(["attribute", "labelled photos", "unknown", "share unknown"], rows)


def models_of(cars: photos.Photos, brand: int) -> tuple[int, list[tuple[str, int]]]:
    """Photos of a brand, and its models with their years."""
    chosen = cars.labels["brand"] == brand
    return int(chosen.sum()), [split_class(name) for name in sorted(set(cars.group[chosen]))]


def brand_table(cars: photos.Photos, lent: photos.Photos) -> str:
    """Photos, models and years per brand, and photos and families of the other data set."""
    rows = []
    others = class_counts(lent, "brand")
    for index, brand in enumerate(classes_of("brand")):
        count, models = models_of(cars, index)
        years = ", ".join(str(year) for year in sorted({year for _, year in models}))
        rows.append((brand, count, len(models), years, *others[index][2:]))
    unknown = int((cars.labels["brand"] < 0).sum())
    rows.append(("none of these", unknown, 0, "", *others[-1][2:]))
    return table(["brand", "photos", "models", "years", f"{LENT}, photos", "families"], rows)


def model_list(cars: photos.Photos) -> str:
    """Every model by its name in the data set, one line per brand."""
    lines = []
    for index, brand in enumerate(classes_of("brand")):
        names = []
        for model, year in models_of(cars, index)[1]:
            same = model.lower().startswith(f"{brand.lower()} ")
            names.append(f"{model[len(brand) + 1 :] if same else model} {year}")
        lines.append(f"- **{brand}**: {', '.join(names) or 'none'}")
    return "\n".join(lines)


def view_table(cars: photos.Photos) -> str:
    """Photos per view of 45°."""
    azimuth = cars.labels["orientation"]
    known = azimuth[~np.isnan(azimuth)]
    counts = np.bincount(metrics.view_bin(known), minlength=len(VIEWS)).tolist()
    rows = [
        (view, f"{45 * i}°", n, percent(n, len(known)))
        for i, (view, n) in enumerate(zip(VIEWS, counts, strict=True))
    ]
    return table(["view", "centre", "photos", "share"], rows)


def read_sizes(folder: pathlib.Path) -> np.ndarray:
    """Reads columns width and height of `boxes.csv`, float [N, 2] pixels.

    Raises:
        CarjaxError: the columns are missing, or hold something else than positive numbers.
    """
    path = folder / "boxes.csv"
    with path.open(newline="", encoding="utf-8") as f:
        try:
            rows = [[float(row["width"]), float(row["height"])] for row in csv.DictReader(f)]
        except (KeyError, TypeError, ValueError) as error:
            raise CarjaxError(
                f"{path}: columns width and height must be numbers ({error})"
            ) from None
    sizes = np.array(rows, float).reshape(-1, 2)
    if not (sizes > 0).all():
        raise CarjaxError(f"{path}: every width and height must be above 0")
    return sizes


def box_table(root: pathlib.Path, names: Sequence[str]) -> str:
    """Photos with a car box, boxes at the border, and how much of the photo a box fills."""
    rows = []
    for name in names:
        box = photos.read_boxes(root / name).box
        found = ~np.isnan(box).any(1)
        side = np.tile(read_sizes(root / name), (1, 2))[found]  # width, height, width, height
        share = box[found] / side
        cut = ((share[:, :2] <= AT_BORDER) | (share[:, 2:] >= 1 - AT_BORDER)).any(1)
        area = np.prod(share[:, 2:] - share[:, :2], axis=1)
        fills = f"{100 * np.median(area):.0f}%" if len(area) else "–"
        rows.append((name, len(box), len(share), int((~found).sum()), int(cut.sum()), fills))
    return table(
        [
            "data set",
            "photos",
            "with a box",
            "without",
            "box at the border",
            "median area of the box",
        ],
        rows,
    )


def fold_table(names_of: Mapping[str, Sequence[str]]) -> str:
    """Photos per fold of every data set."""
    folds = {n: photos.read_folds(SPLITS / f"{n}.csv", files) for n, files in names_of.items()}
    most = max((int(f.max()) for f in folds.values() if len(f)), default=-1) + 1
    rows = [(name, *np.bincount(fold, minlength=most).tolist()) for name, fold in folds.items()]
    return table(["data set", *(f"fold {i}" for i in range(most))], rows)


def describe(root: pathlib.Path) -> str:
    """Returns all tables of a folder of data sets, with their headings, as Markdown.

    Raises:
        CarjaxError: a label table is missing or broken, or a photo has no fold.
    """
    cars = photos.read_labels(root / LABELLED, CAR)
    classes = tuple(a for a in CAR if isinstance(a, Categorical))
    lent = photos.read_labels(root / LENT, classes, LABEL_TABLES / f"{LENT}.csv")
    years = sorted({split_class(name)[1] for name in set(cars.group)})
    names_of = {LABELLED: cars.names} | {n: photos.read_boxes(root / n).names for n in BOXED}
    span = f", {years[0]}–{years[-1]}" if years else ""
    parts = (
        (f"{len(cars):,} photos of {len(set(cars.group))} models{span}", unknown_table(cars)),
        ("Type, doors, seats", class_table(cars, lent)),
        ("Views", view_table(cars)),
        ("Brands", brand_table(cars, lent)),
        ("Models", model_list(cars)),
        ("Car boxes", box_table(root, BOXED)),
        ("Folds", fold_table(names_of)),
    )
    return "\n\n".join(f"### {heading}\n\n{body}" for heading, body in parts)


def main() -> None:
    """Prints the tables of the folder that is given, or of `$CARJAX_DATA`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data_dir", help="folder of data sets; default: $CARJAX_DATA")
    print(describe(photos.data_root(parser.parse_args().data_dir)))


if __name__ == "__main__":
    try:
        main()
    except CarjaxError as error:
        print(f"describe: {error}", file=sys.stderr)
        sys.exit(error.status)
