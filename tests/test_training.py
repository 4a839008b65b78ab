"""Training: what is frozen stays, runs resume exactly, and each task learns what it should."""

import csv
import errno
import functools
import hashlib
import importlib.util
import io
import json
import logging
import math
import os
import pathlib
import shutil
import signal
import struct
import sys
from types import SimpleNamespace

import cv2
import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
import tiny_run
from tensorboardX.proto.event_pb2 import Event
from tiny_run import settings

from carjax import (
    backbones,
    files,
    heads,
    interrupts,
    localise,
    model,
    training,
    weights_file,
)
from carjax.attributes import CAR, CONTENT, Angular, Categorical, find
from carjax.backbones import registry
from carjax.cli import prepare as prepare_command
from carjax.cli import train as train_command
from carjax.cli.main import main as command_line
from carjax.datasets import photos
from carjax.errors import CarjaxError, UsageError
from carjax.evaluation import metrics
from carjax.features import Features
from carjax.training import (
    checkpoints,
    config_check,
    data,
    live,
    loop,
    losses,
    material,
    optimiser,
    run_folder,
    steps,
    tasks,
)
from carjax.training import config as configs


@pytest.fixture
def root(tmp_path):
    """Data sets in the real layout: 20 photos, whose colour tells the number of doors."""
    rows = []
    (tmp_path / "stanford_cars" / "images").mkdir(parents=True)
    (tmp_path / "car_boxes" / "images").mkdir(parents=True)
    (tmp_path / "splits").mkdir()
    boxes = []
    for i in range(20):
        name = f"{i:05d}.png"
        image = np.full((40, 60, 3), 30, np.uint8)
        image[..., 2 * (i % 2)] = 220  # blue or red
        cv2.imwrite(str(tmp_path / "stanford_cars" / "images" / name), image)
        doors = "" if i == 19 else "24"[i % 2]
        rows.append([name, "model", "Audi", "sedan", doors, "5", str(18.0 * i)])
        image[10:30, 20:40] = 255
        cv2.imwrite(str(tmp_path / "car_boxes" / "images" / name), image)
        boxes.append([name, *(["", "", "", ""] if i == 3 else [20, 10, 40, 30])])
    for name, table, header, lines in (
        ("stanford_cars", "labels.csv", "file,class_name,make,type,doors,seats,azimuth_deg", rows),
        ("car_boxes", "boxes.csv", "file,left,top,right,bottom", boxes),
    ):
        with (tmp_path / name / table).open("w", newline="") as f:
            csv.writer(f).writerows([header.split(","), *lines])
        with (tmp_path / "splits" / f"{name}.csv").open("w", newline="") as f:
            csv.writer(f).writerows(
                [["file", "fold"], *([r[0], i // 4] for i, r in enumerate(rows))]
            )
    return tmp_path


def run(config, root, name="run"):
    return loop.train_and_evaluate(config, root / name, root, cache_dir=root / "cache", quiet=True)


# --- What trains, and what does not ---------------------------------------------------------------


@functools.cache
def car_params(backbone="efficientnet_lite0"):
    """The whole model's pytree, random, with all five heads and the car box."""
    spec = model.Spec(
        backbone,
        tuple(heads.HeadSpec(a, grid=1, hidden=4) for a in CAR),
        localise.LocaliseSpec(input_size=32, channels=4),
        32,
    )
    shapes = dict(model.expected_params(spec))
    module = registry.create(backbone)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes["backbone"] = jax.eval_shape(
        lambda x: module.init(jax.random.key(0), x)["params"], images
    )
    rng = np.random.default_rng(0)
    return spec, jax.tree.map(lambda s: rng.normal(0, 0.05, s.shape).astype(np.float32), shapes)


def flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep="/")


def test_head_mask_is_true_on_one_head_only():
    _, params = car_params()
    for name in ("brand", "localise"):
        mask = flat(training.head_mask(params, name))
        assert mask.keys() == flat(params).keys()
        start = "localise/" if name == "localise" else "heads/brand/"
        assert {k for k, v in mask.items() if v} == {k for k in mask if k.startswith(start)}
    with pytest.raises(UsageError, match="wheels"):
        training.head_mask(params, "wheels")


def test_a_branch_of_unknown_use_is_refused():
    with pytest.raises(ValueError, match="neither trained nor frozen: neck"):
        training.head_mask({"neck": {"w": 0}, "heads": {"type": {"w": 0}}}, "type")


def test_no_optimiser_state_for_a_frozen_leaf():
    _, params = car_params()
    mask = training.head_mask(params, "brand")
    state = optimiser.make_optimiser(mask, optimiser.OptimiserConfig(1e-3, 10)).init(params)
    trained = sorted(x.shape for x in jax.tree.leaves(params["heads"]["brand"]))
    moments = sorted(x.shape for x in jax.tree.leaves(state) if x.ndim)
    assert moments == sorted([s for s in trained if s] * 2)  # Adam's two


def pixel_loss(spec, name):
    """A loss from pixels through the whole backbone to one head."""
    backbone = registry.create(spec.backbone)
    module = heads.create(spec.head(name))

    def loss_fn(params, images, labels):
        features = backbone.apply({"params": params["backbone"]}, images)
        logits = module.apply({"params": params["heads"][name]}, features).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return loss_fn


def count(jaxpr, primitive):
    """How often a primitive occurs in a jaxpr and all that are inside it."""
    total = sum(eqn.primitive.name == primitive for eqn in jaxpr.eqns)
    for inner in _inner(jaxpr):
        total += count(inner, primitive)
    return total


def _inner(jaxpr):
    for eqn in jaxpr.eqns:
        for value in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield inner


@pytest.mark.slow
def test_no_backward_convolution_through_the_backbone():
    spec, params = car_params()
    loss_fn = pixel_loss(spec, "brand")
    images, labels = jnp.zeros((2, 32, 32, 3)), jnp.zeros(2, jnp.int32)
    mask = training.head_mask(params, "brand")
    adamw = optimiser.make_optimiser(mask, optimiser.OptimiserConfig(1e-3, 10))
    trained, frozen = optimiser.split(params, mask)

    def step(trained, frozen, state, images, labels):
        return optimiser.update_step(
            adamw, lambda p: loss_fn(p, images, labels), trained, frozen, state
        )

    forward = jax.make_jaxpr(loss_fn)(params, images, labels)
    ours = jax.make_jaxpr(step)(trained, frozen, adamw.init(params), images, labels)
    naive = jax.make_jaxpr(jax.grad(loss_fn))(params, images, labels)
    convolutions = count(forward.jaxpr, "conv_general_dilated")
    assert convolutions > 10
    assert count(ours.jaxpr, "conv_general_dilated") == convolutions
    assert count(naive.jaxpr, "conv_general_dilated") > convolutions
    # Pointwise convolutions are matrix products: the backward pass adds two per layer of the head,
    # less the one towards the features.
    added = count(ours.jaxpr, "dot_general") - count(forward.jaxpr, "dot_general")
    assert added <= 4


def test_weight_decay_moves_no_frozen_leaf_and_no_bias():
    params = {
        "backbone": {"w": jnp.ones((2, 2))},
        "heads": {n: {"w": jnp.ones((2, 2)), "b": jnp.ones(2)} for n in ("type", "brand")},
    }
    mask = training.head_mask(params, "brand")
    config = optimiser.OptimiserConfig(0.1, 10, warmup=0, weight_decay=0.5)
    adamw = optimiser.make_optimiser(mask, config)
    trained, frozen = optimiser.split(params, mask)
    moved, _, _ = optimiser.update_step(
        adamw,
        lambda p: 0.0 * sum(x.sum() for x in jax.tree.leaves(p)),
        trained,
        frozen,
        adamw.init(params),
    )
    after = flat(optimiser.join(moved, frozen))
    for path, before in flat(params).items():
        if path == "heads/brand/w":
            np.testing.assert_allclose(after[path], 1 - 0.1 * 0.5, rtol=1e-5)
        else:
            np.testing.assert_array_equal(after[path], before)


def test_training_one_head_leaves_backbone_and_others_bit_identical():
    spec, params = car_params()
    module = heads.create(spec.head("brand"))
    mask = training.head_mask(params, "brand")
    config = optimiser.OptimiserConfig(0.01, 5, warmup=0, weight_decay=0.5)
    adamw = optimiser.make_optimiser(mask, config)
    trained, frozen = optimiser.split(params, mask)
    rng = np.random.default_rng(1)
    features = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=(4, *x.shape[1:])), jnp.float32),
        registry.example_features(spec.backbone, 32),
    )

    @jax.jit
    def step(trained, frozen, state):
        def loss_fn(p):
            logits = module.apply({"params": p["heads"]["brand"]}, features).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(4)).mean()

        return optimiser.update_step(adamw, loss_fn, trained, frozen, state)

    state = adamw.init(params)
    for _ in range(5):
        trained, state, _ = step(trained, frozen, state)
    after = flat(optimiser.join(trained, frozen))
    for path, before in flat(params).items():
        same = np.asarray(after[path]).tobytes() == before.tobytes()
        assert same != path.startswith("heads/brand/"), path


