"""The feature cache: right features, resumable, invalidated by whatever they depend on."""

import dataclasses
import os
import pathlib

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from carjax import crops, files, pictures, precision
from carjax.backbones import efficientnet_lite, layers
from carjax.datasets import augment, feature_cache, photos
from carjax.errors import CarjaxError
from carjax.features import Features

SIZE, CELLS = 16, 2


class Tiny(nn.Module):
    """A backbone whose features are averages of pixels: its grid is the image at 4 × 4."""

    @nn.compact
    def __call__(self, x):
        gain = self.param("gain", nn.initializers.ones, ())
        grid = x.reshape(x.shape[0], 4, SIZE // 4, 4, SIZE // 4, 3).mean((2, 4)) * gain
        return Features(grid.mean((1, 2)), grid)


@pytest.fixture
def tiny(monkeypatch):
    """The module, its params, and calls counted."""
    monkeypatch.setattr(feature_cache.registry, "normalize", lambda name, x: x)
    module = Tiny()
    return module, module.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))["params"]


@pytest.fixture
def data(tmp_path):
    """Five photos of different sizes with a red left and a blue right half."""
    paths = []
    for i in range(5):
        image = np.zeros((20 + 4 * i, 32, 3), np.uint8)
        image[:, :16, 2] = 40 * i + 40
        image[:, 16:, 0] = 200
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), image)
        paths.append(path)
    return photos.Photos(
        tuple(paths),
        tuple(p.name for p in paths),
        {},
        np.array([""] * 5),
        np.full((5, 4), np.nan, np.float32),
    )


def key_of(data, **changes):
    key = feature_cache.CacheKey(
        backbone="tiny",
        weights_sha256="w",
        input_size=SIZE,
        cells=CELLS,
        content_sha256=feature_cache.content_sha256(data.names, photos.content_hashes(data)),
        augmentation=augment.Augmentation(),
    )
    return dataclasses.replace(key, **changes)


def build(data, tiny, folder, views=2, **kwargs):
    return feature_cache.build(
        data, key_of(data), *tiny, range(views), cache_dir=folder, batch_size=2, **kwargs
    )


def test_features_are_those_of_the_photos(data, tiny, tmp_path):
    cache = build(data, tiny, tmp_path / "cache")
    plain, mirrored = cache.load(0), cache.load(1)
    assert plain.features.pooled.dtype == plain.features.grid.dtype == np.float16
    assert plain.features.grid.shape == (5, CELLS, CELLS, 3)
    for i in range(5):
        # Left half red as painted, right half blue; the resize blurs only the seam.
        np.testing.assert_allclose(plain.features.grid[i, :, 0, 0], 40 * i + 40, rtol=0.05)
        np.testing.assert_allclose(plain.features.grid[i, :, 1, 2], 200, rtol=0.05)
    # float16 rounds 200 to a step of 0.125.
    np.testing.assert_allclose(
        mirrored.features.grid, plain.features.grid[:, :, ::-1], rtol=2e-3, atol=0.05
    )
    np.testing.assert_array_equal(plain.window[1], [0, 0, 32, 24])
    np.testing.assert_array_equal(mirrored.window[1], [32, 0, 0, 24])


def test_batches_and_tail_change_nothing(data, tiny, tmp_path):
    small = build(data, tiny, tmp_path / "a").load(0)
    large = feature_cache.build(
        data, key_of(data), *tiny, [0], cache_dir=tmp_path / "b", batch_size=8
    ).load(0)
    np.testing.assert_array_equal(small.features.grid, large.features.grid)
    np.testing.assert_array_equal(small.window, large.window)


def test_finished_views_are_kept_and_missing_ones_added(data, tiny, tmp_path):
    seen = []
    cache = build(data, tiny, tmp_path / "cache", views=1)
    before = cache.path("grid", 0).stat().st_mtime_ns
    build(data, tiny, tmp_path / "cache", views=2, on_progress=lambda *p: seen.append(p))
    assert seen[-1] == (5, 5)  # one view only
    assert cache.path("grid", 0).stat().st_mtime_ns == before
    seen.clear()
    build(data, tiny, tmp_path / "cache", views=2, on_progress=lambda *p: seen.append(p))
    assert not seen


