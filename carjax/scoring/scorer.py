"""Many frames over all devices, in batches of a fixed shape."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from carjax import plugins, programs
from carjax.features import Level
from carjax.model import Model
from carjax.scoring.statistics import (
    FrameScores,
    check_frames,
    check_level,
    concatenate,
    score,
    to_host,
)

# Frames on each device at a time. A fixed number, because results differ in the last bits between
# batches of different sizes. On CPU larger ones are no faster; an accelerator wants many.
DEVICE_BATCH = {"cpu": 8, "default": 256}
# The type of the backbone's weights and activations over the crop, by platform; all else is
# float32. On 16 photos bfloat16 moves probabilities by up to 0.07, float16 by up to 0.004
# (tests/test_precision.py), so a GPU, which computes both at one rate, gets float16. A TPU has no
# float16: it gets float32, see `precision`.
DTYPE = {"cpu": jnp.float32, "gpu": jnp.float16, "tpu": jnp.float32}
# Host buffers that are kept; more only while they are read.
_BUFFERS = 8
# Sides of canvases, see `canvas`.
_SIDES = (120, 180, 240, 320, 360, 480, 640, 720, 960, 1080, 1280, 1440, 1920, 2160, 2560, 3840)


class Scorer:
    """Scores any number of frames in batches of one fixed shape over all devices.

    Built once, called often; the last batch is padded and masked, so that a tail never compiles
    anew. Frames are padded to one of few canvases (`canvas`), so that mixed sizes compile a few
    programs and then no more. A row depends on its frame, its canvas and the rows per device, and
    not on how many devices there are.
    """

    def __init__(
        self,
        model: Model,
        batch_size: int | None = None,
        *,
        devices: Sequence[jax.Device] | None = None,
        dtype: Any = None,
        features: Level | None = None,
    ):
        """Copies the model to the devices, for as long as the model lives; compiles nothing yet.

        Args:
            model: from `carjax.load_model`.
            batch_size: frames of a batch, rounded up to a multiple of the devices (default:
                `DEVICE_BATCH` for each).
            devices: default: all that there are.
            dtype: type of the backbone's weights and activations over the crop (default: of
                `DTYPE`).
            features: which features come with the scores, float16: 'pooled', or 'grid' for both
                levels (default: none; see `FrameScores.features`).

        Raises:
            ValueError: no batch, or no such features.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        check_level(features)
        devices = list(devices or jax.devices())
        platform = devices[0].platform
        if batch_size is None:
            batch_size = _device_batch(devices)
        if dtype is None:
            dtype = DTYPE.get(platform, jnp.float32)
        mesh = jax.sharding.Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
        self.model = model
        self.batch_size = -(-batch_size // len(devices)) * len(devices)
        self.dtype = np.dtype(dtype)
        self.features = features
        self._batch = NamedSharding(mesh, PartitionSpec("data"))
        self._params = _placed(model, NamedSharding(mesh, PartitionSpec()))
        # Frames are independent: each device runs the whole program on its own rows.
        rows = PartitionSpec("data")
        self._score = jax.jit(
            jax.shard_map(
                functools.partial(score, spec=model.spec, dtype=self.dtype, features=features),
                mesh=mesh,
                in_specs=(PartitionSpec(), rows, rows, rows),
                out_specs=rows,
                check_vma=False,
            )
        )
        # Several threads may use one scorer: it is kept between calls.
        self._lock = threading.Lock()
        self._programs: dict[tuple[int, ...], Callable[..., FrameScores]] = {}
        self._buffers: list[tuple[np.ndarray, Any]] = []

    def dispatch(
        self, frames: np.ndarray, mask: np.ndarray, valid: np.ndarray | None = None
    ) -> FrameScores:
        """Starts scoring one batch; the result stays on the devices.

        Transfers are explicit (`jax.transfer_guard('disallow')` holds). The devices may read
        `frames` itself: do not write to it before the scores are there.

        Args:
            frames: uint8 [batch_size, H, W, 3].
            mask: bool [batch_size]; False marks padding.
            valid: int [batch_size, 2]; height and width of each frame inside [H, W], for a batch
                of frames of several sizes (default: all of it).

        Raises:
            ValueError: the frames are not uint8 [batch_size, H, W, 3].
        """
        check_frames(frames)
        if len(frames) != self.batch_size:
            raise ValueError(f"{len(frames)} frames are not a batch of {self.batch_size}")
        height, width = frames.shape[1:3]
        if valid is None:
            valid = np.array([[height, width]] * len(frames))
        target = canvas(height, width)
        buffer = None
        if target != (height, width):
            with self._lock:
                buffer = self._take_buffer((len(frames), *target, 3))
            buffer[:, :height, :width] = frames
            frames = buffer
        inputs = (frames, mask, valid.astype(np.float32))
        args = (self._params, *jax.device_put(inputs, self._batch))
        with self._lock:
            if frames.shape not in self._programs:
                self._programs[frames.shape] = self._program(args)
        scores = self._programs[frames.shape](*args)
        if buffer is not None:
            with self._lock:
                self._buffers.append((buffer, scores))
        return scores

    def _program(self, args: tuple[Any, ...]) -> Callable[..., FrameScores]:
        """The program for arguments like these, which may have been kept on disk."""
        spec = self.model.spec
        code = plugins.code_of(spec.modules)
        if code is None:
            return self._score
        return programs.cached(self._score, args, repr((spec, self.dtype, self.features, code)))

    def _take_buffer(self, shape: tuple[int, ...]) -> np.ndarray:
        """A host buffer of that shape that no device reads any more: an old one or a new one."""

        def free(scores: FrameScores) -> bool:
            return scores.mask.is_ready()  # type: ignore[attr-defined]

        for i, (buffer, scores) in enumerate(self._buffers):
            if buffer.shape == shape and free(scores):
                del self._buffers[i]
                return buffer
        while len(self._buffers) >= _BUFFERS and free(self._buffers[0][1]):
            del self._buffers[0]
        return np.zeros(shape, np.uint8)

    def __call__(self, frames: npt.ArrayLike) -> FrameScores:
        """Scores frames uint8 [N, H, W, 3], N ≥ 1, and returns N rows as NumPy arrays.

        Raises:
            ValueError: there is no frame, or they are not uint8 [N, H, W, 3].
        """
        frames = np.asarray(frames)
        check_frames(frames)
        if not len(frames):
            raise ValueError("there must be at least one frame")
        parts: list[FrameScores] = []
        waiting: tuple[FrameScores, int] | None = None
        for start in range(0, len(frames), self.batch_size):
            chunk = frames[start : start + self.batch_size]
            n = len(chunk)
            if n < self.batch_size:
                padding = np.zeros((self.batch_size - n, *chunk.shape[1:]), chunk.dtype)
                chunk = np.concatenate([chunk, padding])
            started = self.dispatch(chunk, np.arange(self.batch_size) < n)
            if waiting is not None:
                parts.append(to_host(*waiting))
            waiting = started, n
        if waiting is not None:
            parts.append(to_host(*waiting))
        return concatenate(parts)


# Parameters on the devices, as long as their model is there.
_PLACED: weakref.WeakKeyDictionary[Model, dict[NamedSharding, Any]] = weakref.WeakKeyDictionary()


def _placed(model: Model, sharding: NamedSharding) -> Any:
    """The model's parameters on the devices, the same arrays for all its scorers."""
    places = _PLACED.setdefault(model, {})
    if sharding not in places:
        places[sharding] = jax.device_put(model.params, sharding)
    return places[sharding]


def canvas(height: int, width: int) -> tuple[int, int]:
    """Returns the height and width to which frames of that size are padded.

    Each side becomes the next one that is usual in videos, so that these need no padding, and a
    collection of photos of all shapes, none longer than 640 pixels, has at most 49 canvases, and 13
    of them where the longer side is 640.

    Example:
        >>> canvas(360, 640), canvas(427, 640), canvas(1080, 1920)
        ((360, 640), (480, 640), (1080, 1920))
    """

    def side(n: int) -> int:
        return next((s for s in _SIDES if s >= n), -(-n // _SIDES[-1]) * _SIDES[-1])

    return side(height), side(width)


def kept_scorer(model: Model, batch_size: int, features: Level | None = None) -> Scorer:
    """Returns a `Scorer`, the same one as lately: its programs are compiled once per process.

    The last eight stay; they share the model's weights on the devices.
    """
    devices = jax.device_count()
    return _scorer(model, -(-batch_size // devices) * devices, features)


@functools.lru_cache(maxsize=8)
def _scorer(model: Model, batch_size: int, features: Level | None) -> Scorer:
    return Scorer(model, batch_size, features=features)


def score_frames(model: Model, frames: np.ndarray) -> FrameScores:
    """Scores frames on all devices, as a `Scorer` of the model does that is kept between calls.

    Args:
        model: from `carjax.load_model`.
        frames: uint8 [B, H, W, 3], RGB; B ≥ 1.

    Returns:
        FrameScores of B rows, NumPy arrays.

    Raises:
        ValueError: there is no frame, or they are not uint8 [B, H, W, 3].

    Example:
        >>> import carjax
        >>> model = carjax.load_model()
        >>> frames = np.zeros((2, 72, 128, 3), np.uint8)
        >>> scores = carjax.score_frames(model, frames)  # doctest: +SKIP
        >>> scores.probs["doors"].shape  # doctest: +SKIP
        (2, 4)
    """
    frames = np.asarray(frames)
    if not len(frames):
        raise ValueError("there must be at least one frame")
    # The next power of two: few programs, and little padding.
    batch = min(1 << (len(frames) - 1).bit_length(), _device_batch(jax.devices()))
    return kept_scorer(model, batch)(frames)


def _device_batch(devices: Sequence[jax.Device]) -> int:
    """Frames of a batch over these devices, where nobody says otherwise."""
    return DEVICE_BATCH.get(devices[0].platform, DEVICE_BATCH["default"]) * len(devices)
