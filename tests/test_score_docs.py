"""The code of docs/score_at_scale.md runs as it stands there."""

import dataclasses
import pathlib
import re
import shlex
import sys
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import score_files as files

import carjax
from carjax import feature_columns, parquet, scoring
from carjax.cli import score as score_command
from carjax.features import Features
from carjax.sources import expand, readers, stills

TEXT = (pathlib.Path(__file__).parents[1] / "docs" / "score_at_scale.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)


def test_its_commands_have_the_flags_that_there_are():
    lines = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
    calls = [line[line.index("carjax score") :] for line in lines if "carjax score" in line]
    assert len(calls) >= 4
    for call in calls:
        values = score_command.define_flags()
        words = values(["carjax", *shlex.split(call)[2:]])
        assert words[1:]
        assert values.out


def check_decoder(decoder):
    images = (
        np.zeros((60, 360, 1280, 3), np.uint8) + np.arange(60, dtype=np.uint8)[:, None, None, None]
    )
    np.save("walk.npy", images)
    samples = list(readers.read(expand.source("walk.npy"), 10.0, decoder))
    assert [sample.frame for sample in samples] == list(range(0, 60, 3))
    assert samples[7].image.shape == (180, 640, 3)
    assert [sample.image[0, 0, 0] for sample in samples] == list(range(0, 60, 3))
    np.testing.assert_allclose([sample.time_s for sample in samples], np.arange(20) / 10)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_its_code_runs(tiny_model, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow.dataset")
    # Beam itself is no dependency: what is tested is the code that it calls.
    monkeypatch.setitem(sys.modules, "apache_beam", types.SimpleNamespace(DoFn=object))
    monkeypatch.setattr(carjax, "load_model", lambda: tiny_model)
    monkeypatch.chdir(tmp_path)
    names, data = ["a.jpg", "b.png"], [files.picture(1), files.picture(2, (80, 60), ".png")]
    scores = scoring.Scorer(tiny_model, 32)(np.stack([stills.decode(d, (640, 640)) for d in data]))
    zeros = np.zeros(2, np.int64)
    table = scoring.to_table(scores, tiny_model.spec, zeros, zeros.astype(float))
    pq.write_table(parquet.to_arrow(table, names), "scores.parquet")
    shapes = {"pooled": (2, 1280), "grid": (2, 8, 8, 112)}
    walk = dataclasses.replace(
        table,
        time_s=np.array([0.0, 0.5]),
        features=Features(**{k: np.ones(shape, np.float16) for k, shape in shapes.items()}),
    )
    info = feature_columns.of_model(tiny_model, "grid")
    pq.write_table(parquet.to_arrow(walk, "walks/a.mp4", info), "walks.parquet")
    space = {}
    for kind, block in BLOCKS:
        if kind == "python":
            exec(compile(block, "score_at_scale.md", "exec"), space)
    assert space["rows"].column_names == ["source", "frame", "kappa"]
    assert space["batch"].mask.sum() == 2
    assert space["batch"].features.grid.shape == (8, 32, 8, 8, 112)
    check_decoder(space["ArrayFrames"])
    beam = space["ScorePhotos"]()
    beam.setup()
    rows = list(beam.process(list(zip(names, data, strict=True))))
    assert rows == pq.read_table("scores.parquet").to_pylist()
    batch = pa.RecordBatch.from_pydict({"path": names, "content": data})
    [spark] = space["score_photos"](iter([batch]))
    assert spark.to_pylist() == [{"path": r["source"], "kappa": r["kappa"]} for r in rows]
