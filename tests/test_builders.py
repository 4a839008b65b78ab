"""The builders read the published formats, and lose nothing in silence."""

import csv
import dataclasses
import fcntl
import json
import math
import os
import pathlib
import shutil
import struct
import sys

import cv2
import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds

from carjax import pictures
from carjax.attributes import CAR, DOORS, SEATS, Angular, Categorical, find
from carjax.cli import prepare as prepare_command
from carjax.cli.main import main as command_line
from carjax.datasets import builders, photos, prepared
from carjax.datasets.builders import base, encoded, matlab
from carjax.datasets.builders import prepare as library
from carjax.errors import CarjaxError, UsageError


def prepare(name, source, data):
    """Prepares with the command; returns the folder of the records."""
    words = [name, f"--source={source}", f"--data_dir={data}", "--quiet"]
    assert prepare_command.main(words) == 0
    return prepared.find(data, name)


def rows_of(folder):
    """Name → row of the index."""
    return {row["name"]: row for row in prepared.read_index(folder).to_pylist()}


def lost(folder):
    metadata = prepared.read_metadata(folder)
    return dict(metadata["skipped"]), metadata["counts"], metadata["notes"]


# --- Pieces --------------------------------------------------------------------------------------


def test_a_cut_photo_is_known_by_its_missing_end(published, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    jpeg, small = (cv2.imencode(".jpg", i)[1].tobytes() for i in (noise, noise[:8, :8]))
    progressive = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    png = cv2.imencode(".png", noise)[1].tobytes()
    for whole in (jpeg, progressive, png, published.with_exif(jpeg, thumbnail=small)):
        assert pictures.is_whole(whole)
        assert pictures.is_whole(whole + b"\0trailing")
        for keep in (0.3, 0.9):
            assert not pictures.is_whole(whole[: int(keep * len(whole))])
    strayed = jpeg[:20] + b"\0\0" + jpeg[20:]  # between two segments, where decoders pass over it
    assert np.array_equal(pictures.decoded(strayed), pictures.decoded(jpeg))
    assert pictures.scan_jpeg(strayed) == (40, True)
    (tmp_path / "cut.jpg").write_bytes(jpeg[:-200])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    # 100,000 by 100,000 pixels, says the header.
    (tmp_path / "huge.png").write_bytes(png[:16] + struct.pack(">II", 100_000, 100_000) + png[24:])
    with pytest.raises(CarjaxError, match="not an image"):
        photos.decode(tmp_path / "huge.png")
    for name, reason in (
        ("huge.png", "not an image"),
        ("cut.jpg", "cut short"),
        ("text.jpg", "not an image"),
        ("empty.jpg", "empty"),
        ("none.jpg", "No such file"),
    ):
        with pytest.raises(encoded.Fault, match=reason):
            encoded.load(tmp_path / name)


def test_matlab_structs_of_none_one_and_many(published, tmp_path):
    for rows in ([], [{"a": 1.0}], [{"a": 1.0}, {"a": 2.0}]):
        value = published.struct_array(rows) if rows else np.zeros((0, 0))
        scipy.io.savemat(tmp_path / "m.mat", {"record": {"objects": value}})
        found = matlab.items(matlab.load(tmp_path / "m.mat", "record")["objects"])
        assert [matlab.number(f, "a") for f in found] == [r["a"] for r in rows]
    scipy.io.savemat(tmp_path / "c.mat", {"names": published.cells(["A", None, " B "], True)})
    assert matlab.strings(matlab.load(tmp_path / "c.mat", "names")) == ["A", "", "B"]


@pytest.mark.parametrize("keep", [0, 60, 200, -30])
def test_a_broken_matlab_file_is_a_fault(published, tmp_path, keep):
    path = tmp_path / "m.mat"
    published.pascal_annotation(path, "a.jpg", [published.pascal_object()])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(encoded.Fault):
        matlab.load(path, "record")


def test_the_split_by_model_never_changes():
    # Computed with sha1sum, independently of this code.
    assert base.model_split("Acura TL Sedan 2012") == base.model_split("cad_07") == "val"
    assert base.model_split("Audi A4L") == base.model_split("cad_01") == "train"
    held_out = [base.model_split(f"model {i}") for i in range(2000)].count("val")
    assert abs(held_out / 2000 - 0.2) < 0.03


# --- PASCAL3D+ -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pascal(published, tmp_path_factory):
    """A tree with every kind of object and fault, and where it is prepared."""
    root, make = tmp_path_factory.mktemp("pascal3d"), published
    published.pascal3d(root)
    voc, net = root / "Annotations/car_pascal", root / "Annotations/car_imagenet"
    make.pascal_annotation(
        voc / "voc_1.mat",
        "voc_1.jpg",
        [
            make.pascal_object(azimuth=350.0),
            make.pascal_object(flags=(1, 0, 0)),
            make.pascal_object(flags=(0, 1, 0)),
            make.pascal_object(flags=(0, 0, 1)),
            make.pascal_object(azimuth=-30.0, box=(-5.0, 1.0, 64.0, 60.0)),
            make.pascal_object(viewpoint=dict(distance=0.0, azimuth=1.0)),
            make.pascal_object(viewpoint=dict(azimuth=None, elevation=None)),
        ],
    )
    make.pascal_annotation(
        voc / "voc_0.mat",
        "voc_0.jpg",
        [
            make.pascal_object() | {"viewpoint": np.zeros((0, 0))},
            make.pascal_object(box=(70.0, 5.0, 90.0, 20.0)),
            make.pascal_object(azimuth=123.0),
            make.pascal_object(viewpoint=dict(azimuth=None, azimuth_coarse=None)),
        ],
    )
    (net / "net_0.mat").write_bytes(b"MATLAB 5.0 MAT-file, not really")
    photo = root / "Images/car_imagenet/net_2.JPEG"
    os.truncate(photo, photo.stat().st_size // 2)
    make.photo(root / "Images/car_imagenet/net_4.JPEG")
    make.pascal_annotation(net / "net_4.mat", "net_4.JPEG", [make.pascal_object("bus")])
    make.pascal_annotation(net / "net_9.mat", "net_9.JPEG", [make.pascal_object()])
    with (root / "Image_sets/car_imagenet_train.txt").open("a") as f:
        f.write("net_4\nnet_5\n")
    make.photo(root / "Images/car_imagenet/net_6.JPEG", box=(10, 5, 40, 30))
    make.pascal_annotation(net / "net_6.mat", "net_6.JPEG", [make.pascal_object(azimuth=200.0)])
    with (root / "Image_sets/car_imagenet_train.txt").open("a") as f:
        f.write("net_6\n")
    return root, tmp_path_factory.mktemp("prepared")


def test_pascal3d_objects_and_their_numbers(pascal):
    source, data = pascal
    folder = prepare("pascal3d_car/all", source, data)
    rows = rows_of(folder)
    voc_1 = "Images/car_pascal/voc_1.jpg"
    assert {n for n in rows if n.startswith(voc_1)} == {
        voc_1,
        *(f"{voc_1}#{i}" for i in range(1, 7)),
    }
    first = rows[voc_1]
    assert first["orientation"] == 350.0
    assert first["box"] == [10.0, 5.0, 40.0, 30.0]
    assert (first["elevation"], first["theta"], first["distance"]) == (7.5, -1.5, 6.0)
    assert (first["model"], first["model_split"], first["split"]) == ("cad_07", "val", "voc_val")
    assert [first[flag] for flag in ("truncated", "occluded", "difficult")] == [False] * 3
    assert [rows[f"{voc_1}#{i}"][k] for i, k in ((1, "truncated"), (2, "occluded"))] == [True] * 2
    assert rows[f"{voc_1}#4"]["orientation"] == 330.0
    assert rows[f"{voc_1}#4"]["box"] == [0.0, 0.0, 64.0, 48.0]
    for number in (5, 6):
        coarse = rows[f"{voc_1}#{number}"]
        assert coarse["azimuth_is_coarse"]
        assert (coarse["orientation"], coarse["elevation"]) == (45.0, 20.0)
    # The person is object 0: the car that follows keeps its own number.
    assert rows["Images/car_pascal/voc_2.jpg#1"]["orientation"] == 30.0
    assert rows["Images/car_imagenet/net_1.JPEG#1"]["split"] == "imagenet_val"


def test_pascal3d_faults_are_told_with_their_path(pascal):
    source, data = pascal
    skipped, counts, _ = lost(prepare("pascal3d_car/all", source, data))
    voc, net = "Annotations/car_pascal/", "Annotations/car_imagenet/"
    told = prepared.read_metadata(prepared.find(data, "pascal3d_car/all"))["skipped"]
    assert len(told) == 8
    reasons = [reason for path, reason in told if path == f"{voc}voc_0.mat"]
    assert [r.split(":")[0] for r in reasons] == ["object 1", "object 2", "object 4"]
    for got, expected in zip(reasons, ("no viewpoint", "not inside", "no azimuth"), strict=True):
        assert expected in got
    assert "not a readable MATLAB file" in skipped[f"{net}net_0.mat"]
    assert "net_2.JPEG: cut short" in skipped[f"{net}net_2.mat"]
    assert "no object of class car" in skipped[f"{net}net_4.mat"]
    assert "no such file" in skipped[f"{net}net_5.mat"]
    assert skipped[f"{net}net_9.mat"] == "in no published list"
    assert counts == {
        "azimuths that are coarse only": 2,
        "boxes cut off at the photo's edge": 1,
    }


def test_pascal3d_protocols(pascal):
    source, data = pascal
    voc = rows_of(prepare("pascal3d_car", source, data))
    assert prepared.find(data, "pascal3d_car").parent.name == "voc"  # the default
    by_split = {s: {n for n, r in voc.items() if r["split"] == s} for s in ("train", "val")}
    # Val: neither truncated, occluded nor difficult; train: VOC train and all of ImageNet.
    assert by_split["val"] == {
        "Images/car_pascal/voc_1.jpg",
        *(f"Images/car_pascal/voc_1.jpg#{i}" for i in (4, 5, 6)),
        "Images/car_pascal/voc_3.jpg#1",
    }
    assert by_split["train"] == {
        "Images/car_pascal/voc_0.jpg#2",
        "Images/car_pascal/voc_2.jpg#1",
        "Images/car_imagenet/net_1.JPEG#1",
        "Images/car_imagenet/net_3.JPEG#1",
        "Images/car_imagenet/net_6.JPEG",
    }
    _, counts, _ = lost(prepared.find(data, "pascal3d_car/voc"))
    assert counts["val: truncated, occluded or difficult, left out by the protocol"] == 3
    net = rows_of(prepare("pascal3d_car/imagenet", source, data))
    assert {(n, r["split"]) for n, r in net.items()} == {
        ("Images/car_imagenet/net_1.JPEG#1", "val"),
        ("Images/car_imagenet/net_3.JPEG#1", "val"),
        ("Images/car_imagenet/net_6.JPEG", "train"),
    }


# --- CompCars ------------------------------------------------------------------------------------


def test_compcars(published, tmp_path):
    published.compcars(tmp_path)
    data = tmp_path / "data"
    (data / "label/1/1/2011/101f.txt").write_text("4\n2\n9 5 48 40\n9 5 48 40\n")
    (data / "label/1/1/2012/102f.txt").write_text("4\n1\n9 5 48\n")
    (data / "label/1/2/2011/201f.txt").unlink()
    (data / "label/1/2/2012/202f.txt").write_text("2\n1\n100 5 148 40\n")
    photo = data / "image/3/3/2011/301f.jpg"
    os.truncate(photo, photo.stat().st_size - 20)
    published.photo(data / "image/9/77/2011/1.jpg")
    with (data / "misc/attributes.txt").open("a") as f:
        f.write("6 235 1.8 5\n")
    listed = data / "train_test_split/classification"
    with (listed / "train.txt").open("a") as f:
        f.write("3/4/2099/gone.jpg\n")
    with (listed / "test.txt").open("a") as f:
        f.write("3/4/2012/402f.jpg\n")  # in train as well

    folder = prepare("compcars_web", tmp_path, tmp_path / "out")
    rows = rows_of(folder)
    skipped, counts, notes = lost(folder)
    assert set(skipped) == {
        "image/1/1/2011/101f.jpg",
        "image/1/1/2012/102f.jpg",
        "image/1/2/2011/201f.jpg",
        "image/1/2/2012/202f.jpg",
        "image/3/3/2011/301f.jpg",
        "image/9/77/2011/1.jpg",
        "misc/attributes.txt:7",
        "image/3/4/2099/gone.jpg",
        "image/3/4/2012/402f.jpg",
    }
    for path, reason in (
        ("image/1/1/2011/101f.jpg", "label/1/1/2011/101f.txt: 2 boxes"),
        ("image/1/2/2011/201f.jpg", "label/1/2/2011/201f.txt: cannot be read"),
        ("image/1/2/2012/202f.jpg", "not inside the photo"),
        ("image/3/3/2011/301f.jpg", "cut short"),
        ("image/9/77/2011/1.jpg", "no make 9"),
        ("image/3/4/2012/402f.jpg", "listed in test and before that in train"),
    ):
        assert reason in skipped[path]
    # 20 photos laid out, five of them spoilt; the twice listed one is kept once.
    assert len(rows) == 15
    assert {r["split"] for r in rows.values()} == {"train", "test", "rest"}
    assert {n for n, r in rows.items() if r["split"] == "rest"} == {
        f"image/{make}/{m}/2013/{m}03f.jpg" for m, (make, *_) in published.COMPCARS_MODELS.items()
    }
    assert rows["image/3/4/2012/402f.jpg"]["split"] == "train"
    suv = rows["image/1/1/unknown/100f.jpg"]
    assert {k: suv[k] for k in ("brand", "type", "doors", "seats", "viewpoint", "year")} == {
        "brand": "Audi",
        "type": "SUV",
        "doors": "5",
        "seats": "5",
        "viewpoint": -1,
        "year": "unknown",
    }
    assert suv["box"] == [8.0, 4.0, 48.0, 40.0]
    assert suv["model"] == "Audi Audi A4L"
    labels = {
        m: tuple(rows[f"image/{make}/{m}/2013/{m}03f.jpg"][k] for k in ("type", "doors", "seats"))
        for m, (make, *_) in published.COMPCARS_MODELS.items()
    }
    assert labels == {
        "1": ("SUV", "5", "5"),
        "2": ("convertible", "2", "4"),
        "3": ("MPV", "4", ">5"),
        "4": ("", "", ""),
        "5": ("sedan", "", ""),
    }
    # Model 5 has no name: its number stands for it.
    assert rows["image/3/5/2013/503f.jpg"]["model"] == "BWM 5"
    assert counts == {
        "doors: unknown": 4,
        "seats: unknown": 4,
        "type: unknown": 4,
        "doors: 6 is no class": 4,
        "seats: 3 is no class": 4,
    }
    assert notes[0].startswith("2 makes have photos; make_model_name.mat names 3")
    schema = prepared.read_schema(folder)
    assert find(schema, "brand") == Categorical("brand", ("Audi", "BWM"))
    assert find(schema, "doors").classes == DOORS
    assert find(schema, "seats").classes == SEATS
    assert find(schema, "type").classes == find(CAR, "type").classes


def test_compcars_broken_tables_are_one_line(published, tmp_path):
    published.compcars(tmp_path)
    misc = tmp_path / "data/misc"
    attributes = (misc / "attributes.txt").read_text()
    (misc / "attributes.txt").write_text(attributes.replace("seat_number", "seats"))
    with pytest.raises(CarjaxError, match=r"attributes\.txt must begin"):
        prepare("compcars_web", tmp_path, tmp_path / "out")
    (misc / "attributes.txt").write_text(attributes)
    os.truncate(misc / "make_model_name.mat", 150)
    with pytest.raises(CarjaxError, match=r"misc/make_model_name\.mat: not a readable MATLAB"):
        prepare("compcars_web", tmp_path, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.array_record*"))


# --- Stanford Cars -------------------------------------------------------------------------------


def test_stanford_cars(published, tmp_path):
    published.stanford(tmp_path)
    (tmp_path / "labels.csv").write_text(
        "file,azimuth_deg\n00001.jpg,-90\n00002.jpg,\ncars_test/00001.jpg,12.5\n00003.jpg,left\n"
        "00003.jpg,inf\n",
        encoding="utf-8-sig",
    )
    folder = prepare("stanford_cars_attributes", tmp_path, tmp_path / "out")
    rows = rows_of(folder)
    assert [r["split"] for r in rows.values()].count("train") == 6
    assert len(rows) == 9
    hummer, acura, ghost = (rows[f"cars_train/0000{i}.jpg"] for i in (1, 2, 3))
    assert hummer["box"] == [3.0, 2.0, 60.0, 44.0]
    # As in data/stanford_cars_classes.csv.
    known = [hummer[k] for k in ("model", "brand", "type", "doors", "seats")]
    assert known == ["AM General Hummer SUV 2000", "AM General", "SUV", "5", "4"]
    assert (acura["brand"], acura["model_split"]) == ("Acura", "val")
    assert [ghost[k] for k in ("brand", "type", "doors", "seats")] == [""] * 4
    assert hummer["orientation"] == 270.0
    assert math.isnan(acura["orientation"])
    assert rows["cars_test/00001.jpg"]["orientation"] == 12.5
    skipped, counts, notes = lost(folder)
    assert "'inf' is not an angle" in skipped["labels.csv"]  # the later row's
    assert counts == {"photos of Ghost Car 1900, which has no attributes": 3}
    assert notes == ["2 of 3 classes have attributes"]


def test_stanford_cars_without_a_test_part_or_azimuths(published, tmp_path):
    published.stanford(tmp_path, test=False)
    folder = prepare("stanford_cars_attributes", tmp_path, tmp_path / "out")
    assert prepared.splits(folder) == ("train",)
    assert lost(folder)[2][0].startswith("no test split")
    assert "orientation" not in [a.name for a in prepared.read_schema(folder)]


def test_the_class_table_has_the_schema_s_classes():
    path = pathlib.Path(__file__).parents[1] / "data" / "stanford_cars_classes.csv"
    with path.open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == len({row["class_name"] for row in rows}) == 176
    for row in rows:
        for column, name in (("make", "brand"), ("type", "type"), ("doors", "doors")):
            assert row[column] in ("", *find(CAR, name).classes)
        assert row["seats"] in ("", *SEATS)


# --- A folder of one's own -----------------------------------------------------------------------


def test_a_labelled_folder(published, tmp_path):
    source = tmp_path / "my fruit"
    published.fruit(source)
    with (source / "labels.csv").open("a") as f:
        f.write("00.png,ripe,5,tree 0,train\n")  # a second row
        f.write("90.png,ripe,5,tree 9,train\n")  # no such photo
        f.write("01b.png,blue,5,tree 9,train\n")
        f.write("02b.png,ripe,north,tree 9,train\n")
    for name in ("01b", "02b"):
        published.photo(source / f"images/{name}.png")
    words = ["labelled_folder", f"--source={source}", f"--data_dir={tmp_path}", "--quiet"]
    assert prepare_command.main(words) == 0
    folder = prepared.find(tmp_path, "labelled_folder")
    assert folder == prepared.find(tmp_path, "labelled_folder/my_fruit")
    rows = rows_of(folder)
    assert len(rows) == 13
    assert {r["split"] for r in rows.values()} == {"train", "test"}
    row = rows["images/11.png"]
    assert (row["ripeness"], row["heading"], row["model"]) == ("green", 330.0, "tree 5")
    assert np.isnan(row["box"]).all()
    assert rows["images/01b.png"]["ripeness"] == ""
    skipped, counts, _ = lost(folder)
    assert set(skipped) == {"labels.csv:14", "images/90.png", "images/02b.png"}
    assert counts == {"ripeness: 'blue' is no class of the schema": 1}
    assert prepared.read_schema(folder) == (
        Categorical("ripeness", ("green", "ripe")),
        Angular("heading"),
    )


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "not a schema"),
        ("[]", "one word"),
        ('[{"classes": ["a"]}]', "not a schema"),
        ('[{"name": "two words"}]', "one word"),
        ('[{"name": "box"}]', "names must differ"),
        ('[{"name": "row"}]', "names must differ"),
        ('[{"name": "a"}, {"name": "a"}]', "names must differ"),
        ('[{"name": "a", "classes": []}]', "classes must be words"),
        ('[{"name": "a", "classes": [1]}]', "classes must be words"),
        ('[{"name": "colour", "classes": ["red"]}]', "no column colour"),
    ],
)
def test_a_bad_schema_is_one_line(published, tmp_path, schema, message):
    published.fruit(tmp_path / "fruit", photos=1)
    (tmp_path / "fruit/schema.json").write_text(schema)
    with pytest.raises(CarjaxError, match=message) as caught:
        prepare("labelled_folder", tmp_path / "fruit", tmp_path)
    assert "\n" not in str(caught.value)


