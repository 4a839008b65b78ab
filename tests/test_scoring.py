"""The scoring contract: pure, static spec, every JAX transform, masked padding, export."""

import dataclasses
import functools
import logging
import os
import pathlib
import subprocess
import sys

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import carjax
from carjax import circular, crops, model, pooling, scoring
from carjax.attributes import CAR, VEHICLE_CLASSES, Categorical
from carjax.backbones import registry
from carjax.scoring import peaks

ROOT = pathlib.Path(__file__).parents[1]
HEIGHT, WIDTH, BATCH = 48, 80, 4
pytestmark = pytest.mark.usefixtures("quick_compilation")
CATEGORICAL = [a for a in CAR if isinstance(a, Categorical)]


def random_frames(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(scope="module")
def frames():
    return random_frames(BATCH)


@pytest.fixture(scope="module")
def mask():
    return np.array([True, True, False, True])


@pytest.fixture(scope="module")
def jitted():
    return jax.jit(scoring.score, static_argnames="spec")


@pytest.fixture(scope="module")
def scores(jitted, tiny_model, frames, mask):
    """The localised scores of four frames, the third of them masked."""
    return jax.device_get(jitted(tiny_model.params, frames, mask, spec=tiny_model.spec))


@pytest.fixture(scope="module")
def scorer(tiny_model):
    return scoring.Scorer(tiny_model, batch_size=4)


@pytest.fixture(scope="module")
def only_doors(tiny_model):
    """The tiny model with one head and without the car box."""
    spec = dataclasses.replace(tiny_model.spec, heads=tiny_model.spec.heads[2:3], localise=None)
    return dataclasses.replace(tiny_model, spec=spec)


@pytest.fixture(scope="module")
def whole_scores(only_doors, frames):
    """The scores of the doors in whole frames."""
    return carjax.score_frames(only_doors, frames)


def assert_close(a, b, tolerance=1e-5):
    """Equal trees of arrays, within a tolerance relative to each array's largest value."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype
        scale = max(1.0, np.abs(y).max(initial=0)) if y.dtype != bool else 1
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * scale, err_msg=name)


# --- What comes out -------------------------------------------------------------------------------


def test_frame_scores_is_a_registered_pytree(scores):
    leaves, structure = jax.tree.flatten(scores)
    assert len(leaves) == 1 + 4 * len(CATEGORICAL) + 4 + 7
    assert all(isinstance(leaf, np.ndarray) and len(leaf) == BATCH for leaf in leaves)
    rebuilt = jax.tree.unflatten(structure, leaves)
    assert isinstance(rebuilt, scoring.FrameScores)
    fields = {f.name for f in dataclasses.fields(scoring.FrameScores)} - {"features"}
    paths = {jax.tree_util.keystr(p[:1]) for p, _ in jax.tree.leaves_with_path(scores)}
    assert paths == {f".{name}" for name in fields}  # no field is left out of the tree


def test_shapes_and_dtypes(scores):
    assert scores.mask.dtype == bool
    for attribute in CATEGORICAL:
        assert scores.probs[attribute.name].shape == (BATCH, len(attribute.classes))
        assert scores.entropy[attribute.name].shape == (BATCH,)
    assert scores.azimuth.mu.shape == (BATCH, 1)
    assert scores.view_probs.shape == (BATCH, 8)
    assert scores.box.shape == (BATCH, 4)
    for leaf in jax.tree.leaves(scores):
        assert leaf.dtype in (np.float32, bool)
        assert np.isfinite(leaf).all()


def test_probabilities_and_entropies(scores, mask):
    stats = pytest.importorskip("scipy.stats")
    for attribute in CATEGORICAL:
        probs = scores.probs[attribute.name][mask]
        np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
        want = stats.entropy(probs.astype(np.float64), axis=1)
        np.testing.assert_allclose(scores.entropy[attribute.name][mask], want, atol=1e-5)
    np.testing.assert_allclose(scores.view_probs[mask].sum(1), 1, atol=1e-5)
    assert (scores.view_probs >= 0).all()


def test_azimuth_statistics_belong_to_one_density(scores, mask):
    angles = np.linspace(-np.pi, np.pi, 20001)[:-1]
    for i in np.flatnonzero(mask):
        one = jax.tree.map(lambda x, i=i: x[i], scores.azimuth)
        density = np.exp(np.asarray(circular.log_prob(one, angles), np.float64))
        step = 2 * np.pi / len(angles)
        entropy = -(density * np.log(density)).sum() * step
        assert scores.azimuth_entropy[i] == pytest.approx(entropy, abs=1e-3)
        # The front's bin lies within 22.5° of straight ahead.
        front = density[np.abs(angles) <= np.pi / 8].sum() * step
        assert scores.view_probs[i, 0] == pytest.approx(front, abs=1e-3)


def test_masked_rows_are_zeros_and_touch_no_other_row(jitted, tiny_model, frames, mask, scores):
    for path, leaf in jax.tree.leaves_with_path(scores):
        assert not leaf[~mask].any(), jax.tree_util.keystr(path)
    other = frames.copy()
    other[~mask] = 255
    again = jax.device_get(jitted(tiny_model.params, other, mask, spec=tiny_model.spec))
    jax.tree.map(np.testing.assert_array_equal, again, scores)


def test_rows_do_not_depend_on_their_place(jitted, tiny_model, frames, scores):
    order = np.array([3, 1, 0, 2])
    every = np.ones(BATCH, bool)
    got = jax.device_get(jitted(tiny_model.params, frames[order], every, spec=tiny_model.spec))
    rows = [2, 1, 0]  # where frames 0, 1 and 3 now are
    assert_close(jax.tree.map(lambda x: x[rows], got), jax.tree.map(lambda x: x[[0, 1, 3]], scores))


def test_box_lies_in_the_frame(scores, whole_scores, mask):
    box = scores.box[mask]
    assert (box >= 0).all()
    assert (box <= 1).all()
    assert (box[:, 2:] > box[:, :2]).all()
    np.testing.assert_array_equal(whole_scores.box, [[0, 0, 1, 1]] * BATCH)
    # The crop is what is scored.
    assert np.abs(scores.probs["doors"] - whole_scores.probs["doors"])[mask].max() > 1e-3


def test_statistics_without_the_car_box_follow_from_the_backbone(whole_scores, only_doors, frames):
    name = only_doors.spec.backbone
    crop = jax.image.resize(frames.astype(np.float32), (BATCH, 64, 64, 3), "linear")
    variables = {"params": only_doors.params["backbone"]}
    classify = jax.jit(functools.partial(registry.create(name).apply, method="logits"))
    vehicles = jax.nn.softmax(classify(variables, (crop - 127) / 128))[:, list(VEHICLE_CLASSES)]
    np.testing.assert_allclose(whole_scores.car_probability, vehicles.sum(1), rtol=1e-3)
    grey = np.asarray(crop) @ np.array([0.299, 0.587, 0.114])
    want = [detail_lost(g) for g in grey]
    np.testing.assert_allclose(whole_scores.sharpness, want, rtol=1e-3)


def detail_lost(grey):
    """Crete et al. 2007, step by step, with OpenCV's mean filter."""
    grey = grey.astype(np.float64)
    shares = []
    for axis, size in ((0, (1, 9)), (1, (9, 1))):
        sharp = np.abs(np.diff(grey, axis=axis))
        soft = np.abs(np.diff(cv2.blur(grey, size), axis=axis))
        shares.append(np.maximum(sharp - soft, 0).sum() / sharp.sum())
    return min(shares)


@pytest.mark.parametrize("shape", [(10, 10), (12, 31)])
def test_sharpness_is_cretes_metric(shape):
    grey = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    assert scoring.sharpness(jnp.array(grey)) == pytest.approx(detail_lost(grey), rel=1e-4)
    assert scoring.sharpness(jnp.full(shape, 7.0)) == 0


def test_blur_lowers_sharpness():
    frame = cv2.resize(np.random.default_rng(1).uniform(0, 255, (40, 40)), (160, 160))
    values = [
        float(scoring.sharpness(jnp.array(cv2.blur(frame, (k, 1)), jnp.float32)))
        for k in (1, 5, 9, 15)
    ]
    assert values == sorted(values, reverse=True)


# --- Transforms -----------------------------------------------------------------------------------


def test_spec_is_hashable_and_static(jitted, tiny_model, frames, mask, scores):
    spec = tiny_model.spec
    twin = dataclasses.replace(spec, heads=tuple(dataclasses.replace(h) for h in spec.heads))
    assert twin is not spec
    assert hash(twin) == hash(spec)
    assert dataclasses.replace(spec, localise=None) != spec
    before = jitted._cache_size()
    jitted(tiny_model.params, frames, mask, spec=twin)
    assert jitted._cache_size() == before  # an equal spec does not compile anew


def test_params_without_a_car_box_score_whole_frames(only_doors, tiny_model, frames, mask):
    params = {k: v for k, v in tiny_model.params.items() if k != "localise"}
    spec = dataclasses.replace(only_doors.spec, localise=tiny_model.spec.localise)
    with_spec = jax.make_jaxpr(functools.partial(scoring.score, spec=spec))
    without = jax.make_jaxpr(functools.partial(scoring.score, spec=only_doors.spec))
    assert str(with_spec(params, frames, mask)) == str(without(params, frames, mask))


def test_eval_shape_computes_nothing(tiny_model, scores):
    spec = tiny_model.spec
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tiny_model.params)
    shapes = jax.eval_shape(
        functools.partial(scoring.score, spec=spec),
        abstract,
        jax.ShapeDtypeStruct((BATCH, HEIGHT, WIDTH, 3), jnp.uint8),
        jax.ShapeDtypeStruct((BATCH,), jnp.bool),
    )
    (abstract, one), (concrete, other) = jax.tree.flatten(shapes), jax.tree.flatten(scores)
    assert one == other
    assert [(s.shape, s.dtype) for s in abstract] == [(x.shape, x.dtype) for x in concrete]