def test_views_are_built_on_their_own(data, tiny, tmp_path):
    every = build(data, tiny, tmp_path / "every", views=4)
    some = feature_cache.build(
        data, key_of(data), *tiny, (2, 3), cache_dir=tmp_path / "some", batch_size=2
    )
    assert [some.has(view) for view in range(4)] == [False, False, True, True]
    for view in (2, 3):
        np.testing.assert_array_equal(some.load(view).window, every.load(view).window)
        np.testing.assert_array_equal(some.load(view).features.grid, every.load(view).features.grid)


def test_a_view_cut_short_is_made_again(data, tiny, tmp_path):
    cache = build(data, tiny, tmp_path / "cache")
    whole = np.array(cache.load(1).features.grid)
    for size in (150, 20, 0):  # in the numbers, in the header, nothing at all
        os.truncate(cache.path("grid", 1), size)
        assert cache.has(0)
        assert not cache.has(1)
        build(data, tiny, tmp_path / "cache")
        np.testing.assert_array_equal(cache.load(1).features.grid, whole)


def test_other_code_of_carjax_has_features_of_its_own(data, monkeypatch):
    source = feature_cache.inspect.getsource
    digests = {key_of(data).digest()}
    made_by = (augment, crops, pictures, photos.decode, precision, layers, efficientnet_lite)
    for changed in made_by:
        feature_cache.source_sha256.cache_clear()
        monkeypatch.setattr(
            feature_cache.inspect,
            "getsource",
            lambda x, changed=changed: source(x) + "# another line\n" * (x is changed),
        )
        digests.add(key_of(data).digest())
    monkeypatch.undo()
    feature_cache.source_sha256.cache_clear()
    assert len(digests) == 1 + len(made_by)


def test_a_broken_build_leaves_no_view(data, tiny, tmp_path):
    os.truncate(data.paths[4], 10)
    with pytest.raises(CarjaxError, match=r"4\.png"):
        build(data, tiny, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    assert [p.name for p in folder.iterdir()] == ["key.json"]


def test_features_of_another_layout_are_kept_as_well(data, tiny, tmp_path, monkeypatch):
    make = feature_cache.make_extractor

    def by_column(*args, **rest):
        extract = make(*args, **rest)
        return lambda *batch: jax.tree.map(np.asfortranarray, extract(*batch))

    expected = build(data, tiny, tmp_path / "a", views=1).load(0).features
    monkeypatch.setattr(feature_cache, "make_extractor", by_column)
    jax.tree.map(
        np.testing.assert_array_equal,
        build(data, tiny, tmp_path / "b", views=1).load(0).features,
        expected,
    )


def test_a_full_disk_is_one_line_and_leaves_no_view(data, tiny, tmp_path, monkeypatch):
    unique = files.unique

    def full(target):
        temporary = unique(target)
        if target.name == "grid_01.npy":
            temporary.symlink_to("/dev/full")
        return temporary

    monkeypatch.setattr(files, "unique", full)
    match = r"^cannot write .*cache/\w+: No space left on device: free some or give another --cach"
    with pytest.raises(CarjaxError, match=match):
        build(data, tiny, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    whole = ["grid_00.npy", "key.json", "pooled_00.npy", "window_00.npy"]
    assert sorted(p.name for p in folder.iterdir()) == whole


def test_a_cache_that_cannot_be_made_is_one_line(data, tiny, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CarjaxError, match=r"^cannot write .*: give another"):
        build(data, tiny, tmp_path / "cache")


def test_parts_that_nobody_writes_any_more_are_removed(data, tiny, tmp_path):
    folder = build(data, tiny, tmp_path / "cache", views=1).folder
    theirs, abandoned = folder / ".grid_01.npy.0a.part", folder / ".grid_01.npy.0b.part"
    for part in (theirs, abandoned):
        part.write_bytes(b"half")
    os.utime(theirs, (0, theirs.stat().st_mtime - 600))
    os.utime(abandoned, (0, abandoned.stat().st_mtime - 4000))
    sizes = []

    def note(done, total):
        sizes.append(sum(p.stat().st_size for p in folder.glob(".window_01.*.part")))

    build(data, tiny, tmp_path / "cache", on_progress=note)
    assert [p.name for p in folder.glob(".*")] == [theirs.name]
    # A batch is two photos, and is seen at once: by that others know that the part is in use.
    assert sizes == [0, 128 + 2 * 16, 128 + 4 * 16, 128 + 5 * 16, 0]


def test_a_half_written_view_is_built_again(data, tiny, tmp_path):
    cache = build(data, tiny, tmp_path / "cache", views=1)
    whole = np.array(cache.load(0).features.grid)
    cache.path("grid", 0).unlink()
    assert not cache.has(0)
    build(data, tiny, tmp_path / "cache", views=1)
    np.testing.assert_array_equal(cache.load(0).features.grid, whole)


def test_two_builders_at_once_do_not_disturb_each_other(data, tiny, tmp_path):
    # The second builder runs, start to end, while the first is in the middle of view 0.
    folder = tmp_path / "cache"
    inner = []

    def interrupt(done, total):
        if done == 2 and not inner:
            inner.append(None)
            feature_cache.build(data, key_of(data), *tiny, range(2), cache_dir=folder, batch_size=4)

    pids = iter(range(10**6, 10**6 + 99))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: next(pids))  # as two processes would have
        cache = build(data, tiny, folder, on_progress=interrupt)
    alone = build(data, tiny, tmp_path / "alone")
    for view in (0, 1):
        np.testing.assert_array_equal(
            cache.load(view).features.grid, alone.load(view).features.grid
        )
    assert not list(cache.folder.glob(".*"))


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "other"},
        {"weights_sha256": "v"},
        {"input_size": 32},
        {"cells": 4},
        {"augmentation": augment.Augmentation(seed=1)},
        {"dtype": "bfloat16"},
        {"code": "another"},
    ],
)
def test_key_depends_on_every_setting(data, change):
    assert key_of(data, **change).digest() != key_of(data).digest()