# --- Records, and how they are read --------------------------------------------------------------


def test_records_keep_the_very_bytes_and_tfds_reads_them(published, tmp_path):
    published.fruit(tmp_path / "fruit", photos=3)
    folder = prepare("labelled_folder", tmp_path / "fruit", tmp_path)
    found = prepared.read(folder, (Categorical("ripeness", ("ripe",)),), cropped=True)
    for path, name in zip(found.photos.paths, found.photos.names, strict=True):
        assert path.read_bytes() == (tmp_path / "fruit" / name).read_bytes()
    assert photos.content_hashes(found.photos) == [
        photos.hashed(photos.Photos((tmp_path / "fruit" / n,), (n,), {}, [""], [])).sha256[0]
        for n in found.photos.names
    ]
    by_name = dict(zip(found.photos.names, found.photos.labels["ripeness"], strict=True))
    assert by_name == {"images/00.png": 0, "images/01.png": -1, "images/02.png": 0}
    assert found.photos.unheard_of == {"ripeness": {"green": 1}}
    # The library's own way, which decodes to RGB.
    source = tfds.builder_from_directory(str(folder)).as_data_source(split="train")
    assert {e["name"].decode() for e in source} == set(by_name)
    assert source[0]["image"].shape == (48, 64, 3)


def test_sets_that_disagree_whether_an_attribute_is_an_angle_are_one_line(published, tmp_path):
    published.fruit(tmp_path / "fruit", photos=2)
    folder = prepare("labelled_folder", tmp_path / "fruit", tmp_path)
    for attribute, says in (
        (
            Angular("ripeness"),
            "fruit/1.0.0: ripeness has classes in this data set, and is an angle",
        ),
        (
            Categorical("heading", ("a", "b")),
            "heading is an angle in this data set, and has classes",
        ),
    ):
        with pytest.raises(CarjaxError, match=says):
            prepared.read(folder, (attribute,), cropped=True)


