"""Where results go: a folder of this machine, or a bucket by its fsspec URL."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import posixpath
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any, Protocol

from carjax import files
from carjax.errors import CarjaxError, UsageError
from carjax.files import is_remote
from carjax.sources import remote


class Store(Protocol):
    """Named files below one folder; each appears whole or not at all. Names use `/`."""

    def put(self, local: pathlib.Path, name: str) -> None:
        """Moves a finished local file there, replacing what is there."""

    def write(self, name: str, data: bytes) -> None:
        """Writes a small file whole, replacing what is there."""

    def open(self, name: str) -> IO[bytes]:
        """Opens a file to read; seekable. FileNotFoundError if there is none."""

    def size(self, name: str) -> int | None:
        """Its size in bytes; None if there is no such file."""

    def is_folder(self, name: str) -> bool:
        """Whether there are files below that name."""

    def names(self, folder: str) -> list[str]:
        """Names of the files right in a folder, sorted; none if there is no such folder."""

    def entries(self, folder: str) -> list[str]:
        """Names of the files and folders right in a folder; none if there is no such folder."""

    def move(self, name: str, target: str) -> None:
        """Renames a file, replacing what is there."""

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with all that is in it, if it is there."""

    def idle(self, states: Sequence[str]) -> contextlib.AbstractContextManager[None]:
        """While the block lasts, no folder right in one of `states` becomes a live scratch.

        Raises:
            CarjaxError: one is.
        """

    def scratch(self, folder: str) -> contextlib.AbstractContextManager[pathlib.Path]:
        """An empty local folder, gone after the block; from it files are put.

        Raises:
            CarjaxError: another process has it.
        """