def test_key_depends_on_the_photos(data):
    before = key_of(data).digest()
    with open(data.paths[2], "ab") as f:
        f.write(b"x")
    assert key_of(data).digest() != before
    renamed = dataclasses.replace(data, names=("z.png", *data.names[1:]))
    assert key_of(renamed).digest() != key_of(data).digest()


def test_large_photos_are_shrunk_and_windows_stay_in_their_pixels(tiny, tmp_path):
    side = 2 * feature_cache.CANVAS
    path = tmp_path / "large.png"
    cv2.imwrite(str(path), np.full((side // 2, side, 3), 9, np.uint8))
    large = photos.Photos((path,), ("large.png",), {}, np.array([""]), np.zeros((1, 4)))
    view = build(large, tiny, tmp_path / "cache", views=1).load(0)
    np.testing.assert_array_equal(view.window[0], [0, 0, side, side // 2])
    np.testing.assert_allclose(view.features.pooled, 9, rtol=1e-3)


def test_box_in_window():
    box = np.array([[10, 20, 30, 40]] * 4 + [[np.nan] * 4], np.float32)
    window = np.array(
        [[0, 0, 100, 100], [100, 0, 0, 100], [20, 30, 120, 130], [50, 50, 90, 90], [0, 0, 9, 9]],
        np.float32,
    )
    got = feature_cache.box_in_window(box, window)
    np.testing.assert_allclose(got[0], [0.1, 0.2, 0.3, 0.4])
    np.testing.assert_allclose(got[1], [0.7, 0.2, 0.9, 0.4], rtol=1e-6)
    np.testing.assert_allclose(got[2], [0, 0, 0.1, 0.1])  # cut off at the view's border
    assert (got[3, 2:] - got[3, :2]).prod() == 0  # outside
    assert np.isnan(got[4]).all()


def test_cache_root(monkeypatch, tmp_path):
    monkeypatch.setenv("CARJAX_CACHE_DIR", str(tmp_path))
    assert feature_cache.cache_root() == tmp_path / "features"
    assert feature_cache.cache_root("here") == pathlib.Path("here")
    monkeypatch.delenv("CARJAX_CACHE_DIR")
    assert feature_cache.cache_root() == pathlib.Path.home() / ".cache" / "carjax" / "features"