def turned(published, tmp_path, box):
    """A folder of a photo of 64 by 48 pixels, plain and, boxed or not, turned to 48 by 64."""
    root = tmp_path / "turned"
    published.photo(root / "images/a.jpg", box=(0, 0, 16, 48), colour=(0, 0, 250))
    jpeg = (root / "images/a.jpg").read_bytes()
    for name in ("boxed", "whole"):  # shown upright they are 48 wide
        (root / f"images/{name}.jpg").write_bytes(published.with_exif(jpeg, orientation=6))
    (root / "labels.csv").write_text(
        "file,heading,left,top,right,bottom\n"
        f"boxed.jpg,1,{box}\nwhole.jpg,2,,,,\na.jpg,3,-3,0.5,16.2,99\n"
    )
    (root / "schema.json").write_text('[{"name": "heading"}]')
    return root


def test_a_box_of_ones_own_photo_counts_upright_pixels_prepared_or_not(published, tmp_path):
    root = turned(published, tmp_path, "0,0,48,16")  # the left of the stored photo is its top
    folder = prepare("labelled_folder", root, tmp_path)
    found = prepared.read(folder, (Angular("heading"),), cropped=True).photos
    plain = photos.read_labels(root, (Angular("heading"),))
    for known, name in ((found, "images/boxed.jpg"), (plain, "boxed.jpg")):
        boxed = known.read(known.names.index(name))
        assert boxed.shape == (16, 48, 3)
        assert boxed[..., 0].mean() > 240
    # A box that reaches beyond the photo as stored, not as shown, is no fault.
    root = turned(published, tmp_path, "8,50,40,64")
    shutil.rmtree(folder.parents[1])
    found = prepared.read(prepare("labelled_folder", root, tmp_path), (), cropped=True).photos
    assert found.read(found.names.index("images/boxed.jpg")).shape == (14, 32, 3)


