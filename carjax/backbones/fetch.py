"""Published weights from the network, converted and kept where `load_pretrained` finds them."""

from __future__ import annotations

import os
import pathlib
import urllib.parse
from typing import Any

import numpy as np

from carjax import errors, files
from carjax.backbones import convert, pretrained, registry
from carjax.backbones.convert import readers
from carjax.download import Progress, download
from carjax.errors import UsageError


def fetch(
    name: str,
    out: str | os.PathLike[str] | None = None,
    *,
    url: str | None = None,
    dtype: Any = np.float32,
    on_progress: Progress = lambda done, total: None,
) -> pathlib.Path:
    """Downloads a backbone's published weights and converts them.

    The published file stays in the cache folder (see `files.cache_dir`), so that a second call
    downloads nothing. Needs h5py, of the extra `convert`.

    Args:
        name: a backbone whose registry entry has `published`.
        out: the safetensors file to write; default: `pretrained.fetched_path(name)`.
        url: another address of the very same file, such as a mirror.
        dtype: type of the written tensors, float16 or float32.
        on_progress: called with (bytes so far, bytes of the whole file; 0 if unknown).

    Returns:
        The file written.

    Raises:
        CarjaxError: the download failed (see `download.download`), or a file cannot be written.
        UsageError: no such backbone, or nothing to download for it.
    """
    published = registry.spec_of(name).published
    if published is None:
        names = ", ".join(b.name for b in registry.BACKBONES.values() if b.published)
        hint = "use `carjax weights import`"
        if ":" in name:
            hint = "give the file of your own"
        if pretrained.shipped_path(name).is_file():
            hint = "the package ships its weights"
        raise UsageError(f"{name} cannot be fetched, only {names}: {hint}")
    file = pathlib.PurePosixPath(urllib.parse.urlsplit(published.url).path).name
    source = files.cache_dir() / "weights" / file
    readers.require_h5py(source)  # before 200 MB are downloaded in vain
    target = pathlib.Path(out) if out is not None else pretrained.fetched_path(name)
    with errors.writing(source, "or set CARJAX_CACHE_DIR to another folder"):
        download(url or published.url, source, published.md5, on_progress)
    with errors.writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    convert.import_weights(name, source, target, dtype)
    return target
