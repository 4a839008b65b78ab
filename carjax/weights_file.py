"""Trained weights in one file, with how to build what they are of, and how they came about."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors

from carjax.backbones import pretrained
from carjax.errors import CarjaxError

_TRAINING_HASHES = "training/sha256"


class Contents(NamedTuple):
    """What a file of `write` holds.

    Attributes:
        flat: 'a/b/c' → float16 tensor.
        spec: as it was written.
        card: as it was written.
        training_hashes: of the photos that were trained on.
    """

    flat: dict[str, np.ndarray]
    spec: dict[str, Any]
    card: dict[str, Any]
    training_hashes: frozenset[str]


def write(
    path: str | os.PathLike[str],
    kind: tuple[str, int],
    tree: Mapping[str, Any],
    *,
    spec: Mapping[str, Any],
    card: Mapping[str, Any],
    training_hashes: Collection[str],
) -> None:
    """Writes trained weights as float16, with what is known of them: a bundle, or the like.

    Args:
        path: of the file.
        kind: what it is, and the version of its layout.
        tree: pytree of dicts.
        spec: JSON-like; how to build what the weights are of.
        card: JSON-like; see `Model`.
        training_hashes: SHA-256 of every photo that was trained on.

    Raises:
        CarjaxError: a weight is not finite, or too large.
        OSError: it cannot be written.
    """
    tensors = pretrained.flatten(tree)
    hashes = [bytes.fromhex(h) for h in sorted(training_hashes)]
    tensors[_TRAINING_HASHES] = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32)
    metadata = {kind[0]: str(kind[1]), "spec": json.dumps(spec), "card": json.dumps(card)}
    pretrained.write_safetensors(tensors, path, np.float16, metadata)


@contextlib.contextmanager
def reading(path: pathlib.Path, kind: tuple[str, int], what: str) -> Iterator[Contents]:
    """Reads a file of `write`; a fault in it, or in what the caller makes of it, is one line.

    Args:
        path: of the file.
        kind: as it was written.
        what: the word for such files in an error.

    Raises:
        CarjaxError: no such file, another kind or version, or a broken one.
    """
    try:
        with safetensors.safe_open(path, "numpy") as f:
            metadata = f.metadata() or {}
            flat = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118, not a dict
        if metadata.get(kind[0]) != str(kind[1]):
            raise CarjaxError(f"{path}: not a carjax {what} of version {kind[1]}")
        hashes = frozenset(row.tobytes().hex() for row in flat.pop(_TRAINING_HASHES))
        pretrained.check_tensors(flat)
        yield Contents(flat, json.loads(metadata["spec"]), json.loads(metadata["card"]), hashes)
    except KeyError as error:
        raise CarjaxError(f"{path}: not a carjax {what} ({error} is missing)") from None
    except (
        *(safetensors.SafetensorError, OSError, TypeError, ValueError),
        *(AttributeError, IndexError, ZeroDivisionError),
    ) as error:
        raise CarjaxError(f"{path}: not a carjax {what} ({error})") from None


def check_shapes(
    tree: Mapping[str, Any], wanted: Mapping[str, Any], path: str | os.PathLike[str]
) -> None:
    """Raises one CarjaxError that lists every tensor missing, unexpected or of another shape."""
    wrong = pretrained.faults(pretrained.shapes(tree), pretrained.shapes(wanted))
    if wrong:
        raise CarjaxError(f"{path}: tensors do not fit the file's own spec: {wrong}")
