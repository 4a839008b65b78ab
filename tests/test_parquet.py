"""The score table survives a trip through Parquet, and other readers see the promised columns."""

import dataclasses
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from carjax import parquet
from carjax.attributes import CAR, VIEWS, Angular, Categorical
from carjax.errors import CarjaxError
from carjax.table import ScoreTable, concatenate

NO_ANGLE = (Categorical("colour", ("red", 'größer, "blue"')),)


def make_table(schema=CAR, count=7, seed=0, **columns):
    rng = np.random.default_rng(seed)
    angular = any(isinstance(a, Angular) for a in schema)

    def column(*shape):
        return (
            rng.random((count, *shape), np.float32) if angular else np.zeros((count, *shape), "f4")
        )

    probs = {
        a.name: rng.dirichlet(np.ones(len(a.classes)), count).astype(np.float32)
        for a in schema
        if isinstance(a, Categorical)
    }
    return ScoreTable(
        schema=schema,
        frame=np.arange(count, dtype=np.int64) * 3,
        time_s=np.cumsum(rng.random(count)),
        probs=probs,
        entropy={n: -(p * np.log(p)).sum(1).astype(np.float32) for n, p in probs.items()},
        azimuth_deg=column() * 360,
        kappa=column() * 1e6,
        azimuth_floor=column(),
        azimuth_entropy=column() * -2,
        view_probs=column(len(VIEWS)),
        car_probability=rng.random(count, np.float32),
        box=rng.random((count, 4), np.float32),
        sharpness=rng.random(count, np.float32) * 500,
        **columns,
    )


def assert_equal(a, b):
    assert a.schema == b.schema
    for field in dataclasses.fields(ScoreTable):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name == "schema":
            continue
        if x is None:  # not measured
            assert y is None, field.name
            continue
        if not isinstance(x, dict):
            x, y = {"": x}, {"": y}
        assert list(x) == list(y)
        for name in x:
            assert x[name].dtype == y[name].dtype, field.name
            np.testing.assert_array_equal(x[name], y[name], err_msg=field.name)


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("schema", [CAR, NO_ANGLE, (Angular("heading"),)])
def test_round_trip_is_exact(tmp_path, schema, count):
    table = make_table(schema, count)
    parquet.write(table, "a folder/vidéo.mp4", tmp_path / "x.parquet")
    back, sources = parquet.read(tmp_path / "x.parquet")
    assert_equal(table, back)
    assert sources == ["a folder/vidéo.mp4"] * count
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"]


def test_columns_are_the_contract(tmp_path):
    parquet.write(make_table(), "v.mp4", tmp_path / "x.parquet")
    rows = pq.read_table(tmp_path / "x.parquet")
    single = pa.float32()
    expected = {"source": pa.string(), "frame": pa.int64(), "time_s": pa.float64()}
    for name in ("type", "brand", "doors", "seats"):
        expected[name] = pa.string()
        expected[f"{name}_probability"] = expected[f"{name}_entropy"] = single
        expected[f"{name}_probs"] = pa.list_(single)
    for name in ("azimuth_deg", "kappa", "azimuth_floor", "azimuth_entropy"):
        expected[name] = single
    expected["view_probs"] = pa.list_(single, 8)
    for name in ("car_probability", "box_left", "box_top", "box_right", "box_bottom", "sharpness"):
        expected[name] = single
    expected["car_colour"] = expected["content_probs"] = pa.list_(single, 3)
    for name in ("type", "brand", "doors", "seats"):
        expected[f"{name}_disagreement"] = expected[f"{name}_novelty"] = single
    assert list(zip(rows.schema.names, rows.schema.types, strict=True)) == list(expected.items())


def test_colour_and_content_are_kept_and_may_be_missing(tmp_path):
    path = tmp_path / "x.parquet"
    rng = np.random.default_rng(1)
    columns = {name: rng.random((7, 3), np.float32) for name in ("car_colour", "content_probs")}
    names = ("type", "brand", "doors", "seats")
    kinds = {k: {n: rng.random(7, np.float32) for n in names} for k in ("disagreement", "novelty")}
    table = make_table(**columns, **kinds)
    parquet.write(table, "v.mp4", path)
    assert_equal(table, parquet.read(path)[0])
    # A file of before they were measured has no such columns.
    new = [*columns, *(f"{n}_{k}" for n in names for k in kinds)]
    pq.write_table(pq.read_table(path).drop_columns(new), path)
    assert_equal(make_table(), parquet.read(path)[0])