# --- Losses ---------------------------------------------------------------------------------------


def test_mixup_by_hand():
    targets = jnp.array([[0.05, 0.85, 0.05, 0.05], [0.85, 0.05, 0.05, 0.05]])
    features = Features(jnp.array([[0.0], [1.0]]), jnp.zeros((2, 1, 1, 1)))
    mixed, wanted = losses.mixup(jax.random.key(3), 0.4, features, targets)
    share = 1.0 - float(mixed.pooled[0, 0])
    assert 0.0 < share < 1.0
    np.testing.assert_allclose(mixed.pooled[1, 0], share, atol=1e-6)
    np.testing.assert_allclose(wanted[0], share * targets[0] + (1 - share) * targets[1], rtol=1e-5)
    assert losses.mixup(jax.random.key(3), 0.0, features, targets)[0] is features


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0, 1, 1], [0, 0, 1, 1], 1.0),
        ([0, 0, 2, 1], [1, 0, 3, 1], 1 / 3),  # the hull is the union
        ([0, 0, 1, 1], [1, 1, 2, 2], -0.5),  # no overlap, hull 4, union 2
        ([0, 0, 1, 1], [3, 0, 4, 1], -0.5),
    ],
)
def test_giou_by_hand(a, b, expected):
    got = losses.giou(jnp.array(a, jnp.float32), jnp.array(b, jnp.float32))
    assert abs(float(got) - expected) < 1e-6


@pytest.mark.slow
def test_box_loss_prefers_the_truth_and_skips_targets_without_area():
    side = 10
    target = jnp.array([[0.2, 0.3, 0.8, 0.9]])
    centre, on_car = losses.centre_targets(target[0], side)
    # Cell centres lie at 0.05, 0.15, …: two by two of them in the middle two fifths of the box.
    assert sorted(map(tuple, np.argwhere(centre.reshape(side, side) > 0).tolist())) == [
        (5, 4),
        (5, 5),
        (6, 4),
        (6, 5),
    ]
    assert abs(centre.sum() - 1.0) < 1e-6
    assert on_car.sum() == 36
    speck, _ = losses.centre_targets(jnp.array([0.0, 0.0, 0.01, 0.01]), side)
    assert speck[0] == 1.0
    right = jnp.broadcast_to(target[:, None], (1, side * side, 4))
    at_centre = jnp.where(centre > 0, 9.0, -9.0)[None]
    best = losses.box_loss(at_centre, right, target)
    assert abs(best - math.log(4)) < 1e-3  # the entropy of four equal cells
    assert losses.box_loss(-at_centre, right, target) > best + 1
    assert losses.box_loss(at_centre, right + 0.1, target) > best + 0.1
    empty = jnp.concatenate([target, jnp.array([[0.5, 0.5, 0.5, 0.5]])])
    both = losses.box_loss(at_centre.repeat(2, 0), right.repeat(2, 0), empty)
    assert abs(both - best) < 1e-6


def test_a_mirrored_view_has_the_negative_azimuth(root):
    task = tasks.create(settings(root, "orientation"))
    found = data.read_partition(settings(root, "orientation"), root, "stanford_cars").photos
    window = np.zeros((20, 4))
    np.testing.assert_array_equal(task.targets(found, window, 0)[:3], [0, 18, 36])
    np.testing.assert_array_equal(task.targets(found, window, 3)[:3], [0, -18, -36])


def test_balance_counts_mirrored_views(root):
    found = data.read_partition(settings(root, "orientation"), root, "stanford_cars").photos
    found.labels["orientation"][:] = [90.0] * 15 + [270.0] * 3 + [0.0] * 2
    weights = tasks.create(settings(root, "orientation", balance=1.0)).weights(found)
    # Mirrored, left and right are equally frequent: 18 each; the front is its own mirror image.
    np.testing.assert_allclose(weights, [1 / 18] * 18 + [1 / 4] * 2)
    straight = settings(root, "orientation", balance=1.0, mirror=False)
    np.testing.assert_allclose(
        tasks.create(straight).weights(found), [1 / 15] * 15 + [1 / 3] * 3 + [1 / 2] * 2
    )


@pytest.mark.parametrize("mirror", [pytest.param(True, marks=pytest.mark.slow), False])
def test_nothing_is_mirrored_that_should_not_be(tiny, root, mirror):
    config = settings(root, "orientation", views=2, mirror=mirror)
    task = tasks.create(config)
    backbone, params = backbones.load_pretrained(config.backbone)
    sources = data.load_sources(config, task, root, backbone, params, "", cache_dir=root / "cache")
    found = data.training_set(sources, task, configs.view_numbers(config))
    assert found.features.pooled.shape[0] == 2
    # Azimuths of this set are positive: a negative target is a mirrored view's.
    assert [(view < 0).any() for view in found.targets] == [False, mirror]
    live_views = next(iter(live.batches(sources, task, config, range(1)))).view.box
    assert (live_views[:, 0] > live_views[:, 2]).any() == mirror


def test_photos_of_a_model_beyond_the_cap_share_its_weight(root):
    found = data.read_partition(settings(root, "doors"), root, "stanford_cars").photos
    found.labels["doors"][:] = [0] * 10 + [1] * 10
    found.group[:] = ["A"] * 8 + ["B"] * 2 + ["B"] * 2 + ["C"] * 8
    capped = tasks.create(settings(root, "doors", parts=False, model_cap=4)).weights(found)
    np.testing.assert_allclose(capped, [0.5] * 8 + [1] * 4 + [0.5] * 8)
    both = settings(root, "doors", parts=False, model_cap=4, balance=1.0)
    np.testing.assert_allclose(tasks.create(both).weights(found), capped / 10)
    plain = tasks.create(settings(root, "doors", parts=False)).weights(found)
    np.testing.assert_array_equal(plain, 1)
    found.group[:] = ""  # photos of which no model is known are not all of one
    unnamed = tasks.create(settings(root, "doors", parts=False, model_cap=4)).weights(found)
    np.testing.assert_array_equal(unnamed, 1)


def test_batches_follow_the_weights():
    n = 4
    cumulative = np.cumsum([0.1, 0.0, 0.6, 0.3]).astype(np.float32)
    rows = np.arange(n, dtype=np.int32)
    features = Features(np.zeros((2, n, 1), np.float16), np.zeros((2, n, 1, 1, 1), np.float16))
    targets = np.stack([rows, rows + 10])
    _, drawn = steps.draw_batch(
        jax.random.key(0), data.TrainingSet(features, jnp.asarray(targets), cumulative), 20000
    )
    drawn = np.asarray(drawn)
    share = np.bincount(drawn % 10, minlength=n) / len(drawn)
    np.testing.assert_allclose(share, [0.1, 0.0, 0.6, 0.3], atol=0.02)
    assert abs((drawn >= 10).mean() - 0.5) < 0.02


# --- Runs -----------------------------------------------------------------------------------------