def test_a_photo_prepared_as_stored_is_read_cut_to_its_box_in_those_pixels(published, tmp_path):
    root = turned(published, tmp_path, "0,0,16,48")
    folder = prepare("labelled_folder", root, tmp_path)
    # As published data sets are, and folders were that an earlier version prepared.
    metadata = json.loads((folder / prepared.METADATA).read_text())
    assert metadata.pop(prepared.UPRIGHT)
    (folder / prepared.METADATA).write_text(json.dumps(metadata))
    found = prepared.read(folder, (Angular("heading"),), cropped=True).photos
    at = {name: i for i, name in enumerate(found.names)}
    boxed, whole, plain = (found.read(at[f"images/{n}.jpg"]) for n in ("boxed", "whole", "a"))
    assert boxed.shape == (48, 16, 3)
    assert boxed[..., 0].mean() > 240
    assert whole.shape == (64, 48, 3)
    assert plain.shape == (48, 17, 3)  # edges are rounded outwards
    uncut = prepared.read(folder, (), cropped=False).photos
    assert uncut.read(at["images/boxed.jpg"]).shape == (48, 64, 3)  # as its box counts
    hashes, plain_hashes = photos.content_hashes(found), list(found.sha256)
    assert hashes[at["images/whole.jpg"]] == plain_hashes[at["images/whole.jpg"]]
    assert (
        hashes[at["images/boxed.jpg"]]
        == f"{plain_hashes[at['images/boxed.jpg']]} as stored 0.0 0.0 16.0 48.0"
    )
    # The same photos without boxes are other pixels.
    unboxed = dataclasses.replace(uncut, box=np.full_like(uncut.box, np.nan))
    boxed_at = at["images/boxed.jpg"]
    assert photos.content_hashes(unboxed)[boxed_at] != photos.content_hashes(uncut)[boxed_at]
    np.testing.assert_array_equal(uncut.labels.keys(), found.take([0]).labels.keys() - {"heading"})


