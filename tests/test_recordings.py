"""Sequence heads on one's own recordings: scored, trained on, held out, and in the experiment."""

import csv
import dataclasses
import json
import re
import shlex
import shutil

import cv2
import jax
import ml_collections
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import recorded_clips
import tiny_run
from hypothesis import given
from hypothesis import strategies as st
from recorded_clips import A, B, C, D, E
from test_score import built_once, score, weights  # noqa: F401, fixtures

from carjax import feature_columns, parquet, scan, scoring
from carjax import model as models
from carjax.attributes import VEHICLE_CLASSES, Angular, Categorical
from carjax.cli import experiment
from carjax.cli.main import main as command_line
from carjax.datasets import frame_labels, frame_sequences
from carjax.datasets.folds import fold_of
from carjax.errors import CarjaxError, UsageError
from carjax.evaluation import metrics
from carjax.experiment import methods, recordings, temporal_run
from carjax.features import Features
from carjax.heads import HeadSpec
from carjax.temporal import consensus, sequence_model
from carjax.temporal.motion import Motion
from carjax.temporal.sequence_heads import SequenceHead, SequenceSpec, example_frames
from carjax.training import loop, recording_data, sequences
from carjax.training.material import RecordingMaterial
from carjax.training.recording_data import Recordings, Split

PAGE = (recorded_clips.ROOT / "docs" / "temporal.md").read_text()
SECTION = PAGE.split("## Your own recordings")[1].split("\n## ")[0]
[COMMANDS] = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
# The commands of the page: name → words.
DOCUMENTED = {
    words[1]: words[2:] for words in map(shlex.split, COMMANDS.replace("\\\n", " ").splitlines())
}

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(autouse=True)
def device_kept(monkeypatch):
    monkeypatch.setattr("carjax.runtime.set_up_jax", lambda: None)


@pytest.fixture(scope="module")
def tiny_model(tiny_model):
    """The tiny model, whose backbone sees a car everywhere."""
    params = dict(tiny_model.params)
    classifier = dict(params["backbone"]["classifier"])
    classifier["bias"] = classifier["bias"].at[VEHICLE_CLASSES[0]].add(10.0)
    params["backbone"] = {**params["backbone"], "classifier": classifier}
    card = tiny_model.card | {"backbone_sha256": models.weights_hash(params["backbone"])}
    return dataclasses.replace(tiny_model, params=params, card=card)