def test_a_run_learns_and_writes_a_bundle_of_one_head(tiny, root):
    result = run(settings(root, steps=60, chunk=30, lr=0.05, ema=0.5), root)
    assert result["photos"] == {"stanford_cars": 15}  # one has no label, four are held out
    assert result["held_out_photos"] == {"stanford_cars": 4}
    assert result["held_out"]["accuracy"] == 1.0
    bundle = model.load(root / "run" / "head.safetensors")
    assert [h.attribute.name for h in bundle.spec.heads] == ["doors"]
    assert bundle.spec.localise is None
    assert bundle.card["models"] == ["model"]  # the class_name of all
    assert len(bundle.training_hashes) == 2  # photos of one colour are the same file
    assert bundle.card["training"]["doors"]["held_out"] == result["held_out"]
    predicted = np.load(root / "run" / "held_out.npz")
    assert list(predicted["names"]) == [f"stanford_cars/{i:05d}.png" for i in range(4, 8)]
    again = metrics.categorical_metrics(predicted["log_probs"], predicted["targets"][:, 0])
    assert again == result["held_out"]
    assert run(settings(root, steps=60, chunk=30, lr=0.05, ema=0.5), root) == json.loads(
        json.dumps(result)
    )


def test_a_killed_run_resumes_and_repeats_its_losses_exactly(tiny, root, monkeypatch):
    config = settings(root, mixup=0.4, ema=0.9, fold=-1)
    run(config, root, "whole")
    with tiny_run.killed(monkeypatch, step=4):
        run(config, root, "killed")
    assert not (root / "killed" / "head.safetensors").exists()
    run(config, root, "killed")
    for name in ("metrics.csv", "head.safetensors"):
        if name == "head.safetensors":  # its card holds the seconds that the run took
            a, b = (model.load(root / d / name).params["heads"] for d in ("whole", "killed"))
            jax.tree.map(np.testing.assert_array_equal, a, b)
        else:
            assert (root / "whole" / name).read_bytes() == (root / "killed" / name).read_bytes()
    with (root / "whole" / "metrics.csv").open() as f:
        assert [row["step"] for row in csv.DictReader(f)] == ["2", "4", "6"]


@pytest.mark.slow
def test_a_run_goes_on_with_the_data_that_it_began_with(tiny, root, monkeypatch):
    config = settings(root)
    with tiny_run.killed(monkeypatch, step=4):
        run(config, root)
    labels, folds = root / "stanford_cars" / "labels.csv", root / "splits" / "stanford_cars.csv"
    for table, change in ((labels, (",2,5,", ",4,5,")), (folds, ("00000.png,0", "00000.png,1"))):
        before = table.read_text()
        table.write_text(before.replace(*change))
        with pytest.raises(CarjaxError, match="began with other photos, labels, folds"):
            run(config, root)
        table.write_text(before)
    assert run(config, root)["held_out_photos"] == {"stanford_cars": 4}


def test_a_run_goes_on_with_the_features_that_it_began_with(tiny, root, monkeypatch):
    config = settings(root)
    with tiny_run.killed(monkeypatch, step=4):
        run(config, root)
    other = jax.tree.map(lambda x: 0.1 - 0.5 * x, tiny)
    module = registry.create("tiny")
    with monkeypatch.context() as patch:
        patch.setattr(backbones, "load_pretrained", lambda *args, **rest: (module, other))
        with pytest.raises(CarjaxError, match=r"run: began with other features .*: give another"):
            run(config, root)
    # A run of a version that noted none goes on.
    noted = root / "run" / "data.sha256"
    noted.write_text(noted.read_text().splitlines()[0] + "\n")
    run(config, root)


@pytest.mark.slow
def test_an_interrupted_run_says_so_and_goes_on_where_it_stood(tiny, root, monkeypatch, capsys):
    config = settings(root, fold=-1)
    run(config, root, "whole")
    save = checkpoints.Checkpoints.save
    monkeypatch.setattr("carjax.runtime.set_up_jax", lambda: None)
    file = root / "c.py"
    file.write_text(
        "import ml_collections\ndef get_config():\n"
        f"    return ml_collections.ConfigDict({config.to_dict()!r})\n"
    )
    words = ["train", f"--config={file}", f"--workdir={root / 'run'}", f"--data_dir={root}"]
    words += [f"--cache_dir={root / 'cache'}", "--quiet"]

    def interrupted(self, step, state):
        save(self, step, state)
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    # A process that was started in the background ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save", interrupted)
        try:
            assert command_line(words) == 130
        finally:
            signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err.splitlines()[-1] == "carjax: interrupted"
    assert not (root / "run" / "head.safetensors").exists()
    assert not list(root.rglob("*.part"))
    steps = []
    monkeypatch.setattr(
        checkpoints.Checkpoints, "save", lambda self, step, state: steps.append(step)
    )
    assert command_line(words) == 0
    assert steps == [4, 6]
    assert (root / "run" / "metrics.csv").read_bytes() == (
        root / "whole" / "metrics.csv"
    ).read_bytes()


