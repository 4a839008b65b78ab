"""Views of photos: how far their edges move, and what is done to their pixels, by hand."""

import numpy as np

from carjax.datasets import augment
from carjax.datasets.augment import Augmentation, View

NAMES = [f"{i}.jpg" for i in range(300)]
STILL = dict.fromkeys(("crop", "margin", "blur_rate"), 0.0)


def boxes(height, width, **changes):
    config = Augmentation(**changes)
    return augment.draw(config, NAMES, np.tile([height, width], (len(NAMES), 1)), 2).box


def test_every_edge_moves_by_a_draw_of_its_own_within_its_share_of_the_side():
    left, top, right, bottom = boxes(20.0, 1000.0, crop=0.1, margin=0.05).T
    inwards = np.stack([left / 1000, top / 20, 1 - right / 1000, 1 - bottom / 20])
    assert inwards.min() < -0.045
    assert inwards.max() > 0.095
    assert (inwards.min(1) >= -0.05 - 1e-6).all()
    assert (inwards.max(1) <= 0.1 + 1e-6).all()
    assert np.abs(np.corrcoef(inwards) - np.eye(4)).max() < 0.2


def test_a_photo_that_is_zoomed_out_lies_anywhere_in_a_larger_frame():
    left, top, right, bottom = boxes(20.0, 40.0, zoom_out=3.0, zoom_out_rate=1.0, **STILL).T
    factor = (right - left) / 40
    np.testing.assert_allclose((bottom - top) / 20, factor, rtol=1e-5)
    assert factor.min() >= 1.0
    assert 2.8 < factor.max() <= 3.0
    assert (left <= 0).all()
    assert (right >= 40 - 1e-4).all()
    assert (top <= 0).all()
    assert (bottom >= 20 - 1e-4).all()
    place = (-left / (right - left - 40))[factor > 1.1]
    assert place.min() < 0.1 < 0.9 < place.max()


def still(n, size, **changes):
    """Views that show `n` photos of that size as they are, but for the changes."""
    one = {"blur": np.ones(n), "gain": np.ones((n, 3)), "contrast": np.ones(n)}
    one |= {"saturation": np.ones(n), "backdrop": np.zeros((n, 4))}
    one |= {"box": np.tile([0, 0, size, size], (n, 1))} | changes
    return View(**{k: np.asarray(v, np.float32) for k, v in one.items()})


def rendered(photos, view, **changes):
    n, size = photos.shape[:2]
    canvas = np.zeros((n, size + 4, size + 4, 3), np.uint8)
    canvas[:, :size, :size] = photos
    valid = np.full((n, 2), size, np.float32)
    return np.asarray(augment.render(canvas, valid, view, size, Augmentation(**changes)))


def test_light_is_changed_in_each_photo_on_its_own():
    rng = np.random.default_rng(0)
    photos = rng.integers(60, 140, (2, 8, 8, 3)).astype(np.uint8)
    photos[1] //= 2
    gain, contrast, saturation = [[1.1, 0.9, 1.0], [0.8, 1.0, 1.2]], [1.3, 0.7], [0.6, 1.4]
    view = still(2, 8, gain=gain, contrast=contrast, saturation=saturation)
    for got, photo, by, about, colour in zip(
        rendered(photos, view), photos, gain, contrast, saturation, strict=True
    ):
        grey = (photo @ np.array([0.299, 0.587, 0.114]))[..., None]
        want = grey + (photo - grey) * colour
        want = (want.mean() + (want - want.mean()) * about) * by
        assert 0 < want.min() < want.max() < 255
        np.testing.assert_allclose(got, want, atol=0.01)
    bright = rendered(photos, still(2, 8, gain=np.full((2, 3), 9.0)))
    assert bright.max() == 255


def test_a_backdrop_fills_what_lies_beyond_the_photo_and_nothing_else():
    photos = np.full((2, 8, 8, 3), 40, np.uint8)
    photos[:, 4:, 4:] = 200  # the corner lies well inside, so that its edges are not seen
    # Twice as large, the photo in its middle; the second one has no backdrop.
    view = still(2, 8, box=[[-4, -4, 12, 12]] * 2, backdrop=[[6, 6, 8, 8], [0] * 4])
    got = rendered(photos, view, backdrop_rate=0.5, zoom_out=2.0)
    beyond = np.ones((8, 8), bool)
    beyond[2:6, 2:6] = False
    np.testing.assert_allclose(got[0][beyond], 200, atol=0.5)
    np.testing.assert_allclose(got[0, 2, 2], 40, atol=0.5)
    np.testing.assert_allclose(got[1, :3, :3], 40, atol=0.5)
