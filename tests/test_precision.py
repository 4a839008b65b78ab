"""What factors of half precision in the backbone change, on 16 real photos, without the car box.

The CPU rounds factors as an accelerator does, and like it sums in float32.
"""

import pathlib

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from carjax import circular, model, scoring

pytestmark = pytest.mark.slow
INPUTS = pathlib.Path(__file__).parent / "reference" / "inputs.npz"


@pytest.fixture(scope="module")
def difference(carjax_data):
    """dtype → (largest difference of a probability [16], of the azimuth in degrees [16])."""
    with np.load(INPUTS) as inputs:
        paths = [carjax_data / str(name) for name in inputs["photo"]]
    photos = np.stack([cv2.resize(cv2.imread(str(p))[..., ::-1], (320, 240)) for p in paths])
    one = model.load().with_localise(False)

    def scores(dtype):
        return scoring.Scorer(one, len(photos), dtype=dtype)(photos)

    exact = scores(jnp.float32)

    def difference(dtype):
        rough = scores(dtype)
        probability = np.max(
            [np.abs(rough.probs[k] - exact.probs[k]).max(1) for k in exact.probs], axis=0
        )
        a, b = (np.asarray(circular.azimuth_deg(s.azimuth)) for s in (rough, exact))
        return probability, np.abs((a - b + 180) % 360 - 180)

    return difference


def test_float16_factors_of_a_gpu(difference):
    probability, azimuth = difference(jnp.float16)
    print(f"float16: probability {np.sort(probability)}, azimuth {np.sort(azimuth)}")
    assert probability.max() < 0.01
    # One photo has a density so flat that its peak moves further.
    assert np.sort(azimuth)[-2] < 0.5
    assert azimuth.max() < 1


def test_bfloat16_factors_of_a_tpu(difference):
    probability, azimuth = difference(jnp.bfloat16)
    print(f"bfloat16: probability {np.sort(probability)}, azimuth {np.sort(azimuth)}")
    assert np.median(probability) < 0.05
    assert np.median(azimuth) < 0.5