@pytest.mark.parametrize("again", [False, True])
def test_an_interrupt_waits_for_the_checkpoint_and_a_second_one_does_not(
    tmp_path, monkeypatch, again
):
    done = []

    def close(self):
        signal.raise_signal(signal.SIGTERM)
        if again:
            signal.raise_signal(signal.SIGINT)
        done.append(True)

    def terminated(number, frame):
        raise KeyboardInterrupt(number)

    monkeypatch.setattr(checkpoints.ocp.training.Checkpointer, "close", close)
    before = {n: signal.signal(n, terminated) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            checkpoints.Checkpoints(tmp_path / "checkpoints").close()
        assert all(signal.getsignal(n) is terminated for n in before)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert caught.value.args[0] == (signal.SIGINT if again else signal.SIGTERM)
    assert done == ([] if again else [True])


def test_an_interrupt_is_not_lost_where_the_write_fails():
    with pytest.raises(KeyboardInterrupt), interrupts.deferred():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        raise OSError(errno.ENOSPC, "full")


def test_a_checkpoint_that_the_disk_refuses_is_an_error_and_no_pages_of_it(
    tmp_path, monkeypatch, capfd, caplog, disk_refuses
):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    rng = np.random.default_rng(0)
    state = {str(i): rng.random(2**15, np.float32) for i in range(20)}
    kept = checkpoints.Checkpoints(tmp_path / "checkpoints")
    with disk_refuses(2**16):
        kept.save(2, state)
        with pytest.raises(OSError, match="File too large") as caught:
            kept.close()
    assert (caught.value.errno, caught.value.strerror) == (errno.EFBIG, "File too large")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "Traceback" not in capfd.readouterr().err


def full(*args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FULL = "^cannot write .*/run: No space left on device: free some and start the same command "
FULL += "again, or give another --workdir$"


def test_a_run_folder_on_a_full_disk_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "write", full)
    with pytest.raises(CarjaxError, match=FULL):
        run_folder.RunFolder(tmp_path / "run").claim(settings(tmp_path))


def test_a_head_that_the_disk_refuses_is_one_line_with_what_to_do(tmp_path, disk_refuses):
    folder = run_folder.RunFolder(tmp_path)
    with (
        pytest.raises(CarjaxError, match=r": File too large: start the same command again, or "),
        disk_refuses(),
        folder.writing(),
    ):
        weights_file.write(
            folder.path / run_folder.HEAD_FILE,
            ("carjax_bundle", 1),
            {"kernel": np.zeros(2**12, np.float32)},
            spec={},
            card={},
            training_hashes=[],
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(tiny, root, monkeypatch):
    config = settings(root, steps=2)
    for place, name in ((checkpoints.Checkpoints, "save"), (loop.head_file, "save")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, full)
            with pytest.raises(CarjaxError, match=FULL):
                run(config, root)
    assert run(config, root)["config"]["steps"] == 2


@pytest.mark.slow
def test_live_views_train_without_a_cache_and_resume_exactly(tiny, root, monkeypatch):
    config = settings(root, cache=False)
    result = run(config, root, "whole")
    assert result["held_out_photos"] == {"stanford_cars": 4}
    # Only the plain view of what is held out was computed beforehand.
    (folder,) = (root / "cache").iterdir()
    assert len(list(folder.glob("grid_*.npy"))) == 1
    assert np.load(folder / "grid_00.npy").shape[0] == 4
    with tiny_run.killed(monkeypatch, step=4):
        run(config, root, "killed")
    run(config, root, "killed")
    assert (root / "whole" / "metrics.csv").read_bytes() == (
        root / "killed" / "metrics.csv"
    ).read_bytes()


@pytest.mark.slow
def test_live_training_beside_a_data_set_of_which_nothing_is_held_out(tiny, root):
    shutil.copytree(root / "stanford_cars", root / "other")
    table = (root / "splits" / "stanford_cars.csv").read_text().splitlines()
    rows = [table[0], *(f"{line.partition(',')[0]},0" for line in table[1:])]
    (root / "splits" / "other.csv").write_text("\n".join(rows))
    config = settings(root, cache=False, steps=2, datasets=("stanford_cars", "other"))
    result = run(config, root)
    assert result["held_out_photos"] == {"stanford_cars": 4, "other": 0}


def test_live_views_differ_from_step_to_step_and_tell_where_they_look(tiny, root):
    shutil.copytree(root / "stanford_cars", root / "other")
    sets = ("stanford_cars", "other")
    config = settings(root, "orientation", cache=False, fold=-1, datasets=sets)
    task = tasks.create(config)
    sources = data.load_sources(config, task, root, None, None, "", cache_dir=root / "cache")
    batches = list(live.batches(sources, task, config, range(3)))
    again = list(live.batches(sources, task, config, range(2, 3), slice(4, 8)))
    np.testing.assert_array_equal(batches[2].canvas[4:], again[0].canvas)
    np.testing.assert_array_equal(batches[2].view.box[4:], again[0].view.box)
    assert not np.array_equal(batches[0].view.box, batches[1].view.box)
    for batch in batches:
        mirrored = batch.view.box[:, 0] > batch.view.box[:, 2]
        assert batch.canvas.shape == (8, 480, 480, 3)
        # Azimuths of this set are positive: a negative target is a mirrored view's.
        np.testing.assert_array_equal(batch.targets < 0, mirrored & (batch.targets != 0))


@pytest.mark.slow
def test_the_best_chunk_is_kept(tiny, root, monkeypatch):
    figures = iter([0.9, 0.5, 0.7, 0.0])
    monkeypatch.setattr(
        tasks.CategoricalTask, "metrics", lambda *args: {"accuracy": next(figures), "nll": 1.0}
    )
    heads_seen = []
    save = checkpoints.Checkpoints.save

    def seen(self, step, state):
        heads_seen.append(jax.device_get(state.trained))
        save(self, step, state)

    monkeypatch.setattr(checkpoints.Checkpoints, "save", seen)
    run(settings(root, keep_best="accuracy", lr=0.1), root)
    kept = model.load(root / "run" / "head.safetensors").params["heads"]["doors"]
    best, last = (tree["heads"]["doors"] for tree in (heads_seen[0], heads_seen[2]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), kept, best)
    assert not np.allclose(kept["logits"]["kernel"], last["logits"]["kernel"], atol=1e-3)


@pytest.mark.slow
def test_a_bfloat16_backbone_has_a_cache_of_its_own_and_a_float32_head(tiny, root):
    run(settings(root), root, "a")
    run(settings(root, dtype="bfloat16"), root, "b")
    keys = [json.loads(p.read_text())["dtype"] for p in (root / "cache").glob("*/key.json")]
    assert sorted(keys) == ["bfloat16", "float32"]
    whole, half = (np.load(root / d / "held_out.npz")["log_probs"] for d in "ab")
    assert half.dtype == np.float32
    assert not np.array_equal(whole, half)
    np.testing.assert_allclose(whole, half, atol=0.1)


@pytest.mark.slow
def test_curves_for_tensorboard_are_those_of_the_table(tiny, root):
    run(settings(root), root)
    (path,) = (root / "run" / "tensorboard").iterdir()
    seen = {}
    stream = io.BytesIO(path.read_bytes())
    # The record format of TensorFlow: length, its checksum, the event, its checksum.
    while header := stream.read(12):
        event = Event.FromString(stream.read(struct.unpack("<Q", header[:8])[0]))
        stream.read(4)
        for value in event.summary.value:
            seen[value.tag, event.step] = value.simple_value
    with (root / "run" / "metrics.csv").open() as f:
        for row in csv.DictReader(f):
            step = int(row.pop("step"))
            for name, value in row.items():
                assert seen.pop((name, step)) == pytest.approx(float(value), rel=1e-6)
    assert not seen


@pytest.mark.slow
def test_the_car_box_trains(tiny, root):
    result = run(settings(root, "localise", steps=80, chunk=80, lr=0.02), root)
    assert result["photos"] == {"car_boxes": 15}  # one has no box
    assert result["held_out"]["recall_50"] == 1.0
    bundle = model.load(root / "run" / "head.safetensors")
    assert bundle.spec.heads == ()
    assert bundle.spec.localise.channels == 8


@pytest.mark.slow
def test_content_trains_on_windows_of_a_table(tiny, root):
    table = root / "content.csv"
    with table.open("w", newline="") as f:
        lines = [
            [name, f"{i:05d}.png", *window, "whole" if i % 2 else "none"]
            for i in range(20)
            for name, window in (("stanford_cars", [""] * 4), ("car_boxes", [0, 0, 18, 40]))
        ]
        header = ["dataset", "file", "left", "top", "right", "bottom", "content"]
        csv.writer(f).writerows([header, *lines])
    config = settings(root, "content", steps=60, chunk=30, lr=0.05)
    config.labels = str(table)
    config.datasets = ("stanford_cars", "car_boxes")
    config.parts = False
    result = run(config, root)
    assert result["photos"] == {"stanford_cars": 16, "car_boxes": 16}
    assert result["held_out"]["accuracy"] == 1.0
    bundle = model.load(root / "run" / "head.safetensors")
    assert [h.attribute for h in bundle.spec.heads] == [CONTENT]
    config.labels = str(root / "nowhere.csv")
    with pytest.raises(CarjaxError, match=r"nowhere.csv: no such table of content"):
        config_check.check_data(config, root)


@pytest.mark.parametrize(
    "density",
    [
        "vonmises",
        *(pytest.param(d, marks=pytest.mark.slow) for d in ("biternion", "mixture", "cvae")),
    ],
)
def test_a_direction_trains(tiny, root, density):
    config = settings(root, "orientation", balance=0.5, steps=80, chunk=40, lr=0.02)
    config.head.density = density
    config.head.components = {"mixture": 2, "cvae": 4}.get(density, 1)
    result = run(config, root)
    with (root / "run" / "metrics.csv").open() as f:
        first, last = (float(row["loss"]) for row in csv.DictReader(f))
    assert last < first
    assert model.load(root / "run" / "head.safetensors").spec.heads[0].density == density
    assert set(result["held_out"]) == set(metrics.ANGULAR_METRICS)
    assert math.isfinite(result["held_out"]["loglik_nats_per_rad"])


def test_a_density_of_ones_own_trains_and_loads_in_another_process(tiny, root, monkeypatch):
    config = settings(root, "orientation", steps=4, chunk=2)
    config.head.density, config.head.module = "twofold", "toy_density"
    result = run(config, root)
    assert math.isfinite(result["held_out"]["loglik_nats_per_rad"])
    # As in a process that has never heard of it.
    monkeypatch.delitem(heads.ANGULAR_HEADS, "twofold")
    monkeypatch.delitem(sys.modules, "toy_density")
    (spec,) = model.load(root / "run").spec.heads
    assert (spec.density, spec.module) == ("twofold", "toy_density")
    monkeypatch.delitem(heads.ANGULAR_HEADS, "twofold")
    monkeypatch.setitem(sys.modules, "toy_density", None)
    with pytest.raises(CarjaxError, match=r"cannot import toy_density \(config.head.module\)"):
        model.load(root / "run")


# --- Prepared data sets ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared_root(published, tmp_path_factory):
    """PASCAL3D+, CompCars and a folder of fruit, prepared; their files in `source/`."""
    folder = tmp_path_factory.mktemp("prepared")
    for name, make in (
        ("pascal3d_car", published.pascal3d),
        ("compcars_web", published.compcars),
        ("labelled_folder/fruit", published.fruit),
    ):
        make(folder / "source" / name)
        words = [name, f"--source={folder / 'source' / name}", f"--data_dir={folder / 'data'}"]
        assert prepare_command.main([*words, "--quiet"]) == 0
    return folder / "data"


def prepared_settings(attribute, dataset, **changes):
    config = settings(pathlib.Path("."), attribute, fold=-1, datasets=(dataset,))
    config.update(changes)
    return config


def run_prepared(config, prepared_root, tmp_path):
    return loop.train_and_evaluate(
        config, tmp_path / "run", prepared_root, cache_dir=tmp_path / "cache", quiet=True
    )


@pytest.mark.slow
def test_a_direction_trains_on_pascal3d(tiny, prepared_root, tmp_path):
    config = prepared_settings("orientation", "pascal3d_car", eval_split="val")
    result = run_prepared(config, prepared_root, tmp_path)
    assert result["photos"] == {"pascal3d_car": 6}
    assert math.isfinite(result["held_out"]["loglik_nats_per_rad"])
    predicted = np.load(tmp_path / "run" / "held_out.npz")
    truth = dict(zip(predicted["names"], predicted["targets"], strict=True))
    name = "pascal3d_car/Images/car_pascal/voc_{}.jpg#1"
    assert truth == {name.format(1): 20.0, name.format(3): 40.0}
    # The bundle lists the photos' own hashes, by which an evaluation knows what was seen.
    photo = prepared_root.parent / "source/pascal3d_car/Images/car_imagenet/net_0.JPEG"
    seen = model.load(tmp_path / "run" / "head.safetensors").training_hashes
    assert hashlib.sha256(photo.read_bytes()).hexdigest() in seen


@pytest.mark.slow
def test_a_brand_trains_on_compcars_with_its_own_classes(tiny, prepared_root, tmp_path, caplog):
    config = prepared_settings(
        "brand", "compcars_web", schema="data", train_split="train+rest", eval_split="test",
        steps=60, chunk=60, lr=0.05,
    )  # fmt: skip
    result = run_prepared(config, prepared_root, tmp_path)
    assert result["photos"] == {"compcars_web": 15}
    assert result["held_out_photos"] == {"compcars_web": 5}
    # The colour of the car tells the make.
    assert result["held_out"]["accuracy"] == 1.0
    (head,) = model.load(tmp_path / "run" / "head.safetensors").spec.heads
    assert head.attribute == Categorical("brand", ("Audi", "BWM"))
    assert result["config"]["classes"] == ("Audi", "BWM")
    assert not caplog.messages
    # carjax's own brands lack CompCars' spelling of BMW: counted, for training to say so.
    config = prepared_settings("brand", "compcars_web")
    found = data.read_partition(config, prepared_root, "compcars_web").photos
    assert len(found) == 10
    assert (found.labels["brand"] >= 0).sum() == 4
    assert found.unheard_of == {"brand": {"BWM": 12}}


def test_models_are_held_out_by_name(prepared_root):
    by_model = dict(train_split="by_model", eval_split="by_model")
    config = prepared_settings("doors", "compcars_web", **by_model)
    found = data.read_partition(config, prepared_root, "compcars_web")
    assert len(found.photos) == 20
    models = [set(found.photos.group[found.held_out == which]) for which in (True, False)]
    assert [len(m) for m in models] == [1, 4]
    assert not models[0] & models[1]
    # All splits together are the same photos in the same order: features are computed once.
    config.update(train_split="train+test+rest", eval_split="")
    every = data.read_partition(config, prepared_root, "compcars_web").photos
    assert every.names == found.photos.names
    # All of the small tree's cars are of one CAD model.
    config = prepared_settings("orientation", "pascal3d_car", **by_model)
    with pytest.raises(CarjaxError, match="1 models cannot be split by_model"):
        data.read_partition(config, prepared_root, "pascal3d_car")


@pytest.mark.slow
def test_another_object_trains_with_a_schema_of_its_own(tiny, prepared_root, tmp_path):
    config = prepared_settings("ripeness", "labelled_folder/fruit", steps=60, chunk=60, lr=0.05)
    config.eval_split = "test"
    assert config.schema == "data"
    result = run_prepared(config, prepared_root, tmp_path)
    assert result["photos"] == {"labelled_folder/fruit": 9}
    (head,) = model.load(tmp_path / "run" / "head.safetensors").spec.heads
    assert head.attribute == Categorical("ripeness", ("green", "ripe"))
    # The same files need no preparing.
    source = prepared_root.parent / "source" / "labelled_folder"
    plain = prepared_settings("ripeness", "fruit")
    config_check.check_data(plain, source)
    plain = configs.resolve(plain, source)
    assert configs.attribute_of(plain) == head.attribute
    known = data.read_partition(plain, source, "fruit").photos
    assert known.labels["ripeness"].tolist() == [1, 0] * 6
    heading = configs.resolve(prepared_settings("heading", "fruit"), source)
    assert configs.attribute_of(heading) == Angular("heading")


def test_heads_see_the_box_and_the_car_box_sees_whole_photos(tiny, prepared_root):
    boxes = prepared_settings("localise", "compcars_web", eval_split="test")
    config_check.check_data(boxes, prepared_root)
    whole = data.read_partition(boxes, prepared_root, "compcars_web").photos
    assert whole.read(0).shape == (48, 64, 3)
    np.testing.assert_array_equal(whole.box, [[8, 4, 48, 40]] * 15)
    assert tasks.create(boxes).known(whole).all()
    heads_only = prepared_settings("doors", "compcars_web", eval_split="test")
    cut = data.read_partition(heads_only, prepared_root, "compcars_web").photos
    assert cut.read(0).shape == (36, 40, 3)
    assert cut.read(0).max(2).min() > 150  # none of the black around the box
    assert photos.content_hashes(cut) != photos.content_hashes(whole)


def test_a_bad_choice_of_splits_is_one_line(tiny, prepared_root, root, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load_sources", lambda *a, **k: pytest.fail("read data"))
    for changes, message in (
        ({"eval_split": "test"}, "no split test; there are: train, val, by_model"),
        ({"train_split": ""}, "config.train_split"),
        ({"eval_split": "train"}, "trained on as well"),
        ({"eval_split": "by_model"}, "both be by_model"),
        ({"fold": 1}, "config.eval_split"),
        ({"attribute": "doors"}, "has no labels of 'doors'; it has: orientation"),
        ({"attribute": "wings", "schema": "data"}, "has no labels of 'wings'"),
        ({"schema": "data", "eval_split": "val", "keep_best": "accuracy"}, "no figure .accuracy."),
        ({"schema": "data", "eval_split": "val", "keep_best": "iou"}, "accuracy, .*mederr_deg"),
        ({"schema": "mine"}, "config.schema: must be car or data"),
        ({"datasets": ("pascal3d_car/kitti",)}, r"pascal3d_car/kitti/\[CONFIG/\]VERSION"),
    ):
        attribute = changes.pop("attribute", "orientation")
        config = prepared_settings(attribute, "pascal3d_car", **changes)
        with pytest.raises(CarjaxError, match=message) as caught:
            run_prepared(config, prepared_root, tmp_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="folders of photos have none"):
        run(settings(root, eval_split="val"), root)
    with pytest.raises(CarjaxError, match=r"schema\.json"):
        run(settings(root, schema="data"), root)
    assert not (tmp_path / "run").exists()


# --- Faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attribute": "wheels"}, "wheels.*type, brand"),
        ({"backbone": "resnet"}, "resnet.*efficientnet_lite0"),
        ({"fold": 7}, "folds.*0, 1, 2, 3, 4.*not 7"),
        ({"fold": -2}, "config.fold"),
        ({"steps": 0}, "config.steps: must be at least 1"),
        ({"dropout": 1.0}, "config.dropout"),
        ({"lr": 0.0}, "config.lr"),
        ({"dtype": "float16"}, "config.dtype: must be float32 or bfloat16"),
        ({"keep_best": "iou"}, "config.keep_best.*accuracy"),
        ({"keep_best": "nll", "fold": -1}, "config.keep_best: nothing is held out"),
        ({"cells": 3}, "does not divide"),
        ({"seed": -1}, "config.seed: must be at least 0"),
        ({"lr": float("inf")}, "config.lr: must be above 0"),
        ({"weight_decay": float("nan")}, "config.weight_decay"),
        ({"head.members": 0}, "config.head.members: must be at least 1"),
        ({"head.hidden": 0}, "config.head.hidden: must be at least 1"),
        ({"head.queries": -1}, "config.head.queries: must be at least 0"),
        ({"augmentation.crop": 0.6}, r"^config\.augmentation\.crop: must be 0 to 0\.499, not 0\.6"),
        ({"augmentation.blur_rate": 7.0}, r"^config\.augmentation\.blur_rate: must be 0"),
        ({"augmentation.zoom_out": 0.0}, r"^config\.augmentation\.zoom_out: must be"),
        ({"attribute": "orientation", "mixup": 0.2}, "config.mixup: only class heads"),
        ({"datasets": ()}, "config.datasets"),
        ({"datasets": ("nothing",), "fold": -1}, "nothing/{images/,labels.csv}"),
        ({"splits": "no/such"}, "no/such.*config.splits"),
    ],
)
def test_a_bad_config_is_one_line_before_any_data(tiny, root, monkeypatch, changes, message):
    changes = dict(changes)
    config = settings(root, "orientation" if "mixup" in changes else "doors")
    config.update_from_flattened_dict(changes)
    monkeypatch.setattr(data, "load_sources", lambda *a, **k: pytest.fail("read data"))
    with pytest.raises(CarjaxError, match=message) as caught:
        run(config, root)
    assert "\n" not in str(caught.value)
    assert not (root / "run").exists()


@pytest.mark.parametrize(
    ("attribute", "changes", "message"),
    [
        ("localise", {"parts": True}, "config.parts: only class heads have them"),
        ("orientation", {"parts": True}, "config.parts: only class heads have them"),
        ("localise", {"balance": 0.7}, "config.balance: the car box draws all photos alike"),
        ("doors", {"head.grid": 0, "cells": 0, "head.queries": 3}, "config.head.queries: they re"),
        ("doors", {"latent_samples": 2}, "config.latent_samples: only a direction"),
        # Of one's own attributes the kind is known once the data set is.
        ("ripeness", {"head.density": "mixture"}, "config.head.density: only directions have it"),
        ("ripeness", {"latent_samples": 2}, "config.latent_samples: only a direction"),
        ("heading", {"head.members": 2}, "config.head.members: only class heads have them"),
        ("heading", {"mixup": 0.2}, "config.mixup: only class heads"),
        ("heading", {"parts": True}, "config.parts: only class heads have them"),
        ("heading", {"head.density": "none"}, "'none'"),
    ],
)
def test_what_a_kind_of_head_does_not_read_is_refused(tiny, root, attribute, changes, message):
    schema = [{"name": "ripeness", "classes": ["green", "ripe"]}, {"name": "heading"}]
    (root / "stanford_cars" / "schema.json").write_text(json.dumps(schema))
    config = settings(root, attribute)
    config.mixup = 0.4  # as in `default_config`: nobody has asked for it
    config.update_from_flattened_dict(changes)
    with pytest.raises(UsageError, match=message):  # noqa: PT012
        config_check.check(config)
        config_check.check_resolved(configs.resolve(config, root))


def test_classes_of_ones_own_may_have_members(tiny, root):
    schema = [{"name": "ripeness", "classes": ["green", "ripe"]}, {"name": "heading"}]
    (root / "stanford_cars" / "schema.json").write_text(json.dumps(schema))
    for attribute, changes in (("ripeness", {"members": 2}), ("heading", {"density": "mixture"})):
        config = settings(root, attribute)
        config.head.update(changes)
        config_check.check(config)
        resolved = configs.resolve(config, root)
        config_check.check_resolved(resolved)
        spec = tasks.create(resolved).spec
        assert (spec.members, spec.density) == (
            changes.get("members", 1),
            changes.get("density", "vonmises"),
        )


def test_the_best_chunk_needs_a_label_that_is_held_out(tiny, root):
    table = root / "stanford_cars" / "labels.csv"
    rows = list(csv.reader(table.read_text().splitlines()))
    for row in rows[5:9]:  # fold 1
        row[4] = ""
    table.write_text("".join(",".join(row) + "\n" for row in rows))
    with pytest.raises(UsageError, match=r"keep_best: nothing that is held out has a label"):
        run(settings(root, keep_best="accuracy"), root)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "[]", "config.json: is not of a run of carjax train"),
        ("config.json", "{", "config.json: is not of a run of carjax train"),
        ("result.json", None, "result.json: cannot be read .*delete .* to start afresh"),
        ("metrics.csv", "step,loss\nmany,1\n", "metrics.csv: cannot be read"),
    ],
)
def test_a_broken_run_folder_is_one_line(root, name, content, message):
    folder = run_folder.RunFolder(root / "run")
    folder.claim(settings(root))
    (root / "run" / "head.safetensors").touch()
    (root / "run" / "result.json").write_text("{}")
    path = root / "run" / name
    path.unlink() if content is None else path.write_text(content)
    read = {
        "config.json": lambda: folder.claim(settings(root)),
        "result.json": folder.finished,
        "metrics.csv": folder.read_metrics,
    }
    with pytest.raises(CarjaxError, match=message):
        read[name]()


