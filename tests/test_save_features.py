"""`carjax score --save_features`: the features of every row, however the run goes."""

import dataclasses
import shutil

import jax
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from test_parquet import make_table
from test_score import (  # noqa: F401, fixtures
    SAMPLE,
    built_once,
    mixed,
    score,
    weights,
)

from carjax import crops, feature_columns, model, parquet, pooling, scan, video
from carjax.backbones import registry
from carjax.datasets import frame_sequences
from carjax.engine import manifest, output, rows
from carjax.errors import CarjaxError
from carjax.features import Features

pytestmark = pytest.mark.usefixtures("quick_compilation")
FEATURES = ["features_pooled", "features_grid"]
WORDS = ["a.mp4", "b.mp4", "photos"]


@pytest.fixture
def here(mixed, monkeypatch):  # noqa: F811
    monkeypatch.chdir(mixed)


@pytest.fixture(scope="module")
def whole(mixed, weights, tmp_path_factory):  # noqa: F811
    """One unbroken run into one file."""
    out = tmp_path_factory.mktemp("whole") / "x.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(mixed)
        assert score(*WORDS, f"--out={out}", "--save_features=grid", *weights) == 0
    return out


def read(path):
    """All rows of a file or a folder of parts, in order."""
    tables = [pq.ParquetFile(part).read() for part in parquet.parts(path)]
    joined = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
    return joined.sort_by(rows.ORDER)


@pytest.mark.slow
def test_they_are_those_of_the_crop_in_a_row(tiny_model, weights, tmp_path):  # noqa: F811
    out = tmp_path / "x.parquet"
    assert score(SAMPLE, f"--out={out}", "--fps=1", "--save_features=grid", *weights) == 0
    assert pq.read_schema(out).names[-2:] == FEATURES
    header = parquet.header_of(pq.read_schema(out))["features"]
    assert header == {
        "level": "grid",
        "backbone": "efficientnet_lite0",
        "weights_sha256": model.weights_hash(tiny_model.params["backbone"]),
        "input_size": 64,
        "pooled": 1280,
        "cells": 8,
        "channels": 112,
    }
    table, _ = parquet.read(out, features=True)
    assert len(table) == 15
    images = list(video.Decoder(SAMPLE, fps=1.0, max_side=video.SCORED_SIDE))
    assert [image.index for image in images] == table.frame.tolist()
    frames = np.stack([image.image for image in images])
    size = np.tile(frames.shape[2:0:-1], 2)
    name = tiny_model.spec.backbone

    def exact(frames, box):
        crop = crops.crop_and_resize(frames, box, tiny_model.spec.input_size)
        apply = registry.create(name).apply
        seen = apply({"params": tiny_model.params["backbone"]}, registry.normalize(name, crop))
        return pooling.compact(seen, 8)

    want = jax.jit(exact)(frames, (table.box * size).astype(np.float32))
    for got, exact_level in zip(table.features, want, strict=True):
        assert got.dtype == np.float16
        near = np.asarray(exact_level, np.float32)
        np.testing.assert_allclose(got, near, rtol=2**-9, atol=2e-3 * np.abs(near).max())
    # A reader that has no use for them does not read them.
    assert parquet.read(out)[0].features is None


@pytest.mark.slow
def test_they_are_rows_of_the_table_of_a_video(mixed, weights, tmp_path):  # noqa: F811
    """Batches that many sources share give what a video alone gives, bit for bit."""
    tiny = model.load(weights[0][8:], backbone_weights=weights[1][19:])
    table, _ = scan.score_video(tiny, mixed / "b.mp4", fps=video.AUTO_FPS, features="pooled")
    info = feature_columns.of_model(tiny, "pooled")
    expected = parquet.to_arrow(table, str(mixed / "b.mp4"), info)
    out = tmp_path / "x.parquet"
    words = [mixed / "photos", mixed / "b.mp4", f"--out={out}", "--batch=6", *weights]
    assert score(*words, "--save_features=pooled") == 0
    found = pq.read_table(out)
    found = found.filter(pc.equal(found["source"], str(mixed / "b.mp4")))
    assert found.equals(expected)
    # All columns but these are written as ever.
    parquet.write(table, "b.mp4", tmp_path / "plain.parquet")
    assert pq.read_schema(tmp_path / "plain.parquet").names == found.schema.names[:-1]


