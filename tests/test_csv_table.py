"""Tables as people write them."""

import numpy as np
import pytest

from carjax.attributes import CAR, Angular, Categorical
from carjax.datasets import csv_table, photos
from carjax.errors import CarjaxError


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
        (b"photo,type\n", "no column file; it has: photo, type"),
    ],
)
def test_what_is_no_such_table_is_one_line(tmp_path, content, says):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(CarjaxError, match=says):
        csv_table.read(path, ["file"])
    with pytest.raises(CarjaxError, match="no such file"):
        csv_table.read(tmp_path / "none.csv", ["file"])


def test_training_labels_may_be_short_and_no_angle_is_infinite(tmp_path):
    schema = (Categorical("doors", ("2", "4")), Angular("orientation"))
    table = tmp_path / "labels.csv"
    table.write_text("file,azimuth_deg,doors\na.jpg,12.5,4\nb.jpg\n")
    read = photos.read_labels(tmp_path, schema)
    assert read.labels["doors"].tolist() == [1, -1]
    assert read.labels["orientation"][0] == np.float32(12.5)
    assert np.isnan(read.labels["orientation"][1])
    table.write_text("file,azimuth_deg,doors\na.jpg,inf,4\n")
    with pytest.raises(CarjaxError, match="line 2: azimuth_deg: 'inf' is not an angle in degrees"):
        photos.read_labels(tmp_path, schema)
    with pytest.raises(CarjaxError, match="no column type, make"):
        photos.read_labels(tmp_path, CAR)
