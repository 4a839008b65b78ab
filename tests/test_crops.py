"""Crops against independent resampling: `jax.image`, and a plain float64 loop for the rest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carjax import crops

HEIGHT, WIDTH = 23, 37
pytestmark = pytest.mark.usefixtures("quick_compilation")


def image(height=HEIGHT, width=WIDTH, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def axis_weights(low, high, size, pixels, valid, blur=1.0):
    """Float64 triangle weights [size, pixels], written as the definition reads."""
    scale = (high - low) / size
    weights = np.zeros((size, pixels))
    for i in range(size):
        centre = min(max(low + (i + 0.5) * scale, 0.5), valid - 0.5)
        half = max(abs(scale), 1.0) * blur
        for j in range(int(valid)):
            weights[i, j] = max(0.0, 1.0 - abs(j + 0.5 - centre) / half)
        weights[i] /= weights[i].sum()
    return weights


def reference_crop(pixels, box, size, valid=None, blur=1.0):
    height, width = pixels.shape[:2]
    valid_height, valid_width = valid or (height, width)
    rows = axis_weights(box[1], box[3], size, height, valid_height, blur)
    columns = axis_weights(box[0], box[2], size, width, valid_width, blur)
    return np.einsum("ih,jw,hwc->ijc", rows, columns, pixels.astype(np.float64))


jitted = jax.jit(crops.crop_and_resize, static_argnames=("size", "reach"))


def crop(pixels, box, size, valid=None, blur=1.0, reach=1.5):
    """One crop by the public function (banded on CPU)."""
    return np.asarray(
        jitted(
            pixels[None],
            np.array([box], np.float32),
            size,
            valid=np.array([valid or pixels.shape[:2]], np.float32),
            blur=np.array([blur], np.float32),
            reach=reach,
        )[0]
    )


@functools.partial(jax.jit, static_argnames=("size", "reach", "op"))
def by_axis_op(pixels, box, valid, blur, *, size, reach, op):
    """One crop through the private function of one of the two forms."""
    taps = tuple(int(np.ceil(2 * max(reach * n / size, reach))) + 1 for n in pixels.shape[:2])
    axis_op = {"dense": crops._dense, "banded": crops._banded}[op]
    return crops._resample(pixels, box, valid, blur, size=size, taps=taps, axis_op=axis_op)


@pytest.mark.parametrize("size", [7, 16, 48])
@pytest.mark.parametrize(
    "box", [(0, 0, WIDTH, HEIGHT), (3.3, 2.1, 30.7, 20.9), (10, 5, 14, 7), (0, 0, 37, 4)]
)
def test_equals_jax_image_inside_the_image(box, size):
    left, top, right, bottom = box
    scale = jnp.array([size / (bottom - top), size / (right - left)])
    want = jax.image.scale_and_translate(
        image().astype(np.float32),
        (size, size, 3),
        (0, 1),
        scale,
        -jnp.array([top, left]) * scale,
        "linear",
        antialias=True,
    )
    np.testing.assert_allclose(crop(image(), box, size), want, atol=0.02)


def test_whole_image_equals_jax_image_resize():
    want = jax.image.resize(image().astype(np.float32), (9, 9, 3), "linear", antialias=True)
    boxes = crops.whole_boxes(crops.frame_sizes(image()[None]))
    got = jitted(image()[None], boxes, 9)[0]
    np.testing.assert_allclose(got, want, atol=0.01)


@pytest.mark.parametrize("size", [7, 16, 48])
@pytest.mark.parametrize(
    "box",
    [
        (-6.0, -3.0, 45.0, 30.0),  # beyond every border
        (30.0, 15.0, 50.0, 40.0),  # beyond right and bottom
        (33.5, 2.0, 4.5, 21.0),  # mirrored
        (45.0, 30.0, -6.0, -3.0),  # mirrored, upside down and beyond
    ],
)
def test_borders_and_mirrors_follow_the_definition(box, size):
    want = reference_crop(image(), box, size)
    np.testing.assert_allclose(crop(image(), box, size), want, atol=0.01)


def test_integer_shifts_are_exact():
    got = crop(image(), (4, 3, 20, 19), 16)
    np.testing.assert_array_equal(got, image()[3:19, 4:20])
    mirrored = crop(image(), (20, 3, 4, 19), 16)
    np.testing.assert_array_equal(mirrored, image()[3:19, 4:20][:, ::-1])


def test_border_pixels_are_repeated():
    got = crop(image(), (-5, -5, 11, 11), 16)
    want = np.pad(image(), ((5, 0), (5, 0), (0, 0)), "edge")[:16, :16]
    np.testing.assert_array_equal(got, want)


def test_mirroring_a_box_mirrors_the_crop():
    box = (2.3, 4.4, 31.1, 19.8)
    mirrored = (box[2], box[1], box[0], box[3])
    np.testing.assert_allclose(
        crop(image(), mirrored, 16), crop(image(), box, 16)[:, ::-1], atol=1e-3
    )


@pytest.mark.parametrize("box", [(0, 0, 25, 14), (-2, 3, 29, 16), (20, 2, 4, 13)])
def test_canvas_padding_is_never_read(box):
    part = image(14, 25)
    canvas = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    canvas[:14, :25] = part
    got = crop(canvas, box, 7, valid=(14, 25))
    np.testing.assert_allclose(got, reference_crop(part, box, 7), atol=0.01)
    canvas[14:], canvas[:, 25:] = 255, 255
    again = crop(canvas, box, 7, valid=(14, 25))
    np.testing.assert_array_equal(got, again)


@pytest.mark.parametrize("blur", [1.5, 4.0])
def test_blur_widens_the_filter(blur):
    box = (1.0, 2.0, 33.0, 22.0)
    got = crop(image(), box, 16, blur=blur, reach=4.0)
    np.testing.assert_allclose(got, reference_crop(image(), box, 16, blur=blur), atol=0.01)
    sharp = crop(image(), box, 16)
    assert got.var() < 0.8 * sharp.var()


def test_a_blur_reaches_as_far_where_the_image_is_enlarged():
    box = (0, 0, WIDTH, HEIGHT)
    got = crop(image(), box, 48, blur=2.0, reach=2.0)
    np.testing.assert_allclose(got, reference_crop(image(), box, 48, blur=2.0), atol=0.01)


def test_a_constant_image_stays_constant_in_any_box():
    constant = np.full((HEIGHT, WIDTH, 3), 77, np.uint8)
    for box in [(-30, -30, -10, -10), (36.9, 22.9, 37, 23), (-100, 5, 100, 6)]:
        got = crop(constant, box, 16, reach=6.0)
        np.testing.assert_allclose(got, 77, rtol=1e-6)


@given(
    centre=st.tuples(st.floats(-10, 50), st.floats(-10, 40)),
    share=st.tuples(st.floats(0.02, 1.0), st.floats(0.02, 1.0)),
    mirror=st.booleans(),
    valid=st.tuples(st.integers(4, HEIGHT), st.integers(4, WIDTH)),
    blur=st.floats(1.0, 2.0),
    reach=st.sampled_from([1.0, 2.0]),
    size=st.sampled_from([6, 40]),
)
@settings(max_examples=150)
def test_banded_equals_dense(centre, share, mirror, valid, blur, reach, size):
    # The largest box and blur that `reach` allows, and all below.
    blur = min(blur, reach)
    half = np.array(share) * [WIDTH, HEIGHT] * reach / blur / 2
    low, high = np.array(centre) - half, np.array(centre) + half
    low[0], high[0] = (high[0], low[0]) if mirror else (low[0], high[0])
    box = np.array([*low, *high], np.float32)
    args = image(), box, np.array(valid, np.float32), np.array(blur, np.float32)
    dense = by_axis_op(*args, size=size, reach=reach, op="dense")
    banded = by_axis_op(*args, size=size, reach=reach, op="banded")
    np.testing.assert_allclose(banded, dense, atol=2e-3)
    assert dense.min() >= -1e-3
    assert dense.max() <= 255.001


def test_batches_and_dtypes():
    images = np.stack([image(seed=i) for i in range(3)])
    boxes = np.array([[0, 0, 37, 23], [5, 5, 20, 20], [30, 2, 3, 21]], np.float32)
    got = jitted(images, boxes, 7)  # valid, blur and reach by default
    assert got.shape == (3, 7, 7, 3)
    assert got.dtype == jnp.float32
    for i in range(3):
        np.testing.assert_allclose(got[i], reference_crop(images[i], boxes[i], 7), atol=0.01)
    np.testing.assert_allclose(jitted(images.astype(np.float32), boxes, 7), got, atol=1e-3)


def test_whole_boxes():
    sizes = crops.frame_sizes(np.zeros((2, 5, 7, 3)))
    np.testing.assert_array_equal(crops.whole_boxes(sizes), [[0, 0, 7, 5]] * 2)
