"""Files of a bucket or a web server, by their fsspec URL (`gs://`, `s3://`, `https://`, …)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from carjax.errors import CarjaxError, needing, one_line

# What servers and buckets call the fact that changes with the bytes, best first.
_VERSIONS = ("ETag", "etag", "md5Hash", "generation", "Content-MD5", "Digest", "LastModified")
_TIMES = ("Last-Modified", "last_modified", "updated", "mtime", "created")


def filesystem(url: str) -> tuple[Any, str]:
    """Returns the fsspec filesystem of a URL, and the path in it.

    Raises:
        CarjaxError: fsspec, or the package for that kind of URL, is not installed.
    """
    with needing("remote", f"{url}: a URL"):
        import fsspec
    try:
        found, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise CarjaxError(f"{url}: this kind of URL needs a package: {error}") from None
    except ValueError as error:
        raise CarjaxError(f"{url}: {error}") from None
    return found, path


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """Whatever a server's client raises is an OSError, of one line.

    The packages of fsspec let through what their own clients raise: a missing login, a refused
    request. What is an OSError already (no such file, say) stays what it is.
    """
    try:
        yield
    except (OSError, CarjaxError):
        raise
    except Exception as error:
        raise OSError(one_line(error)) from error


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """An object of a bucket or a web server as a source; see `base.Source`."""

    path: str

    @property
    def name(self) -> str:
        """The URL."""
        return self.path

    def fingerprint(self) -> str:
        """Size, and the entity tag, hash or time of change that the server tells."""
        files, path = filesystem(self.path)
        info = files.info(path)
        told = next((str(info[key]) for key in (*_VERSIONS, *_TIMES) if info.get(key)), "")
        return f"{info.get('size')}:{told}"

    def head(self, size: int) -> bytes:
        """The first bytes."""
        files, path = filesystem(self.path)
        with files.open(path, "rb", block_size=2**16) as file:
            return file.read(size)

    def read_bytes(self) -> bytes:
        """All bytes."""
        files, path = filesystem(self.path)
        return files.cat_file(path)

    @contextlib.contextmanager
    def local(self) -> Iterator[pathlib.Path]:
        """A temporary copy; as many lie on the disk as threads read."""
        files, path = filesystem(self.path)
        suffix = os.path.splitext(path)[1][:8]
        with tempfile.TemporaryDirectory(prefix="carjax-") as folder:
            copy = pathlib.Path(folder) / f"source{suffix}"
            files.get_file(path, os.fspath(copy))
            yield copy


def expand(url: str, extensions: tuple[str, ...]) -> list[str]:
    """Returns the files that a URL stands for, as URLs: of a pattern, of a folder, or itself.

    Args:
        url: a file, a folder, or a pattern with `*`, `?` or `[…]` where the server can list.
        extensions: of a folder, only files whose names end with one of these.

    Raises:
        OSError: the server cannot be reached.
        CarjaxError: see `filesystem`.
    """
    files, path = filesystem(url)
    if "http" in files.protocol:
        return [url]
    with telling():
        if any(c in path for c in "*?["):
            listed = files.glob(path, detail=True)
            found = [p for p, info in listed.items() if info["type"] == "file"]
        elif files.isdir(path):
            listed = files.find(path)
            found = [p for p in listed if p.lower().endswith(extensions)]
        else:
            return [url]
    return [files.unstrip_protocol(p) for p in found]