def test_vmap_over_videos(tiny_model, frames, mask, scores):
    videos = np.stack([frames, random_frames(BATCH, seed=1)])
    masks = np.stack([mask, ~mask])
    over_videos = jax.jit(
        jax.vmap(functools.partial(scoring.score, spec=tiny_model.spec), in_axes=(None, 0, 0))
    )
    got = jax.device_get(over_videos(tiny_model.params, videos, masks))
    assert got.box.shape == (2, BATCH, 4)
    assert_close(jax.tree.map(lambda x: x[0], got), scores, 1e-4)
    assert got.mask[1].tolist() == (~mask).tolist()
    assert not got.box[1][mask].any()


def test_gradient_with_respect_to_heads(tiny_model, frames, mask):
    params, spec = tiny_model.params, dataclasses.replace(tiny_model.spec, localise=None)

    def statistics(heads):
        tree = {**params, "heads": {**params["heads"], **heads}}
        scores = scoring.score(tree, frames, mask, spec=spec)
        orientation = scores.azimuth_entropy.sum() + scores.view_probs[:, 0].sum()
        entropy = {k: v.sum() for k, v in scores.entropy.items()}
        return {**entropy, "orientation": orientation}

    chosen = {name: params["heads"][name] for name in ("type", "orientation")}
    jacobian = jax.jit(jax.jacrev(statistics))(chosen)
    for output, gradients in jacobian.items():
        for name, gradient in gradients.items():
            leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(gradient)]
            assert all(np.isfinite(leaf).all() for leaf in leaves)
            if output == name:
                assert all(leaf.any() for leaf in leaves)
            else:  # a head has no influence on what another one predicts
                assert not any(leaf.any() for leaf in leaves)


