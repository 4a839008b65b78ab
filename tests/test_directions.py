"""The angular heads and their losses (Prokudin et al., ECCV 2018): densities, bounds, runs."""

import dataclasses
import functools
import pathlib
import warnings
from types import SimpleNamespace

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import tiny_run

from carjax import calibration, circular, heads, model, scoring
from carjax.attributes import Angular, Categorical
from carjax.errors import UsageError
from carjax.features import Features
from carjax.scoring import peaks
from carjax.training import config as configs
from carjax.training import config_check, losses, tasks

ROOT = pathlib.Path(__file__).parents[1]
HEADING = Angular("orientation")
COMPONENTS = {"vonmises": 1, "biternion": 1, "mixture": 3, "cvae": 5}
pytestmark = pytest.mark.usefixtures("quick_compilation")


def spec_of(density, **changes):
    fields = {"grid": 1, "hidden": 16, "density": density, "components": COMPONENTS[density]}
    return heads.HeadSpec(HEADING, **(fields | changes))


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    return Features(
        jnp.asarray(rng.normal(size=(6, 7)), jnp.float32),
        jnp.asarray(rng.normal(size=(6, 2, 2, 3)), jnp.float32),
    )


@functools.cache
def initial(spec, seed=0):
    """Parameters of a head; larger than at the start of training, so that images differ."""
    module = heads.create(spec)
    example = Features(jnp.zeros((1, 7)), jnp.zeros((1, 2, 2, 3)))
    params = jax.jit(module.init)(jax.random.key(seed), example)["params"]
    return module, jax.tree.map(lambda x: 1.5 * x, params)


def apply(spec, features):
    module, params = initial(spec)
    return jax.jit(module.apply)({"params": params}, features)


# --- Densities ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", COMPONENTS)
def test_every_head_gives_a_density_with_true_statistics(kind, features):
    density = apply(spec_of(kind), features)
    assert density.mu.shape == density.kappa.shape == density.weights.shape
    assert density.mu.shape == (6, COMPONENTS[kind])
    assert density.floor.shape == (6,)
    assert np.ptp(np.asarray(density.mu)) > 0.1
    n = 20000
    grid = np.linspace(-np.pi, np.pi, n, endpoint=False)
    spread = jax.tree.map(lambda x: x[:, None], density)
    log_p = np.asarray(circular.log_prob(spread, jnp.asarray(grid, jnp.float32)), np.float64)
    p, cell = np.exp(log_p), 2 * np.pi / n
    np.testing.assert_allclose(p.sum(1) * cell, 1.0, atol=1e-4)
    np.testing.assert_allclose(circular.entropy(density), -(p * log_p).sum(1) * cell, atol=2e-4)
    inside = (grid > 0.3) & (grid < 1.5)
    want = p[:, inside].sum(1) * cell
    np.testing.assert_allclose(circular.interval_prob(density, 0.3, 1.5), want, atol=1e-3)
    peak = np.asarray(circular.log_prob(density, circular.mode(density)))
    np.testing.assert_allclose(peak, log_p.max(1), atol=1e-3)


def test_mode_of_two_components_lies_between_them():
    density = circular.Density(
        jnp.array([0.6, 0.4]), jnp.array([3.0, -3.0]), jnp.array([5.0, 5.0]), jnp.array(0.1)
    )
    found = float(circular.mode(density))
    grid = np.linspace(2.5, 4.0, 150001)
    p = 0.6 * np.exp(5 * np.cos(grid - 3.0)) + 0.4 * np.exp(5 * np.cos(grid + 3.0))
    assert (found - grid[p.argmax()] + np.pi) % (2 * np.pi) == pytest.approx(np.pi, abs=1e-3)


def test_the_main_component_is_where_the_density_is_highest():
    # The heaviest component is broad; the others crowd together elsewhere.
    density = circular.Density(
        jnp.array([0.4, 0.2, 0.2, 0.2]),
        jnp.array([0.0, 2.0, 2.02, 2.04]),
        jnp.array([1.0, 50.0, 60.0, 50.0]),
        jnp.array(0.0),
    )
    assert circular.mean_direction(density) == pytest.approx(2.02)