class LocalStore:
    """Below a folder of this machine; what is put is on the disk before it has its name."""

    def __init__(self, root: pathlib.Path) -> None:
        self._root = root

    def put(self, local: pathlib.Path, name: str) -> None:
        """See `Store`."""
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with local.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(local, target)
        _sync_folder(target.parent)

    def write(self, name: str, data: bytes) -> None:
        """See `Store`."""
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = files.unique(target)
        try:
            temporary.write_bytes(data)
            self.put(temporary, name)
        finally:
            temporary.unlink(missing_ok=True)

    def open(self, name: str) -> IO[bytes]:
        """See `Store`."""
        return (self._root / name).open("rb")

    def size(self, name: str) -> int | None:
        """See `Store`."""
        path = self._root / name
        return path.stat().st_size if path.is_file() else None

    def is_folder(self, name: str) -> bool:
        """See `Store`."""
        return (self._root / name).is_dir()

    def names(self, folder: str) -> list[str]:
        """See `Store`."""
        path = self._root / folder
        return sorted(p.name for p in path.iterdir() if p.is_file()) if path.is_dir() else []

    def entries(self, folder: str) -> list[str]:
        """See `Store`."""
        path = self._root / folder
        return sorted(p.name for p in path.iterdir()) if path.is_dir() else []

    def move(self, name: str, target: str) -> None:
        """See `Store`."""
        os.replace(self._root / name, self._root / target)
        _sync_folder((self._root / target).parent)

    def remove(self, name: str) -> None:
        """See `Store`."""
        path = self._root / name
        if not path.is_dir():
            path.unlink(missing_ok=True)
            return
        # Renamed before: if this is stopped, no half of it is found under its name.
        for stopped in files.left_by(path):
            shutil.rmtree(stopped, ignore_errors=True)
        doomed = files.unique(path)
        os.replace(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    @contextlib.contextmanager
    def idle(self, states: Sequence[str]) -> Iterator[None]:
        """See `Store`."""
        with self._alone():
            for path in (p for state in states for p in (self._root / state).glob("*/")):
                os.close(_lock(path))
            yield

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process takes or removes a scratch below this root; for a moment."""
        self._root.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._root, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def scratch(self, folder: str) -> Iterator[pathlib.Path]:
        """See `Store`; on the same disk, so that putting is renaming."""
        path = self._root / folder
        with self._alone():
            path.mkdir(parents=True, exist_ok=True)
            handle = _lock(path)
        try:
            _clear(path)  # what a run left that was killed
            yield path
        finally:
            with contextlib.suppress(OSError), self._alone():
                # A run that ended took it away, and the next one may have one of that name.
                if os.path.samestat(os.fstat(handle), os.stat(path)):
                    shutil.rmtree(path, ignore_errors=True)
                    path.parent.rmdir()  # but where it holds anything of the run
            os.close(handle)


class RemoteStore:
    """Below a folder of a bucket, where an object appears whole; its faults are OSErrors."""

    def __init__(self, url: str) -> None:
        self._files: Any
        self._files, self._root = remote.filesystem(url)

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)

    @remote.telling()
    def put(self, local: pathlib.Path, name: str) -> None:
        """See `Store`."""
        self._files.makedirs(posixpath.dirname(self._path(name)), exist_ok=True)
        self._files.put_file(os.fspath(local), self._path(name))
        local.unlink()

    @remote.telling()
    def write(self, name: str, data: bytes) -> None:
        """See `Store`."""
        self._files.makedirs(posixpath.dirname(self._path(name)), exist_ok=True)
        self._files.pipe_file(self._path(name), data)

    @remote.telling()
    def open(self, name: str) -> IO[bytes]:
        """See `Store`."""
        return self._files.open(self._path(name), "rb")

    @remote.telling()
    def size(self, name: str) -> int | None:
        """See `Store`."""
        self._files.invalidate_cache()
        path = self._path(name)
        return self._files.size(path) if self._files.isfile(path) else None

    @remote.telling()
    def is_folder(self, name: str) -> bool:
        """See `Store`."""
        self._files.invalidate_cache()
        return self._files.isdir(self._path(name))

    @remote.telling()
    def names(self, folder: str) -> list[str]:
        """See `Store`."""
        return sorted(name for name, kind in self._listed(folder) if kind == "file")

    @remote.telling()
    def entries(self, folder: str) -> list[str]:
        """See `Store`."""
        return sorted(name for name, _ in self._listed(folder))

    def _listed(self, folder: str) -> list[tuple[str, str]]:
        """(name, 'file' or 'directory') of what is right in a folder."""
        self._files.invalidate_cache()
        path = self._path(folder)
        try:
            found = self._files.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        # Some list a folder's own marker in it, and of a file the file.
        inside = [f for f in found if f["name"].strip("/") != path.strip("/")]
        return [(posixpath.basename(f["name"].rstrip("/")), f["type"]) for f in inside]

    @remote.telling()
    def move(self, name: str, target: str) -> None:
        """See `Store`."""
        self._files.mv(self._path(name), self._path(target))

    @remote.telling()
    def remove(self, name: str) -> None:
        """See `Store`."""
        with contextlib.suppress(FileNotFoundError):
            self._files.rm(self._path(name), recursive=True)

    def idle(self, states: Sequence[str]) -> contextlib.AbstractContextManager[None]:
        """See `Store`; no scratch lies in a bucket, so none is seen to be live."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def scratch(self, folder: str) -> Iterator[pathlib.Path]:
        """See `Store`."""
        with tempfile.TemporaryDirectory(prefix="carjax-") as path:
            yield pathlib.Path(path)


def open_store(out: str) -> tuple[Store, str]:
    """Returns the store of the folder that holds a path or URL, and the name in it.

    Raises:
        UsageError: a URL that names no file, only a bucket.
        CarjaxError: a URL, without the packages for it.
    """
    if is_remote(out):
        scheme, _, inside = out.rstrip("/").partition("://")
        bucket, _, name = inside.rpartition("/")
        if not bucket:
            example = f"{scheme.rstrip(':')}://{inside.strip('/') or 'bucket'}/scores.parquet"
            raise UsageError(f"--out={out}: name a file in the bucket, such as {example}")
        return RemoteStore(f"{scheme}://{bucket}"), name
    path = pathlib.Path(out)
    return LocalStore(path.parent), path.name


def _lock(scratch: pathlib.Path) -> int:
    """Locks a folder and returns its handle; the lock goes with the process, however it ends."""
    handle = os.open(scratch, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise CarjaxError(f"{scratch.parent}: another carjax score is writing there") from None
    return handle


def _clear(folder: pathlib.Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def _sync_folder(folder: pathlib.Path) -> None:
    """Makes a rename last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