def test_export_for_cpu_cuda_and_tpu(tiny_model, frames, mask, scores):
    program = jax.jit(functools.partial(scoring.score, spec=tiny_model.spec))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tiny_model.params)
    exported = jax.export.export(program, platforms=["cpu", "cuda", "tpu"])(
        shapes,
        jax.ShapeDtypeStruct(frames.shape, jnp.uint8),
        jax.ShapeDtypeStruct(mask.shape, jnp.bool),
    )
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
    # Both forms of the platform-dependent operations are in the one program.
    assert "stablehlo.convolution" in exported.mlir_module()
    pytest.importorskip("flatbuffers", reason="jax.export needs flatbuffers to serialise")
    loaded = jax.export.deserialize(exported.serialize())
    assert loaded.platforms == exported.platforms
    got = jax.device_get(loaded.call(tiny_model.params, frames, mask))
    assert isinstance(got, scoring.FrameScores)
    assert_close(got, scores, 1e-4)


# --- Scorer ---------------------------------------------------------------------------------------


def test_any_number_of_frames_compiles_once(scorer, caplog):
    scorer(random_frames(3))  # compiles
    with caplog.at_level(logging.WARNING, "jax"), jax.log_compiles():
        for n in (1, 2, 4, 5, 8, 11):
            assert len(scorer(random_frames(n)).mask) == n
    assert not [r for r in caplog.records if "ompil" in r.getMessage()]
    assert scorer._score._cache_size() == 1


