"""The labels that the project lends to photos without any: their tables, and reading them."""

import csv
import dataclasses
import json
import pathlib

import cv2
import numpy as np
import pytest
from conftest import load_module

from carjax.attributes import BRANDS, CAR, Categorical, find
from carjax.datasets import photos, schema_file
from carjax.errors import CarjaxError, UsageError
from carjax.training import config as configs
from carjax.training import config_check, data, tasks

DATA = pathlib.Path(__file__).parents[1] / "data"
TABLE = DATA / "label_tables" / "phone_photos.csv"


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


@pytest.fixture
def tree(tmp_path):
    images = tmp_path / "cars" / "images"
    images.mkdir(parents=True)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(images / name), np.full((20, 40, 3), (30, 30, 200), np.uint8))
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "cars.csv").write_text(
        "file,class_name,doors,left,top,right,bottom\na.png,X,4,10,5,30,15\nb.png,Y,5,,,,\n"
    )
    config = configs.default_config("doors")
    config.datasets, config.label_tables = ("cars",), str(tables)
    return config, tmp_path


def test_a_folder_without_labels_is_read_from_the_lent_table(tree):
    config, root = tree
    config_check.check_data(config, root)
    read = data.read_partition(config, root, "cars").photos
    assert read.names == ("a.png", "b.png")
    assert read.labels["doors"].tolist() == [2, 3]
    assert read.group.tolist() == ["X", "Y"]
    assert read.read(0).shape == (10, 20, 3)  # its window
    assert read.read(1).shape == (20, 40, 3)  # all of it


def test_labels_of_its_own_win(tree):
    config, root = tree
    (root / "cars" / "labels.csv").write_text("file,class_name,doors\nb.png,Z,2\n")
    read = data.read_partition(config, root, "cars").photos
    assert read.names == ("b.png",)
    assert read.crop is None


def test_without_either_table_the_line_shows_the_tree(tree):
    config, root = tree
    config.label_tables = ""
    with pytest.raises(CarjaxError, match=r"expected cars/\{images/,labels.csv\}"):
        config_check.check_data(config, root)


def test_a_side_that_is_no_number_is_one_line(tree):
    config, root = tree
    (root / "tables" / "cars.csv").write_text(
        "file,class_name,doors,left,top,right,bottom\na.png,X,4,left,5,30,15\n"
    )
    with pytest.raises(CarjaxError, match=r"cars\.csv: line 2: left is 'left', not a number$"):
        data.read_partition(config, root, "cars")


def test_a_fold_may_be_that_of_one_data_set(tree):
    config, root = tree
    (root / "more" / "images").mkdir(parents=True)
    (root / "more" / "labels.csv").write_text("file,class_name,doors\n")
    splits = root / "splits"
    splits.mkdir()
    (splits / "cars.csv").write_text("file,fold\na.png,0\nb.png,0\n")
    (splits / "more.csv").write_text("file,fold\nc.png,1\n")
    config.datasets, config.splits, config.fold = ("cars", "more"), str(splits), 1
    config_check.check_data(config, root)
    config.fold = 2
    with pytest.raises(UsageError, match=r"cars, more has folds \[0, 1\], not 2"):
        config_check.check_data(config, root)
    (splits / "more.csv").write_text("file,fold\nc.png,first\n")
    with pytest.raises(
        CarjaxError, match=r"more\.csv: line 2: fold is 'first', not a whole number$"
    ):
        config_check.check_data(config, root)
    (splits / "more.csv").write_text("file,part\nc.png,1\n")
    with pytest.raises(CarjaxError, match=r"more.csv: no column fold"):
        config_check.check_data(config, root)


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ("10,5,40,", "line 3: no bottom: all four sides are given, or none"),
        (",,40,30", "line 3: no left, top: all four"),
        ("40,30,10,5", "line 3: left, top, right, bottom are 40, 30, 10, 5: no area"),
        ("10,5,40,5", "line 3: left, top, right, bottom are 10, 5, 40, 5: no area"),
    ],
)
def test_sides_that_are_no_window_are_one_line(tmp_path, sides, message):
    boxes, labels, content = (tmp_path / f"{n}.csv" for n in ("boxes", "labels", "content"))
    boxes.write_text(f"file,left,top,right,bottom\na.png,,,,\nb.png,{sides}\n")
    with pytest.raises(CarjaxError, match=f"boxes.csv: {message}"):
        photos.read_boxes(tmp_path)
    labels.write_text(f"file,doors,left,top,right,bottom\na.png,2,,,,\nb.png,2,{sides}\n")
    with pytest.raises(CarjaxError, match=f"labels.csv: {message}"):
        photos.read_labels(tmp_path, (find(CAR, "doors"),))
    header = "dataset,file,content,left,top,right,bottom"
    content.write_text(f"{header}\nother,a.png,none,,,,\n{tmp_path.name},b.png,none,{sides}\n")
    with pytest.raises(CarjaxError, match=f"content.csv: {message}"):
        photos.read_content(content, tmp_path)


