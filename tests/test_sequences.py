"""Sequence heads train on simulated walks: what is drawn, what is held out, resuming, the file."""

import csv
import json
import math

import cv2
import jax
import numpy as np
import pytest
import tiny_run

from carjax.cli.main import main as command_line
from carjax.errors import CarjaxError, UsageError
from carjax.evaluation import metrics
from carjax.features import Features
from carjax.temporal import sequence_model, walks
from carjax.training import config_check, data, frame_batch, loop, sequences, walk_data

PHOTOS, MODELS = 24, 3

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def root(tmp_path):
    """Three models of eight photos, whose colours tell the azimuth; fold i is model i."""
    folder = tmp_path / "stanford_cars"
    (folder / "images").mkdir(parents=True)
    (tmp_path / "splits").mkdir()
    rows = []
    for i in range(PHOTOS):
        azimuth = 45.0 * (i % 8) + 5 * (i // 8)
        angle = math.radians(azimuth)
        colour = 128 + 100 * np.array([math.cos(angle), math.sin(angle), 0.0])
        image = np.full((40, 60, 3), colour, np.uint8)
        image[:, 30:, 2] = np.uint8(128 + 100 * math.sin(angle))
        cv2.imwrite(str(folder / "images" / f"{i:02d}.png"), image)
        rows.append([f"{i:02d}.png", f"model {i // 8}", "" if i == 5 else str(azimuth)])
    with (folder / "labels.csv").open("w", newline="") as f:
        csv.writer(f).writerows([["file", "class_name", "azimuth_deg"], *rows])
    with (tmp_path / "splits" / "stanford_cars.csv").open("w", newline="") as f:
        lines = [[row[0], i // 8] for i, row in enumerate(rows)]
        csv.writer(f).writerows([["file", "fold"], *lines])
    return tmp_path


def settings(root, model="toy", **changes):
    made = sequences.default_config(model)
    made.backbone = "tiny"
    made.input_size = tiny_run.SIZE
    made.splits = str(root / "splits")
    made.update(dict(views=2, batch=4, steps=6, chunk=2, warmup=0, fold=1))
    made.cells = made.head.grid = 2
    made.head.channels, made.head.hidden = 4, 8
    made.sequence.module = "toy_sequence_model" if model == "toy" else ""
    made.sequence.width, made.sequence.frames = 8, 10
    made.walk.frames, made.walk.speed_deg_s, made.walk.tolerance_deg = 24, 30.0, 15.0
    made.update(changes)
    return made


def run(made, root, name="run"):
    return loop.train_and_evaluate(made, root / name, root, cache_dir=root / "cache", quiet=True)


@pytest.mark.slow
def test_a_model_from_outside_trains_through_its_config_and_loads(tiny, root, monkeypatch, capsys):
    monkeypatch.setattr("carjax.runtime.set_up_jax", lambda: None)
    made = settings(root, steps=60, chunk=30, lr=0.02)
    file = root / "c.py"
    file.write_text(
        "import ml_collections\ndef get_config():\n"
        f"    return ml_collections.ConfigDict({made.to_dict()!r})\n"
    )
    words = ["train", f"--config={file}", f"--workdir={root / 'run'}", f"--data_dir={root}"]
    assert command_line([*words, f"--cache_dir={root / 'cache'}", "--quiet"]) == 0
    assert "orientation: trained on 15 photos" in capsys.readouterr().out  # one has no label
    result = json.loads((root / "run" / "result.json").read_text())
    assert set(result["held_out"]) == set(metrics.ANGULAR_METRICS)
    with (root / "run" / "metrics.csv").open() as f:
        first, last = (float(row["loss"]) for row in csv.DictReader(f))
    assert last < first - 0.2
    found = sequence_model.load(root / "run" / "head.safetensors")
    assert (found.spec.model, found.spec.module) == ("toy", "toy_sequence_model")
    assert found.card["models"] == ["model 0", "model 2"]
    assert len(found.training_hashes) == 15
    # What was measured is what the file says of the walks of the model that was held out.
    saved = np.load(root / "run" / "held_out.npz")
    assert saved["names"].shape == saved["targets"].shape == (2, 24)
    assert set(saved["names"].ravel()) <= {
        "",
        *(f"stanford_cars/{i:02d}.png" for i in range(8, 16)),
    }
    held_out = held_out_of(made, root)
    np.testing.assert_array_equal(saved["targets"], held_out.targets)
    for i, frames in enumerate(rows_of(held_out.features)):
        seen = frames.mask
        density = found(*frames)
        np.testing.assert_allclose(density.mu[seen], saved["mu"][i][seen], atol=2e-3)
        np.testing.assert_allclose(density.kappa[seen], saved["kappa"][i][seen], rtol=2e-3)


def materials(made, root, held_out):
    task = sequences.create(made)
    module, params = tiny_run.backbones.load_pretrained("tiny")
    load = [(made, None), (sequences.spoilt_config(made), sequences.SPOILT_VIEWS)]
    plain, spoilt = (
        data.load_sources(c, task, root, module, params, "", views=v, cache_dir=root / "cache")
        for c, v in load
    )
    return walk_data.photo_views(plain, spoilt, task, made.views, held_out=held_out)


def held_out_of(made, root):
    return walk_data.held_out_walks(materials(made, root, True), made)


def rows_of(frames):
    rows = len(frames.time_s)
    return [jax.tree.map(lambda x, i=i: x[i], frames) for i in range(rows)]


def test_only_chosen_views_are_computed_and_walks_gather_theirs(tiny, root):
    made = settings(root, views=4)
    material = materials(made, root, False)
    built = sorted(len(list(p.glob("grid_*.npy"))) for p in (root / "cache").iterdir())
    assert built == [2, 4]
    assert material.plain == 4
    assert material.features.grid.shape == (6, 15, 2, 2, 8)
    assert [len(photos) for photos in material.models] == [7, 8]
    walk = walks.Walk(
        photo=np.arange(4, dtype=np.int32), view=np.array([0, 1, 2, 3]),
        spoilt=np.array([False, False, True, True]), azimuth_deg=np.zeros(4, np.float32),
        label_deg=np.zeros(4, np.float32), time_s=np.zeros(4, np.float32), mask=np.ones(4, bool),
    )  # fmt: skip
    assert material.batch([walk], None).view.tolist() == [[0, 1, 4, 5]]
    drawn = material.batch([walk] * 200, np.random.default_rng(0)).view
    assert [sorted(set(column)) for column in drawn.T.tolist()] == [[0, 2], [1, 3], [4], [5]]
    frames = frame_batch.gather(material.features, material.batch([walk], None))
    for t, view in enumerate([0, 1, 4, 5]):
        np.testing.assert_array_equal(frames.features.grid[0, t], material.features.grid[view, t])


def test_walks_of_a_step_depend_on_seed_and_step_alone_and_stay_with_one_model(tiny, root):
    made = settings(root)
    material = materials(made, root, False)
    many = frame_batch.stack(walk_data.draw(material, made, step) for step in range(3, 8))
    again = walk_data.draw(material, made, 5)
    for whole, one in zip(many, again, strict=True):
        np.testing.assert_array_equal(whole[2], one)
    assert not np.array_equal(many.row[0], many.row[1])
    made.seed = 1
    assert not np.array_equal(walk_data.draw(material, made, 5).row, again.row)
    model_of = np.repeat([0, 1], [7, 8])
    for photo, mask in zip(many.row.reshape(-1, 10), many.mask.reshape(-1, 10), strict=True):
        assert len(set(model_of[photo[mask]])) <= 1


def test_a_long_walk_is_cut_anywhere_and_a_short_one_padded():
    spec = walks.WalkSpec(frames=20, tolerance_deg=180.0)
    walk = walks.simulate([0.0, 90.0], spec, np.random.default_rng(0))
    firsts = set()
    for seed in range(60):
        part = walk_data.cut(walk, 15, np.random.default_rng(seed))
        first = walk.time_s.tolist().index(part.time_s[0])
        np.testing.assert_array_equal(part.azimuth_deg, walk.azimuth_deg[first : first + 15])
        firsts.add(first)
    assert firsts == set(range(6))
    short = walk._replace(mask=np.arange(20) < 4)
    part = walk_data.cut(short, 25, np.random.default_rng(0))
    assert part.mask.tolist() == [True] * 4 + [False] * 21
    assert (np.diff(part.time_s) >= 0).all()


@pytest.mark.slow
def test_a_killed_run_resumes_and_repeats_its_losses_exactly(tiny, root, monkeypatch):
    made = settings(root, fold=-1)
    run(made, root, "whole")
    with tiny_run.killed(monkeypatch, step=4):
        run(made, root, "killed")
    run(made, root, "killed")
    assert (root / "whole" / "metrics.csv").read_bytes() == (
        root / "killed" / "metrics.csv"
    ).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["tcn", *(pytest.param(m, marks=pytest.mark.slow) for m in ("gru", "attention"))]
)
def test_every_model_of_carjax_trains(tiny, root, model):
    result = run(settings(root, model, steps=4), root)
    assert math.isfinite(result["held_out"]["loglik_nats_per_rad"])
    assert sequence_model.load(root / "run" / "head.safetensors").spec.model == model


@pytest.mark.slow
def test_padding_counts_neither_in_the_loss_nor_in_the_metrics(tiny, root):
    made = settings(root)
    task, material = sequences.create(made), materials(made, root, False)
    batch = walk_data.draw(material, made, 0)
    batch = batch._replace(mask=np.arange(10) < np.array([[10], [7], [3], [0]]))
    frames = frame_batch.gather(material.features, batch)
    params = task.module.init(jax.random.key(0), frames)["params"]

    def loss(azimuth, rows=slice(None)):
        part = jax.tree.map(lambda x: x[rows], frames)
        return float(task.loss(params, part, azimuth[rows], jax.random.key(1)))

    wrong = np.where(batch.mask, batch.azimuth_deg, 77.0)
    assert loss(wrong) == loss(batch.azimuth_deg)
    assert loss(batch.azimuth_deg, slice(3, 4)) == 0.0
    predictions = jax.device_get(task.predict(params, frames))
    targets = np.where(batch.mask, batch.azimuth_deg, np.nan)
    measured = task.metrics(predictions, targets)
    error = np.abs((np.degrees(predictions["mu"][..., 0]) - targets + 180) % 360 - 180)
    assert measured["maad_deg"] == pytest.approx(np.nanmean(error), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda c: c.walk.update(spoilt=1.5), r"^config\.walk\.spoilt: must be in \[0, 1\)"),
        (lambda c: c.walk.update(frames=0), r"^config\.walk\.frames: must be above 0, not 0"),
        (lambda c: c.spoilt.update(crop=0.9), r"^config\.spoilt\.crop: must be 0 to 0\.499"),
        (lambda c: delattr(c.walk, "fps"), "^config.walk: fps unknown or missing; it has: fps, fr"),
        (lambda c: delattr(c.spoilt, "tint"), "^config.spoilt: tint unknown or missing"),
        (lambda c: c.sequence.update(model="lstm"), "config.sequence.model: no 'lstm'"),
        (lambda c: c.sequence.update(frames=0), "config.sequence.frames: must be at least 1"),
        (lambda c: c.update(views=1), "config.views: walks need mirror images"),
        (lambda c: c.update(cache=False), "config.cache: sequence heads learn from cached"),
    ],
)
def test_a_wrong_setting_is_named(change, line):
    made = sequences.default_config("gru")
    with made.unlocked():
        change(made)
    with pytest.raises(UsageError, match=line):
        sequences.check(made)


@pytest.mark.slow
def test_photos_without_a_model_are_an_error(tiny, root):
    table = root / "stanford_cars" / "labels.csv"
    table.write_text(table.read_text().replace("model 2", ""))
    with pytest.raises(CarjaxError, match="photos without a model"):
        run(settings(root), root)


def test_the_settings_pass_the_checks_of_every_config():
    for name in ("tcn", "gru", "attention"):
        made = sequences.default_config(name)
        config_check.check(made)
        sequences.check(made)
        assert made.to_dict()["sequence"]["model"] == name


def test_what_is_learned_is_the_path_of_the_camera_and_not_the_label_of_the_photo():
    features = Features(np.zeros((4, 4, 1), np.float16), np.zeros((4, 4, 1, 1, 1), np.float16))
    own = walk_data.PhotoViews(features, np.zeros(4), (np.arange(4),), np.array(list("abcd")))
    spec = walks.WalkSpec(frames=30, tolerance_deg=60.0)
    walk = walks.simulate([0.0, 90.0, 180.0, 270.0], spec, np.random.default_rng(0))
    assert np.abs(walk.azimuth_deg - walk.label_deg).max() > 10
    np.testing.assert_array_equal(own.batch([walk], None).azimuth_deg[0], walk.azimuth_deg)