@pytest.mark.slow
def test_coarse_to_fine_keeps_them_in_order(tiny_model):
    table, _ = scan.score_video(tiny_model, SAMPLE, features="grid")
    assert len(table) == len(table.features.grid) > 24
    assert table.features.pooled.shape == (len(table), 1280)
    one = int(table.frame[len(table) // 2])
    at = int(np.flatnonzero(table.frame == one)[0])
    everything, _ = scan.score_video(tiny_model, SAMPLE, fps="all", features="grid")
    np.testing.assert_allclose(
        table.features.pooled[at].astype(np.float32),
        everything.features.pooled[one].astype(np.float32),
        atol=5e-3 * np.abs(everything.features.pooled).max(),
    )


def test_columns(here, weights, tmp_path):  # noqa: F811
    out = tmp_path / "x.parquet"
    words = ["a.mp4", f"--out={out}", "--columns=kappa", "--save_features=pooled", *weights]
    assert score(*words) == 0
    keys = ["source", "frame", "time_s"]
    assert pq.read_schema(out).names == [*keys, "kappa", "features_pooled"]
    labels = tmp_path / "labels.csv"
    labels.write_text("source,time_s,azimuth_deg\na.mp4,0.25,90\n")
    [walk] = frame_sequences.read(out, labels, level="pooled")
    assert np.isfinite(walk.labels["azimuth_deg"]).tolist() == [0, 0, 1, 0, 0, 0, 0]
    assert walk.features.pooled.shape == (7, 1280)


# --- however the run goes ------------------------------------------------------------------------


class Killed(BaseException):
    """What a kill looks like from inside: nothing that comes after it happens."""


@pytest.mark.parametrize("extra", [[], ["--part_rows=4"]], ids=["one file", "parts"])
@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_gives_the_rows_of_an_unbroken_one(
    here,
    whole,
    weights,  # noqa: F811
    tmp_path,
    monkeypatch,
    extra,
):
    out = tmp_path / "x.parquet"
    words = [*WORDS, f"--out={out}", "--save_features=grid", *extra, *weights]
    written = manifest.write_commit
    commits = []

    def write_commit(store, folder, commit):
        if len(commits) == 3:  # the rows are there, and nothing says so
            raise Killed
        commits.append(commit)
        written(store, folder, commit)

    monkeypatch.setattr(manifest, "write_commit", write_commit)
    with pytest.raises(Killed):
        score(*words, "--checkpoint_s=0")
    assert len(commits) == 3
    assert extra or not out.exists()
    monkeypatch.setattr(manifest, "write_commit", written)
    assert score(*words) == 0
    assert read(out).equals(read(whole))


def test_processes_and_narrow_limits_change_nothing(
    here,
    whole,
    weights,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    monkeypatch.setattr(output, "_PART_BYTES", 100_000)  # six rows
    monkeypatch.setattr(output, "_GROUP_BYTES", 40_000)
    monkeypatch.setattr(rows, "_SPILL_BYTES", 80_000)
    out = tmp_path / "x.parquet"
    for i in (1, 0):
        words = ["--processes=2", f"--process_id={i}", "--save_features=grid", *weights]
        assert score(*WORDS, f"--out={out}", *words) == 0
    sizes = [pq.read_metadata(part) for part in parquet.parts(out)]
    assert max(part.num_rows for part in sizes) <= 6
    assert max(part.row_group(0).num_rows for part in sizes) == 2
    assert read(out).equals(read(whole))
    joined = tmp_path / "y.parquet"
    assert score(*WORDS, f"--out={joined}", "--save_features=grid", *weights) == 0
    assert read(joined).equals(read(whole))


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ([], ["--save_features=pooled"], "save_features (the default, now pooled)"),
        (["--save_features=pooled"], [], "save_features (pooled, now the default)"),
        (["--save_features=grid", "--part_rows=5"], ["--save_features=pooled"], "save_features"),
    ],
)
def test_files_with_and_without_are_not_mixed(
    here,
    weights,  # noqa: F811
    tmp_path,
    capsys,
    first,
    second,
    says,
):
    out = tmp_path / "x.parquet"
    assert score("a.mp4", f"--out={out}", *first, *weights) == 0
    before = read(out)
    shutil.copy("a.mp4", tmp_path / "new.mp4")
    assert score("a.mp4", tmp_path / "new.mp4", f"--out={out}", *second, *weights) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"was begun with another {says}" in error
    assert read(out).equals(before)


def test_wide_rows_fit_into_less():
    info = feature_columns.FeatureColumns(
        "grid", "tiny", "", 32, pooled=1408, cells=8, channels=120
    )
    schema = parquet.arrow_schema((), features=info)
    width = 2 * (1408 + 64 * 120)
    assert rows.fitting(100_000, schema, 2**26) in range(2**26 // width - 10, 2**26 // width + 1)
    assert rows.fitting(100, schema, 2**26) == 100
    assert rows.fitting(100, schema, 1) == 1
    plain = parquet.arrow_schema(())
    assert rows.fitting(100_000, plain, 2**26) == 100_000


def test_what_features_are_is_that_of_the_model_that_scores(tiny_model):
    larger = dataclasses.replace(tiny_model.spec, input_size=96)
    info = feature_columns.of_model(dataclasses.replace(tiny_model, spec=larger), "grid")
    digest = model.weights_hash(tiny_model.params["backbone"])
    assert info == feature_columns.FeatureColumns(
        "grid", "efficientnet_lite0", digest, 96, pooled=1280, cells=8, channels=112
    )
    info.check_weights(digest)
    message = rf"with weights {digest[:12]}…, not bbbbbbbbbbbb…: score with that backbone"
    with pytest.raises(CarjaxError, match=message):
        info.check_weights("b" * 64)


def test_a_table_without_features_has_none_to_write():
    info = feature_columns.FeatureColumns("pooled", "tiny", "", 32, pooled=4, cells=0, channels=3)
    with pytest.raises(ValueError, match="without features"):
        parquet.to_arrow(make_table(), "a", info)
    table = dataclasses.replace(
        make_table(count=3),
        features=Features(np.ones((3, 4), np.float16), np.zeros((3, 0, 0, 3), "f2")),
    )
    back, _ = parquet.from_arrow(parquet.to_arrow(table, "a", info))
    np.testing.assert_array_equal(back.features.pooled, table.features.pooled)
    assert back.features.grid.shape == (3, 0, 0, 3)


@pytest.mark.parametrize("last", [None, [1.0] * 5, [1.0] * 3])
@pytest.mark.parametrize("name", FEATURES)
def test_rows_that_lack_features_are_one_line(tmp_path, name, last):
    info = feature_columns.FeatureColumns("grid", "b", "w", 64, pooled=4, cells=2, channels=1)
    levels = Features(np.ones((3, 4), np.float16), np.ones((3, 2, 2, 1), np.float16))
    table = dataclasses.replace(make_table(count=3), features=levels)
    rows = parquet.to_arrow(table, "v.mp4", info)
    i = rows.column_names.index(name)
    lists = [*rows.column(i).to_pylist()[:-1], last]
    rows = rows.set_column(i, name, pa.array(lists, pa.list_(pa.float16())))
    pq.write_table(rows, tmp_path / "x.parquet")
    match = rf"cannot read .*x\.parquet: its column {name} does not hold 4 numbers in every row$"
    with pytest.raises(CarjaxError, match=match):
        parquet.read(tmp_path / "x.parquet", features=True)
    assert len(parquet.read(tmp_path / "x.parquet")[0]) == 3
