"""Tables as people write them."""

import numpy as np
import pytest

from carjax.attributes import CAR, Angular, Categorical
from carjax.datasets import csv_table, photos, turntables
from carjax.errors import CarjaxError
from carjax.evaluation import labels


def test_a_byte_order_mark_blanks_and_short_rows(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("\ufefffile,type,doors\r\na.jpg, Käfer ,4\r\n\r\nb.jpg\r\n".encode())
    table = csv_table.read(path, ["file"])
    assert table.columns == ("file", "type", "doors")
    assert table.rows[0] == {"file": "a.jpg", "type": "Käfer", "doors": "4"}
    assert table.rows[1] == {"file": "b.jpg", "type": "", "doors": ""}
    assert table.number(0, "doors") == 4
    with pytest.raises(CarjaxError, match=r"t\.csv: line 4: doors is '', not a number"):
        table.number(1, "doors")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("file,type\nK\u00e4fer.jpg,sedan\n".encode("latin-1"), "not a CSV table in UTF-8"),
        (b"", "is empty"),
        (b"photo,type\n", "no column file; it has: photo, type$"),
        (b"file;type\na.jpg;SUV\n", r"it has: file;type \(columns must be separated by commas"),
        (b"file,type,type\na.jpg,SUV,x,y\n", "more than one column type"),
        (b"\nfile,type\na.jpg,SUV\n", "is empty"),
        (b"file,azimuth_deg\na.jpg,\nb.jpg,12,5\n", "line 3: 3 fields, but the header has 2: a fi"),
        (b"file,type\na\0.jpg,SUV\n", "line 2: holds a NUL byte"),
    ],
)
def test_what_is_no_such_table_is_one_line(tmp_path, content, says):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(CarjaxError, match=says):
        csv_table.read(path, ["file"])
    with pytest.raises(CarjaxError, match="no such file"):
        csv_table.read(tmp_path / "none.csv", ["file"])


def test_blanks_around_names_and_commas_at_the_end_do_not_matter(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("file, type ,\na.jpg, SUV,,\n")
    table = csv_table.read(path, ["type"])
    assert table.rows == [{"file": "a.jpg", "type": "SUV", "": ""}]


def test_a_photo_has_one_row(tmp_path):
    path = tmp_path / "labels.csv"
    schema = (Categorical("doors", ("2", "4")),)
    path.write_text("file,doors\na.jpg,2\nb.jpg,2\na.jpg,4\n")
    says = "line 4: 'a.jpg' has a row already, in line 2"
    with pytest.raises(CarjaxError, match=says):
        photos.read_labels(tmp_path, schema)
    with pytest.raises(CarjaxError, match=says):
        labels.read(path, tmp_path, schema)
    path.write_text("file,fold\na.jpg,0\nb.jpg,2\na.jpg,1\n")
    with pytest.raises(CarjaxError, match=says):
        photos.read_fold_table(path)
    with pytest.raises(CarjaxError, match=says):
        labels.read_split(path, ["a.jpg"])
    # Windows of one photo are photos of their own.
    path.write_text("file,doors,left,top,right,bottom\na.jpg,2,0,0,9,9\na.jpg,4,9,0,20,9\n")
    assert photos.read_labels(tmp_path, schema).labels["doors"].tolist() == [0, 1]
    assert labels.read(path, tmp_path, schema).photos.labels["doors"].tolist() == [0, 1]


@pytest.mark.parametrize("side", ["x", "inf", "1,5"])
def test_a_side_of_a_box_that_is_no_number_is_told_with_its_line(tmp_path, side):
    path = tmp_path / "boxes.csv"
    path.write_text(f'file,left,top,right,bottom\na.jpg,,,,\nb.jpg,0,0,5,"{side}"\n')
    says = rf"boxes\.csv: line 3: bottom is '{side}', not a number$"
    with pytest.raises(CarjaxError, match=says):
        photos.read_boxes(tmp_path)


def test_turntables_have_an_azimuth_in_every_row(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("file,make,azimuth_deg\nred/0.png,Honda,0\nred/1.png,Honda,\n")
    with pytest.raises(CarjaxError, match=r"labels\.csv: line 3: azimuth_deg is '', not a number"):
        turntables.read(tmp_path)


def test_turntables_are_told_apart_by_their_folders(tmp_path):
    rows = ["red/0.png,Honda,0,5", "blue/0.png,VW,7.5,", "red/1.png,Honda,10,"]
    (tmp_path / "labels.csv").write_text("\n".join(["file,make,azimuth_deg,doors", *rows]))
    found = turntables.read(tmp_path)
    assert [*found] == ["blue", "red"]
    assert found["red"].files == ("red/0.png", "red/1.png")
    assert found["red"].azimuth_deg.tolist() == [0, 10]
    assert [found["red"].truth[name] for name in ("brand", "doors")] == ["Honda", "5"]


def test_training_labels_may_be_short_and_no_angle_is_infinite(tmp_path):
    schema = (Categorical("doors", ("2", "4")), Angular("orientation"))
    table = tmp_path / "labels.csv"
    table.write_text("file,azimuth_deg,doors\na.jpg,12.5,4\nb.jpg\n")
    read = photos.read_labels(tmp_path, schema)
    assert read.labels["doors"].tolist() == [1, -1]
    assert read.labels["orientation"][0] == np.float32(12.5)
    assert np.isnan(read.labels["orientation"][1])
    for angle in ("inf", "1e30"):
        table.write_text(f"file,azimuth_deg,doors\na.jpg,{angle},4\n")
        says = f"line 2: azimuth_deg: '{angle}' is not an angle in degrees"
        with pytest.raises(CarjaxError, match=says):
            photos.read_labels(tmp_path, schema)
    with pytest.raises(CarjaxError, match="no column type, make"):
        photos.read_labels(tmp_path, CAR)