def test_concentration_inverts_the_mean_resultant_length():
    kappa = np.concatenate([[0.0], np.logspace(-2, 4, 40)]).astype(np.float32)
    length = scipy.special.i1e(kappa.astype(float)) / scipy.special.i0e(kappa.astype(float))
    np.testing.assert_allclose(circular.concentration(length), kappa, rtol=2e-3, atol=1e-5)


def test_the_main_peak_keeps_what_is_one_and_parts_what_is_two():
    one = circular.from_single(jnp.array([1.0, 2.0]), jnp.array([0.0, 70.0]), 0.1)
    azimuth_deg, kappa, floor = peaks.main_peak(one)
    np.testing.assert_allclose(azimuth_deg, np.degrees([1.0, 2.0]), rtol=1e-6)
    np.testing.assert_array_equal(kappa, one.kappa[:, 0])
    np.testing.assert_array_equal(floor, one.floor)
    # Samples of a von Mises around 2, each as wide: the concentration of the whole is half of it.
    offsets = scipy.stats.norm.ppf((np.arange(64) + 0.5) / 64) / np.sqrt(200.0)
    many = circular.Density(
        jnp.full((1, 65), 0.8 / 64).at[0, 64].set(0.2),
        jnp.append(2.0 + offsets, -1.0)[None],
        jnp.full((1, 65), 200.0),
        jnp.array([0.05]),
    )
    azimuth_deg, kappa, floor = peaks.main_peak(many)
    # Two samples are nearest to the middle, 0.16° apart and equally high.
    np.testing.assert_allclose(azimuth_deg, circular.azimuth_deg(many), atol=0.2)
    assert azimuth_deg[0] == pytest.approx(np.degrees(2.0), abs=0.3)
    # Its wings are counted by half: more concentrated than the sum, less than a part.
    assert 100.0 < kappa[0] < 200.0
    assert 0.05 + 0.95 * 0.2 < floor[0] < 0.6


def test_mixture_components_start_all_around():
    module = heads.create(spec_of("mixture", components=4))
    example = Features(jnp.zeros((1, 7)), jnp.zeros((1, 2, 2, 3)))
    params = jax.jit(module.init)(jax.random.key(0), example)["params"]
    density = jax.jit(module.apply)({"params": params}, example)
    mu = np.sort(np.degrees(np.asarray(density.mu[0])) % 360)
    np.testing.assert_allclose(mu, [0, 90, 180, 270], atol=20)
    np.testing.assert_allclose(density.weights[0], 0.25, atol=0.1)


def test_latent_points_are_normal_and_the_same_everywhere():
    points = heads.normal_points(512, 8)
    np.testing.assert_allclose(points.mean(0), 0.0, atol=0.02)
    np.testing.assert_allclose(points.std(0), 1.0, atol=0.03)
    assert np.abs(np.corrcoef(points.T) - np.eye(8)).max() < 0.1
    for column in points.T:
        assert scipy.stats.kstest(column, "norm").statistic < 0.02
    # Worked by hand for one dimension: g is the golden ratio.
    want = scipy.stats.norm.ppf((0.5 + np.arange(1, 4) / ((1 + 5**0.5) / 2)) % 1)
    np.testing.assert_allclose(heads.normal_points(3, 1)[:, 0], want, atol=1e-6)


# --- Losses ---------------------------------------------------------------------------------------


def test_cosine_loss_by_hand_and_what_it_moves():
    azimuth = jnp.array([0.1, 2.0, -3.0])
    mu = jnp.array([0.4, 1.5, 3.0])

    def loss(mu, kappa):
        return losses.biternion_loss(circular.from_single(mu, kappa), azimuth)

    got, (by_mu, by_kappa) = jax.value_and_grad(loss, (0, 1))(mu, jnp.full(3, 4.0))
    apart = np.asarray(azimuth - mu, np.float64)
    nll = -scipy.stats.vonmises.logpdf(apart, 4.0)
    assert got == pytest.approx((1 - np.cos(apart)).mean() + nll.mean(), rel=1e-5)
    # The direction follows the cosine loss alone, the concentration the likelihood alone.
    np.testing.assert_allclose(by_mu, -np.sin(apart) / 3, atol=1e-6)
    slope = scipy.special.i1(4.0) / scipy.special.i0(4.0) - np.cos(apart)
    np.testing.assert_allclose(by_kappa, slope / 3, atol=1e-6)