def test_compilations_would_be_seen(caplog):
    with caplog.at_level(logging.WARNING, "jax"), jax.log_compiles():
        jax.jit(lambda x: x + 41)(1.0)
    assert [r for r in caplog.records if "ompil" in r.getMessage()]


@pytest.fixture(scope="module")
def one_by_one(scorer):
    """70 frames and their scores, each computed in a batch with padding only."""
    frames = random_frames(70, seed=2)
    return frames, scoring.concatenate([scorer(frames[i : i + 1]) for i in range(70)])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 31, 64, 70])
def test_n_frames_give_the_rows_of_one_by_one(n, scorer, one_by_one):
    frames, rows = one_by_one
    got = scorer(frames[:n])
    assert got.mask.all()
    assert_close(got, jax.tree.map(lambda x: x[:n], rows))


@pytest.mark.slow
def test_every_n_from_1_to_70_gives_the_rows_of_one_by_one(scorer, one_by_one):
    frames, rows = one_by_one
    for n in range(1, 71):
        assert_close(scorer(frames[:n]), jax.tree.map(lambda x, n=n: x[:n], rows))


def test_padding_has_no_influence(scorer):
    frames, mask = random_frames(4, seed=3), np.arange(4) < 3
    zeros = np.where(mask[:, None, None, None], frames, 0).astype(np.uint8)
    got, want = (scoring.to_host(scorer.dispatch(x, mask)) for x in (frames, zeros))
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_batch_is_sharded_over_all_devices(scorer):
    got = scorer.dispatch(random_frames(4), np.ones(4, bool))
    assert got.box.sharding.device_set == set(jax.devices())
    rows = {shard.data.shape[0] for shard in got.box.addressable_shards}
    assert rows == {4 // len(jax.devices())}


def test_scorer_equals_score(scorer, frames, mask, scores):
    got = scorer(frames)
    assert_close(
        jax.tree.map(lambda x: x[mask], got), jax.tree.map(lambda x: x[mask], scores), 1e-4
    )


def test_batch_size_is_rounded_up_to_the_devices(tiny_model):
    devices = len(jax.devices())
    assert scoring.Scorer(tiny_model, batch_size=1).batch_size == devices
    assert scoring.Scorer(tiny_model, batch_size=devices + 1).batch_size == 2 * devices


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"uint8 \[B, H, W, 3\], not float32 \(2, 8, 8, 3\)"),
        (np.zeros((2, 8, 8), np.uint8), r"not uint8 \(2, 8, 8\)"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"not uint8 \(2, 8, 8, 4\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"at least one frame"),
        (np.zeros((2, 0, 8, 3), np.uint8), r"must have pixels"),
    ],
)
def test_wrong_frames_are_refused(frames, message, scorer):
    with pytest.raises(ValueError, match=message):
        scorer(frames)


def test_what_a_scorer_cannot_be_is_refused(tiny_model):
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        scoring.Scorer(tiny_model, batch_size=0)
    with pytest.raises(ValueError, match="features must be"):
        scoring.Scorer(tiny_model, features="all")


def test_a_table_is_of_as_many_frames_as_scores(scorer, tiny_model):
    scores = scorer(random_frames(3))
    with pytest.raises(ValueError, match="3 scores, 2 frames and 3 times"):
        scoring.to_table(scores, tiny_model.spec, np.arange(2), np.arange(3.0))


def test_dispatch_takes_whole_batches_only(scorer):
    with pytest.raises(ValueError, match="3 frames are not a batch of 4"):
        scorer.dispatch(random_frames(3), np.ones(3, bool))


