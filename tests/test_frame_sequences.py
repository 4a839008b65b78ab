"""Scored frames with features and a table of labels become sequences and padded batches."""

import dataclasses
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_parquet import make_table

from carjax import parquet
from carjax.datasets import frame_labels, frame_sequences, sequence_batches
from carjax.errors import CarjaxError
from carjax.feature_columns import FeatureColumns
from carjax.features import Features

INFO = FeatureColumns("grid", "tiny", "ab" * 32, 32, pooled=5, cells=2, channels=3)
POOLED = dataclasses.replace(INFO, level="pooled", cells=0)
# Frames a source has, and the step between them in seconds.
SOURCES = {"a.mp4": (7, 0.5), "b.mp4": (3, 0.1), "c.jpg": (1, 0.0), "d.mp4": (4, 1.0)}


def scored(name, info=INFO, seed=0):
    """The rows of one source and their features."""
    count, step = SOURCES[name]
    rng = np.random.default_rng([seed, *name.encode()])
    features = Features(
        rng.standard_normal((count, info.pooled)).astype(np.float16),
        rng.standard_normal((count, info.cells, info.cells, 3)).astype(np.float16),
    )
    table = dataclasses.replace(
        make_table(count=count, seed=seed),
        time_s=np.arange(count) * step,
        features=features,
    )
    return parquet.to_arrow(table, name, info), features


def write_parts(folder, info=INFO):
    """Two parts, the rows of a.mp4 in both, in small row groups."""
    folder.mkdir()
    rows = {name: scored(name, info)[0] for name in SOURCES}
    first = pa.concat_tables([rows["a.mp4"].slice(3), rows["b.mp4"]])
    second = pa.concat_tables([rows["a.mp4"].slice(0, 3), rows["c.jpg"], rows["d.mp4"]])
    pq.write_table(first, folder / "part-00000-000000.parquet", row_group_size=2)
    pq.write_table(second, folder / "part-00001-000000.parquet", row_group_size=3)
    return folder


@pytest.fixture
def scores(tmp_path):
    return write_parts(tmp_path / "x.parquet")


