"""A trained sequence head: its file, and its use on the frames of one video."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from carjax import circular, files, model, weights_file
from carjax.backbones import pretrained
from carjax.errors import CarjaxError, UsageError
from carjax.features import Features
from carjax.temporal.sequence_heads import (
    Frames,
    SequenceHead,
    SequenceSpec,
    expected_params,
    find,
)

SEQUENCE_VERSION = 1
_KIND = "carjax_sequence"
# Two minutes at 8 frames a second; heads are trained on an eighth of that.
MOST_FRAMES, MARGIN = 1024, 128


@dataclasses.dataclass(frozen=True)
class SequenceModel:
    """A trained sequence head, ready for use.

    Attributes:
        params: pytree of float32 arrays.
        spec: the static description.
        card: JSON-like facts, as of a bundle: its training, the backbone's hash.
        training_hashes: SHA-256 of every photo that it was trained on.
    """

    params: Any
    spec: SequenceSpec
    card: dict[str, Any]
    training_hashes: frozenset[str] = frozenset()

    def __call__(
        self, features: Features, time_s: ArrayLike, mask: ArrayLike | None = None
    ) -> circular.Density:
        """Returns the density of every frame of one video.

        More than `MOST_FRAMES` are seen in windows of so many, which overlap: every frame knows at
        least the `MARGIN` frames on either side, and memory does not grow with the square of time.

        Args:
            features: float; pooled [T, C], grid [T, g, g, Cm], of the spec's backbone.
            time_s: float [T]; not decreasing.
            mask: bool [T]; False for frames to leave out (default: none). Their densities mean
                nothing.

        Returns:
            Batch shape [T]. A length that was not seen before is compiled first.
        """
        times = np.asarray(time_s)
        seen = np.ones(len(times), bool) if mask is None else np.asarray(mask, bool)
        parts: list[circular.Density] = []
        done = 0
        while done < len(times) or not parts:
            first = max(0, min(done - MARGIN, len(times) - MOST_FRAMES))
            last = min(first + MOST_FRAMES, len(times))
            end = last if last == len(times) else last - MARGIN
            window, kept = slice(first, last), slice(done - first, end - first)
            own = jax.tree.map(lambda x, w=window: x[w], features)
            density = self._of_window(own, times[window], seen[window])
            parts.append(jax.tree.map(lambda x, k=kept: x[k], density))
            done = end
        return jax.tree.map(lambda *x: jnp.concatenate(x), *parts)

    def _of_window(
        self, features: Features, times: np.ndarray, seen: np.ndarray
    ) -> circular.Density:
        # Times may be large; float32 keeps them apart when they count from the first frame.
        times = (times - times[:1]).astype(np.float32)
        rows = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32)[None], features)
        frames = Frames(rows, jnp.asarray(times)[None], jnp.asarray(seen)[None])
        return jax.tree.map(lambda x: x[0], _apply(self.spec, self.params, frames))


@functools.partial(jax.jit, static_argnums=0)
def _apply(spec: SequenceSpec, params: Any, frames: Frames) -> circular.Density:
    density: Any = SequenceHead(spec).apply({"params": params}, frames)
    return density


def save(sequence_model: SequenceModel, path: str | os.PathLike[str]) -> None:
    """Writes a trained sequence head, its weights as float16.

    Raises:
        CarjaxError: a weight is not finite, or too large for float16.
        OSError: the file cannot be written.
    """
    spec = sequence_model.spec
    row = {
        **dataclasses.asdict(spec),
        "head": model.head_to_json(spec.head),
        "options": dict(spec.options),
    }
    weights_file.write(
        path,
        (_KIND, SEQUENCE_VERSION),
        sequence_model.params,
        spec=row,
        card=sequence_model.card,
        training_hashes=sequence_model.training_hashes,
    )


def load(path: str | os.PathLike[str]) -> SequenceModel:
    """Loads what `save` wrote.

    Args:
        path: a file, or a folder of `carjax train`.

    Raises:
        CarjaxError: no such file, not a sequence head, or its model is not at hand.
    """
    where = files.head_file(path)
    if not where.is_file():
        raise CarjaxError(f"{where}: no such sequence head (made by `carjax train`)")
    with weights_file.reading(where, (_KIND, SEQUENCE_VERSION), "sequence head") as found:
        row = found.spec
        spec = SequenceSpec(
            **{
                **row,
                "head": model.head_from_json(row["head"]),
                "options": tuple(sorted(row["options"].items())),
            }
        )
        params = pretrained.to_device(found.flat)
    try:
        find(spec)
    except UsageError as error:
        raise CarjaxError(f"{where}: {error}") from None
    weights_file.check_shapes(params, expected_params(spec), where)
    return SequenceModel(params, spec, found.card, found.training_hashes)