@pytest.fixture(scope="module")
def clips(weights, tmp_path_factory):  # noqa: F811
    """Clips of the sample, their labels, and their scores with features; read only."""
    folder = tmp_path_factory.mktemp("clips")
    recorded_clips.write(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert score(*DOCUMENTED["score"], "--fps=all", *weights) == 0
    return folder


def settings(clips, weights, **changes):  # noqa: F811
    made = sequences.default_config("toy")
    made.backbone, made.input_size = "efficientnet_lite0", 64
    made.backbone_weights = weights[1].partition("=")[2]
    made.recordings.scores = str(clips / "walks.parquet")
    made.recordings.labels = str(clips / "walks.csv")
    made.update(dict(batch=4, steps=6, chunk=2, warmup=0, fold=2))
    made.head.grid, made.head.channels, made.head.hidden = 2, 4, 8
    made.sequence.module = "toy_sequence_model"
    made.sequence.width, made.sequence.frames = 8, 16
    with made.unlocked():
        made.update_from_flattened_dict(changes)
    return made


def run(made, workdir):
    return loop.train_and_evaluate(made, workdir, quiet=True)


def losses(workdir):
    with (workdir / "metrics.csv").open() as f:
        return [float(row["loss"]) for row in csv.DictReader(f)]


def labels_of(clips):
    with (clips / "walks.csv").open() as f:
        return list(csv.DictReader(f))


@pytest.mark.slow
def test_the_documented_commands_train_and_measure_a_head(
    tiny_model,
    clips,
    weights,  # noqa: F811
    tmp_path,
    monkeypatch,
    capsys,
):
    # The package ships no weights of the tiny model's backbone.
    monkeypatch.setattr(models, "load", lambda path, **_: tiny_model)
    monkeypatch.delenv("CARJAX_DATA", raising=False)  # no photos are needed
    monkeypatch.chdir(tmp_path)
    for path in (clips / "walks.parquet", clips / "walks.csv", recorded_clips.ROOT / "configs"):
        (tmp_path / path.name).symlink_to(path)
    small = {
        **{"backbone": "efficientnet_lite0", "backbone_weights": weights[1].partition("=")[2]},
        **{"input_size": 64, "head.grid": 2, "head.channels": 4, "head.hidden": 8},
        **{"sequence.width": 8, "sequence.frames": 16},
        **{"steps": 60, "chunk": 20, "batch": 4, "lr": 0.01, "warmup": 0},
    }
    words = [f"--config.{name}={value}" for name, value in small.items()]
    assert command_line(["train", *DOCUMENTED["train"], *words, "--quiet"]) == 0
    # Every third of the labels of A, D and E is blank.
    assert "orientation: trained on 77 frames" in capsys.readouterr().out
    workdir = tmp_path / "out" / "mine"
    first, *_, last = losses(workdir)
    assert last < first - 0.3
    result = json.loads((workdir / "result.json").read_text())
    assert result["frames"] == {A: 26, B: 25, D: 8, E: 18}
    assert result["held_out_frames"] == {C: 22}
    assert set(result["held_out"]) == set(metrics.ANGULAR_METRICS)

    found = sequence_model.load(workdir / "head.safetensors")
    assert found.card["recordings"] == [A, B, D, E]
    assert not found.training_hashes
    # What was measured is what the file says of the windows of what was held out.
    saved = np.load(workdir / "held_out.npz")
    assert saved["targets"].shape == (3, 16)  # 33 frames
    known = ~np.isnan(saved["targets"])
    assert (saved["names"] != "").tolist() == known.tolist()
    rows = [row for row in labels_of(clips) if row["source"] == C and row["azimuth_deg"]]
    np.testing.assert_allclose(saved["targets"][known], [float(r["azimuth_deg"]) for r in rows])
    assert saved["names"][1][:3].tolist() == [f"{C}#16", f"{C}#17", ""]
    walks = frame_sequences.read(clips / "walks.parquet", clips / "walks.csv")
    one = walks[walks.sources.index(C)]
    density = found(jax.tree.map(lambda x: x[:16], one.features), one.time_s[:16])
    np.testing.assert_allclose(density.kappa, saved["kappa"][0], rtol=2e-3)

    assert command_line(["experiment", *DOCUMENTED["experiment"]]) == 0
    content = json.loads((tmp_path / "out" / "measured" / "temporal.json").read_text())
    assert list(content["videos"]) == sorted(recorded_clips.CLIPS)
    assert "walks" not in content
    for source, ways in content["videos"].items():
        # A head has no figures on what it was trained on.
        assert ("gru" in ways) == (source == C)
        count = (result["frames"] | result["held_out_frames"])[source]
        assert all(own["frames"] == count for own in ways.values())
        assert set(content["video_classes"][source]) == {"doors"}  # no other column
        assert content["video_classes"][source]["doors"]["truth"] == "5"
    assert f"{C}, gru: median error" in capsys.readouterr().out


def test_recordings_of_one_group_share_a_fold(clips, weights):  # noqa: F811
    folds = fold_of
    alone = recording_data.find(settings(clips, weights))
    assert [alone.frames.sources[i] for i in alone.held_out] == [B, D]
    assert not set(alone.train) & set(alone.held_out)
    of_car = folds("one", 5)
    joined = recording_data.find(
        settings(clips, weights, **{"recordings.group": "car", "fold": of_car})
    )
    held_out = {joined.frames.sources[i] for i in joined.held_out}
    others = {n for n in (B, C, E) if folds(n, 5) == of_car}
    assert held_out == {A, D} | others
    split = recording_data.load(alone, settings(clips, weights), weights_of(clips))
    assert split.train.sources == (A, C, E)
    for own in split:
        for source, first, stop in zip(own.sources, own.starts, own.starts[1:], strict=False):
            one = alone.frames[alone.frames.sources.index(source)]
            pooled = own.features.pooled[0, first:stop]
            np.testing.assert_array_equal(pooled, one.features.pooled)
            # Eight cells became two.
            grid = one.features.grid.astype(float).reshape(-1, 2, 4, 2, 4, 112).mean((2, 4))
            np.testing.assert_allclose(own.features.grid[0, first:stop], grid, atol=2e-3, rtol=2e-3)
    everything = recording_data.find(settings(clips, weights, fold=-1))
    assert (len(everything.train), everything.held_out) == (5, ())


@pytest.mark.slow
def test_what_is_held_out_changes_no_loss(clips, weights, tmp_path):  # noqa: F811
    made = settings(clips, weights)
    run(made, tmp_path / "whole")
    # Other features, and other azimuths, of what is held out are of no matter to training.
    rows = pq.read_table(clips / "walks.parquet")
    held_out = np.isin(np.array(rows["source"].to_pylist()), [B, D])
    column = rows["features_pooled"].combine_chunks()
    values = column.flatten().to_numpy().reshape(len(rows), -1).copy()
    values[held_out] = 7.0
    changed = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    index = rows.schema.get_field_index("features_pooled")
    rows = rows.set_column(index, rows.schema.field(index), changed)
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(rows, other / "walks.parquet")
    lines = labels_of(clips)
    for line in lines:
        if line["source"] in (B, D) and line["azimuth_deg"]:
            line["azimuth_deg"] = "123"
    with (other / "walks.csv").open("w", newline="") as f:
        table = csv.DictWriter(f, list(lines[0]))
        table.writeheader()
        table.writerows(lines)
    run(settings(other, weights), tmp_path / "changed")
    assert losses(tmp_path / "whole") == losses(tmp_path / "changed")


@pytest.mark.slow
def test_a_killed_run_resumes_and_repeats_its_losses_exactly(
    clips,
    weights,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    made = settings(clips, weights, fold=-1)
    assert run(made, tmp_path / "whole")["held_out"] == {}
    with tiny_run.killed(monkeypatch, step=4):
        run(made, tmp_path / "killed")
    run(made, tmp_path / "killed")
    whole, killed = ((tmp_path / n / "metrics.csv").read_bytes() for n in ("whole", "killed"))
    assert whole == killed
    heads = (sequence_model.load(tmp_path / n / "head.safetensors") for n in ("whole", "killed"))
    jax.tree.map(np.testing.assert_array_equal, *(h.params for h in heads))


@pytest.mark.slow
def test_pooled_features_are_enough_for_a_head_without_a_grid(
    clips,
    weights,  # noqa: F811
    tmp_path,
):
    rows = pq.read_table(clips / "walks.parquet").drop_columns("features_grid")
    header = json.loads(rows.schema.metadata[parquet.METADATA_KEY])
    header["features"] |= {"level": "pooled", "cells": 0}
    shutil.copy(clips / "walks.csv", tmp_path)
    metadata = {parquet.METADATA_KEY: json.dumps(header)}
    pq.write_table(rows.replace_schema_metadata(metadata), tmp_path / "walks.parquet")
    result = run(settings(tmp_path, weights, **{"head.grid": 0}), tmp_path / "run")
    assert np.isfinite(result["held_out"]["loglik_nats_per_rad"])
    with pytest.raises(CarjaxError, match=r"walks\.parquet: it holds pooled features only"):
        run(settings(tmp_path, weights), tmp_path / "other")


def recorded(lengths, known, seed=0):
    """Recordings of those lengths; `known` of the frames have an azimuth."""
    rng = np.random.default_rng(seed)
    count = sum(lengths)
    azimuth = rng.uniform(0, 360, count).astype(np.float32)
    azimuth[rng.permutation(count)[min(known, count) :]] = np.nan
    return Recordings(
        sources=tuple(map(str, range(len(lengths)))),
        starts=np.cumsum([0, *lengths]),
        features=Features(np.arange(count)[None, :, None], np.zeros((1, count, 0, 0, 1))),
        azimuth_deg=azimuth,
        time_s=1e6 + np.arange(count) / 8,
        frame=np.concatenate([np.arange(n) for n in lengths]),
    )


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=5),
    st.integers(1, 12),
    st.integers(1, 150),
    st.integers(0, 100),
)
def test_a_window_is_of_one_recording_and_holds_a_known_azimuth(lengths, frames, known, step):
    material = recorded(lengths, known)
    made = ml_collections.ConfigDict({"seed": 3, "batch": 4, "sequence": {"frames": frames}})
    batch = recording_data.draw(material, made, step)
    of_row = np.repeat(np.arange(len(lengths)), lengths)
    for row, mask, azimuth, time_s in zip(
        batch.row, batch.mask, batch.azimuth_deg, batch.time_s, strict=True
    ):
        own = row[mask]
        (recording,) = set(of_row[own])
        assert len(own) == min(frames, lengths[recording])
        assert (np.diff(own) == 1).all()
        np.testing.assert_array_equal(azimuth[mask], material.azimuth_deg[own])
        assert np.isfinite(azimuth[mask]).any()
        assert np.isnan(azimuth[~mask]).all()
        np.testing.assert_allclose(time_s[mask], np.arange(len(own)) / 8, atol=1e-6)
        assert (time_s[~mask] == time_s[mask][-1]).all()
    again = recording_data.draw(material, made, step)
    jax.tree.map(np.testing.assert_array_equal, again, batch)

    held_out = recording_data.held_out_windows(material, made)
    seen = ~np.isnan(held_out.targets)
    assert seen.any(1).all()
    rows = held_out.features.features.pooled[..., 0][seen]
    assert rows.tolist() == np.flatnonzero(~np.isnan(material.azimuth_deg)).tolist()


