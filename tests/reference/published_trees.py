"""Small data sets in exactly the published formats: MATLAB structs, lists, label files, JPEGs.

`photo` paints what a test can recognise: the box in one colour, everything around it black.
"""

import csv
import json

import cv2
import numpy as np
import scipy.io


def photo(path, size=(64, 48), box=None, colour=(200, 200, 200)):
    """Writes a JPEG or PNG of size (width, height); box is 0-based left, top, right, bottom."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((size[1], size[0], 3), np.uint8)
    left, top, right, bottom = box or (0, 0, *size)
    image[top:bottom, left:right] = colour
    suffix = ".png" if path.suffix == ".png" else ".jpg"
    path.write_bytes(cv2.imencode(suffix, image)[1].tobytes())


def with_exif(jpeg, orientation=1, thumbnail=b""):
    """Puts an EXIF segment into a JPEG: an orientation, and bytes where a thumbnail would lie."""
    entry = b"\x12\x01\x03\x00\x01\x00\x00\x00" + bytes([orientation, 0, 0, 0])
    body = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00" + entry + b"\x00\x00\x00\x00" + thumbnail
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


def struct_array(rows):
    """A MATLAB struct array [1, N] from dicts of the same keys."""
    array = np.empty((1, len(rows)), [(key, object) for key in rows[0]])
    for i, row in enumerate(rows):
        array[0, i] = tuple(row.values())
    return array


def cells(strings, column=False):
    """A MATLAB cell array of strings, 1 × N or N × 1; None is an empty cell."""
    array = np.empty((len(strings), 1) if column else (1, len(strings)), object)
    for i, string in enumerate(strings):
        array.flat[i] = np.zeros((0, 0)) if string is None else string
    return array


# --- PASCAL3D+ release 1.1 -----------------------------------------------------------------------


def pascal_object(name="car", box=(11.0, 6.0, 40.0, 30.0), azimuth=90.0, flags=(0, 0, 0), **more):
    """One element of record.objects; `box` is 1-based and includes both ends."""
    viewpoint = {
        "azimuth_coarse": 45.0,
        "elevation_coarse": 20.0,
        "azimuth": azimuth,
        "elevation": 7.5,
        "distance": 6.0,
        "focal": 1.0,
        "px": 20.0,
        "py": 20.0,
        "theta": -1.5,
        "error": 3.0,
        "interval_azimuth": 2.0,
        "num_anchor": 8.0,
        "viewport": 3000.0,
    }
    viewpoint.update(more.pop("viewpoint", {}))
    fields = {
        "class": name,
        "view": "",
        "truncated": flags[0],
        "occluded": flags[1],
        "difficult": flags[2],
        "bbox": np.array([box]),
        "anchors": np.zeros((0, 0)),
        "viewpoint": {k: v for k, v in viewpoint.items() if v is not None},
        "cad_index": 7.0,
    }
    return fields | more


def pascal_annotation(path, filename, objects):
    """Writes one Annotations/car_*/NAME.mat."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "folder": "VOC2012",
        "filename": filename,
        "source": {"database": "The VOC2012 Database"},
        "size": {"width": 64.0, "height": 48.0, "depth": 3.0},
        "imgsize": np.array([[64.0, 48.0, 3.0]]),
        "segmented": 0,
        "objects": struct_array(objects) if objects else np.zeros((0, 0)),
    }
    scipy.io.savemat(path, {"record": record})


def pascal3d(root, names=4):
    """VOC and ImageNet photos voc_0 …, net_0 …: even ones are listed in train, odd ones in val.

    Azimuths are 10, 20, … within each folder.
    """
    lists = root / "PASCAL/VOCdevkit/VOC2012/ImageSets/Main"
    lists.mkdir(parents=True)
    (root / "Image_sets").mkdir()
    for folder, stem, suffix in (("pascal", "voc", ".jpg"), ("imagenet", "net", ".JPEG")):
        listed = {"train": [], "val": []}
        for i in range(names):
            name = f"{stem}_{i}"
            box, azimuth = (10, 5, 40, 30), 10.0 * (i + 1)
            colour = (220, 0, 0) if azimuth < 10.0 * names / 2 else (0, 0, 220)
            photo(root / f"Images/car_{folder}/{name}{suffix}", box=box, colour=colour)
            pascal_annotation(
                root / f"Annotations/car_{folder}/{name}.mat",
                name + suffix,
                [pascal_object("person", cad_index=1.0), pascal_object(azimuth=azimuth)],
            )
            listed["val" if i % 2 else "train"].append(name)
        for part, stems in listed.items():
            if folder == "imagenet":
                path, lines = root / f"Image_sets/car_imagenet_{part}.txt", stems
            else:
                # VOC lists every photo: 1 shows a car, 0 a difficult one, −1 none.
                path = lists / f"car_{part}.txt"
                lines = [f"{s}  1" for s in stems] + [f"2008_{part} -1"]
            path.write_text("".join(f"{line}\n" for line in lines))


