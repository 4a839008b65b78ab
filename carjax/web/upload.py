"""Receives one `multipart/form-data` upload straight to disk, and stops at the limits."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
import re
import unicodedata
from collections.abc import AsyncIterator
from typing import Any

import python_multipart
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from carjax.errors import CarjaxError
from carjax.web.limits import Limits

# What is left for field names, headers and the other fields of the form.
_FORM_BYTES = 64_000
_FIELD_BYTES = 2_000
_FIELDS = 20
_HEADER_BYTES = 8_000
_NAME_CHARACTERS = 80
_NAME_BYTES = 240


class TooLarge(CarjaxError):
    """More bytes than the server takes."""


class TooSlow(CarjaxError):
    """The client fell silent, or took too long."""


@dataclasses.dataclass(frozen=True)
class Upload:
    """A received form.

    Attributes:
        name: the file's name, made safe (`safe_name`).
        fields: the other fields; a name that came twice keeps all its values, in order.
    """

    name: str
    fields: dict[str, list[str]]


def safe_name(name: str) -> str:
    """Makes a file's name one that is only a name: no folders, no control characters, not hidden.

    Example:
        >>> safe_name("../../etc/pass\\nwd"), safe_name("C:\\\\Käfer 1.mp4"), safe_name("..")
        ('passwd', 'Käfer 1.mp4', 'video')
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    kept = "".join(c for c in last if unicodedata.category(c)[0] != "C" and c not in '<>:"|?*')
    kept = kept.strip(" .")
    stem, dot, ending = kept.rpartition(".")
    if not dot or len(ending) > 5:
        stem, ending = kept, ""
    ending = f".{ending}" if ending else ""
    # A name counts in bytes on disk, where at most 255 of them fit.
    held = stem[: _NAME_CHARACTERS - len(ending)].encode("utf-8")
    held = held[: _NAME_BYTES - len(ending.encode("utf-8"))]
    return f"{held.decode('utf-8', 'ignore')}{ending}".strip(" .") or "video"


async def receive(
    content_type: str, stream: AsyncIterator[bytes], folder: pathlib.Path, limits: Limits
) -> Upload:
    """Writes the part named `video` to a file in `folder` under its safe name.

    Args:
        content_type: the request's header.
        stream: the request's body.
        folder: where to write; it exists and is empty.
        limits: bytes, minutes and silence.

    Raises:
        TooLarge: the body is over the limit; reading stops there.
        TooSlow: the upload stands still or takes too long.
        CarjaxError: the body is not such a form, or lacks the file.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise CarjaxError("send a multipart/form-data form with the file in the field `video`")
    form = _Form(folder)
    received = 0
    try:
        parser = python_multipart.MultipartParser(options[b"boundary"], form.callbacks())  # type: ignore[arg-type]
        async with asyncio.timeout(60 * limits.upload_minutes):
            while True:
                async with asyncio.timeout(limits.idle_seconds):
                    chunk = await anext(stream, None)
                if chunk is None:
                    break
                received += len(chunk)
                if received > limits.bytes + _FORM_BYTES:
                    raise TooLarge(
                        f"the upload is larger than {limits.megabytes:g} MB; film a shorter "
                        "video or at a lower resolution"
                    )
                if chunk:
                    parser.write(chunk)
        parser.finalize()
    except TimeoutError:
        raise TooSlow("the upload stood still or took too long; try again") from None
    except FormParserError:
        raise CarjaxError("the form cannot be read: it is damaged, or was cut short") from None
    finally:
        form.close()
    if form.name is None or not form.ended:
        raise CarjaxError("the form has no file in the field `video`")
    return Upload(form.name, form.fields)


class _Form:
    """Collects what the parser meets: the one file on disk, the fields in memory."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.name: str | None = None
        self.fields: dict[str, list[str]] = {}
        self.ended = False
        self._parts = 0
        self._file: Any = None
        self._header = [b"", b""]
        self._disposition = b""
        self._field: str | None = None
        self._value = b""

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": lambda data, start, end: self._add_header(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._add_header(1, data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _part_begin(self) -> None:
        self._header, self._disposition = [b"", b""], b""
        self._field, self._value = None, b""

    def _add_header(self, which: int, data: bytes) -> None:
        self._header[which] += data
        if len(self._header[which]) > _HEADER_BYTES:
            raise CarjaxError("the form has too long a header")

    def _header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            self._disposition = value
        self._header = [b"", b""]

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        self._parts += 1
        if self._parts > _FIELDS:
            raise CarjaxError("the form has too many fields")
        if field != "video":
            self._field = field
            return
        if self.name is not None:
            raise CarjaxError("send one video at a time")
        name = options.get(b"filename", b"video").decode("utf-8", "replace")
        self.name = safe_name(
            name.replace("%22", '"')
        )  # as browsers write a quote (HTML 4.10.21.8)
        self._file = (self.folder / self.name).open("xb")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
        elif len(self._value) + end - start > _FIELD_BYTES:
            raise CarjaxError(f"the field {self._field!r} is too long")
        else:
            self._value += data[start:end]

    def _part_end(self) -> None:
        self.close()
        if self._field is not None:
            self.fields.setdefault(self._field, []).append(self._value.decode("utf-8", "replace"))

    def _end(self) -> None:
        self.ended = True
