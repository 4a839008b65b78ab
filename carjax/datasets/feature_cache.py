"""Frozen features of every photo and view, computed once and kept on disk.

The backbone never trains, so its features of a view never change. A folder holds the views of one
data set under a key made of everything that the features depend on; a view is three `.npy` files
that appear by renaming, whole or not at all. So a build that was stopped goes on where it was, and
two processes that build the same key write the same bytes over each other's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from carjax import crops, files, pictures, pooling, precision
from carjax.backbones import (
    bottleneck,
    efficientnet_lite,
    inception_resnet_v2,
    layers,
    registry,
)
from carjax.datasets import augment, photos
from carjax.errors import writing
from carjax.features import Features
from carjax.prefetch import prefetch

# Photos are decoded into canvases of this side; larger ones are shrunk to fit.
CANVAS = 480
_LEVELS = ("pooled", "grid", "window")
# A part of a view is written to every few seconds: one left alone for so long is nobody's.
_ABANDONED_S = 3600


def cache_root(cache_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Returns where features are kept: the argument, or below `$CARJAX_CACHE_DIR`.

    Without either it is `~/.cache/carjax/features`.
    """
    if cache_dir:
        return pathlib.Path(cache_dir)
    return files.cache_dir() / "features"


@dataclasses.dataclass(frozen=True)
class CacheKey:
    """Everything that the cached features depend on.

    Attributes:
        backbone: name in the registry.
        weights_sha256: `model.weights_hash` of its parameters.
        input_size: side of its input in pixels.
        cells: the grid is area-averaged to cells × cells (0: kept as it is).
        content_sha256: of the photos and their crops, from `content_sha256`.
        augmentation: how views are drawn.
        dtype: type of the backbone's computation.
        code: of a backbone of one's own, `registry.code_of` it.
    """

    backbone: str
    weights_sha256: str
    input_size: int
    cells: int
    content_sha256: str
    augmentation: augment.Augmentation
    dtype: str = "float32"
    code: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the key as JSON-like data, with the hash of carjax's own code."""
        return {**dataclasses.asdict(self), "canvas": CANVAS, "carjax": source_sha256()}

    def digest(self) -> str:
        """Returns the folder's name: 20 hexadecimal digits."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


@functools.cache
def source_sha256() -> str:
    """Returns the hash of carjax's own code between a photo's bytes and its features.

    Another line of it may give other features.
    """
    made_by: tuple[Any, ...] = (
        *(photos.Photos.read, photos.decode, photos.to_canvas, pictures),
        *(augment, crops, precision, pooling, make_extractor, _batches),
        *(registry, layers, bottleneck, efficientnet_lite, inception_resnet_v2),
    )
    return hashlib.sha256("".join(map(inspect.getsource, made_by)).encode()).hexdigest()


def content_sha256(names: Sequence[str], hashes: Sequence[str]) -> str:
    """Returns one SHA-256 over the names and the photos' own hashes, in order.

    Example:
        >>> content_sha256(["a.jpg"], ["00"])[:8]
        'b4dc6357'
    """
    rows = "\n".join(f"{h} {n}" for n, h in zip(names, hashes, strict=True))
    return hashlib.sha256(rows.encode()).hexdigest()


class CachedView(NamedTuple):
    """One view of all N photos, mapped from disk.

    Attributes:
        features: float16; pooled [N, C] and grid [N, cells, cells, Cm].
        window: float32 [N, 4]; the part of each photo that the view shows, in the pixels that
            `Photos.read` gives; left > right where the view is mirrored.
    """

    features: Features
    window: np.ndarray


@dataclasses.dataclass(frozen=True)
class FeatureCache:
    """A folder of cached views; made by `build`."""

    folder: pathlib.Path

    def path(self, level: str, view: int) -> pathlib.Path:
        """Returns the file of one level ('pooled', 'grid' or 'window') of a view."""
        return self.folder / f"{level}_{view:02d}.npy"

    def has(self, view: int) -> bool:
        """Whether a view is there and whole: a file cut short or emptied is as none."""
        try:
            self.load(view)
        except (OSError, ValueError, EOFError):
            return False
        return True

    def load(self, view: int) -> CachedView:
        """Maps a view into memory, read-only."""
        pooled, grid, window = (np.load(self.path(k, view), mmap_mode="r") for k in _LEVELS)
        return CachedView(Features(pooled, grid), window)


def box_in_window(box: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Maps boxes of photos into views of them.

    Args:
        box: float [N, 4]; left, top, right, bottom in the photo's pixels, NaN if unknown.
        window: float [N, 4]; from `CachedView`, left > right where mirrored.

    Returns:
        float32 [N, 4]; as fractions of the view, cut off at its border. A box outside the view
        has no area; NaN stays NaN.

    Example:
        >>> box_in_window(np.array([[10, 0, 20, 50]]), np.array([[100, 0, 0, 100]]))
        array([[0.8, 0. , 0.9, 0.5]], dtype=float32)
    """
    origin, extent = window[:, None, :2], (window[:, 2:] - window[:, :2])[:, None]
    corners = (box.reshape(-1, 2, 2) - origin) / extent
    corners = np.clip(np.sort(corners, axis=1), 0.0, 1.0)
    return corners.reshape(-1, 4).astype(np.float32)