def test_the_index_is_made_again_and_a_read_only_folder_is_served(published, tmp_path, monkeypatch):
    published.fruit(tmp_path / "fruit", photos=5)
    folder = prepare("labelled_folder", tmp_path / "fruit", tmp_path)
    before = rows_of(folder)
    (folder / prepared.INDEX).unlink()

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(prepared.pq, "write_table", refuse)
        assert str(rows_of(folder)) == str(before)
    assert not (folder / prepared.INDEX).exists()
    assert str(rows_of(folder)) == str(before)
    assert (folder / prepared.INDEX).exists()
    (folder / prepared.INDEX).write_bytes(b"PAR1")
    with pytest.raises(CarjaxError, match=r"index\.parquet: broken"):
        prepared.read_index(folder)


def test_broken_records_are_one_line(published, tmp_path):
    published.fruit(tmp_path / "fruit", photos=5)
    folder = prepare("labelled_folder", tmp_path / "fruit", tmp_path)
    for path in folder.glob("*array_record*"):
        os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(CarjaxError, match="broken record file") as caught:
        prepared.read(folder, (), cropped=False).photos.read(0)
    assert "\n" not in str(caught.value)


def test_find_takes_the_newest_version_and_the_named_config(tmp_path):
    for path in ("a/1.9.0", "a/1.10.0", "a/notes", "b/x/1.0.0", "b/y/1.0.0", "c/x/1.0.0"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "dataset_info.json").write_text("{}")
    (tmp_path / "images").mkdir()
    assert prepared.find(tmp_path, "a") == tmp_path / "a/1.10.0"
    assert prepared.find(tmp_path, "a/1.9.0") == tmp_path / "a/1.9.0"
    assert prepared.find(tmp_path, "b/y") == tmp_path / "b/y/1.0.0"
    assert prepared.find(tmp_path, "c") == tmp_path / "c/x/1.0.0"
    assert prepared.find(tmp_path, "images") is prepared.find(tmp_path, "none") is None
    with pytest.raises(CarjaxError, match="name one of b/x, b/y"):
        prepared.find(tmp_path, "b")
    (tmp_path / "b/.config").mkdir()
    (tmp_path / "b/.config/metadata.json").write_text('{"default_config_name": "y"}')
    assert prepared.find(tmp_path, "b") == tmp_path / "b/y/1.0.0"