def test_class_and_probability_are_those_of_the_largest(tmp_path):
    table = make_table()
    table.probs["doors"][2] = np.nan
    table.probs["doors"][3, 0] = np.nan
    parquet.write(table, "v.mp4", tmp_path / "x.parquet")
    for i, row in enumerate(pq.read_table(tmp_path / "x.parquet").to_pylist()):
        assert row["box_right"] == table.box[i, 2]
        for attribute in table.categorical:
            if attribute.name == "doors" and i in (2, 3):
                assert row["doors"] is None
                continue
            probs = row[f"{attribute.name}_probs"]
            assert row[f"{attribute.name}_probability"] == max(probs)
            assert row[attribute.name] == attribute.classes[probs.index(max(probs))]
    assert_equal(table, parquet.read(tmp_path / "x.parquet")[0])


def test_class_names_are_readable_by_anyone(tmp_path):
    parquet.write(make_table(NO_ANGLE), "v.mp4", tmp_path / "x.parquet")
    header = json.loads(pq.read_schema(tmp_path / "x.parquet").metadata[b"carjax"])
    assert header == {
        "format_version": 1,
        "attributes": [
            {"kind": "categorical", "name": "colour", "classes": ["red", 'größer, "blue"']}
        ],
    }


def test_reads_a_folder_of_parts_in_order(tmp_path):
    first, second = make_table(seed=1), make_table(count=4, seed=2)
    parquet.write(second, "b.mp4", tmp_path / "part-00001.parquet")
    parquet.write(first, "a.mp4", tmp_path / "part-00000.parquet")
    (tmp_path / "errors.csv").write_text("source,reason\n")
    table, sources = parquet.read(tmp_path)
    assert sources == ["a.mp4"] * 7 + ["b.mp4"] * 4
    np.testing.assert_array_equal(table.time_s, np.append(first.time_s, second.time_s))
    np.testing.assert_array_equal(
        table.probs["type"], np.concatenate([first.probs["type"], second.probs["type"]])
    )


def test_parts_of_different_models_are_refused(tmp_path):
    # The same columns, another order of classes: only the metadata tells.
    one = (Categorical("doors", ("3", "5")),)
    other = (Categorical("doors", ("5", "3")),)
    parquet.write(make_table(one), "a.mp4", tmp_path / "part-0.parquet")
    parquet.write(make_table(other), "b.mp4", tmp_path / "part-1.parquet")
    with pytest.raises(CarjaxError, match="different models"):
        parquet.read(tmp_path)


def test_a_slice_of_rows_reads_as_the_slice():
    rows = parquet.to_arrow(make_table(), "v.mp4").slice(2, 3)
    table, sources = parquet.from_arrow(rows)
    assert len(table) == len(sources) == 3
    np.testing.assert_array_equal(table.view_probs, make_table().view_probs[2:5])
    np.testing.assert_array_equal(table.probs["brand"], make_table().probs["brand"][2:5])


def test_one_source_may_be_named_by_its_name_or_its_path(tmp_path):
    parquet.write(make_table(), pathlib.Path("a.mp4"), tmp_path / "x.parquet")
    for sources in ("a.mp4", ["a.mp4"], pathlib.Path("a.mp4")):
        table, names = parquet.read(tmp_path / "x.parquet", sources=sources)
        assert set(names) == {"a.mp4"}
        assert len(table) == len(make_table())
    clip = pathlib.Path("clip\udcff.mp4")  # a name that is not UTF-8
    parquet.write(make_table(), clip, tmp_path / "x.parquet")
    assert len(parquet.read(tmp_path / "x.parquet", sources=clip)[0]) == len(make_table())
    odd = tmp_path / "K\udce4fer"
    odd.mkdir()
    parquet.write(make_table(), "a.mp4", odd / "x.parquet")
    assert (odd / "x.parquet").is_file()


def test_of_no_source_there_are_no_rows(tmp_path):
    parquet.write(make_table(), "a.mp4", tmp_path / "x.parquet")
    table, names = parquet.read(tmp_path / "x.parquet", sources=[])
    assert (len(table), names) == (0, [])