def test_somebody_s_config_json_stays(root):
    path = root / "run" / "config.json"
    path.parent.mkdir()
    path.write_text('{"mine": 1}')
    with pytest.raises(CarjaxError, match=r"config.json: is not of a run of carjax train"):
        run_folder.RunFolder(root / "run").claim(settings(root))
    assert path.read_text() == '{"mine": 1}'


def test_a_run_that_never_began_leaves_its_folder(root):
    folder = run_folder.RunFolder(root / "run")
    folder.claim(settings(root, parts=True))
    folder.claim(settings(root, parts=False))
    assert json.loads((root / "run" / "config.json").read_text())["parts"] is False
    (root / "run" / "metrics.csv").touch()
    with pytest.raises(CarjaxError, match=r"other settings \(parts\)"):
        folder.claim(settings(root, parts=True))


def test_a_run_of_before_a_setting_existed_goes_on(root):
    folder, path = run_folder.RunFolder(root / "run"), root / "run" / "config.json"
    config = settings(root, "orientation")
    folder.claim(config)
    (root / "run" / "metrics.csv").touch()
    old = json.loads(path.read_text())
    del old["mirror"], old["latent_samples"], old["head"]["module"]
    path.write_text(json.dumps(old))
    folder.claim(config)
    config.mirror, config.head.module, config.head.hidden = False, "mine", 3
    with pytest.raises(CarjaxError, match=r"settings \(head.hidden, head.module, mirror\)"):
        folder.claim(config)


