"""An inverted bottleneck by tiles, by shifts and by XLA's convolution: one function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carjax.backbones import bottleneck, efficientnet_lite
from carjax.backbones.layers import Weights

pytestmark = pytest.mark.usefixtures("quick_compilation")
PARITY = 1e-5


def random_stage(rng, *shape):
    scale = np.prod(shape[:-1]) ** -0.5
    kernel = scale * rng.standard_normal(shape, np.float32)
    return Weights(jnp.asarray(kernel), jnp.asarray(rng.uniform(-1, 1, shape[-1:]), jnp.float32))


def random_case(seed, height, width, kernel_size, *, stem, channels=12):
    rng = np.random.default_rng(seed)
    inputs = 3 if stem else 4
    first = random_stage(rng, *((3, 3) if stem else ()), inputs, channels)
    depthwise = random_stage(rng, kernel_size, kernel_size, channels)
    project = random_stage(rng, channels, 5)
    # Twice the range, so that ReLU6 cuts on both sides.
    x = 6 * rng.standard_normal((2, height, width, inputs), np.float32)
    return jnp.asarray(x), first, depthwise, project


def relative_error(a, b):
    return np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(b).max()


# So small that every image takes several strips and several blocks of channels.
SMALL = bottleneck.Caches(tile=4 * 1024, kernel=4 * 9 * 4)


@given(
    height=st.integers(5, 23),
    width=st.integers(5, 23),
    kernel_size=st.sampled_from([3, 5]),
    stride=st.sampled_from([1, 2]),
    stem=st.booleans(),
    seed=st.integers(0, 99),
)
@pytest.mark.slow
@settings(max_examples=8)
def test_tiles_equal_the_convolution(height, width, kernel_size, stride, stem, seed):
    case = random_case(seed, height, width, kernel_size, stem=stem)
    want = bottleneck.direct(*case, stride=stride)
    got = bottleneck.tiled(*case, stride=stride, caches=SMALL)
    assert got.shape == want.shape
    assert relative_error(got, want) < PARITY
    assert relative_error(bottleneck.shifted(*case, stride=stride), want) < PARITY


def test_small_tiles_are_several():
    plan = bottleneck.tiling(20, 24, 12, 3, 1, caches=SMALL)
    assert plan.strips > 1
    assert plan.channels < 12
    assert plan.rows * plan.strips >= 20


@given(
    out_height=st.integers(1, 200),
    width=st.integers(3, 300),
    channels=st.integers(1, 600),
    kernel_size=st.sampled_from([3, 5]),
    stride=st.sampled_from([1, 2]),
)
def test_every_tiling_covers_the_image(out_height, width, channels, kernel_size, stride):
    plan = bottleneck.tiling(out_height, width, channels, kernel_size, stride)
    assert channels % plan.channels == 0
    assert plan.rows * plan.strips >= out_height
    assert plan.rows * (plan.strips - 1) < out_height  # no strip is all padding


@pytest.mark.parametrize("index", [0, 1, 2, 4, 5, 7])
def test_the_large_blocks_of_lite2(index):
    """At their real size, with the tiles that are chosen for it."""
    block = efficientnet_lite.block_list(1.1, 1.2)[index]
    side = {0: 260, 1: 130, 2: 65, 4: 65, 5: 33, 7: 33}[index]
    rng = np.random.default_rng(index)
    channels = block.filters_in * block.expand
    inputs = (3, 3, 3) if index == 0 else (block.filters_in,)
    first = random_stage(rng, *inputs, channels)
    depthwise = random_stage(rng, block.kernel_size, block.kernel_size, channels)
    project = random_stage(rng, channels, block.filters_out)
    x = jnp.asarray(3 * rng.standard_normal((1, side, side, inputs[-1]), np.float32))
    got = bottleneck.tiled(x, first, depthwise, project, stride=block.stride)
    want = bottleneck.shifted(x, first, depthwise, project, stride=block.stride)
    assert relative_error(got, want) < PARITY


def test_vmap_and_gradient_of_tiles():
    x, first, depthwise, project = random_case(0, 11, 9, 3, stem=False)
    videos = jnp.stack([x, 2 * x])
    forms = (functools.partial(bottleneck.tiled, caches=SMALL), bottleneck.direct)
    values, slopes = [], []
    for form in forms:
        values.append(jax.vmap(lambda x, f=form: f(x, first, depthwise, project, stride=1))(videos))
        slopes.append(
            jax.grad(lambda x, f=form: f(x, first, depthwise, project, stride=2).sum())(x)
        )
    assert relative_error(*values) < PARITY
    assert relative_error(*slopes) < PARITY


def test_only_the_cpu_is_given_tiles():
    case = random_case(0, 200, 200, 3, stem=False, channels=12)
    program = jax.jit(lambda *a: bottleneck.inverted_bottleneck(*a, stride=1)).trace(*case)
    texts = {
        platform: program.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    loops = {platform: "stablehlo.while" in text for platform, text in texts.items()}
    assert loops == {"cpu": True, "cuda": False, "tpu": False}
    assert "feature_group_count = 12" in texts["tpu"]