def test_table_holds_the_scores(scorer, tiny_model):
    got = scorer(random_frames(5))
    frame, time_s = np.arange(5) * 3, np.arange(5) / 10
    table = scoring.to_table(got, tiny_model.spec, frame, time_s)
    assert len(table) == 5
    assert table.schema == CAR
    np.testing.assert_array_equal(table.probs["brand"], got.probs["brand"])
    np.testing.assert_array_equal(table.kappa, got.azimuth.kappa[:, 0])
    degrees = np.rad2deg(np.asarray(got.azimuth.mu[:, 0], np.float64)) % 360
    np.testing.assert_allclose(table.azimuth_deg, degrees, atol=1e-3)
    np.testing.assert_array_equal(table.azimuth_floor, got.azimuth.floor)


def test_a_table_holds_the_main_peak_of_a_mixture_without_asking_a_device(tiny_model, random_tree):
    head = dataclasses.replace(tiny_model.spec.heads[-1], density="mixture", components=3)
    spec = dataclasses.replace(tiny_model.spec, heads=(head,), localise=None, content=None)
    tree = random_tree(model.expected_params(spec))
    params = {"backbone": tiny_model.params["backbone"], "heads": tree["heads"]}
    got = carjax.score_frames(
        dataclasses.replace(tiny_model, spec=spec, params=params), random_frames(4)
    )
    assert got.azimuth.mu.shape == (4, 3)
    with jax.transfer_guard("disallow"):
        table = scoring.to_table(got, spec, np.arange(4), np.arange(4) / 8)
    np.testing.assert_allclose(table.azimuth_deg, circular.azimuth_deg(got.azimuth), atol=1e-3)
    columns = (table.azimuth_deg, table.kappa, table.azimuth_floor)
    for column, want in zip(columns, peaks.main_peak(got.azimuth), strict=True):
        np.testing.assert_array_equal(column, want)
    assert table.azimuth_floor.max() < 1


def test_score_frames_with_a_schema_of_one_attribute(whole_scores, only_doors):
    assert isinstance(whole_scores, carjax.FrameScores)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(whole_scores))
    assert list(whole_scores.probs) == ["doors"]
    assert whole_scores.azimuth is None
    table = scoring.to_table(whole_scores, only_doors.spec, np.arange(BATCH), np.arange(BATCH) / 8)
    assert not table.kappa.any()
    assert not table.view_probs.any()


def test_the_pure_function_refuses_what_it_would_misread(only_doors, frames):
    mask = np.ones(len(frames), np.int32)
    for wrong, says in (
        ((frames.astype(np.float32) / 255, None), "uint8"),
        ((frames[..., 0], None), "uint8"),
        ((frames, "all"), "features must be"),
    ):
        with pytest.raises(ValueError, match=says):
            jax.eval_shape(
                lambda f, features=wrong[1]: scoring.score(
                    only_doors.params, f, mask, spec=only_doors.spec, features=features
                ),
                wrong[0],
            )
    shapes = jax.eval_shape(
        lambda f: scoring.score(only_doors.params, f, mask, spec=only_doors.spec), frames
    )
    assert shapes.mask.dtype == bool


def test_score_frames_compiles_once_for_about_as_many_frames(only_doors, frames):
    scoring.scorer._scorer.cache_clear()
    four, three = (carjax.score_frames(only_doors, frames[:n]) for n in (4, 3))
    assert scoring.scorer._scorer.cache_info().misses == 1
    assert len(scoring.kept_scorer(only_doors, 4)._programs) == 1
    np.testing.assert_array_equal(four.probs["doors"][:3], three.probs["doors"])
    with pytest.raises(ValueError, match="at least one frame"):
        carjax.score_frames(only_doors, frames[:0])


def test_kept_scorers_share_the_weights_and_count_in_whole_devices(only_doors):
    two = scoring.kept_scorer(only_doors, 2)
    assert scoring.kept_scorer(only_doors, 1) is two  # there are two devices
    assert scoring.kept_scorer(only_doors, 4)._params is two._params


# --- Features that are kept -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def keepers(tiny_model):
    """Level → the scorer that keeps its features."""
    return {level: scoring.Scorer(tiny_model, 4, features=level) for level in ("pooled", "grid")}


