"""Traced programs, kept between runs beside JAX's compiled ones.

JAX's own cache spares compiling a program, but not tracing and lowering it, which for `score` takes
as long as the import of JAX itself. So the exported program (`jax.export`, StableHLO with a version
of its own) is kept in the same folder, under a name made of everything that it depends on.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.export

from carjax import files, plugins


def cached(function: jax.stages.Wrapped, args: tuple[Any, ...], static: str) -> Callable[..., Any]:
    """Returns a function that runs the same program without tracing it, where one was kept.

    Without a folder of this machine for compiled programs (`jax_compilation_cache_dir`), or where
    the program cannot be exported, that is the function itself.

    Args:
        function: made by `jax.jit`.
        args: arrays, or their shapes with shardings, as it will be called with.
        static: what the program depends on besides this package's code and the arguments' shapes.
    """
    folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if not folder or files.is_remote(folder):
        return function
    path = pathlib.Path(folder) / f"carjax-{_digest(args, static)}.stablehlo"
    try:
        exported = jax.export.deserialize(bytearray(path.read_bytes()))
    except Exception:  # not kept yet, cut short, or of another version: made anew
        try:
            exported = jax.export.export(function)(*args)
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, exported.serialize())
        except (OSError, ValueError, NotImplementedError):
            return function
    return jax.jit(exported.call)


def _digest(args: tuple[Any, ...], static: str) -> str:
    shapes = [
        (jax.tree_util.keystr(path), x.shape, str(x.dtype), _placement(x))
        for path, x in jax.tree_util.tree_leaves_with_path(args)
    ]
    devices = [(d.platform, d.device_kind) for d in jax.devices()]
    versions = [importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")]
    wide = jax.config.jax_enable_x64  # type: ignore[attr-defined]
    text = repr((versions, devices, wide, shapes, static, _source_sha256()))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _placement(x: Any) -> tuple[int, str]:
    """Over how many devices an argument lies, and how it is split among them."""
    sharding = getattr(x, "sharding", None)
    if sharding is None:
        return 1, ""
    return sharding.num_devices, str(getattr(sharding, "spec", ""))


@functools.cache
def _source_sha256() -> str | None:
    """The hash of this package's code: another line of it may be another program."""
    return plugins.code_of(["carjax"])