def test_a_run_knows_the_features_of_its_recordings():
    one = recorded([4, 3], 7)
    other = one._replace(features=jax.tree.map(lambda x: x + 1, one.features))
    told = {
        RecordingMaterial(None, None, Split(train, held_out)).features_fingerprint("weights")
        for train, held_out in ((one, None), (other, None), (one, one), (one, other))
    }
    assert len(told) == 4


def test_every_window_around_a_frame_is_drawn():
    material, rng = recorded([3, 20, 4], 27), np.random.default_rng(0)
    drawn = {material.window(10, 5, rng).start for _ in range(200)}
    assert drawn == set(range(6, 11))
    assert {material.window(21, 5, rng).start for _ in range(200)} == {17, 18}
    assert {material.window(1, 5, rng) for _ in range(5)} == {range(3)}


@pytest.mark.slow
def test_a_frame_of_unknown_azimuth_counts_nowhere(clips, weights):  # noqa: F811
    made = settings(clips, weights)
    task = sequences.create(made)
    split = recording_data.load(recording_data.find(made), made, weights_of(clips))
    batch = recording_data.draw(split.train, made, 0)
    assert np.isnan(batch.azimuth_deg[batch.mask]).any()
    frames = recording_data.gather(split.train.features, batch)
    frames = jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == np.float16 else x, frames)
    params = jax.jit(task.module.init)(jax.random.key(0), frames)["params"]

    @jax.jit
    def loss(azimuth):
        return jax.value_and_grad(task.loss)(params, frames, azimuth, jax.random.key(1))

    value, gradient = loss(batch.azimuth_deg)
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
    # By hand: the mean over the known frames of what each gives alone.
    known = np.argwhere(~np.isnan(batch.azimuth_deg))
    one_each = [
        loss(np.where(np.arange(batch.azimuth_deg.size).reshape(batch.mask.shape) == i,
                      batch.azimuth_deg, np.nan))[0]
        for i in (known @ [batch.mask.shape[1], 1]).tolist()
    ]  # fmt: skip
    assert value == pytest.approx(np.mean(one_each), rel=1e-4)
    nothing, gradient = loss(np.full_like(batch.azimuth_deg, np.nan))
    assert nothing == 0.0
    assert not any(np.any(x) for x in jax.tree.leaves(gradient))