def label_file(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return path


LABELS = """source,time_s,azimuth_deg,brand,note
a.mp4,0.0,10,Audi,x
a.mp4,0.6,20,,
a.mp4,0.52,,BMW,
a.mp4,99,5,Fiat,
b.mp4,0.2,350,Audi,
c.jpg,0,,Volvo,
"""


def test_each_label_is_at_the_nearest_frame(tmp_path, scores):
    found = frame_sequences.read(scores, label_file(tmp_path, LABELS))
    assert found.sources == ("a.mp4", "b.mp4", "c.jpg")  # d.mp4 has no label
    assert found.info == INFO
    assert found.classes == {"brand": ("Audi", "BMW", "Fiat", "Volvo"), "note": ("x",)}
    assert found.unmatched == 1
    assert [len(one.frame) for one in found] == [7, 3, 1]
    for one in found:
        rows, features = scored(one.source)
        assert one.frame.tolist() == rows["frame"].to_pylist()
        assert one.time_s.tolist() == rows["time_s"].to_pylist()
        np.testing.assert_array_equal(one.features.pooled, features.pooled)
        np.testing.assert_array_equal(one.features.grid, features.grid)
        assert one.features.grid.dtype == np.float16
        assert one.mask.all()
    a, b, c = found
    nan = np.nan
    np.testing.assert_array_equal(a.labels["azimuth_deg"], [10, 20, nan, nan, nan, nan, nan])
    assert a.labels["azimuth_deg"].dtype == np.float32
    assert a.labels["brand"].tolist() == [0, 1, -1, -1, -1, -1, -1]
    assert a.labels["note"].tolist() == [0, -1, -1, -1, -1, -1, -1]
    np.testing.assert_array_equal(b.labels["azimuth_deg"], [nan, nan, 350])
    assert c.labels["brand"].tolist() == [3]
    assert [one.source for one in found[1:]] == ["b.mp4", "c.jpg"]
    assert found[-1].source == "c.jpg"
    assert pickle.loads(pickle.dumps(found))[0].source == "a.mp4"


def test_of_the_grid_only_what_is_asked_for_is_read(tmp_path, scores):
    labels = label_file(tmp_path, "source,time_s,azimuth_deg\na.mp4,0,1\n")
    one = frame_sequences.read(scores, labels, level="pooled")[0]
    assert one.features.grid.shape == (7, 0, 0, 3)
    np.testing.assert_array_equal(one.features.pooled, scored("a.mp4")[1].pooled)


@given(
    st.lists(st.floats(0.01, 3), min_size=1, max_size=12),
    st.lists(st.floats(-2, 40), min_size=1, max_size=12),
)
def test_matching_is_that_of_a_search_through_all_frames(steps, at):
    time_s, at = np.cumsum(steps), np.array(at)
    matched = frame_labels.match(time_s, at)
    reach = np.median(np.diff(time_s)) / 2 if len(steps) > 1 else 0.0
    for moment, i in zip(at, matched, strict=True):
        gaps = np.abs(time_s - moment)
        if abs(gaps.min() - reach) < 1e-5:  # either way
            continue
        assert (i >= 0) == (gaps.min() < reach)
        if i >= 0:
            assert gaps[i] <= gaps.min() + 1e-9


def test_batches_are_padded_and_masked(tmp_path, scores):
    found = frame_sequences.read(scores, label_file(tmp_path, LABELS))
    made = list(sequence_batches.batches(found, 2, order=[1, 0, 2], multiple=4))
    assert [batch.source for batch in made] == [("b.mp4", "a.mp4"), ("c.jpg", "")]
    first, last = made
    assert first.features.pooled.shape == (2, 8, 5)
    assert first.features.grid.shape == (2, 8, 2, 2, 3)
    assert last.mask.shape == (2, 4)
    assert first.mask.sum(1).tolist() == [3, 7]
    assert last.mask.sum(1).tolist() == [1, 0]
    for row, name in enumerate(first.source):
        one = found[found.sources.index(name)]
        size = len(one.frame)
        np.testing.assert_array_equal(first.features.grid[row, :size], one.features.grid)
        np.testing.assert_array_equal(first.frame[row, :size], one.frame)
        for label, values in one.labels.items():
            np.testing.assert_array_equal(first.labels[label][row, :size], values)
            assert first.labels[label].dtype == values.dtype
        assert not first.features.pooled[row, size:].any()
        assert (first.time_s[row, size:] == one.time_s[-1]).all()
        assert (first.frame[row, size:] == -1).all()
        assert np.isnan(first.labels["azimuth_deg"][row, size:]).all()
        assert (first.labels["brand"][row, size:] == -1).all()
    assert (last.labels["brand"][1] == -1).all()
    with pytest.raises(ValueError, match="7 frames, more than 5"):
        sequence_batches.pad([found[0]], 5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("source,time_s,brand\nz.mp4,0,Audi\n", "line 2: 'z.mp4' is not in"),
        ("source,azimuth_deg\na.mp4,0\n", "no column time_s; it has: source, azimuth_deg"),
        ("azimuth_deg\n3\n", "no column source, time_s"),
        ("source,time_s\na.mp4,0\n", "no column of labels"),
        ("source,time_s,brand\n", "no row below"),
        ("", "is empty; expected a header with column source, time_s"),
        ("source,time_s,brand\na.mp4,soon,Audi\n", "line 2: time_s is 'soon', not a number"),
        ("source,time_s,brand\na.mp4\n", "line 2: time_s is '', not a number"),
        ("source,time_s,azimuth_deg\na.mp4,0,1\na.mp4,1,left\n", "line 3: azimuth_deg is 'left'"),
        ("source,time_s,brand\na.mp4,500,Audi\n", "no label of 'a.mp4' is near"),
    ],
)
def test_an_error_names_what_is_wrong_with_the_labels(tmp_path, scores, text, says):
    path = label_file(tmp_path, text)
    with pytest.raises(CarjaxError) as error:
        frame_sequences.read(scores, path)
    assert says in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_error_names_what_is_wrong_with_the_scores(tmp_path, scores):
    labels = label_file(tmp_path, LABELS)

    def fails(path, says, **words):
        with pytest.raises(CarjaxError) as error:
            frame_sequences.read(path, labels, **words)
        assert says in str(error.value)
        assert str(path) in str(error.value)

    fails(scores, "tiny with weights abababababab…, not ffff", weights_sha256="f" * 64)
    assert len(frame_sequences.read(scores, labels, weights_sha256=INFO.weights_sha256)) == 3
    pooled = write_parts(tmp_path / "pooled", POOLED)
    fails(pooled, "pooled features only", level="grid")
    assert frame_sequences.read(pooled, labels)[0].features.grid.shape == (7, 0, 0, 3)
    other = dataclasses.replace(INFO, input_size=64)
    pq.write_table(scored("d.mp4", other)[0], scores / "part-00002-000000.parquet")
    fails(scores, "different features")
    plain = tmp_path / "plain.parquet"
    parquet.write(make_table(), "a.mp4", plain)
    fails(plain, "no features: score with --save_features")
    fails(tmp_path / "none.parquet", "no such file")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "no part-*.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet")
    fails(tmp_path / "text.parquet", "not a Parquet file")
    with pytest.raises(CarjaxError, match=r"none\.csv: no such file"):
        frame_sequences.read(scores, tmp_path / "none.csv")


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_labels_of_a_frame_the_nearest_counts(tmp_path, order):
    rows = ["a.mp4,0.02,10", "a.mp4,0.1,20"][::order]
    path = label_file(tmp_path, "\n".join(["source,time_s,azimuth_deg", *rows]) + "\n")
    known, lost = frame_labels.read(path).at("a.mp4", np.array([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(known["azimuth_deg"], [10, np.nan, np.nan])
    assert lost == 0