def test_an_angle_may_be_called_as_one_of_the_car_s_classes(tiny, root):
    config = settings(root, "type", schema="data", parts=False)
    config_check.check(config)
    task = tasks.create(config)  # the data set names no classes
    assert isinstance(task, tasks.AngularTask)
    assert task.latent_samples == 1


def test_what_is_corrected_is_a_label(root):
    schema = (find(CAR, "doors"), find(CAR, "orientation"))
    known = photos.read_labels(root / "stanford_cars", schema)
    which = np.arange(20) < 2
    table = root / "wrong.csv"
    table.write_text("file,azimuth_deg,doors\n00000.png,,4\n00001.png,33,\n00002.png,1,2\n")
    right = photos.correct(known, schema, table, which)
    doors = find(CAR, "doors").classes.index("4")
    assert right.labels["doors"].tolist() == [doors, *known.labels["doors"][1:]]
    assert right.labels["orientation"][1] == 33.0
    np.testing.assert_array_equal(
        np.delete(right.labels["orientation"], 1), np.delete(known.labels["orientation"], 1)
    )
    for row, message in (("00000.png,,9", "no doors '9'"), ("00000.png,inf,", "not an angle")):
        table.write_text(f"file,azimuth_deg,doors\n{row}\n")
        with pytest.raises(CarjaxError, match=message):
            photos.correct(known, schema, table, which)