@functools.cache
def latent_params():
    """Parameters of a CVAE whose encoder and prior differ but overlap, as do its components."""
    _, params = initial(spec_of("cvae"))
    half = jax.tree.map(lambda x: 0.5 * x, {k: params[k]["out"] for k in ("prior", "encoder")})
    params = {**params, **{k: {**params[k], "out": out} for k, out in half.items()}}
    return {**params, "log_kappa": {"kernel": jnp.zeros((64, 1)), "bias": jnp.ones(1)}}


@functools.cache
def latent_terms(samples):
    """A CVAE's terms for six images whose azimuths are anything."""
    module = heads.create(spec_of("cvae"))
    rng = np.random.default_rng(0)
    pooled = jnp.asarray(rng.normal(size=(6, 7)), jnp.float32)
    grid = jnp.asarray(rng.normal(size=(6, 2, 2, 3)), jnp.float32)
    azimuth = jnp.linspace(-3.0, 3.0, 6)
    draw = functools.partial(module.apply, method="latent_terms")
    key = {"latent": jax.random.key(1)}
    terms = jax.jit(draw, static_argnums=3)(
        {"params": latent_params()}, Features(pooled, grid), azimuth, samples, rngs=key
    )
    return terms, Features(pooled, grid), azimuth


def test_the_divergence_is_the_mean_log_ratio_of_encoder_and_prior():
    terms, _, _ = latent_terms(20000)
    ratio = np.asarray(terms.log_posterior - terms.log_prior, np.float64)
    assert (np.asarray(terms.kl) > 0).all()
    error = ratio.std(axis=1) / np.sqrt(ratio.shape[1])
    assert (np.abs(ratio.mean(axis=1) - terms.kl) < 5 * error + 1e-4).all()


def test_bounds_are_ordered_and_reach_the_likelihood():
    terms, features, azimuth = latent_terms(20000)
    elbo = -float(losses.elbo_loss(terms))
    # Ten draws at a time, averaged over two thousand times.
    tens = jax.tree.map(lambda x: x.reshape(-1, 10) if x.ndim == 2 else x, terms)
    ten = -float(losses.importance_weighted_loss(tens))
    tight = -float(losses.importance_weighted_loss(terms))
    many = spec_of("cvae", components=20000)
    density = jax.jit(heads.create(many).apply)({"params": latent_params()}, features)
    exact = float(circular.log_prob(density, azimuth).mean())
    assert elbo < ten < tight
    assert tight == pytest.approx(exact, abs=0.03)


def task_of(kind, **changes):
    samples = changes.pop("latent_samples", 1)
    return tasks.AngularTask(spec_of(kind, **changes), 0.1, 0.0, samples)


@pytest.mark.parametrize(("kind", "samples"), [*((k, 1) for k in COMPONENTS), ("cvae", 4)], ids=str)
def test_gradients_are_finite(kind, samples, features):
    task = task_of(kind, latent_samples=samples)
    _, params = initial(task.spec)
    # On the mark, opposite, and across the cut.
    targets = jnp.array([0.0, 180.0, 359.9, -0.1, 90.0, 1e3])
    of = jax.jit(jax.value_and_grad(task.loss))
    loss, gradient = of(params, features, targets, jax.random.key(0))
    assert np.isfinite(loss)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
        unused = kind == "biternion" and "log_kappa" not in jax.tree_util.keystr(path)
        assert np.any(leaf != 0) or unused, jax.tree_util.keystr(path)