def weights_of(clips):
    header = parquet.header_of(pq.read_schema(clips / "walks.parquet"))
    return header["features"]["weights_sha256"]


@pytest.mark.parametrize(
    ("changes", "error", "line"),
    [
        ({"recordings.labels": ""}, UsageError, "scores and labels are given together"),
        ({"recordings.folds": 1}, UsageError, "config.recordings.folds: must be at least 2"),
        ({"fold": 5}, UsageError, "config.fold: must be below config.recordings.folds"),
        ({"fold": 1}, UsageError, "0 held out in fold 1 of 5; recordings are in: 0, 2, 3, 4"),
        ({"recordings.group": "owner"}, UsageError, "no column 'owner': doors, car"),
        ({"recordings.scores": "none.parquet"}, CarjaxError, "no such file: none.parquet"),
        ({"recordings.labels": "none.csv"}, CarjaxError, "none.csv: no such file"),
        ({"input_size": 96}, CarjaxError, "at 64 pixels, not of efficientnet_lite0 at 96"),
        ({"backbone": "efficientnet_lite1"}, CarjaxError, "not of efficientnet_lite1 at 64"),
        ({"head.grid": 3, "cells": 9}, UsageError, "3 does not divide the 8 cells"),
    ],
)
def test_an_error_is_one_line_and_leaves_no_folder(
    clips,
    weights,  # noqa: F811
    tmp_path,
    changes,
    error,
    line,
):
    with pytest.raises(error) as raised:
        run(settings(clips, weights, **changes), tmp_path / "run")
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_errors_of_labels_and_of_the_backbone(clips, weights, tmp_path):  # noqa: F811
    made = settings(clips, weights)

    def fails(line, labels=None):
        if labels is not None:
            made.recordings.labels = str(tmp_path / "walks.csv")
            (tmp_path / "walks.csv").write_text(labels)
        with pytest.raises(CarjaxError) as raised:
            run(made, tmp_path / "run")
        assert line in str(raised.value)

    fails("no column azimuth_deg", "source,time_s,doors\nwalks/a.mp4,0,5\n")
    fails("no frame of known azimuth_deg", "source,time_s,azimuth_deg\nwalks/a.mp4,0,\n")
    made.recordings.group = "car"
    text = "source,time_s,azimuth_deg,car\nwalks/a.mp4,0,10,x\nwalks/a.mp4,0.25,20,{}\n"
    fails("'walks/a.mp4' needs one car, and has 'x' and 'y'", text.format("y"))
    fails("'walks/a.mp4' needs one car, and has nothing", text.replace("x", "").format(""))
    found = recording_data.find(settings(clips, weights))
    with pytest.raises(CarjaxError, match=r"walks\.parquet: its features are of eff.* not ffff"):
        recording_data.load(found, made, "f" * 64)