@pytest.mark.slow
def test_features_are_those_of_the_crop_that_was_scored(keepers, scorer, tiny_model, frames):
    kept = keepers["grid"](frames)
    crops_of = jax.jit(crops.crop_and_resize, static_argnums=2)
    box = kept.box * np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float32)
    crop = crops_of(frames, box, tiny_model.spec.input_size)
    name = tiny_model.spec.backbone
    want = registry.create(name).apply(
        {"params": tiny_model.params["backbone"]}, registry.normalize(name, crop)
    )
    side = want.grid.shape[1]
    assert side == 4  # each of its cells is two by two of the kept ones
    want = want._replace(grid=np.repeat(np.repeat(want.grid, 2, axis=1), 2, axis=2))
    assert kept.features.grid.shape == (BATCH, 8, 8, want.grid.shape[3])
    for got, exact in zip(kept.features, want, strict=True):
        assert got.dtype == np.float16
        np.testing.assert_allclose(got, exact, rtol=2**-10, atol=1e-3 * np.abs(exact).max())
    # And nothing else changes.
    assert_close(dataclasses.replace(kept, features=None), scorer(frames))
    pooled = keepers["pooled"](frames).features
    assert_close(pooled.pooled.astype(np.float32), kept.features.pooled.astype(np.float32), 1e-3)
    assert pooled.grid.shape == (BATCH, 0, 0, want.grid.shape[3])


@pytest.mark.slow
def test_features_of_whole_frames_are_those_of_the_backbone(only_doors, frames):
    kept = scoring.Scorer(only_doors, BATCH, features="grid")(frames).features
    module = registry.create(only_doors.spec.backbone)
    want = registry.features(
        module, only_doors.params["backbone"], frames, input_size=only_doors.spec.input_size
    )
    for got, exact in zip(kept, pooling.compact(want, 8), strict=True):
        np.testing.assert_allclose(
            got.astype(np.float32), exact.astype(np.float32), rtol=2**-10, atol=1e-3
        )


@pytest.mark.slow
def test_kept_features_are_rows_of_the_table_and_tails_are_masked(keepers, tiny_model):
    frames = random_frames(5, seed=5)
    scores = keepers["grid"](frames)
    table = scoring.to_table(scores, tiny_model.spec, np.arange(5), np.arange(5.0))
    taken = table.take(np.array([4, 0]))
    np.testing.assert_array_equal(taken.features.grid, scores.features.grid[[4, 0]])
    np.testing.assert_array_equal(taken.features.pooled, scores.features.pooled[[4, 0]])
    padded = np.concatenate([frames[:3], frames[:1]])
    started = keepers["grid"].dispatch(padded, np.array([True, True, True, False]))
    assert all(not np.asarray(level[3]).any() for level in started.features)
    assert all(np.asarray(level[2]).any() for level in started.features)


def test_programs_that_keep_features_are_exported(tiny_model, frames, mask):
    pytest.importorskip("flatbuffers", reason="jax.export needs flatbuffers to serialise")
    program = jax.jit(functools.partial(scoring.score, spec=tiny_model.spec, features="pooled"))
    args = jax.eval_shape(lambda: (tiny_model.params, jnp.asarray(frames), jnp.asarray(mask)))
    exported = jax.export.export(program)(*args)
    loaded = jax.export.deserialize(exported.serialize())
    shapes = jax.tree.unflatten(loaded.out_tree, loaded.out_avals)
    assert shapes.features.pooled.dtype == np.float16
    assert shapes.features.grid.shape[:3] == (BATCH, 0, 0)


# --- The loop over batches ------------------------------------------------------------------------


SIZES = [(48, 80), (80, 48), (60, 130), (100, 100)]  # two canvases


def random_batch(size, seed):
    return np.random.default_rng(seed).integers(0, 256, (4, *size, 3), np.uint8)


@pytest.fixture(scope="module")
def warm(scorer):
    """The scorer, with both canvases of SIZES compiled."""
    assert len({scoring.canvas(*size) for size in SIZES}) == 2
    for size in SIZES:
        scorer(random_batch(size, 0))
    return scorer


