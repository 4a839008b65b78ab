"""Boxes: overlap, the join of cells, growing, and that a found box always lies in the frame."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carjax import crops, localise
from carjax.backbones import registry
from carjax.features import Features

pytestmark = pytest.mark.usefixtures("quick_compilation")


def box(*values):
    return jnp.array(values, jnp.float32)


def painted(b, size=40):
    """A box with integer edges as a mask of pixels."""
    mask = np.zeros((size, size), bool)
    left, top, right, bottom = b
    mask[top:bottom, left:right] = True
    return mask


edges = st.tuples(st.integers(0, 39), st.integers(0, 39)).map(sorted)
boxes = st.tuples(edges, edges).map(lambda e: (e[0][0], e[1][0], e[0][1], e[1][1]))


@given(a=boxes, b=boxes)
def test_iou_counts_pixels(a, b):
    both = (painted(a) & painted(b)).sum()
    either = (painted(a) | painted(b)).sum()
    got = float(localise.iou(box(*a), box(*b)))
    assert got == pytest.approx(both / either if either else 0.0, abs=1e-6)
    assert got == float(localise.iou(box(*b), box(*a)))


def test_iou_broadcasts_and_inverted_boxes_are_empty():
    rows = jnp.array([[0, 0, 2, 2], [1, 0, 3, 2], [2, 2, 0, 0]], jnp.float32)
    np.testing.assert_allclose(localise.iou(rows, box(0, 0, 2, 2)), [1, 1 / 3, 0], atol=1e-6)
    assert localise.iou(rows[:, None], rows[None]).shape == (3, 3)


def test_best_box_averages_the_cells_that_agree_with_the_winner():
    cells = jnp.array([[0.2, 0.2, 0.8, 0.8], [0.22, 0.2, 0.82, 0.8], [0, 0, 0.1, 0.1]])
    logits = jnp.array([2.0, 1.0, 1.9])
    weights = np.exp([2.0, 1.0])
    want = (weights[:, None] * np.asarray(cells)[:2]).sum(0) / weights.sum()
    np.testing.assert_allclose(localise.best_box(logits, cells), want, atol=1e-5)


def test_best_box_of_a_clear_or_empty_winner_is_the_winner():
    cells = jnp.array([[0.5, 0.5, 0.5, 0.5], [0.1, 0.2, 0.7, 0.9]])
    clear = localise.best_box(jnp.array([-50.0, 50.0]), cells)
    np.testing.assert_allclose(clear, cells[1], atol=1e-6)
    # A box without area overlaps nothing, not even itself.
    empty = localise.best_box(jnp.array([50.0, -50.0]), cells)
    np.testing.assert_allclose(empty, cells[0], atol=1e-6)


def test_grow_keeps_the_centre_and_clips_to_the_frame():
    size = jnp.array([100.0, 50, 100, 50])
    got = localise.grow(jnp.array([[40.0, 20, 60, 30], [0, 0, 60, 50]]), 1.5, size)
    np.testing.assert_allclose(got, [[35, 17.5, 65, 32.5], [0, 0, 75, 50]], atol=1e-5)
    np.testing.assert_array_equal(localise.grow(got, 1.0, size), got)


def test_snap_is_within_half_a_step_and_forgets_the_last_bits():
    rng = np.random.default_rng(0)
    size = jnp.array([640.0, 360, 640, 360])
    boxes = rng.uniform(0, 1, (50, 4)).astype(np.float32) * size
    snapped = np.asarray(localise.snap(boxes, size))
    step = np.asarray(size) / localise.STEPS
    assert (np.abs(snapped - boxes) <= 0.5001 * step).all()
    np.testing.assert_array_equal(localise.snap(snapped, size), snapped)
    assert (snapped >= 0).all()
    assert (snapped <= size).all()
    # Away from the middle between two steps a box that differs by a thousandth of one is the same.
    off_tie = np.abs(np.asarray(boxes / step) % 1 - 0.5) > 0.01
    moved = np.asarray(localise.snap(boxes + 1e-3 * step, size))
    np.testing.assert_array_equal(moved[off_tie], snapped[off_tie])


@pytest.fixture(scope="module")
def finder(tiny_model):
    """The jitted box finder of the tiny model: (head's parameters, frames) → boxes."""
    backbone = registry.create(tiny_model.spec.backbone)
    spec = dataclasses.replace(tiny_model.spec.localise, looks=2)

    @jax.jit
    def find(params, frames):
        return localise.find(params, backbone, tiny_model.params["backbone"], frames, spec).box

    return find


@pytest.mark.parametrize("bias", [None, -200.0, 200.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_found_box_lies_in_the_frame_and_has_content(bias, seed, finder, tiny_model, random_tree):
    height, width = 48, 80
    params = random_tree(tiny_model.params["localise"], seed)
    params["out"]["kernel"] = 3.0 * params["out"]["kernel"]
    if bias is not None:
        # Edges at no distance from the cell's centre, or far beyond the frame.
        params["out"]["bias"] = jnp.full(5, bias)
    frames = np.random.default_rng(seed).integers(0, 256, (4, height, width, 3), np.uint8)
    frames[3] = 0
    got = np.asarray(finder(params, frames))
    assert got.shape == (4, 4)
    assert got.dtype == np.float32
    assert (got >= 0).all()
    assert (got <= [width, height, width, height]).all()
    assert (got[:, 2:] - got[:, :2] >= 2 - 1e-4).all()
    if bias == 200.0:
        np.testing.assert_array_equal(got, [[0, 0, width, height]] * 4)


def test_a_box_at_the_border_is_moved_inside(finder, tiny_model, random_tree):
    # Boxes that end outside the window at one side only: left edge 0, right edge below 0.
    params = random_tree(tiny_model.params["localise"])
    params["out"]["kernel"] = jnp.zeros_like(params["out"]["kernel"])
    params["out"]["bias"] = jnp.array([0.0, 5.0, 5.0, -200.0, -200.0])
    frames = np.zeros((4, 48, 80, 3), np.uint8)
    left, top, right, bottom = np.asarray(finder(params, frames))[0]
    assert (left, top) == (0, 0)
    assert 2 <= right <= 80
    assert 2 <= bottom <= 48


def test_head_shapes_and_cell_centres(tiny_model, random_tree):
    params = random_tree(tiny_model.params["localise"])
    params["out"]["kernel"] = jnp.zeros_like(params["out"]["kernel"])
    # softplus of this is 0.1: all four edges lie that far from the cell's centre.
    distance = float(np.log(np.expm1(0.1)))
    params["out"]["bias"] = jnp.array([0.5, distance, distance, distance, distance])
    from carjax.backbones.registry import example_features

    features = example_features(tiny_model.spec.backbone, 64)
    head = localise.CarBoxHead(tiny_model.spec.localise.channels)
    logits, found = head.apply({"params": params}, features)
    assert logits.shape == (1, 16)
    np.testing.assert_allclose(logits, 0.5, atol=1e-6)
    centres = (np.arange(4) + 0.5) / 4
    want = [[x - 0.1, y - 0.1, x + 0.1, y + 0.1] for y in centres for x in centres]
    np.testing.assert_allclose(found[0], want, atol=1e-6)


class Bright:
    """Stands for backbone and head: the features are the image, the box is where it is bright."""

    name = "efficientnet_lite2"

    def __init__(self):
        self.windows = []

    def apply(self, variables, seen):
        if isinstance(seen, Features):
            rows, columns = (np.asarray(seen.grid[..., 0] > 0).any(axis) for axis in (2, 1))
            low, high = (
                np.stack([side(columns), side(rows)], axis=1)
                for side in (lambda x: x.argmax(1), lambda x: x.shape[1] - x[:, ::-1].argmax(1))
            )
            boxes = np.concatenate([low, high], axis=1) / rows.shape[1]
            self.windows.append(boxes)
            return jnp.zeros((len(boxes), 1)), jnp.asarray(boxes[:, None], jnp.float32)
        return Features(seen[:, 0, 0], seen)


def test_the_second_look_is_at_the_first_ones_neighbourhood(monkeypatch):
    frames = np.zeros((2, 96, 160, 3), np.uint8)
    painted = np.array([[60, 40, 90, 60], [104, 32, 144, 72]])
    for frame, (left, top, right, bottom) in zip(frames, painted, strict=True):
        frame[top:bottom, left:right] = 255
    bright = Bright()
    monkeypatch.setattr(localise, "CarBoxHead", lambda channels: bright)
    cut, crop_and_resize = [], crops.crop_and_resize

    def follow(images, boxes, size, **more):
        cut.append(np.asarray(boxes))
        return crop_and_resize(images, boxes, size, **more)

    monkeypatch.setattr(crops, "crop_and_resize", follow)
    spec = localise.LocaliseSpec(channels=1, input_size=160, looks=2, context=2.0)
    found = localise.find({}, bright, {}, jnp.asarray(frames), spec)
    np.testing.assert_allclose(found.box, painted, atol=1.5)
    first, second = bright.windows
    np.testing.assert_allclose(first * [160, 96, 160, 96], painted, atol=1.5)
    # Twice as wide a window, the car in its middle.
    np.testing.assert_allclose(second, [[0.25, 0.25, 0.75, 0.75]] * 2, atol=0.04)
    # And on the grid, of which a pixel is no whole number of steps.
    size = np.array([160, 96, 160, 96])
    np.testing.assert_allclose(cut[1], localise.snap(cut[1], size), atol=1e-4)
