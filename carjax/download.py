"""One large file from the network: resumed where it was cut off, checked, then renamed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import pathlib
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import IO

import carjax
from carjax.errors import CarjaxError, UsageError

_CHUNK = 1 << 20
_TIMEOUT_S = 30.0
# A dropped connection is taken up again as long as each brings something, at most so often.
_ATTEMPTS = 8

Progress = Callable[[int, int], None]


class _Dropped(Exception):
    """The connection ended before the file did."""


def md5(path: str | os.PathLike[str]) -> str:
    """Returns the MD5 of a file's bytes in hexadecimal; it guards against accidents only."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def download(
    url: str,
    target: str | os.PathLike[str],
    md5_hex: str,
    on_progress: Progress = lambda done, total: None,
) -> None:
    """Downloads a file unless it is there already.

    Bytes go to `TARGET.part`, which a later call takes up where it ends; `TARGET` itself appears by
    renaming, once the checksum is right. A server that ignores `Range` is read from the start.

    Args:
        url: http or https.
        target: the file to make; its folder is made too.
        md5_hex: what the file's MD5 must be.
        on_progress: called with (bytes so far, bytes of the whole file; 0 if unknown).

    Raises:
        CarjaxError: no network, an HTTP error, a connection that keeps dropping, or a wrong
            checksum (the bytes are then deleted).
        UsageError: another kind of address.
        OSError: the file cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{url}: not an address that starts with http:// or https://")
    path = pathlib.Path(target)
    part = path.with_name(f"{path.name}.part")
    if path.is_file() and md5(path) == md5_hex:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(part) as out:
        _complete(url, out, on_progress)
        out.flush()
        if md5(part) != md5_hex:
            part.unlink()
            raise CarjaxError(
                f"{url}: its checksum is wrong (MD5 is not {md5_hex}); the bytes are deleted: "
                "run again, or check that nothing on the way changes the file"
            )
        os.replace(part, path)


@contextlib.contextmanager
def _locked(part: pathlib.Path) -> Iterator[IO[bytes]]:
    """Opens the partial file at its end, for this process alone."""
    with open(part, "ab") as out:
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CarjaxError(f"{part}: another process is downloading it; wait for it") from None
        try:
            yield out
        finally:
            out.flush()
            if part.is_file() and not part.stat().st_size:
                part.unlink()  # nothing came


def _complete(url: str, out: IO[bytes], on_progress: Progress) -> None:
    """Appends what is missing, over as many connections as it takes."""
    for attempt in range(_ATTEMPTS):
        before = out.tell()
        try:
            _append(url, out, on_progress)
            return
        except _Dropped as error:
            if out.tell() <= before or attempt == _ATTEMPTS - 1:
                raise CarjaxError(
                    f"{url}: the connection dropped after {out.tell() / 1e6:.1f} MB ({error}): "
                    "run again to go on from there"
                ) from None


def _append(url: str, out: IO[bytes], on_progress: Progress) -> None:
    """Reads one response to the end; raises _Dropped where it ends early."""
    start = out.tell()
    headers = {"User-Agent": f"carjax/{carjax.__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            return  # nothing is missing; the checksum decides
        raise CarjaxError(f"{url}: the server answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        if start:
            raise _Dropped(error.reason) from None
        raise CarjaxError(
            f"{url}: cannot be reached ({error.reason}): check the network, or get the file by "
            "other means and use `carjax weights import`"
        ) from None
    except (ValueError, http.client.InvalidURL) as error:
        raise UsageError(f"{url}: not an address ({error})") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Dropped(str(error) or type(error).__name__) from None
    with response:
        if start and not _resumes(response, start):
            start = out.seek(0)  # the whole file comes again
            out.truncate()
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else 0
        done = start
        on_progress(done, total)
        while chunk := _read(response):
            out.write(chunk)
            done += len(chunk)
            on_progress(done, total)
    if done < total:
        raise _Dropped(f"{total - done} bytes are missing")


def _resumes(response: http.client.HTTPResponse, start: int) -> bool:
    """Whether a response continues at that byte."""
    at = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return response.status == 206 and at is not None and int(at.group(1)) == start


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Dropped(str(error) or type(error).__name__) from None