def test_loop_over_mixed_sizes_compiles_nothing_and_copies_nothing_by_accident(warm):
    compiled = []

    def listen(event, seconds, **kwargs):
        if "compile" in event:
            compiled.append(event)

    every = np.ones(4, bool)
    started = []
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        with jax.transfer_guard("disallow"):
            for seed in range(2):
                started += [warm.dispatch(random_batch(size, seed), every) for size in SIZES]
            rows = [scoring.to_host(scores) for scores in started]
        assert compiled == []
        jax.jit(lambda x: x + 43)(1.0)
        assert compiled  # the listener would have heard of it
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    # Several batches were under way at once: none was written over by a later one.
    want = [warm(random_batch(size, seed)) for seed in range(2) for size in SIZES]
    jax.tree.map(np.testing.assert_array_equal, rows, want)


def test_host_buffers_are_used_again(warm):
    warm(random_batch((60, 130), 0))
    before = {id(buffer) for buffer, _ in warm._buffers}
    for seed in range(8):
        warm(random_batch((60, 130), seed))
    assert {id(buffer) for buffer, _ in warm._buffers} == before


@pytest.mark.slow
def test_scores_do_not_depend_on_the_canvas(warm, jitted, tiny_model):
    frames, every = random_batch((60, 130), 1), np.ones(4, bool)
    assert scoring.canvas(60, 130) == (120, 180)
    want = jax.device_get(jitted(tiny_model.params, frames, every, spec=tiny_model.spec))
    assert_close(warm(frames), want, 1e-4)


def test_a_batch_of_frames_of_several_sizes(warm):
    sizes = [(60, 130), (90, 121), (48, 180), (120, 150)]
    frames = [random_frames_of(size, i) for i, size in enumerate(sizes)]
    joined = np.zeros((4, 120, 180, 3), np.uint8)
    for row, frame in zip(joined, frames, strict=True):
        row[: frame.shape[0], : frame.shape[1]] = frame
    got = scoring.to_host(warm.dispatch(joined, np.ones(4, bool), np.array(sizes)))
    apart = scoring.concatenate([warm(frame[None]) for frame in frames])
    assert_close(got, apart, 1e-4)
    assert (got.box <= 1).all()


def random_frames_of(size, seed):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize(
    ("size", "want"),
    [((1, 1), (120, 120)), ((640, 360), (640, 360)), ((3841, 5000), (7680, 7680))],
)
def test_canvas(size, want):
    assert scoring.canvas(*size) == want


# The shipped model at 96 pixels, the car box at 64.
_ROWS = """
import dataclasses, sys
import jax
jax.config.update("jax_disable_most_optimizations", True)
import numpy as np
from carjax import model, scoring

one = model.load()
small = dataclasses.replace(one.spec.localise, input_size=64)
one = dataclasses.replace(one, spec=dataclasses.replace(one.spec, localise=small, input_size=96))
one = one.with_localise(sys.argv[4] == "True")
frames = np.random.default_rng(5).integers(0, 256, (19, 48, 80, 3), np.uint8)
assert len(jax.devices()) == int(sys.argv[1])
scores = scoring.Scorer(one, int(sys.argv[1]) * int(sys.argv[2]))(frames)
np.savez(sys.argv[3], *jax.tree.leaves(scores))
"""


def rows_on(devices, each, folder, localise=True):
    """The scores of 19 frames in a process with that many devices and rows on each of them."""
    out = folder / f"{devices}-{each}.npz"
    command = [sys.executable, "-c", _ROWS, str(devices), str(each), str(out), str(localise)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment["JAX_NUM_CPU_DEVICES"] = str(devices)
    subprocess.run(command, check=True, env=environment)
    with np.load(out) as f:
        return [f[name] for name in f.files]


@pytest.mark.slow
def test_rows_are_the_same_bits_on_eight_devices_and_on_one(tmp_path):
    one, eight = rows_on(1, 2, tmp_path), rows_on(8, 2, tmp_path)
    for a, b in zip(one, eight, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("localise", [False, True])
def test_rows_at_another_batch_per_device_are_close(tmp_path, localise):
    assert_close(rows_on(1, 3, tmp_path, localise), rows_on(8, 2, tmp_path, localise))
