"""The heads: classes as unions of parts, and the density that the angular head gives."""

import dataclasses
import importlib.util
import pathlib
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from carjax import circular, heads, plugins, pooling
from carjax.attributes import Angular, Categorical
from carjax.errors import UsageError
from carjax.features import Features
from carjax.heads import registry

DOORS = Categorical("doors", ("2", "3", "4", "5"))
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    grid = rng.standard_normal((3, 6, 6, 5)).astype(np.float32)
    return Features(rng.standard_normal((3, 7)).astype(np.float32), grid)


def test_a_channel_that_never_fires_has_a_finite_gradient(features):
    spec = heads.HeadSpec(DOORS, hidden=8)
    silent = jax.tree.map(jnp.abs, features)
    silent = silent._replace(pooled=silent.pooled.at[:, 0].set(0.0))
    module = heads.create(spec)
    params = module.init(jax.random.key(0), silent)
    slope = jax.jit(jax.grad(lambda f: module.apply(params, f).logits[:, 0].sum()))(silent)
    assert all(np.isfinite(leaf).all() for leaf in slope)


@pytest.mark.parametrize("channels", [0, 3])
@pytest.mark.parametrize("grid", [0, 2])
def test_categorical_head(grid, channels, features):
    head = heads.create(heads.HeadSpec(DOORS, grid, channels, hidden=4))
    params = jax.eval_shape(head.init, jax.random.key(0), features)["params"]
    inputs = 7 + grid * grid * (channels or 5)
    assert params["trunk"]["hidden"]["kernel"].shape == (inputs, 4)
    assert jax.eval_shape(head.apply, {"params": params}, features).logits.shape == (3, 4)


def test_attention_pooling_is_a_weighted_mean_of_cells(features):
    spec = heads.HeadSpec(DOORS, grid=3, queries=2, hidden=4)
    trunk = heads.Trunk(spec, 0.0)
    params = trunk.init(jax.random.key(0), features)["params"]
    assert params["queries"]["kernel"].shape == (5, 2)
    # Where a query weighs one place alone, it reads that cell.
    place = np.zeros((3, 3, 2), np.float32)
    place[1, 2, 0] = place[0, 0, 1] = 1e4
    joined = {}

    def spy(next_fun, args, kwargs, context):
        if context.module.name == "hidden":
            joined["x"] = args[0]
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(spy):
        trunk.apply({"params": params | {"place": place}}, features)
    cells = np.asarray(pooling.pool_grid(jnp.asarray(features.grid), 3))
    cells = (cells - cells.mean(-1, keepdims=True)) / cells.std(-1, keepdims=True)
    want = np.concatenate([cells[:, 1, 2], cells[:, 0, 0]], 1)
    np.testing.assert_allclose(joined["x"][:, 7:], want, atol=1e-3)


def test_a_class_has_the_probability_of_its_parts():
    spec = heads.HeadSpec(DOORS, parts=(0, 2, 2, 0, 3))
    logits = np.random.default_rng(0).normal(0, 3, (6, 5)).astype(np.float32)
    parts = np.asarray(jax.nn.softmax(logits), np.float64)
    got = jax.nn.softmax(heads.join_parts(logits, spec))
    want = np.stack([parts[:, [0, 3]].sum(1), 0 * parts[:, 0], parts[:, [1, 2]].sum(1)], 1)
    np.testing.assert_allclose(got[:, :3], want, atol=1e-6)
    np.testing.assert_allclose(got[:, 3], parts[:, 4], atol=1e-6)
    gradient = jax.grad(lambda x: heads.join_parts(x, spec)[:, 2].sum())(logits)
    assert np.isfinite(gradient).all()
    assert heads.join_parts(logits, heads.HeadSpec(DOORS)) is logits


def test_angular_head_gives_one_component_above_a_floor(features, random_tree):
    head = heads.create(heads.HeadSpec(Angular("heading"), 2, 0, 4))
    params = random_tree(jax.eval_shape(head.init, jax.random.key(0), features))["params"]
    params["direction"] = {"kernel": jnp.zeros((4, 2)), "bias": jnp.array([-1.0, 1.0])}
    params["log_kappa"] = {"kernel": jnp.zeros((4, 1)), "bias": jnp.array([3.0])}
    params["floor"] = jnp.array(0.0)
    density = head.apply({"params": params}, features)
    assert density.mu.shape == density.kappa.shape == density.weights.shape == (3, 1)
    np.testing.assert_allclose(density.mu, 3 * np.pi / 4, atol=1e-6)
    np.testing.assert_allclose(density.kappa, np.exp(3), rtol=1e-6)
    np.testing.assert_array_equal(density.floor, [0.5] * 3)
    params["log_kappa"]["bias"] = jnp.array([1e6])
    assert np.isfinite(head.apply({"params": params}, features).kappa).all()