def make_extractor(
    backbone: nn.Module,
    params: Mapping[str, Any],
    *,
    input_size: int,
    cells: int,
    augmentation: augment.Augmentation,
) -> Callable[[np.ndarray, np.ndarray, augment.View], Features]:
    """Builds the function from a batch of canvases to cached features, over this host's devices.

    Args:
        backbone: its module.
        params: its parameters.
        input_size: side of its input in pixels.
        cells: side of the pooled grid (0: as it is).
        augmentation: what the views are drawn from.

    Returns:
        (canvas uint8 [B, S, S, 3], valid float32 [B, 2], View of B) → float16 Features on the
        devices; B must be a multiple of their number.
    """
    # Processes share no work here: `build` gives each its own views.
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("data",), axis_types=(AxisType.Auto,))
    rows = PartitionSpec("data")
    replicated = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))

    def extract(
        params: Mapping[str, Any], canvas: jax.Array, valid: jax.Array, view: augment.View
    ) -> Features:
        with precision.exact_products():
            images = augment.render(canvas, valid, view, input_size, augmentation)
            inputs = registry.normalize(str(backbone.name), images)
            features: Any = backbone.apply({"params": params}, inputs)
            return pooling.compact(features, cells)

    # Photos are independent: each device runs the whole program on its own rows.
    sharded = jax.jit(
        jax.shard_map(
            extract,
            mesh=mesh,
            in_specs=(PartitionSpec(), rows, rows, rows),
            out_specs=rows,
            check_vma=False,
        )
    )

    def run(canvas: np.ndarray, valid: np.ndarray, view: augment.View) -> Features:
        batch = jax.device_put((canvas, valid, view), NamedSharding(mesh, rows))
        return sharded(replicated, *batch)

    return run


class _Batch(NamedTuple):
    start: int
    canvas: np.ndarray
    valid: np.ndarray
    scale: np.ndarray  # float32 [B, 2]: the photo's own pixels per canvas pixel, x and y


def _batches(data: photos.Photos, batch_size: int) -> Iterator[_Batch]:
    for start in range(0, len(data), batch_size):
        images = [data.read(i) for i in range(start, min(start + batch_size, len(data)))]
        canvas, valid = photos.to_canvas(images, CANVAS)
        own = np.array([image.shape[1::-1] for image in images], np.float32)
        yield _Batch(start, canvas, valid, own / valid[:, ::-1])


def _pad(x: np.ndarray, rows: int) -> np.ndarray:
    """Repeats the last row, so that every batch has the shape that was compiled."""
    return np.concatenate([x, np.repeat(x[-1:], rows - len(x), axis=0)])