# ------------------------------------------------------------------------------ the experiment


@pytest.mark.slow
def test_the_samples_own_scores_have_the_figures_of_the_sample(tiny_model, tmp_path, monkeypatch):
    clip, count = tmp_path / "samples" / recorded_clips.SAMPLE.name, 36
    clip.parent.mkdir()
    recorded_clips.write_clip(clip, recorded_clips.images(count))
    shutil.copy(recorded_clips.SAMPLE.with_suffix(".csv"), clip.parent)
    scored = scan.score_video(tiny_model, clip, fps="all", features="grid")
    # Scored but once: two runs differ in the last bits.
    monkeypatch.setattr(scan, "score_video", lambda *_, **__: scored)
    out, labels = tmp_path / "x.parquet", tmp_path / "walks.csv"
    info = feature_columns.of_model(tiny_model, "grid")
    pq.write_table(parquet.to_arrow(scored[0], "mine.mp4", info), out)
    with labels.open("w", newline="") as f:
        table = csv.writer(f)
        table.writerow(["source", "time_s", "azimuth_deg", "spoilt", "brand", "seats", "tyres"])
        for row in recorded_clips.truth()[:count]:
            known = [row["azimuth_deg"], row["degraded"], "Toyota", "5", "4"]
            table.writerow(["mine.mp4", row["time_s"], *known])
    (theirs,) = recordings.read(tiny_model, tmp_path)
    head = head_of(tiny_model)
    (own,) = recordings.labelled(out, labels, tiny_model, [head])
    assert len(own) == len(theirs) == count
    assert own.spoilt.any()
    assert own.speaks.any()
    assert set(own.probs) == {"brand", "seats"}
    assert own.labels == {name: theirs.labels[name] for name in own.probs}
    ways = methods.standard(Motion()) | methods.sequences({"toy": head})
    mine, built_in = (temporal_run._of_video(f, ways) for f in (own, theirs))
    assert set(mine) == set(built_in) == {*ways}
    for way in ways:
        for name, figure in built_in[way].items():  # a path has no likelihood: None
            close = figure if figure is None else pytest.approx(figure, rel=1e-5)  # float32 truth
            assert mine[way][name] == close
    mine, built_in = (
        temporal_run._classes_of_video(f, consensus.FITTED, tiny_model) for f in (own, theirs)
    )
    assert mine == {name: built_in[name] for name in own.probs}