def test_a_folder_of_another_run_is_refused(tiny, root):
    (root / "run").mkdir()
    other = settings(root, lr=0.5).to_dict()
    (root / "run" / "config.json").write_text(json.dumps(other))
    (root / "run" / "metrics.csv").touch()
    with pytest.raises(CarjaxError, match=r"other settings \(lr\)"):
        run(settings(root), root)


def test_a_loss_that_is_no_number_says_what_to_do_and_that_helps(tiny, root, monkeypatch):
    fast = dict(lr=1e25, weight_decay=1e10)
    with pytest.raises(CarjaxError, match=r"the loss is nan at step \d: lower --config\.lr$"):
        run(settings(root, **fast), root)
    with tiny_run.killed(monkeypatch, step=4):  # as advised, in the same folder
        run(settings(root), root)
    (root / "run" / "config.json").write_text(json.dumps(settings(root, **fast).to_dict()))
    with pytest.raises(CarjaxError, match=r"lower --config\.lr and give another --workdir$"):
        run(settings(root, **fast), root)


def test_a_missing_photo_is_one_line(tiny, root):
    (root / "stanford_cars" / "images" / "00003.png").unlink()
    with pytest.raises(CarjaxError, match=r"00003\.png"):
        run(settings(root), root)


def test_command_overrides_and_faults(root, monkeypatch, tmp_path):
    seen = {}

    def fake(config, workdir, data_dir, **kwargs):
        seen.update(lr=config.lr, grid=config.head.grid, workdir=workdir)
        return {"photos": {"x": 1}, "seconds": 1, "held_out": {}}

    monkeypatch.setattr(loop, "train_and_evaluate", fake)
    monkeypatch.setattr("carjax.runtime.set_up_jax", lambda: None)
    file = tmp_path / "c.py"
    file.write_text(
        "from carjax.training.config import default_config\n"
        "def get_config():\n    return default_config('doors')\n"
    )
    words = [f"--config={file}", "--config.lr=0.5", "--config.head.grid=2", "--workdir=w"]
    assert train_command.main(words) == 0
    assert seen == {"lr": 0.5, "grid": 2, "workdir": "w"}
    with pytest.raises(SystemExit, match=r"^0$"):
        train_command.main(["--help"])
    for bad, message in (
        (["--config=none.py", "--workdir=w"], "none.py: no such config file"),
        ([*words, "--config.speed=1"], "no such setting: 'speed' Did you mean \"seed\""),
        ([*words, "--process_id=0"], "need --distributed"),
        ([*words, "--processes=0"], "need --distributed"),
        ([*words, "--config.lr=fast"], "lr"),
        (words[:1], "--workdir"),
        (["--workdir=w"], "--config"),
        ([*words, "extra"], "extra"),
    ):
        with pytest.raises(UsageError, match=message):
            train_command.main(bad)
    for broken in ("def get_config(:\n", "def get_config():\n    return 1 / 0\n", "speed\n"):
        file.write_text(broken)
        with pytest.raises(UsageError, match="--config"):
            train_command.main(words)


CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


def run_file(path):
    space = {}
    exec(path.read_text(), space)
    return space


@pytest.mark.parametrize(
    "name",
    sorted(
        p.relative_to(CONFIGS).with_suffix("").as_posix()
        for p in CONFIGS.rglob("*.py")
        if p.stem != "run"
    ),
)
def test_the_shipped_configs_are_valid_and_open_with_their_command(name):
    space = run_file(CONFIGS / f"{name}.py")
    config = space["get_config"]()
    config_check.check(config)
    assert config.attribute in (*(a.name for a in (*CAR, CONTENT)), configs.LOCALISE)
    assert f"--config=configs/{name}.py" in space["__doc__"]
    assert "Result" in space["__doc__"]


def test_the_reference_design_says_everything_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("CARJAX_CACHE_DIR", str(tmp_path))
    space = run_file_as_module(CONFIGS / "reference" / "run.py")
    with pytest.raises(CarjaxError) as error:
        space.main([f"--data_dir={tmp_path}", f"--workdir={tmp_path / 'out'}"])
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    assert "carjax weights fetch inception_resnet_v2" in lines[1]
    assert "compcars_web" in lines[2]
    assert "pascal3d_car/imagenet" in lines[3]


def run_file_as_module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_second_member_learns_parts_too_and_both_are_smoothed(root, monkeypatch):
    """Three members' losses by hand: all of classes, the first and the third of parts as well."""
    keys = (("a", 0), ("a", 1), ("b", 1), ("b", 2), ("c", 3))
    of_part = np.array([label for _, label in keys])
    task = tasks.create(settings(root, label_smoothing=0.2), keys)
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=(6, 5)).astype(np.float32) for _ in range(3)]
    said = SimpleNamespace(apply=lambda *args, **kwargs: [jnp.asarray(own) for own in logits])
    monkeypatch.setattr(tasks.CategoricalTask, "module", said)
    part = np.array([0, 1, 2, 3, 4, 2])
    targets = jnp.asarray(np.stack([of_part[part], part], 1))
    features = Features(jnp.zeros((6, 1)), jnp.zeros((6, 1, 1, 1)))
    want = 0.0
    for member, own in enumerate(logits):
        parts = np.exp(own) / np.exp(own).sum(1, keepdims=True)
        classes = np.stack([parts[:, of_part == k].sum(1) for k in range(4)], 1)
        for probs, true, learned in (
            (classes, of_part[part], True),
            (parts, part, member % 2 == 0),
        ):
            wanted = 0.8 * np.eye(probs.shape[1])[true] + 0.2 / probs.shape[1]
            want -= learned * (wanted * np.log(probs)).sum(1).mean()
    got = task.loss({}, features, targets, jax.random.key(0))
    assert float(got) == pytest.approx(want, rel=1e-5)


def one_weight(config, loss):
    """The update function and first state of a head of one matrix and one bias, all ones."""
    params = {"heads": {"doors": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}}}
    mask = training.head_mask(params, "doors")
    adamw = optimiser.make_optimiser(mask, optimiser.OptimiserConfig(0.1, 40, warmup=0))
    trained, frozen = optimiser.split(params, mask)
    task = SimpleNamespace(loss=loss)
    state = steps.TrainState(
        jnp.zeros((), jnp.int32), trained, adamw.init(params), trained, None, jnp.float32(0)
    )
    return task, adamw, state, frozen


def test_the_average_starts_fast_and_then_keeps_to_its_decay():
    config = ml_collections.ConfigDict({"seed": 0, "ema": 0.6, "attribute": "doors"})
    task, adamw, state, frozen = one_weight(config, lambda p, *_: p["w"].sum() + p["b"].sum())
    update = jax.jit(steps.make_update(config, task, adamw))
    want = np.ones((2, 2))
    for step in range(20):
        state, _ = update(state, frozen, None, None)
        decay = min(0.6, (1 + step) / (10 + step))
        want = decay * want + (1 - decay) * np.asarray(state.trained["heads"]["doors"]["w"])
    np.testing.assert_allclose(state.average["heads"]["doors"]["w"], want, rtol=1e-5)