def build(
    data: photos.Photos,
    key: CacheKey,
    backbone: nn.Module,
    params: Mapping[str, Any],
    views: Sequence[int],
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    batch_size: int = 32,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> FeatureCache:
    """Computes the views that the cache lacks and returns the cache.

    Args:
        data: the photos; labels and boxes play no part in the features.
        key: what the features depend on; must describe `data`, `backbone` and `params`.
        backbone: its module.
        params: its parameters.
        views: the numbers of the views that are needed.
        cache_dir: from `--cache_dir`; default: see `cache_root`.
        batch_size: rounded up to a multiple of the number of devices.
        on_progress: called with (photos done, photos to do), over all missing views.

    Returns:
        A cache with at least those views.

    Raises:
        CarjaxError: a photo is missing or cannot be decoded, or the cache cannot be written.
    """
    cache = FeatureCache(cache_root(cache_dir) / key.digest())
    missing = [view for view in views if not cache.has(view)]
    if not missing or not len(data):
        return cache
    with writing(cache.folder, "or give another --cache_dir"):
        cache.folder.mkdir(parents=True, exist_ok=True)
        files.write(cache.folder / "key.json", json.dumps(key.to_json(), indent=1) + "\n")
        _remove_abandoned(cache.folder)
        devices = jax.local_device_count()
        batch_size = -(-batch_size // devices) * devices
        extract = make_extractor(
            backbone,
            params,
            input_size=key.input_size,
            cells=key.cells,
            augmentation=key.augmentation,
        )
        total = len(missing) * len(data)
        # Each process starts elsewhere; on a shared disk it then finds what the others have made.
        first = jax.process_index() * len(missing) // jax.process_count()
        for i, view in enumerate(missing[first:] + missing[:first]):
            on_progress(i * len(data), total)
            if cache.has(view):  # another process was faster
                continue
            _build_view(
                cache,
                data,
                key.augmentation,
                view,
                extract,
                batch_size,
                functools.partial(_shifted, on_progress, i * len(data), total),
            )
        on_progress(total, total)
    return cache


def _remove_abandoned(folder: pathlib.Path) -> None:
    """Removes what builds that were killed have left, and nothing that another one writes now."""
    now = (folder / "key.json").stat().st_mtime  # just written, by the clock of that disk
    for part in folder.glob(".*.part"):
        with contextlib.suppress(FileNotFoundError):  # finished, or removed by another
            if now - part.stat().st_mtime > _ABANDONED_S:
                part.unlink()


def _shifted(call: Callable[[int, int], None], offset: int, total: int, done: int) -> None:
    call(offset + done, total)


def _build_view(
    cache: FeatureCache,
    data: photos.Photos,
    augmentation: augment.Augmentation,
    view: int,
    extract: Callable[[np.ndarray, np.ndarray, augment.View], Features],
    batch_size: int,
    on_done: Callable[[int], None],
) -> None:
    """Writes the three files of one view, in constant memory."""
    with contextlib.ExitStack() as stack:
        paths = [stack.enter_context(files.replacing(cache.path(k, view))) for k in _LEVELS]
        # Not mapped: a process that writes to a map of a full disk is killed.
        out = [stack.enter_context(path.open("wb")) for path in paths]

        def write(start: int, rows: int, features: Features, window: np.ndarray) -> None:
            levels = [np.asarray(features.pooled), np.asarray(features.grid), window]
            for file, level in zip(out, levels, strict=True):
                if not start:
                    shape = (len(data), *level.shape[1:])
                    header = np.lib.format.header_data_from_array_1_0(level)
                    # In C order, as `tobytes` gives them, whatever the device's layout was.
                    header |= {"shape": shape, "fortran_order": False}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(level[:rows].tobytes())
                file.flush()  # so that `_remove_abandoned` sees that it is being written
            on_done(start + rows)

        # One batch is decoded and one is on its way while the devices compute a third.
        pending: tuple[int, int, Features, np.ndarray] | None = None
        with prefetch(_batches(data, batch_size), depth=2) as batches:
            for batch in batches:
                rows = len(batch.canvas)
                names = list(data.names[batch.start : batch.start + rows])
                drawn = augment.draw(augmentation, names, batch.valid, view)
                padded = augment.View(*(_pad(x, batch_size) for x in drawn))
                features = extract(
                    _pad(batch.canvas, batch_size), _pad(batch.valid, batch_size), padded
                )
                if pending is not None:
                    write(*pending)
                pending = (batch.start, rows, features, drawn.window(batch.scale))
        if pending is not None:
            write(*pending)
