"""`carjax select --temporal`: which it is, what changes, and what stays as frames say alone."""

import dataclasses
import json
import pathlib
import types

import jax
import numpy as np
import pytest

import carjax
from carjax import parquet, pipeline, selection
from carjax.attributes import Angular
from carjax.cli import select as command
from carjax.errors import CarjaxError, UsageError
from carjax.heads import HeadSpec
from carjax.pipeline import Options
from carjax.temporal import sequence_heads, sequence_model
from carjax.temporal.sequence_heads import SequenceHead, SequenceSpec
from carjax.temporal.sequence_model import SequenceModel

SAMPLE = pathlib.Path(__file__).parents[1] / "data" / "prius_walkaround.mp4"


def test_the_filter_is_the_default_but_for_the_first_frame_that_passes():
    assert Options().resolved_temporal == "filter"
    assert Options(view_policy="first").resolved_temporal == "none"
    assert Options(view_policy="first", temporal="filter").resolved_temporal == "filter"


def test_the_schema_says_which_classes_are_a_consensus():
    def consensual(temporal, **unknown_above):
        model = types.SimpleNamespace(spec=types.SimpleNamespace(unknown_above=unknown_above))
        return set(pipeline._repetition(model, Options(temporal=temporal)))

    assert consensual("filter") == {"type", "doors", "seats", "brand"}
    assert consensual("filter", brand=0.5) == {"type", "doors", "seats"}
    assert consensual("none") == set()
    definitions = selection.schema()["$defs"]
    for kind in ("choice", "unknown"):
        said = definitions[kind]["properties"]["video_probability"]["description"]
        assert "type, doors and seats, and for brand where the model cannot tell unknown" in said


def test_a_model_and_its_file_go_together(tmp_path):
    out = f"--out={tmp_path / 'o'}"
    with pytest.raises(UsageError, match="--temporal_model is not used with --temporal=filter"):
        command.main([str(SAMPLE), out, "--temporal=filter", "--temporal_model=a.safetensors"])
    with pytest.raises(UsageError, match="needs --temporal_model=FILE"):
        command.main([str(SAMPLE), out, "--temporal=model"])
    assert not (tmp_path / "o").exists()


@pytest.fixture(scope="module")
def model():
    return carjax.load_model()


@pytest.fixture(scope="module")
def head(model, tmp_path_factory):
    """A sequence head of the real shapes, as it is before training."""
    spec = SequenceSpec("gru", HeadSpec(Angular("orientation"), grid=4, channels=8, hidden=16))
    frames = sequence_heads.example_frames(spec)
    params = jax.jit(SequenceHead(spec).init)(jax.random.key(0), frames)["params"]
    card = {"backbone_sha256": model.card["backbone_sha256"]}
    path = tmp_path_factory.mktemp("head") / "head.safetensors"
    sequence_model.save(SequenceModel(params, spec, card), path)
    return path


@pytest.mark.slow
def test_azimuths_change_and_what_frames_say_alone_is_kept(model, head, tmp_path):
    content, table = {}, {}
    for name in pipeline.TEMPORAL:
        own = {"temporal_model": str(head)} if name == "model" else {}
        options = Options(fps=2.0, temporal=name, **own)
        pipeline.select(model, SAMPLE, tmp_path / name, options)
        content[name] = json.loads((tmp_path / name / "selection.json").read_text())
        table[name], _ = parquet.read(tmp_path / name / "scores.parquet")
        assert content[name]["temporal"] == name
    for name in ("filter", "model"):
        np.testing.assert_allclose(table[name].azimuth_deg, table["none"].azimuth_deg, atol=0.05)
        assert table[name].features is None
    coverage = {n: np.array(c["orientation"]["coverage"]) for n, c in content.items()}
    assert np.abs(coverage["filter"] - coverage["none"]).max() > 0.02
    # An untrained head sees the same in every frame.
    assert coverage["model"].std() > 2 * coverage["none"].std()
    doors = {n: c["attributes"]["doors"]["video_probability"] for n, c in content.items()}
    assert doors["filter"] == doors["model"] > doors["none"]
    brand = {n: c["attributes"]["brand"]["video_probability"] for n, c in content.items()}
    assert brand["filter"] == pytest.approx(brand["none"], abs=1e-6)


def test_a_head_of_another_backbone_is_refused_before_anything_is_scored(model, head, tmp_path):
    other = dataclasses.replace(model, card={**model.card, "backbone_sha256": "0" * 64})
    options = Options(temporal="model", temporal_model=str(head))
    with pytest.raises(CarjaxError, match="reads features of another backbone"):
        pipeline.select(other, SAMPLE, tmp_path / "o", options)
    nowhere = Options(temporal="model", temporal_model=str(tmp_path / "none"))
    with pytest.raises(CarjaxError, match="no such sequence head"):
        pipeline.select(model, SAMPLE, tmp_path / "o", nowhere)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temporal": "smooth"}, "temporal: no 'smooth'; there are: none, filter, model"),
        ({"temporal": "model"}, "--temporal=model needs --temporal_model=FILE"),
        ({"temporal": "none", "temporal_model": "x"}, "not used with --temporal=none"),
    ],
)
def test_options_that_contradict_each_other_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        Options(**fields)