# --- The command ---------------------------------------------------------------------------------


def test_command_reports_and_prepares_once(published, tmp_path, capsys, monkeypatch):
    published.fruit(tmp_path / "fruit", photos=8)
    (tmp_path / "fruit/images/07.png").unlink()
    words = ["prepare", "labelled_folder/fruit", f"--source={tmp_path / 'fruit'}"]
    monkeypatch.setenv("CARJAX_DATA", str(tmp_path / "out"))
    assert command_line(words) == 0
    shown = capsys.readouterr()
    assert "7 examples; config.datasets = ('labelled_folder/fruit',)" in shown.out
    assert "1 skipped" in shown.out
    assert "images/07.png: cannot be read" in shown.out
    assert "labelled_folder" in {p.name for p in (tmp_path / "out").iterdir()}
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["labelled_folder"]
    published.photo(tmp_path / "fruit/images/07.png")
    assert command_line([*words, "--quiet"]) == 0
    again = capsys.readouterr()
    assert "prepared already" in again.out
    assert "7 examples" in again.out
    assert command_line([*words, "--quiet", "--overwrite"]) == 0
    assert "8 examples" in capsys.readouterr().out
    # What was prepared before stays where it cannot be prepared again.
    for photo in (tmp_path / "fruit/images").iterdir():
        photo.write_bytes(b"no picture")
    assert command_line([*words, "--quiet", "--overwrite"]) == 1
    folder = prepared.find(tmp_path / "out", "labelled_folder/fruit")
    assert len(rows_of(folder)) == 8
    assert {p.name for p in folder.parent.iterdir()} == {folder.name, ".prepare.lock"}


