"""Small habits with files: whole or not there at all, local or in a bucket; readable digests."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import re
import secrets
import tempfile
from collections.abc import Iterator
from typing import Any

from carjax.errors import CarjaxError, needing

# What `carjax train` leaves in its folder: a bundle of one head, or a sequence head.
HEAD_FILE = "head.safetensors"
# Kind of bucket → the package that reaches it.
_DRIVERS = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path names an object in a bucket, such as `gs://bucket/run`."""
    return "://" in os.fspath(path)


def head_file(given: str | os.PathLike[str]) -> pathlib.Path:
    """The file that a path stands for: itself, or what `carjax train` left in that folder."""
    path = pathlib.Path(given)
    return path / HEAD_FILE if path.is_dir() else path


def locate(path: str | os.PathLike[str]) -> Any:
    """Returns a `pathlib.Path`, or for a bucket the `etils.epath.Path` that works alike.

    Raises:
        CarjaxError: a bucket, without the packages that reach it.
    """
    if not is_remote(path):
        return pathlib.Path(path)
    with needing("train", f"{path}: a bucket"):
        from etils import epath
    try:
        found = epath.Path(path)
    except KeyError:
        raise CarjaxError(
            f"{path}: no such kind of bucket; there are gs://, s3:// and az://"
        ) from None
    scheme = os.fspath(path).partition("://")[0]
    driver = _DRIVERS.get(scheme)
    # TensorFlow reads buckets by itself, where it happens to be installed.
    if driver and not any(importlib.util.find_spec(name) for name in (driver, "tensorflow")):
        raise CarjaxError(f"{path}: {scheme}:// needs one more package: pip install {driver}")
    return found


def project_dir() -> pathlib.Path:
    """Returns the folder that holds the package: where it runs from the repository, its root."""
    return pathlib.Path(__file__).parents[1]


def cache_dir() -> pathlib.Path:
    """Returns where what can be made again is kept: `$CARJAX_CACHE_DIR` or `~/.cache/carjax`."""
    base = os.environ.get("CARJAX_CACHE_DIR")
    # Absolute: whoever asks may change the working directory later.
    return pathlib.Path(base).absolute() if base else pathlib.Path.home() / ".cache" / "carjax"


def data_dir(given: str | os.PathLike[str] | None = None) -> pathlib.Path | None:
    """Returns the folder of data sets: the one given, or else `$CARJAX_DATA`; None if neither."""
    chosen = given or os.environ.get("CARJAX_DATA")
    return pathlib.Path(chosen).expanduser() if chosen else None


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`, renamed to it when the block ends without an error.

    For a bucket it is a local file, uploaded at the end: an object appears whole or not at all.

    Example:
        >>> import tempfile
        >>> target = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
        >>> with replacing(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory() as folder:
            local = pathlib.Path(folder) / os.path.basename(os.fspath(path))
            yield local
            locate(path).write_bytes(local.read_bytes())
        return
    target = pathlib.Path(path)
    temporary = unique(target)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write(path: str | os.PathLike[str], content: str | bytes | bytearray) -> None:
    """Writes a file whole, as `replacing` does; text in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def readable(name: str | os.PathLike[str]) -> str:
    """Returns a file's name as text that can be written: what is no UTF-8 as backslash escapes.

    Example:
        >>> print(readable(os.fsdecode(bytes([75, 228, 102, 101, 114]))))
        K\\xe4fer
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def unique(target: pathlib.Path) -> pathlib.Path:
    """Returns a hidden name beside a file that no other process has, on whatever machine it runs.

    The number of a process would not do: where containers share a folder, all may be the first.
    """
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")


def left_by(target: pathlib.Path) -> list[pathlib.Path]:
    """Returns what lies beside a file under a name of `unique`: unfinished, or left by a stop."""
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.part")
    return [path for path in target.parent.iterdir() if name.fullmatch(path.name)]


def _umask() -> int:
    """Returns the process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