def test_a_photo_has_one_box(tmp_path):
    table = "file,left,top,right,bottom\na.png,1,2,3,4\nb.png,,,,\na.png,0,0,5,5\n"
    (tmp_path / "boxes.csv").write_text(table)
    with pytest.raises(CarjaxError, match=r"line 4: 'a\.png' has a row already, in line 2"):
        photos.read_boxes(tmp_path)


def test_a_window_outside_the_photo_is_one_line(tree):
    config, root = tree
    for window in ("-50,-50,-10,-10", "90,5,99,15"):
        (root / "tables" / "cars.csv").write_text(
            f"file,class_name,doors,left,top,right,bottom\na.png,X,4,{window}\n"
        )
        with pytest.raises(CarjaxError, match="lies outside"):
            data.read_partition(config, root, "cars").photos.read(0)


def test_every_lent_label_is_a_class():
    known = {a.name: (*a.classes, "") for a in CAR if isinstance(a, Categorical)}
    rows = rows_of(TABLE)
    assert len({row["file"] for row in rows}) == len(rows) > 1500
    for row in rows:
        for name in ("type", "doors", "seats"):
            assert row[name] in known[name], row
    makes = {row["make"] for row in rows}
    assert {"Hyundai", "MINI", "Mercedes-Benz", "Suzuki", "Volkswagen"} <= makes & {*BRANDS}
    assert {*find(CAR, "type").classes} >= {row["type"] for row in rows} - {""}


def test_the_same_cars_are_classes_of_stanford_cars():
    classes = {row["class_name"] for row in rows_of(DATA / "stanford_cars_classes.csv")}
    named = {c for row in rows_of(TABLE) for c in row["same_as"].split(";") if c}
    assert named
    assert named <= classes


def test_the_table_is_what_its_script_writes(carjax_data, tmp_path, monkeypatch):
    script = load_module(DATA / "make_phone_labels.py")
    monkeypatch.setattr(script, "TABLE", tmp_path / "again" / TABLE.name)
    script.main(carjax_data)
    assert (tmp_path / "again" / TABLE.name).read_text() == TABLE.read_text()
    read = photos.read_labels(carjax_data / "phone_photos", CAR[:1], TABLE)
    for i in np.random.default_rng(0).choice(len(read), 40, replace=False):
        assert min(read.read(int(i)).shape[:2]) > 30


def test_a_column_of_the_attribute_s_own_name_wins_over_the_car_s(tmp_path):
    brand, table = Categorical("brand", ("acme", "zeta")), tmp_path / "labels.csv"
    table.write_text("file,brand,make,model\na.png,zeta,acme,runner\n")
    read = photos.read_labels(tmp_path, (brand,))
    assert read.labels["brand"].tolist() == [1]
    assert read.group.tolist() == ["runner"]
    table.write_text("file,make,model,class_name\na.png,acme,runner,runner 2\n")
    read = photos.read_labels(tmp_path, (brand,))
    assert read.labels["brand"].tolist() == [0]
    assert read.group.tolist() == ["runner 2"]


def test_labels_that_are_no_class_are_told(tree, caplog):
    config, root = tree
    (root / "cars" / "labels.csv").write_text("file,class_name,doors\na.png,Z,2.0\nb.png,Z,7\n")
    read = data.read_partition(config, root, "cars").photos
    assert read.labels["doors"].tolist() == [0, -1]  # as a spreadsheet writes 2
    assert read.take(np.array([0])).unheard_of == {"doors": {"7": 1}}
    config.parts, config.cache, config.fold = False, False, -1
    task = tasks.create(config)
    data.load_sources(config, task, root, None, None, "", cache_dir=root / "cache")
    assert "cars: 1 photos have a doors that the head does not know" in caplog.text


@pytest.mark.parametrize("name", ["frame", "kappa", "box_left"])
def test_an_attribute_may_not_be_called_as_a_column_of_scores(name, tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps([{"name": name, "classes": ["a", "b"]}, {"name": "turn"}]))
    with pytest.raises(CarjaxError, match=f"two columns would be named '{name}'"):
        schema_file.read(path)


def test_a_photo_is_read_as_stored_only_where_its_box_counts_so():
    box = np.array([[0, 0, 4, 4], [np.nan] * 4], np.float32)
    both = photos.Photos(
        (pathlib.Path("a"), pathlib.Path("b")),
        ("a", "b"),
        {},
        np.array(["", ""]),
        box,
        as_stored=True,
        sha256=("1", "2"),
    )
    assert [both.reads_as_stored(i) for i in range(2)] == [True, False]
    assert photos.content_hashes(both) == ["1 as stored", "2"]
    shown = dataclasses.replace(both, as_stored=False)
    assert photos.content_hashes(shown) == ["1", "2"]