def test_a_data_set_is_prepared_from_python(published, tmp_path):
    published.fruit(tmp_path / "fruit", photos=4)
    told = []
    words = ("labelled_folder", "", tmp_path / "fruit", tmp_path / "out")
    folder = library.prepare(*words, on_progress=lambda *progress: told.append(progress))
    assert folder == prepared.find(tmp_path / "out", "labelled_folder")
    assert len(rows_of(folder)) == 4
    assert {what for what, _, _ in told} == {"train", "test", "index"}
    published.fruit(tmp_path / "fruit", photos=6)
    assert library.prepare(*words) == folder
    assert len(rows_of(folder)) == 6


def test_a_tilde_is_the_home_folder(published, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    published.fruit(tmp_path / "fruit", photos=4)
    words = ["prepare", "labelled_folder", "--source=~/fruit", "--data_dir=~/out", "--quiet"]
    assert command_line(words) == 0
    assert len(rows_of(prepared.find(photos.data_root("~/out"), "labelled_folder"))) == 4


def test_a_stopped_run_leaves_nothing_and_a_killed_one_is_cleared(published, tmp_path, monkeypatch):
    published.fruit(tmp_path / "fruit", photos=4)
    out = tmp_path / "out"
    words = ["prepare", "labelled_folder", f"--source={tmp_path / 'fruit'}", f"--data_dir={out}"]
    load = encoded.load

    def interrupted(path, **options):
        if path.name == "02.png":
            raise KeyboardInterrupt
        return load(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(encoded, "load", interrupted)
        assert command_line([*words, "--quiet"]) == 130
    assert prepared.find(out, "labelled_folder") is None
    assert not list(out.rglob("*.array_record*"))
    left = out / "labelled_folder/fruit/incomplete.ABC123_1.0.0"
    left.mkdir()
    (left / "half").write_text("")
    assert command_line([*words, "--quiet"]) == 0
    assert not left.exists()
    assert len(rows_of(prepared.find(out, "labelled_folder"))) == 4


def test_two_at_once_are_refused(published, tmp_path):
    published.fruit(tmp_path / "fruit", photos=1)
    (tmp_path / "labelled_folder/fruit").mkdir(parents=True)
    with (tmp_path / "labelled_folder/fruit/.prepare.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(CarjaxError, match="another carjax prepare is at work"):
            prepare("labelled_folder", tmp_path / "fruit", tmp_path)
    assert prepare("labelled_folder", tmp_path / "fruit", tmp_path).is_dir()


@pytest.mark.parametrize("name", sorted(builders.BUILDERS))
def test_a_wrong_folder_is_one_line_that_names_the_tree(tmp_path, name, capsys):
    (tmp_path / "empty").mkdir()
    for source in ("none", "empty"):
        words = [name, f"--source={tmp_path / source}", f"--data_dir={tmp_path / 'out'}"]
        assert command_line(["prepare", *words]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "missing; expected" in line
        assert "to get it:" in line
    assert not (tmp_path / "out").exists()


def test_command_faults(published, tmp_path, capsys, monkeypatch):
    published.pascal3d(tmp_path / "p")
    published.fruit(tmp_path / "fruit", photos=1)
    monkeypatch.delenv("CARJAX_DATA", raising=False)
    source, out = f"--source={tmp_path / 'p'}", f"--data_dir={tmp_path / 'out'}"
    for words, message in (
        ([source, out], "NAME"),
        (["pascal3d_car", out], "--source"),
        (["pascal3d_car", source], "CARJAX_DATA"),
        (["cifar", source, out], "no data set 'cifar'.*pascal3d_car"),
        (["pascal3d_car/coco", source, out], "no config 'coco'.*voc, imagenet, all"),
    ):
        with pytest.raises(UsageError, match=message):
            prepare_command.main(words)
    os.remove(tmp_path / "fruit/images/00.png")
    with pytest.raises(CarjaxError, match=r"no usable example in the split 'train'.*00\.png"):
        prepare("labelled_folder", tmp_path / "fruit", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(CarjaxError, match=r"^cannot write .*file.*: give another --data_dir$"):
        prepare("pascal3d_car", tmp_path / "p", tmp_path / "file")
    with pytest.raises(SystemExit, match=r"^0$"):
        prepare_command.main(["--help"])
    assert len(capsys.readouterr().out.splitlines()) <= 24


def test_missing_packages_are_one_line(published, tmp_path, monkeypatch):
    published.fruit(tmp_path / "fruit", photos=1)
    folder = prepare("labelled_folder", tmp_path / "fruit", tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    monkeypatch.setitem(sys.modules, "carjax.datasets.builders.labelled_folder", None)
    with pytest.raises(CarjaxError, match=r"pip install 'carjax\[train\]'"):
        prepared.open_splits(folder)
    with pytest.raises(CarjaxError, match=r"pip install 'carjax\[train\]'"):
        prepare("labelled_folder", tmp_path / "fruit", tmp_path)


def test_metadata_is_what_the_reader_needs(published, tmp_path):
    published.fruit(tmp_path / "fruit", photos=1)
    folder = prepare("labelled_folder", tmp_path / "fruit", tmp_path)
    assert set(prepared.read_metadata(folder)) == {
        *("schema", "notes", "counts", "skipped"),
        prepared.UPRIGHT,
    }
    (folder / "metadata.json").write_text(json.dumps([])[:1])
    with pytest.raises(CarjaxError, match=r"metadata\.json: cannot be read"):
        prepared.read_schema(folder)
