"""What half precision in the backbone changes, on 16 real photos.

The CPU rounds as an accelerator does, and like it sums in float32.
"""

import contextlib
import pathlib
import re

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from carjax import circular, model, scoring
from carjax.backbones import bottleneck, layers

INPUTS = pathlib.Path(__file__).parent / "reference" / "inputs.npz"


def parts(x):
    """The leading, middle and trailing bits of float32, each of type bfloat16."""
    found = []
    for _ in range(3):
        found.append(x.astype(jnp.bfloat16).astype(jnp.float32))
        x = x - found[-1]
    return found


def six_passes(x, kernel):
    """A product of float32 as a TPU computes it under `precision.exact_products`."""
    x, kernel = parts(x), parts(kernel)
    return sum(x[i] @ kernel[j] for i, j in ((0, 2), (2, 0), (1, 1), (0, 1), (1, 0), (0, 0)))


@contextlib.contextmanager
def as_on_a_tpu():
    """1×1 convolutions in six passes; depthwise ones are element by element, in float32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "product", six_passes)
        patch.setattr(bottleneck, "_SMALL_BYTES", 2**60)  # no tiles
        jax.clear_caches()
        yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def difference(carjax_data):
    """dtype → (largest difference of a probability [16], of the azimuth in degrees [16])."""
    with np.load(INPUTS) as inputs:
        paths = [carjax_data / str(name) for name in inputs["photo"]]
    photos = np.stack([cv2.resize(cv2.imread(str(p))[..., ::-1], (320, 240)) for p in paths])
    one = model.load()

    def scores(dtype):
        return scoring.Scorer(one, len(photos), dtype=dtype)(photos)

    exact = scores(jnp.float32)

    def difference(dtype, computed=contextlib.nullcontext):
        with computed():
            rough = scores(dtype)
        probability = np.max(
            [np.abs(rough.probs[k] - exact.probs[k]).max(1) for k in exact.probs], axis=0
        )
        a, b = (np.asarray(circular.azimuth_deg(s.azimuth)) for s in (rough, exact))
        return probability, np.abs((a - b + 180) % 360 - 180)

    return difference


@pytest.mark.slow
def test_float16_of_a_gpu(difference):
    probability, azimuth = difference(jnp.float16)
    print(f"float16: probability {np.sort(probability)}, azimuth {np.sort(azimuth)}")
    assert probability.max() < 0.01
    assert azimuth.max() < 0.5


@pytest.mark.slow
def test_float32_of_a_tpu(difference):
    probability, azimuth = difference(scoring.DTYPE["tpu"], as_on_a_tpu)
    print(f"six passes: probability {np.sort(probability)}, azimuth {np.sort(azimuth)}")
    assert 0 < probability.max() < 1e-4
    assert azimuth.max() < 0.01


@pytest.mark.slow
def test_bfloat16_is_too_rough(difference):
    """Why a TPU does not get them."""
    probability, azimuth = difference(jnp.bfloat16)
    print(f"bfloat16: probability {np.sort(probability)}, azimuth {np.sort(azimuth)}")
    assert probability.max() > 0.01
    assert np.median(probability) < 0.05
    assert np.median(azimuth) < 0.5


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_no_product_of_float32_is_rounded(platform):
    """By default a TPU would round its factors to bfloat16, a GPU to TF32."""
    one = model.load()
    frames = jax.ShapeDtypeStruct((2, 120, 160, 3), jnp.uint8)
    mask = jax.ShapeDtypeStruct((2,), jnp.bool_)

    def score(params, frames, mask):
        return scoring.score(params, frames, mask, spec=one.spec)

    text = jax.jit(score).trace(one.params, frames, mask).lower(lowering_platforms=(platform,))
    products = [
        line
        for line in text.as_text().splitlines()
        if re.search(r"stablehlo\.(dot_general|convolution)", line)
    ]
    assert len(products) > 100
    assert [line for line in products if line.count("HIGHEST") < 2] == []