def fitted(kind, **changes):
    """Trains a head where the azimuth is near a feature's angle or, half the time, opposite to it.

    Returns:
        (mean loss of the first and of the last 20 steps, mean log-likelihood of new images).
    """
    task = task_of(kind, grid=0, **changes)
    adam = optax.adam(3e-3)

    def draw(key, n=128):
        a, b, c = jax.random.split(key, 3)
        angle = jax.random.uniform(a, (n,), maxval=2 * np.pi)
        # Positive numbers, as features are averages of rectified activations.
        pooled = jnp.stack([jnp.cos(angle), jnp.sin(angle), jnp.zeros(n)], axis=-1)
        pooled = jnp.square(1.0 + pooled)
        flip = jnp.pi * jax.random.bernoulli(b, 0.5, (n,))
        azimuth = angle + flip + 0.1 * jax.random.normal(c, (n,))
        return Features(pooled, jnp.zeros((n, 1, 1, 1))), jnp.rad2deg(azimuth)

    example = draw(jax.random.key(9), 1)[0]
    params = task.module.init(jax.random.key(0), example)["params"]

    @jax.jit
    def run(params):
        def step(carry, key):
            params, state = carry
            batch, noise = jax.random.split(key)
            features, targets = draw(batch)
            loss, gradient = jax.value_and_grad(task.loss)(params, features, targets, noise)
            updates, state = adam.update(gradient, state)
            return (optax.apply_updates(params, updates), state), loss

        keys = jax.random.split(jax.random.key(1), 600)
        (params, _), values = jax.lax.scan(step, (params, adam.init(params)), keys)
        features, targets = draw(jax.random.key(2), 1000)
        density = circular.Density(**task.predict(params, features))
        return values, circular.log_prob(density, jnp.deg2rad(targets)).mean()

    values, loglik = run(params)
    return float(values[:20].mean()), float(values[-20:].mean()), float(loglik)


@pytest.mark.slow
def test_mixtures_beat_the_single_von_mises_where_the_truth_has_two_modes():
    found = {
        "vonmises": fitted("vonmises"),
        "biternion": fitted("biternion"),
        "mixture": fitted("mixture", components=2),
        "cvae": fitted("cvae", components=16, latent_samples=8),
    }
    loglik = {name: value for name, (_, _, value) in found.items()}
    for name, (first, last, _) in found.items():
        assert last < first, name
    # The best that is possible: a normal of σ = 0.1 chosen among two.
    best = -0.5 * np.log(2 * np.pi * np.e * 0.1**2) - np.log(2)
    assert loglik["mixture"] > loglik["vonmises"] + 0.5
    assert loglik["cvae"] > loglik["vonmises"] + 0.3
    assert max(loglik.values()) < best + 0.05


# --- Scoring, bundles, configs --------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",  # vonmises: test_scoring
    ["mixture", *(pytest.param(k, marks=pytest.mark.slow) for k in ("biternion", "cvae"))],
)
def test_score_with_every_head_under_jit_and_export(kind, monkeypatch, random_tree):
    backbone = tiny_run.register(monkeypatch.setattr)
    spec = model.Spec("tiny", (spec_of(kind),), None, 32)
    model.expected_params.cache_clear()
    params = {"backbone": backbone, **random_tree(model.expected_params(spec))}
    frames = np.random.default_rng(0).integers(0, 256, (2, 24, 40, 3), np.uint8)
    mask = np.ones(2, bool)
    program = jax.jit(functools.partial(scoring.score, spec=spec))
    scores = program(params, frames, mask)
    assert scores.azimuth.mu.shape == (2, COMPONENTS[kind])
    np.testing.assert_allclose(scores.view_probs.sum(1), 1.0, atol=1e-5)
    np.testing.assert_allclose(scores.azimuth_entropy, circular.entropy(scores.azimuth), atol=1e-5)
    again = program(params, frames, mask)
    jax.tree.map(np.testing.assert_array_equal, scores, again)
    exported = jax.export.export(program, platforms=["cpu", "cuda", "tpu"])(params, frames, mask)
    loaded = jax.export.deserialize(exported.serialize())
    got = jax.jit(loaded.call)(params, frames, mask)
    np.testing.assert_allclose(got.azimuth.mu, scores.azimuth.mu, atol=1e-5)
    np.testing.assert_allclose(got.azimuth_entropy, scores.azimuth_entropy, atol=1e-5)


