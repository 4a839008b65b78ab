"""WebDataset shards: tar archives whose members are pictures or videos, among labels."""

from __future__ import annotations

import pathlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from typing import Any

from carjax import files, video
from carjax.errors import CarjaxError
from carjax.sources import stills, videos
from carjax.sources.base import Item, Problem, Source
from carjax.sources.expand import IMAGES, VIDEOS


def read(source: Source, fps: video.Fps, decoder: video.Backend) -> Iterator[Item]:
    """Yields the pictures, and the frames of the videos, in order of the members' names.

    Rows are called `SHARD.tar/MEMBER`. A member that cannot be decoded is a problem of its own;
    members of other kinds (labels) are passed over. Of an archive that is cut short, what is
    whole counts.

    Raises:
        CarjaxError: it is not an archive, or holds no picture.
    """
    with source.local() as path, tempfile.TemporaryDirectory(prefix="carjax-") as folder:
        plain, damaged = _uncompressed(path, pathlib.Path(folder))
        with _opened(plain) as archive:
            members, cut = _members(archive, plain.stat().st_size)
            for member in members:
                name = f"{source.name}/{files.readable(member.name)}"
                yield from _member(name, archive, member, fps, decoder)
    if cut:
        yield Problem(source.name, "the archive is cut short; copy it again")
    elif damaged:
        yield Problem(source.name, "the archive is damaged; copy it again")
    elif not members:
        raise CarjaxError("holds no picture and no video")


def _opened(path: pathlib.Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except (tarfile.TarError, OSError):
        raise CarjaxError("is not a tar archive that can be read") from None


def _uncompressed(path: pathlib.Path, folder: pathlib.Path) -> tuple[pathlib.Path, bool]:
    """Undoes gzip, bzip2 or xz, so that members can be read in any order; or says it is damaged."""
    import bz2
    import gzip
    import lzma
    import zlib

    head = path.open("rb").read(6)
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
    opener = next((o for magic, o in openers.items() if head.startswith(magic)), None)
    if opener is None:
        return path, False
    plain = folder / "shard.tar"
    with opener(path, "rb") as packed, plain.open("wb") as file:
        while True:
            try:
                chunk = packed.read1(2**16)  # what comes before a fault comes alone
            except (EOFError, OSError, zlib.error, lzma.LZMAError):
                return plain, True  # what there is may hold whole members
            if not chunk:
                return plain, False
            file.write(chunk)  # what a full disk refuses is no fault of the archive


def _members(archive: tarfile.TarFile, size: int) -> tuple[list[tarfile.TarInfo], bool]:
    """The pictures and videos by name, and whether the archive ends too early."""
    found: dict[str, tarfile.TarInfo] = {}
    cut = False
    try:
        for member in archive:
            if member.offset_data + member.size > size:
                cut = True
            elif member.isfile() and _suffix(member) in IMAGES | VIDEOS:
                found[member.name] = member  # of two by one name, the later counts, as in tar
    except tarfile.TarError:
        cut = True
    return [found[name] for name in sorted(found)], cut


def _member(
    name: str,
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    fps: video.Fps,
    decoder: video.Backend,
) -> Iterator[Item]:
    file = archive.extractfile(member)
    if file is None:
        return
    try:
        if _suffix(member) in IMAGES:
            yield stills.sample(name, 0, file.read())
            return
        with tempfile.NamedTemporaryFile(prefix="carjax-", suffix=_suffix(member)) as copy:
            shutil.copyfileobj(file, copy)
            copy.flush()
            yield from videos.read_file(name, pathlib.Path(copy.name), fps, decoder)
    except CarjaxError as error:
        yield Problem(name, str(error))


def _suffix(member: tarfile.TarInfo) -> str:
    return pathlib.PurePosixPath(member.name).suffix.lower()
