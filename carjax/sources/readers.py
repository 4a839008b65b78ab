"""Which reader a source needs: told by its bytes, since names may say anything."""

from __future__ import annotations

import os
from collections.abc import Iterator

from carjax import video
from carjax.errors import CarjaxError
from carjax.sources.base import Item, Source

_HEAD = 512
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")
_TAR_MAGIC = slice(257, 262)  # POSIX 1003.1, ustar


def read(source: Source, fps: video.Fps, decoder: video.Backend = video.Decoder) -> Iterator[Item]:
    """Yields the frames of a source, and what is wrong with parts of it, in (source, frame) order.

    Args:
        source: a video, a picture, a WebDataset tar, or Parquet with encoded pictures.
        fps: which frames of a video to take, see `video.Decoder`.
        decoder: what decodes videos.

    Raises:
        CarjaxError: nothing can be read from it; the message does not name it.
    """
    # Imported here: the readers need OpenCV, and `carjax score --help` does not.
    from carjax.sources import stills, tables, tars, videos

    try:
        kind = kind_of(source)
        if kind == "still":
            yield from stills.read(source)
        elif kind == "tar":
            yield from tars.read(source, fps, decoder)
        elif kind == "parquet":
            yield from tables.read(source)
        else:
            yield from videos.read(source, fps, decoder)
    except FileNotFoundError:
        # What clients of the web tell alike.
        away = "no such file, or its server cannot be reached"
        raise CarjaxError(away if "://" in source.name else "no such file") from None
    except PermissionError:
        raise CarjaxError("no permission to read it") from None
    except OSError as error:
        raise CarjaxError(f"cannot be read: {error.strerror or error}") from None


def kind_of(source: Source) -> str:
    """Tells 'still', 'tar', 'parquet' or 'video' by the first bytes.

    Raises:
        OSError: the source cannot be reached.
        CarjaxError: it is empty.
    """
    head = source.head(_HEAD)
    if not head:
        raise CarjaxError("the file is empty")
    if video.is_image(head):
        return "still"
    if head.startswith(b"PAR1"):
        return "parquet"
    suffix = os.path.splitext(source.name)[1].lower()
    if head[_TAR_MAGIC] == b"ustar" or suffix == ".tar" or head.startswith(_PACKED):
        return "tar"
    return "video"