def test_specs_of_every_density_survive_json_and_old_ones_load():
    for kind in COMPONENTS:
        spec = model.Spec("efficientnet_lite2", (spec_of(kind, kappa=3.0),), None, 32)
        assert model.spec_from_json(model.spec_to_json(spec)) == spec
    old = model.spec_to_json(model.Spec("efficientnet_lite2", (spec_of("vonmises"),), None, 32))
    for name in ("density", "components", "kappa"):
        del old["heads"][0][name]
    assert model.spec_from_json(old).heads == (spec_of("vonmises"),)
    unknown = dataclasses.replace(spec_of("vonmises"), density="kent")
    with pytest.raises(UsageError, match=r"no 'kent'; there are: vonmises, biternion"):
        heads.create(unknown)


def test_a_given_concentration_is_stated_and_not_learned(features):
    spec = spec_of("biternion", kappa=12.5)
    np.testing.assert_array_equal(apply(spec, features).kappa, np.full((6, 1), 12.5))
    assert "log_kappa" not in initial(spec)[1]
    assert "log_kappa" in initial(spec_of("biternion"))[1]


@pytest.mark.parametrize("name", ["biternion", "vonmises_mixture", "cvae"])
def test_the_shipped_configs_are_valid(name):
    path = ROOT / "configs" / f"orientation_{name}.py"
    space = {}
    exec(path.read_text(), space)
    config = space["get_config"]()
    config_check.check(config)
    assert f"--config=configs/{path.name}" in path.read_text()
    spec = tasks.create(config).spec
    assert spec.density == {"vonmises_mixture": "mixture"}.get(name, name)
    assert isinstance(heads.create(spec), heads.ANGULAR_HEADS[spec.density])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"density": "kent"}, "no 'kent'; there are: vonmises, biternion, mixture, cvae"),
        ({"density": "mixture", "components": 0}, "at least 1"),
        ({"components": 3}, r"config.head.components: does not apply to density 'vonmises'"),
        ({"density": "cvae", "kappa": 2.0}, r"config.head.kappa: does not apply"),
    ],
)
def test_a_bad_density_is_one_line(changes, message):
    config = configs.default_config("orientation")
    config.head.update(changes)
    with pytest.raises(UsageError, match=message) as caught:
        config_check.check(config)
    assert "\n" not in str(caught.value)


def test_heads_of_classes_know_nothing_of_densities():
    assert not {"density", "components", "kappa"} & set(configs.default_config("doors").head)
    doors = Categorical("doors", ("2", "4"))
    assert isinstance(heads.create(heads.HeadSpec(doors)), heads.CategoricalHead)


def test_the_main_peak_leaves_the_rest_to_the_floor():
    weights, kappa = np.array([[0.7, 0.3]]), np.full((1, 2), 50.0)
    two = circular.Density(weights, np.array([[0.0, 3.0]]), kappa, np.array([0.2]))
    assert peaks.main_peak(two)[2][0] == pytest.approx(1 - 0.8 * 0.7, abs=1e-4)


@pytest.mark.parametrize(
    "plain",
    [
        spec_of("vonmises"),
        dataclasses.replace(spec_of("vonmises"), density="twofold", module="toy_density"),
        *(
            pytest.param(spec_of(density, kappa=kappa), marks=pytest.mark.slow)
            for density, kappa in (("biternion", 0.0), ("biternion", 20.0), ("mixture", 0.0))
        ),
        pytest.param(spec_of("cvae"), marks=pytest.mark.slow),
    ],
    ids=lambda spec: f"{spec.density}-{spec.kappa}",
)
def test_every_direction_is_stated_by_its_calibration(plain, monkeypatch, random_tree):
    given = calibration.DirectionCalibration(0.5, 0.1, 0.2, 0.05)
    backbone = tiny_run.register(monkeypatch.setattr)
    model.expected_params.cache_clear()
    frames = np.random.default_rng(0).integers(0, 256, (2, 24, 40, 3), np.uint8)

    def azimuth(head):
        spec = model.Spec("tiny", (head,), None, 32)
        params = {"backbone": backbone, **random_tree(model.expected_params(spec))}
        return scoring.score(params, frames, np.ones(2, bool), spec=spec).azimuth

    want = calibration.state_direction(azimuth(plain), given)
    got = azimuth(dataclasses.replace(plain, calibration=given))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, want)


