"""Failures that a user can mend: one line saying what is wrong and what to do."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator


class CarjaxError(Exception):
    """The input or the run failed; the command line prints it and exits with `status`."""

    status = 1


class UsageError(CarjaxError):
    """The call's words are wrong."""

    status = 2


class NoCarError(CarjaxError):
    """No car was found in the video."""

    status = 3


def first_line(error: BaseException) -> str:
    """Returns the first line of what an exception says: libraries may add a screenful."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def one_line(error: BaseException) -> str:
    """Returns what an exception says, as one line."""
    return " ".join(str(error).split()) or type(error).__name__


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is that the disk has no room left."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], way: str = "or give another --out") -> Iterator[None]:
    """Says in one line that a disk, or a bucket, refuses what the block writes.

    Args:
        path: what is written.
        way: how the line ends; before it comes what to do, if that can be told.

    Raises:
        CarjaxError: for an OSError.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            way = f"free some {way}"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            way = f"make it writable {way}"
        else:
            way = way.removeprefix("or ").removeprefix("and ")
        raise CarjaxError(
            f"cannot write {os.fspath(path)}: {error.strerror or one_line(error)}: {way}"
        ) from error


@contextlib.contextmanager
def needing(extra: str, what: str) -> Iterator[None]:
    """Says what to install where an import in the block fails.

    Args:
        extra: of carjax, as in `pip install 'carjax[train]'`.
        what: needs it, as the line shall say.

    Raises:
        CarjaxError: a package is missing.

    Example:
        >>> with needing("web", "the page"):
        ...     import absent
        Traceback (most recent call last):
        carjax.errors.CarjaxError: the page needs more packages (absent): pip install 'carjax[web]'
    """
    try:
        yield
    except ImportError as error:
        missing = f" ({error.name})" if error.name else ""
        raise CarjaxError(
            f"{what} needs more packages{missing}: pip install 'carjax[{extra}]'"
        ) from None
