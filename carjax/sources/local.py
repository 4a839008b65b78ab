"""Files of this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator

from carjax import files


@dataclasses.dataclass(frozen=True)
class LocalFile:
    """A local file as a source; see `base.Source`."""

    path: str

    @property
    def name(self) -> str:
        """The path; bytes of it that are no UTF-8 are written as backslash escapes."""
        return files.readable(self.path)

    def fingerprint(self) -> str:
        """Size and time of the last change."""
        status = os.stat(self.path)
        return f"{status.st_size}:{status.st_mtime_ns}"

    def head(self, size: int) -> bytes:
        """The first bytes."""
        if not os.path.isfile(self.path) and os.path.exists(self.path):
            raise OSError(None, "is not a regular file")
        with open(self.path, "rb") as file:
            return file.read(size)

    def read_bytes(self) -> bytes:
        """All bytes."""
        return pathlib.Path(self.path).read_bytes()

    @contextlib.contextmanager
    def local(self) -> Iterator[pathlib.Path]:
        """The file itself."""
        yield pathlib.Path(self.path)