def test_turntables_are_scored_in_the_colours_of_their_pictures(tiny_model, tmp_path, monkeypatch):
    folder = tmp_path / "spins" / "red"
    folder.mkdir(parents=True)
    lines = ["file,make,azimuth_deg,type,doors,seats"]
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((48, 64, 3), (20, 30, 200), np.uint8))
        lines.append(f"red/{i}.png,Honda,{10 * i},hatchback,5,5")
    (tmp_path / "spins" / "labels.csv").write_text("\n".join(lines))
    seen = []

    make = scoring.Scorer

    def watched(*args, **options):
        scorer = make(*args, **options)

        def score(frames):
            seen.append(frames)
            return scorer(frames)

        return score

    monkeypatch.setattr(scoring, "Scorer", watched)
    (spin,) = recordings.read(tiny_model, tmp_path)
    assert spin.azimuth_deg.tolist() == [0, 10, 20]
    assert {tuple(frames[0, 20, 30]) for frames in seen} == {(200, 30, 20)}


def test_frames_without_a_label_are_seen_and_not_measured(tiny_model, clips, tmp_path):
    labels = tmp_path / "walks.csv"
    labels.write_text("source,time_s,azimuth_deg\nwalks/c.mp4,0.0833,30\nwalks/c.mp4,1.5,90\n")
    (own,) = recordings.labelled(clips / "walks.parquet", labels, tiny_model)
    assert len(own) == 33
    assert not own.probs
    ways = methods.standard(Motion())
    figures = temporal_run._of_video(own, ways)
    for way, method in ways.items():
        said = method(own).azimuth_deg[[1, 18]]
        error = np.abs((said - [30, 90] + 180) % 360 - 180)
        assert figures[way]["frames"] == 2
        assert figures[way]["mederr_deg"] == pytest.approx(np.median(error))
    labels.write_text("source,time_s,doors\nwalks/c.mp4,0,5\n")
    (own,) = recordings.labelled(clips / "walks.parquet", labels, tiny_model)
    assert set(temporal_run._of_video(own, ways)["filter"]) == {"median_step_deg", "jumps"}