# --- CompCars ------------------------------------------------------------------------------------

COMPCARS_MODELS = {
    # model: make, doors, seats, type as published
    "1": ("1", "5", "5", "2"),
    "2": ("1", "2", "4", "12"),
    "3": ("3", "4", "7", "1"),
    "4": ("3", "0", "0", "0"),
    "5": ("3", "6", "3", "3"),
}


def compcars(root, photos_of_each=4):
    """Five models of the makes 1 and 3; make 2 has no photos. One photo of each is in neither list.

    Model 5 is not named.
    """
    data = root / "data"
    lists = {"train": [], "test": []}
    for model, (make, *_) in COMPCARS_MODELS.items():
        for i in range(photos_of_each):
            stem = f"{make}/{model}/{'unknown' if i == 0 else 2010 + i}/{model}{i:02d}f"
            colour = (220, 0, 0) if make == "1" else (0, 0, 220)
            photo(data / f"image/{stem}.jpg", box=(8, 4, 48, 40), colour=colour)
            label = data / f"label/{stem}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(f"{-1 if i == 0 else i}\n1\n9 5 48 40\n")
            if i < photos_of_each - 1:
                lists["test" if i == 1 else "train"].append(f"{stem}.jpg\n")
    split = data / "train_test_split/classification"
    split.mkdir(parents=True)
    for part, lines in lists.items():
        (split / f"{part}.txt").write_text("".join(lines))
    misc = data / "misc"
    misc.mkdir()
    rows = ["model_id maximum_speed displacement door_number seat_number type"]
    rows += [f"{m} 235 1.8 {d} {s} {t}" for m, (_, d, s, t) in COMPCARS_MODELS.items()]
    (misc / "attributes.txt").write_text("\n".join(rows) + "\n")
    types = "MPV,SUV,sedan,hatchback,minibus,fastback,estate,pickup,hardtop convertible,sports"
    types = [*types.split(","), "crossover", "convertible"]
    scipy.io.savemat(misc / "car_type.mat", {"types": cells(types)})
    scipy.io.savemat(
        misc / "make_model_name.mat",
        {
            "make_names": cells(["Audi", "Besturn", "BWM"], column=True),
            "model_names": cells(
                ["Audi A4L", "Audi TT coupe", "BWM X5", "MINI", None], column=True
            ),
        },
    )


# --- Stanford Cars -------------------------------------------------------------------------------

STANFORD_CLASSES = ("AM General Hummer SUV 2000", "Acura TL Sedan 2012", "Ghost Car 1900")


def stanford(root, test=True):
    """Six training photos, two of each class, and three for testing."""
    for folder, name, n in (
        ("cars_train", "devkit/cars_train_annos.mat", 6),
        ("cars_test", "cars_test_annos_withlabels.mat", 3),
    ):
        if folder == "cars_test" and not test:
            continue
        rows = []
        for i in range(n):
            file = f"{i + 1:05d}.jpg"
            photo(root / folder / file, box=(3, 2, 60, 44))
            rows.append(
                {
                    "bbox_x1": np.array([[4]], np.uint8),
                    "bbox_y1": np.array([[3]], np.uint8),
                    "bbox_x2": np.array([[60]], np.uint8),
                    "bbox_y2": np.array([[44]], np.uint8),
                    "class": np.array([[i % 3 + 1]], np.uint8),
                    "fname": file,
                }
            )
        path = root / name
        path.parent.mkdir(exist_ok=True)
        scipy.io.savemat(path, {"annotations": struct_array(rows)})
    scipy.io.savemat(root / "devkit/cars_meta.mat", {"class_names": cells(STANFORD_CLASSES)})


# --- A folder of one's own -----------------------------------------------------------------------


def fruit(root, photos=12):
    """Fruit that is green or ripe and points somewhere; every fourth one is for testing."""
    rows = []
    for i in range(photos):
        name = f"{i:02d}.png"
        photo(root / "images" / name, colour=(0, 220, 0) if i % 2 else (0, 0, 220))
        split = "test" if i % 4 == 3 else "train"
        rows.append([name, ("ripe", "green")[i % 2], str(30 * i), f"tree {i // 2}", split])
    with (root / "labels.csv").open("w", newline="") as f:
        csv.writer(f).writerows([["file", "ripeness", "heading", "model", "split"], *rows])
    schema = [{"name": "ripeness", "classes": ["green", "ripe"]}, {"name": "heading"}]
    (root / "schema.json").write_text(json.dumps(schema))