@pytest.mark.parametrize(
    ("samples", "bound"), [(1, losses.elbo_loss), (4, losses.importance_weighted_loss)]
)
def test_one_draw_trains_on_the_elbo_and_more_on_the_tighter_bound(samples, bound, monkeypatch):
    rng = np.random.default_rng(0)
    drawn = (jnp.asarray(rng.normal(size=(6, samples)), jnp.float32) for _ in range(3))
    terms = heads.LatentTerms(
        **dict(zip(("log_likelihood", "log_prior", "log_posterior"), drawn, strict=True)),
        kl=jnp.asarray(rng.uniform(size=6), jnp.float32),
    )
    asked = []

    def apply(variables, features, azimuth, count, **rngs):
        asked.append(count)
        return terms

    monkeypatch.setattr(tasks.AngularTask, "module", SimpleNamespace(apply=apply))
    task = task_of("cvae", latent_samples=samples)
    loss = task.loss({}, None, jnp.zeros(6), jax.random.key(0))
    assert float(loss) == pytest.approx(float(bound(terms)), rel=1e-6)
    assert asked == [samples]


def written_out(weights, mu, kappa, floor):
    """(azimuth in degrees, κ, mass elsewhere) of one density's main peak, by the formula alone."""
    height = [weights @ scipy.stats.vonmises.pdf(at - mu, kappa) for at in mu]
    at = mu[int(np.argmax(height))]
    share = weights * np.exp(kappa * (np.cos(at - mu) - 1))
    ratio = lambda k: scipy.special.i1e(k) / scipy.special.i0e(k)  # noqa: E731
    length = share @ (ratio(kappa) * np.cos(at - mu)) / share.sum()
    found = scipy.optimize.brentq(lambda k: ratio(k) - length, 0.0, 1e6, xtol=1e-9)
    return np.degrees(at) % 360, found, 1 - (1 - floor) * share.sum()


def test_the_main_peak_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    n, k = 200, 4
    density = circular.Density(
        rng.dirichlet(np.ones(k), n).astype(np.float32),
        rng.uniform(-np.pi, np.pi, (n, k)).astype(np.float32),
        np.exp(rng.uniform(-5.0, 9.0, (n, k))).astype(np.float32),
        rng.uniform(0.0, 0.5, n).astype(np.float32),
    )
    density.weights[0] = [1, 0, 0, 0]
    density.mu[1, 2] = np.nan
    azimuth_deg, kappa, floor = peaks.main_peak(density)
    rows = [i for i in range(n) if i != 1]
    exact = [x.astype(np.float64) for x in density]
    want, want_kappa, want_floor = zip(
        *(written_out(*(x[i] for x in exact)) for i in rows), strict=True
    )
    for others in (np.asarray(want), np.asarray(circular.azimuth_deg(density))[rows]):
        turn = np.abs((azimuth_deg[rows] - others + 180) % 360 - 180)
        np.testing.assert_allclose(turn, 0, atol=1e-3)
    np.testing.assert_allclose(kappa[rows], want_kappa, rtol=2e-3)
    np.testing.assert_allclose(floor[rows], want_floor, atol=1e-5)
    assert np.isnan([azimuth_deg[1], kappa[1], floor[1]]).all()
    assert azimuth_deg.dtype == kappa.dtype == floor.dtype == np.float32
    padding = circular.Density(*np.zeros((3, 1, k), np.float32), np.zeros(1, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(np.ravel(peaks.main_peak(padding)), [0, 0, 1])
    one = circular.Density(*(x[:, :1] for x in density[:3]), density.floor)
    np.testing.assert_array_equal(peaks.main_peak(one)[1], one.kappa[:, 0])


def test_no_mass_below_none_lies_elsewhere():
    weights = np.full((1, 10), 0.1, np.float32)  # their sum is a little above 1
    alike = circular.Density(weights, np.zeros((1, 10)), np.full((1, 10), 50.0), np.zeros(1))
    assert peaks.main_peak(alike)[2].tolist() == [0.0]