def test_another_seed_draws_other_photos_and_other_dropout():
    config = ml_collections.ConfigDict({"seed": 0, "ema": 0.0, "attribute": "doors", "batch": 4})
    rows = np.arange(50, dtype=np.float32)
    features = Features(np.zeros((1, 50, 1), np.float16), np.zeros((1, 50, 1, 1, 1), np.float16))
    cumulative = np.cumsum(np.full(50, 1 / 50)).astype(np.float32)
    found = data.TrainingSet(features, jnp.asarray(rows[None]), cumulative)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    for loss in (
        lambda p, features, targets, key: targets.mean() + 0.0 * p["w"].sum(),
        lambda p, features, targets, key: jax.random.uniform(key) + 0.0 * p["w"].sum(),
    ):
        seen = []
        for config.seed in (0, 0, 1):
            task, adamw, state, frozen = one_weight(config, loss)
            state = jax.tree.map(jnp.copy, state)
            chunk = steps.make_run_chunk(config, task, adamw, mesh)
            seen.append(np.asarray(chunk(state, frozen, found, length=5)[1]))
        np.testing.assert_array_equal(seen[0], seen[1])
        assert not (seen[0] == seen[2]).any()


@pytest.mark.slow
@pytest.mark.parametrize("keep_best", ["", "nll"])
def test_what_is_written_is_the_average_of_the_last_or_the_best_chunk(
    tiny, root, monkeypatch, keep_best
):
    figures = iter([0.5, 0.9, 0.7, 0.0])  # of the nll less is better
    monkeypatch.setattr(
        tasks.CategoricalTask, "metrics", lambda *args: {"accuracy": 0.5, "nll": next(figures)}
    )
    seen = []
    save = checkpoints.Checkpoints.save

    def watched(self, step, state):
        seen.append(jax.device_get(state))
        save(self, step, state)

    monkeypatch.setattr(checkpoints.Checkpoints, "save", watched)
    run(settings(root, ema=0.9, lr=0.1, keep_best=keep_best), root)
    kept = model.load(root / "run" / "head.safetensors").params["heads"]["doors"]
    want = seen[0 if keep_best else 2]
    average, trained = (tree["heads"]["doors"] for tree in (want.average, want.trained))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), kept, average)
    assert not np.allclose(kept["logits"]["kernel"], trained["logits"]["kernel"], atol=1e-3)


def loaded(config, root):
    """The sources of a config, with features of the tiny backbone where it needs any."""
    task = tasks.create(config)
    backbone, params = backbones.load_pretrained(config.backbone)
    return task, data.load_sources(
        config, task, root, backbone, params, "", cache_dir=root / "cache"
    )


def test_the_training_set_draws_photos_by_their_weights(tiny, root):
    task, sources = loaded(settings(root, parts=False, balance=1.0), root)
    found = data.training_set(sources, task, range(2))
    label = found.targets[0, :, 0]
    share = np.bincount(label, weights=np.diff(found.cumulative, prepend=0.0))
    assert np.bincount(label)[[0, 2]].tolist() == [8, 7]
    np.testing.assert_allclose(share[[0, 2]], 0.5, rtol=1e-5)


def test_photos_of_no_fold_are_neither_trained_on_nor_measured(tiny, root):
    table = root / "splits" / "stanford_cars.csv"
    table.write_text(table.read_text().replace("00000.png,0", "00000.png,-1"))
    _, (source,) = loaded(settings(root, parts=False, cache=False), root)
    assert source.photos.names == tuple(f"{i:05d}.png" for i in range(1, 19))
    assert np.flatnonzero(source.held_out).tolist() == [3, 4, 5, 6]


def test_only_what_is_trained_on_is_corrected(root):
    (root / "corrections").mkdir()
    (root / "corrections" / "stanford_cars.csv").write_text(
        "file,doors\n00000.png,4\n00004.png,4\n"
    )
    before, after = (
        data.read_partition(settings(root, corrections=folder), root, "stanford_cars")
        for folder in ("", str(root / "corrections"))
    )
    assert before.held_out[4]
    changed = before.photos.labels["doors"] != after.photos.labels["doors"]
    assert np.flatnonzero(changed).tolist() == [0]


def test_live_views_are_drawn_by_weight_and_seed(tiny, root, monkeypatch):
    config = settings(root, "orientation", cache=False, fold=-1)
    task, sources = loaded(config, root)
    one, again = (next(live.batches(sources, task, config, range(1))) for _ in range(2))
    np.testing.assert_array_equal(one.view.box, again.view.box)
    config.seed = 1
    other = next(live.batches(sources, task, config, range(1)))
    assert not np.array_equal(one.view.box, other.view.box)
    monkeypatch.setattr(
        tasks.AngularTask, "weights", lambda self, photos: (np.arange(len(photos)) == 3) * 1.0
    )
    drawn = next(live.batches(sources, task, config, range(1)))
    np.testing.assert_array_equal(np.abs(drawn.targets), 54.0)


def test_boxes_in_live_views_of_large_photos_are_where_the_cars_are(tiny, root):
    folder = root / "car_boxes"
    cv2.imwrite(str(folder / "images" / "large.png"), np.zeros((600, 1200, 3), np.uint8))
    table = "file,left,top,right,bottom\nlarge.png,300,150,900,450\n"
    (folder / "boxes.csv").write_text(table)
    config = settings(root, "localise", cache=False, fold=-1, mirror=False)
    config.augmentation.crop = config.augmentation.margin = 0.0
    task, sources = loaded(config, root)
    batch = next(live.batches(sources, task, config, range(1)))
    np.testing.assert_allclose(batch.targets, [[0.25, 0.25, 0.75, 0.75]] * 8, atol=1e-6)


def test_the_optimiser_clips_warms_up_and_decays_as_adamw_by_hand():
    params = {"heads": {"type": {"w": jnp.full((2, 2), 3.0)}}}
    mask = training.head_mask(params, "type")
    config = optimiser.OptimiserConfig(0.1, 12, warmup=4, weight_decay=0.3, clip=1.0)
    adamw = optimiser.make_optimiser(mask, config)
    (trained, frozen), state = optimiser.split(params, mask), adamw.init(params)
    want, m, v = np.full((2, 2), 3.0), 0.0, 0.0
    for step in range(12):
        slope = np.array([[1.0, -2.0], [0.5, 0.1]]) * (0.1, 10.0, 1.0)[step % 3]
        trained, state, _ = optimiser.update_step(
            adamw, lambda p, s=slope: (p["heads"]["type"]["w"] * s).sum(), trained, frozen, state
        )
        slope = slope / max(1.0, np.linalg.norm(slope))
        m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        adam = m / (1 - 0.9 ** (step + 1)) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8)
        cosine = 0.001 + 0.999 * (1 + math.cos(math.pi * (step - 4) / 8)) / 2
        want = want - 0.1 * (step / 4 if step < 4 else cosine) * (adam + 0.3 * want)
        np.testing.assert_allclose(trained["heads"]["type"]["w"], want, rtol=1e-4)


def test_a_run_knows_its_windows(tmp_path):
    """material.Material.fingerprint promises another SHA-256 'with any other window'."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"a")
    told = []
    for window in ("10,5,30,15", "0,0,8,8"):
        table = f"file,class_name,doors,left,top,right,bottom\na.png,X,4,{window}\n"
        (tmp_path / "labels.csv").write_text(table)
        known = photos.hashed(photos.read_labels(tmp_path, (find(CAR, "doors"),)))
        source = data.Source("x", known, np.arange(1), np.zeros(1, bool), None)
        told.append(material.PhotoMaterial(None, None, [source]).fingerprint())
    assert told[0] != told[1]


def test_a_class_that_only_the_held_out_show_cannot_be_learned(root, caplog):
    known = data.read_partition(settings(root), root, "stanford_cars").photos
    held_out = known.labels["doors"] == 2  # every photo of four doors
    source = data.Source("x", known, np.arange(20), held_out, None)
    data._warn_of_unseen(tasks.create(settings(root, parts=False)), [source])
    assert "no photo to train on is labelled doors 3 or 4 or 5" in caplog.text