@pytest.mark.parametrize("values", [[1.0] * 7, ["a"] * 7])
def test_a_column_that_holds_no_lists_is_one_line(tmp_path, values):
    parquet.write(make_table(), "a.mp4", tmp_path / "x.parquet")
    rows = pq.read_table(tmp_path / "x.parquet")
    other = rows.set_column(rows.column_names.index("doors_probs"), "doors_probs", [values])
    pq.write_table(other, tmp_path / "x.parquet")
    with pytest.raises(CarjaxError, match="its column doors_probs does not hold"):
        parquet.read(tmp_path / "x.parquet")


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.parquet"
    parquet.write(make_table(), "old.mp4", path)

    def fail(rows, where, **options):
        where.write(b"PAR1 half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="No space left"):
        parquet.write(make_table(), "new.mp4", path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"]
    assert parquet.read(path)[1][0] == "old.mp4"


def one_line(error):
    return "\n" not in str(error.value) and str(error.value)


def test_bad_files_give_one_clear_line(tmp_path):
    (tmp_path / "text.parquet").write_text(
        "not parquet at all, but long enough to look for a footer"
    )
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign.parquet")
    rows = parquet.to_arrow(make_table(), "v.mp4")
    pq.write_table(rows.drop_columns(["kappa"]), tmp_path / "short.parquet")
    header = json.dumps({"format_version": 99, "attributes": []})
    pq.write_table(rows.replace_schema_metadata({"carjax": header}), tmp_path / "newer.parquet")
    for name, text in {
        "oops": "{oops",
        "list": "[]",
        "void": "{}",
        "bytes": b"\xff",
        "bare": json.dumps({"format_version": parquet.FORMAT_VERSION}),
        "future": json.dumps(
            json.loads(rows.schema.metadata[b"carjax"]) | {"features": {"of_tomorrow": 1}}
        ),
    }.items():
        damaged = rows.replace_schema_metadata({"carjax": text})
        pq.write_table(damaged, tmp_path / f"{name}.parquet")
    i = rows.column_names.index("doors_probs")
    lists = rows.column(i).to_pylist()
    for name, last in {"null": None, "long": [0.1] * 5}.items():
        column = pa.array([*lists[:-1], last], pa.list_(pa.float32()))
        pq.write_table(rows.set_column(i, "doors_probs", column), tmp_path / f"{name}.parquet")
    for name, words in {
        "none.parquet": "no such file",
        "text.parquet": "not a Parquet file",
        "empty.parquet": "not a Parquet file",
        "foreign.parquet": "no carjax metadata",
        "short.parquet": "lacks the columns kappa",
        "newer.parquet": "format version 99",
        "folder": "no part-",
        "oops.parquet": "metadata is damaged",
        "list.parquet": "metadata is damaged",
        "void.parquet": "metadata is damaged",
        "bytes.parquet": "metadata is damaged",
        "bare.parquet": "metadata is damaged",
        "future.parquet": "or of a newer carjax",
        "null.parquet": "doors_probs does not hold 4 numbers in every row",
        "long.parquet": "doors_probs does not hold 4 numbers in every row",
    }.items():
        with pytest.raises(CarjaxError) as error:
            parquet.read(tmp_path / name)
        assert words in one_line(error)
        assert name in one_line(error)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        parquet.write(make_table(), "v.mp4", tmp_path / "none" / "x.parquet")


def test_attribute_names_that_clash_are_refused(tmp_path):
    schema = (Categorical("frame", ("a", "b")),)
    with pytest.raises(CarjaxError, match="two columns would be named 'frame'"):
        parquet.write(make_table(schema), "v.mp4", tmp_path / "x.parquet")


def test_only_the_rows_of_the_sources_that_are_asked_for_are_read(tmp_path):
    first, second = make_table(seed=1), make_table(count=4, seed=2)
    for i, (table, name) in enumerate(((first, "a.mp4"), (second, "b.mp4"))):
        parquet.write(table, name, tmp_path / f"part-{i}.parquet")
    table, sources = parquet.read(tmp_path, sources="b.mp4")
    assert sources == ["b.mp4"] * 4
    assert_equal(second, table)
    assert len(parquet.read(tmp_path, sources=["a.mp4", "b.mp4"])[0]) == 11
    assert len(parquet.read(tmp_path, sources=["c.mp4"])[0]) == 0


def test_what_was_measured_of_some_rows_only_is_not_measured(tmp_path):
    # Parts of before and of after.
    rng = np.random.default_rng(1)
    old = make_table(seed=1)
    new = make_table(
        seed=2,
        car_colour=rng.random((7, 3), np.float32),
        novelty={a.name: rng.random(7, np.float32) for a in old.categorical},
    )
    for i, table in enumerate((old, new)):
        parquet.write(table, "a.mp4", tmp_path / f"part-{i}.parquet")
    both, _ = parquet.read(tmp_path)
    assert both.car_colour is None
    assert both.novelty is None
    assert len(both) == 14


def test_tables_of_one_video_join_in_order_of_frame():
    rng = np.random.default_rng(1)
    whole = make_table(novelty={"type": rng.random(7, np.float32)})
    odd, even = whole.take(slice(1, None, 2)), whole.take(slice(0, None, 2))
    assert_equal(whole, concatenate([odd, even]))


def test_a_frame_that_was_not_scored_has_no_row():
    table = make_table()
    assert [table.row_of(frame) for frame in (0, 6, 18)] == [0, 2, 6]
    for frame in (-1, 7, 19):
        with pytest.raises(KeyError):
            table.row_of(frame)
