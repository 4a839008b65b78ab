"""The few EXIF tags of a photo: upright, sRGB, and when it was taken. No place, device or person.

A TIFF structure after EXIF 2.32 (CIPA DC-008), little-endian: a first directory that points to the
EXIF directory. Values of up to four bytes stand in their entry, longer ones behind the directory.
"""

from __future__ import annotations

import datetime
import struct

_SHORT, _LONG, _ASCII, _UNDEFINED = 3, 4, 2, 7
_ORIENTATION, _DATE, _EXIF = 0x0112, 0x0132, 0x8769
_ORIGINAL, _OFFSET_ORIGINAL, _SUBSECOND = 0x9003, 0x9011, 0x9291
_VERSION, _COLOUR_SPACE = 0x9000, 0xA001
_HEADER = struct.pack("<2sHI", b"II", 42, 8)

_Entry = tuple[int, int, int | bytes]


def build(taken: datetime.datetime | None) -> bytes:
    """Returns the TIFF structure that stands in a photo's EXIF chunk.

    Args:
        taken: when the frame was taken, with its zone; None leaves the time out.

    Example:
        >>> build(None)[:4]
        b'II*\\x00'
    """
    first: list[_Entry] = [(_ORIENTATION, _SHORT, 1)]
    detail: list[_Entry] = [(_VERSION, _UNDEFINED, b"0232"), (_COLOUR_SPACE, _SHORT, 1)]
    if taken is not None:
        date = _text(taken.strftime("%Y:%m:%d %H:%M:%S"))
        zone = taken.strftime("%z") or "+0000"
        first.append((_DATE, _ASCII, date))
        detail += [
            (_ORIGINAL, _ASCII, date),
            (_OFFSET_ORIGINAL, _ASCII, _text(f"{zone[:3]}:{zone[3:5]}")),
            (_SUBSECOND, _ASCII, _text(f"{taken.microsecond // 1000:03d}")),
        ]
    start = len(_HEADER)
    length = len(_directory([*first, (_EXIF, _LONG, 0)], start))
    head = _directory([*first, (_EXIF, _LONG, start + length)], start)
    return _HEADER + head + _directory(sorted(detail, key=lambda entry: entry[0]), start + length)


def _text(value: str) -> bytes:
    return value.encode("ascii") + b"\0"


def _directory(entries: list[_Entry], start: int) -> bytes:
    """One directory and its longer values; `start` is its offset in the structure."""
    values_at = start + 2 + 12 * len(entries) + 4
    rows, values = b"", b""
    for tag, kind, value in entries:
        if isinstance(value, int):
            field = struct.pack("<HHI", tag, kind, 1)
            rows += field + struct.pack("<I" if kind == _LONG else "<HH", *_words(kind, value))
            continue
        rows += struct.pack("<HHI", tag, kind, len(value))
        if len(value) <= 4:
            rows += value.ljust(4, b"\0")
        else:
            rows += struct.pack("<I", values_at + len(values))
            values += value + b"\0" * (len(value) % 2)
    return struct.pack("<H", len(entries)) + rows + struct.pack("<I", 0) + values


def _words(kind: int, value: int) -> tuple[int, ...]:
    return (value,) if kind == _LONG else (value, 0)