def test_a_mixture_starts_evenly_around_the_circle_above_a_floor_of_2_percent(features):
    spec = heads.HeadSpec(Angular("heading"), 2, 0, 4, density="mixture", components=3)
    module = heads.create(spec)
    params = module.init(jax.random.key(0), features)["params"]
    params["direction"]["kernel"] *= 0
    density = module.apply({"params": params}, features)
    turns = np.degrees(density.mu) % 360
    np.testing.assert_allclose(turns, np.tile([0.0, 120.0, 240.0], (3, 1)), atol=1e-3)
    np.testing.assert_allclose(density.floor, 0.02, rtol=1e-5)


def test_a_concentration_keeps_to_where_statistics_are_exact():
    kappa = heads.kappa_of(jnp.array([-99.0, 3.0, 99.0]))
    np.testing.assert_allclose(kappa, np.exp([-4.0, 3.0, 9.0]), rtol=1e-5)


@pytest.mark.parametrize(
    "density",
    ["vonmises", *(pytest.param(d, marks=pytest.mark.slow) for d in ("mixture", "biternion"))],
)
def test_an_empty_batch_and_features_without_contrast(density):
    spec = heads.HeadSpec(Angular("orientation"), density=density, components=2, grid=2, channels=3)
    module = heads.create(spec)
    flat = Features(jnp.ones((2, 7)), jnp.ones((2, 4, 4, 5)))
    params = module.init(jax.random.key(0), flat)["params"]
    none = module.apply({"params": params}, jax.tree.map(lambda x: x[:0], flat))
    assert none.mu.shape[0] == 0

    def loss(params):
        return -circular.log_prob(module.apply({"params": params}, flat), 1.0).sum()

    slopes = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))


def test_a_name_that_is_taken_is_refused():
    class Mine(nn.Module):
        pass

    with pytest.raises(
        ValueError, match=r"'vonmises' is registered by carjax\.heads\.directions: choose"
    ):
        heads.register("vonmises")(Mine)
    assert heads.ANGULAR_HEADS["vonmises"] is heads.VonMisesHead


class Faulty(nn.Module):
    """A density that is none, in the way that its spec's module says."""

    spec: heads.HeadSpec
    dropout: float = 0.0

    @nn.compact
    def __call__(self, features, *, train=False):
        mu = nn.Dense(2)(features.pooled)
        floor = jnp.zeros(() if self.spec.module == "scalar" else len(mu))
        if self.spec.module == "array":
            return mu
        if self.spec.module == "raises":
            raise TypeError("no such thing")
        return circular.Density(jnp.ones_like(mu), mu, jnp.ones_like(mu), floor)


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("scalar", r"floor \[2\], not weights \[2, 2\], .* floor \[\]"),
        ("array", "must return a circular.Density, not ShapeDtypeStruct"),
        ("raises", r"cannot be called \(no such thing\)"),
    ],
)
def test_a_density_that_is_none_is_told_before_training(monkeypatch, module, says):
    monkeypatch.setitem(heads.ANGULAR_HEADS, "faulty", Faulty)
    monkeypatch.setattr(plugins, "load", lambda module, setting: None)
    spec = heads.HeadSpec(Angular("heading"), density="faulty", module=module)
    features = Features(jnp.zeros((1, 8)), jnp.zeros((1, 2, 2, 3)))
    with pytest.raises(UsageError, match=f"'faulty' of {module}.*{says}"):
        heads.check_density(spec, features)
    heads.check_density(dataclasses.replace(spec, module="sound"), features)


def test_a_file_under_two_names_is_one(monkeypatch):
    """As a script that is run, and imported by the config that it trains."""
    monkeypatch.setattr(registry, "ANGULAR_HEADS", dict(registry.ANGULAR_HEADS))
    for name in ("first", "second"):
        path = pathlib.Path(__file__).with_name("toy_density.py")
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
    assert registry.ANGULAR_HEADS["twofold"] is module.Twofold