def test_labels_are_read_as_pandas_writes_them(tiny_model, clips, tmp_path, caplog):
    labels = tmp_path / "walks.csv"
    header = "source,time_s,azimuth_deg,spoilt,doors,brand\n"
    rows = ["walks/c.mp4,0.0833,30,0.0,5.0,toyta\n", "walks/c.mp4,1.5,90,1.0,,\n"]
    rows.append("walks/c.mp4,2,99,False,5,toyta\n")
    labels.write_text(header + "".join(rows))
    (own,) = recordings.labelled(clips / "walks.parquet", labels, tiny_model)
    assert own.spoilt.sum() == 1
    (doors,) = (a for a in tiny_model.spec.schema if a.name == "doors")
    assert own.labels == {"doors": doors.classes.index("5")}
    assert "the brand of walks/c.mp4, 'toyta', is none that the model knows" in caplog.text


def test_a_class_that_looks_like_a_number_stays_itself(tmp_path):
    path = tmp_path / "walks.csv"
    path.write_text("source,time_s,engine,doors\na.mp4,0,2.0,5.0\na.mp4,1,2.0,5\n")
    known = frame_labels.read(path)
    at, _ = known.at("a.mp4", np.array([0.0, 1.0]))
    for attribute, name in (
        (Categorical("engine", ("1.6", "2.0")), "2.0"),
        (Categorical("doors", ("3", "5")), "5"),
    ):
        assert recordings._one_class(known, "a.mp4", attribute, at[attribute.name]) == name


def test_what_is_wrong_with_recordings_is_said_in_one_line(
    tiny_model,
    clips,
    tmp_path,
    monkeypatch,
):
    monkeypatch.setattr(models, "load", lambda path, **_: tiny_model)
    words = ["temporal", "--novideos", f"--out={tmp_path / 'o'}"]

    def fails(line, scores=clips / "walks.parquet", labels=clips / "walks.csv", more=()):
        own = [f"--recordings={scores}", f"--labels={labels}"]
        with pytest.raises((CarjaxError, UsageError)) as raised:
            experiment.main([*words, *own, *more])
        assert line in str(raised.value)
        assert "\n" not in str(raised.value)

    fails("--recordings and --labels are given together", labels="")
    fails("no such file", scores=tmp_path / "none.parquet")
    fails("none.csv: no such file", labels=tmp_path / "none.csv")
    fails("needs --runs", scores="")
    wrong = tmp_path / "walks.csv"
    wrong.write_text("source,time_s,doors\nwalks/a.mp4,0,5\nwalks/a.mp4,1,3\n")
    fails("walks.csv: 'walks/a.mp4' is of one doors: 3 or 5?", labels=wrong)
    wrong.write_text("source,time_s,doors\nwalks/z.mp4,0,5\n")
    fails("line 2: 'walks/z.mp4' is not in", labels=wrong)
    head = dataclasses.replace(head_of(tiny_model), card={"backbone_sha256": "f" * 64})
    sequence_model.save(head, tmp_path / "head.safetensors")
    heads = [f"--heads={tmp_path / 'head.safetensors'}"]
    fails("not ffffffffffff…: score with that backbone", more=heads)
    plain = tmp_path / "plain.parquet"
    table, sources = parquet.read(clips / "walks.parquet")
    pq.write_table(parquet.to_arrow(table, sources), plain)
    fails("it has no features: score with --save_features", scores=plain, more=heads)
    other = dataclasses.replace(table, schema=table.schema[::-1])
    pq.write_table(parquet.to_arrow(other, sources), plain)
    fails("scored by a model of other attributes", scores=plain)
    assert not (tmp_path / "o").exists()


def head_of(tiny_model):
    """A sequence head of the tiny model's backbone, untrained."""
    head = HeadSpec(Angular("orientation"), grid=2, channels=4, hidden=8)
    spec = SequenceSpec(
        "toy",
        head,
        module="toy_sequence_model",
        width=8,
        backbone=tiny_model.spec.backbone,
        input_size=tiny_model.spec.input_size,
    )
    params = jax.jit(SequenceHead(spec).init)(jax.random.key(0), example_frames(spec))["params"]
    card = {"backbone_sha256": tiny_model.card["backbone_sha256"]}
    return sequence_model.SequenceModel(params, spec, card)
