"""Sequence heads: padding changes nothing, causal heads see no future, files hold what was made."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from carjax import circular, heads, model
from carjax.attributes import Angular
from carjax.errors import CarjaxError, UsageError
from carjax.features import Features
from carjax.temporal import sequence_heads, sequence_model, votes
from carjax.temporal.sequence_heads import Frames, SequenceHead, SequenceSpec
from carjax.training.sequences import SequenceTask

pytestmark = pytest.mark.usefixtures("quick_compilation")

HEAD = heads.HeadSpec(Angular("orientation"), grid=2, channels=4, hidden=8)
MODELS = ("tcn", "gru", "attention")
# One mixer is enough while one works; all of them take a minute.
ONE_QUICK = [n if n == "gru" else pytest.param(n, marks=pytest.mark.slow) for n in MODELS]
ROWS, LENGTH = 2, 9


def spec_of(name, causal=False, **options):
    return SequenceSpec(
        name, HEAD, width=8, causal=causal, options=tuple(options.items()),
        backbone="efficientnet_lite0", input_size=32,
    )  # fmt: skip


def frames_of(seed=0, length=LENGTH):
    rng = np.random.default_rng(seed)
    features = Features(
        rng.normal(size=(ROWS, length, 6)).astype(np.float32),
        rng.normal(size=(ROWS, length, 2, 2, 5)).astype(np.float32),
    )
    time_s = np.cumsum(rng.uniform(0.1, 1.0, (ROWS, length)), axis=1).astype(np.float32)
    return Frames(features, time_s, np.ones((ROWS, length), bool))


def params_of(spec, frames):
    """Random parameters: those of a fresh head leave out what starts at 0."""
    shapes = jax.eval_shape(
        lambda key: SequenceHead(spec).init(key, frames)["params"], jax.random.key(0)
    )
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda s: rng.normal(0, 0.3, s.shape).astype(np.float32), shapes)


def density_of(spec, params, frames):
    return jax.jit(SequenceHead(spec).apply)({"params": params}, frames)


def map_time(frames, change):
    return jax.tree.map(change, frames)


def close(a, b):
    """Densities are alike, whatever the turn of their angles."""
    for angle in np.linspace(0, 6, 7):
        np.testing.assert_allclose(
            circular.log_prob(a, angle), circular.log_prob(b, angle), rtol=2e-4, atol=2e-4
        )


def at(density, rows):
    return jax.tree.map(lambda x: x[:, rows], density)


def at1(density, rows):
    return jax.tree.map(lambda x: x[rows], density)


@pytest.mark.parametrize("name", ONE_QUICK)
@pytest.mark.parametrize("causal", [pytest.param(False, marks=pytest.mark.slow), True])
def test_padding_and_what_masked_frames_show_change_nothing(name, causal):
    spec, frames = spec_of(name, causal), frames_of()
    params = params_of(spec, frames)
    whole = density_of(spec, params, frames)
    assert whole.mu.shape == (ROWS, LENGTH, 1)
    assert whole.floor.shape == (ROWS, LENGTH)

    def pad(x):
        return np.concatenate([x, np.repeat(x[:, -1:], 4, axis=1)], axis=1)

    longer = map_time(frames, pad)
    longer.mask[:, LENGTH:] = False
    close(at(density_of(spec, params, longer), slice(LENGTH)), whole)
    # A hole: what it shows is never seen.
    hole = frames._replace(mask=np.arange(LENGTH)[None] != np.full((ROWS, 1), 4))
    other = hole._replace(features=jax.tree.map(np.copy, hole.features))
    for x in other.features:
        x[:, 4] = np.nan
    seen = [0, 1, 2, 3, 5, 6, 7, 8]
    close(at(density_of(spec, params, hole), seen), at(density_of(spec, params, other), seen))
    assert np.isfinite(density_of(spec, params, frames._replace(mask=~frames.mask)).mu).all()


@pytest.mark.parametrize("name", ONE_QUICK)
def test_causal_heads_do_not_see_the_future_and_others_do(name):
    frames = frames_of()
    later = frames._replace(
        features=jax.tree.map(np.copy, frames.features), time_s=frames.time_s.copy()
    )
    for x in (*later.features, later.time_s):
        x[:, 5:] += 1.0
    changed = {}
    for causal in (False, True):
        spec = spec_of(name, causal)
        params = params_of(spec, frames)
        a, b = (density_of(spec, params, f) for f in (frames, later))
        changed[causal] = float(np.abs(a.kappa - b.kappa)[:, :5].max())
        if causal:
            close(at(a, slice(5)), at(b, slice(5)))
    assert changed[False] > 1e-3


@pytest.mark.parametrize("name", ONE_QUICK)
def test_every_parameter_has_a_gradient_but_the_keys_bias(name):
    spec, frames = spec_of(name), frames_of()
    params = params_of(spec, frames)

    def loss(p):
        alone, joined = SequenceHead(spec).apply({"params": p}, frames, method="both")
        return -(circular.log_prob(alone, 1.0) + circular.log_prob(joined, 1.0)).mean()

    for path, gradient in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(params)):
        assert np.isfinite(gradient).all()
        # A constant in every key cancels in the softmax.
        if "key" not in str(path) and "DenseGeneral_1" not in str(path):
            assert np.abs(gradient).max() > 0, path


@pytest.mark.parametrize("name", ONE_QUICK)
def test_a_fresh_head_learns_from_frames_of_which_some_are_padding(name):
    spec, frames = spec_of(name), frames_of()
    frames = frames._replace(mask=np.arange(LENGTH) < np.array([[LENGTH], [LENGTH - 3]]))
    params = jax.jit(SequenceHead(spec).init)(jax.random.key(0), frames)["params"]
    task = SequenceTask(spec, dropout=0.1, alone=0.3)
    targets = np.where(frames.mask, np.float32(40.0), np.float32(np.nan))
    loss, slopes = jax.jit(jax.value_and_grad(task.loss))(
        params, frames, targets, jax.random.key(1)
    )
    assert np.isfinite(loss)
    assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))


def test_gaps_are_to_the_last_frame_that_counts():
    time_s = jnp.array([[1.0, 2.0, 4.0, 7.0, 7.0]])
    mask = jnp.array([[True, False, True, True, False]])
    np.testing.assert_allclose(votes.time_gaps(time_s, mask), [[0, 0, 3, 3, 0]])


def test_votes_carry_directions_along_the_turn():
    """With the true speed, an outlier without trust, and no decay, all votes give the truth."""
    speed, frames = 0.7, 6
    gap = jnp.array([[0.0, 1.0, 0.5, 2.0, 0.1, 0.3]])[..., None]
    truth = 0.4 + speed * jnp.cumsum(gap[..., 0], axis=1)
    own = jnp.stack([jnp.cos(truth), jnp.sin(truth)], axis=-1).at[0, 3].multiply(-1.0)
    log_kappa = jnp.ones((1, frames, 1)).at[0, 3].set(-30.0)
    module = votes.Votes(causal=False)
    args = (jnp.zeros((1, frames, 4)), own, log_kappa, gap, jnp.ones((1, frames), bool))
    params = jax.tree.map(jnp.zeros_like, module.init(jax.random.key(0), *args)["params"])
    params["speed"]["bias"] += speed
    params["trust"]["kernel"] = params["trust"]["kernel"].at[-1].set(1.0)
    out = module.apply({"params": params}, *args)
    angle = jnp.arctan2(out[..., 1], out[..., 0])
    np.testing.assert_allclose(jnp.cos(angle - truth[..., None]), 1.0, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_file_gives_back_the_head(name, tmp_path):
    spec = spec_of(name, layers=1)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda s: rng.normal(0, 0.1, s.shape).astype(np.float16).astype(np.float32),
        sequence_heads.expected_params(spec),
    )
    made = sequence_model.SequenceModel(params, spec, {"models": ["a"]}, frozenset({"ab" * 32}))
    path = tmp_path / "head.safetensors"
    sequence_model.save(made, path)
    found = sequence_model.load(path)
    assert (found.spec, found.card, found.training_hashes) == (
        made.spec, made.card, made.training_hashes,
    )  # fmt: skip
    features = Features(
        rng.uniform(size=(5, 1280)).astype(np.float16),
        rng.uniform(size=(5, 2, 2, 112)).astype(np.float16),
    )
    if sequence_heads.example_frames(spec).features.grid.shape[-1] != 112:
        pytest.fail("the backbone's grid has another size")
    time_s = 1e6 + np.array([0.0, 0.1, 0.3, 0.4, 0.9])
    density = found(features, time_s)
    assert density.mu.shape == (5, 1)
    frames = Frames(
        jax.tree.map(lambda x: x[None].astype(np.float32), features),
        (time_s - 1e6).astype(np.float32)[None], np.ones((1, 5), bool),
    )  # fmt: skip
    close(jax.tree.map(lambda x: x[None], density), density_of(spec, params, frames))
    with pytest.raises(CarjaxError, match="not a carjax bundle of version"):
        model.load(path)
    sequence_model.save(dataclasses.replace(made, params={"trunk": params["trunk"]}), path)
    with pytest.raises(CarjaxError, match=r"tensors do not fit.*missing votes/key/bias"):
        sequence_model.load(path)


def test_a_long_video_is_seen_in_windows_that_overlap(monkeypatch):
    spec, long = spec_of("gru"), frames_of(length=40)
    params = params_of(spec, frames_of())
    head = sequence_model.SequenceModel(params, spec, {})
    features, time_s = jax.tree.map(lambda x: x[0], (long.features, long.time_s))
    whole = head(features, time_s)
    monkeypatch.setattr(sequence_model, "MOST_FRAMES", 16)
    monkeypatch.setattr(sequence_model, "MARGIN", 4)
    lengths = []
    apply = sequence_model._apply

    def watched(spec, params, frames):
        lengths.append(frames.mask.shape[1])
        return apply(spec, params, frames)

    monkeypatch.setattr(sequence_model, "_apply", watched)
    found = head(features, time_s)
    assert found.mu.shape == whole.mu.shape == (40, 1)
    assert lengths == [16] * 4
    # The first window ends where another one knows more.
    first = head(jax.tree.map(lambda x: x[:16], features), time_s[:16])
    close(at1(found, slice(12)), at1(first, slice(12)))
    second = head(jax.tree.map(lambda x: x[8:24], features), time_s[8:24])
    close(at1(found, slice(12, 20)), at1(second, slice(4, 12)))


def test_attention_needs_a_width_that_its_heads_divide():
    spec = dataclasses.replace(spec_of("attention"), width=6)
    with pytest.raises(UsageError, match="must be a multiple of attention's 4 heads, not 6"):
        sequence_heads.expected_params(spec)


def test_what_cannot_be_loaded_is_one_line(tmp_path):
    path = tmp_path / "head.safetensors"
    with pytest.raises(CarjaxError, match="no such sequence head"):
        sequence_model.load(path)
    path.write_bytes(b"junk")
    with pytest.raises(CarjaxError, match="not a carjax sequence head"):
        sequence_model.load(path)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"model": "lstm"}, "config.sequence.model: no 'lstm'; there are: attention, gru, "),
        (
            {"module": "no.such"},
            r"cannot import no.such \(config.sequence.module\): put its folder on PYTHONPATH",
        ),
        ({"options": (("taps", 3),)}, "config.sequence.options: gru has no taps; it has: layers"),
    ],
)
def test_an_unknown_model_module_or_option_is_named(change, line):
    with pytest.raises(UsageError, match=line):
        sequence_heads.find(dataclasses.replace(spec_of("gru"), **change))


@pytest.mark.slow
def test_densities_of_frames_alone_weigh_what_the_config_says():
    spec, frames = spec_of("gru"), frames_of()
    params = params_of(spec, frames)
    targets = np.full((ROWS, LENGTH), 40.0, np.float32)
    without, half = (
        float(SequenceTask(spec, 0.0, w).loss(params, frames, targets, jax.random.key(0)))
        for w in (0.0, 0.5)
    )
    alone, joined = SequenceHead(spec).apply({"params": params}, frames, method="both")
    at = np.float32(np.radians(40.0))
    assert without == pytest.approx(-float(circular.log_prob(joined, at).mean()), rel=1e-4)
    more = -0.5 * float(circular.log_prob(alone, at).mean())
    assert abs(more) > 0.1
    assert half - without == pytest.approx(more, rel=1e-3)


@pytest.mark.parametrize("causal", [False, True])
def test_votes_fade_with_the_time_between_two_frames_either_way(causal):
    gap, angle = np.array([0.0, 1.0, 2.0, 0.5]), np.array([0.1, 1.0, 2.5, -2.0])
    own = np.stack([np.cos(angle), np.sin(angle)], axis=-1).astype(np.float32)
    module = votes.Votes(causal=causal)
    args = (
        jnp.zeros((1, 4, 3)), own[None], jnp.zeros((1, 4, 1)),
        jnp.asarray(gap, jnp.float32)[None, :, None], jnp.ones((1, 4), bool),
    )  # fmt: skip
    made = module.init(jax.random.key(0), *args)["params"]
    params = {**jax.tree.map(jnp.zeros_like, made), "log_decay": made["log_decay"]}
    got = module.apply({"params": params}, *args)[0]
    time_s = np.cumsum(gap)
    apart = np.abs(time_s[:, None] - time_s[None])
    for head, rate in enumerate(0.5 * 2.0 ** np.arange(votes.VOTES)):
        weights = np.exp(-rate * apart) * (np.tri(4) if causal else 1.0)
        want = weights / weights.sum(1, keepdims=True) @ own
        np.testing.assert_allclose(got[:, head], want, atol=1e-5)


def test_what_is_masked_in_a_long_video_is_masked_in_each_of_its_windows(monkeypatch):
    spec, long = spec_of("gru"), frames_of(length=40)
    head = sequence_model.SequenceModel(params_of(spec, frames_of()), spec, {})
    features, time_s = jax.tree.map(lambda x: x[0], (long.features, long.time_s))
    mask = ~np.isin(np.arange(40), [10, 14, 21])
    monkeypatch.setattr(sequence_model, "MOST_FRAMES", 16)
    monkeypatch.setattr(sequence_model, "MARGIN", 4)
    found = head(features, time_s, mask)
    second = head(jax.tree.map(lambda x: x[8:24], features), time_s[8:24], mask[8:24])
    seen = np.array([12, 13, 15, 16, 17, 18, 19])
    close(at1(found, seen), at1(second, seen - 8))
