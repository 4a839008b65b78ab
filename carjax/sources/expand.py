"""From the words of a command line to the sources that they stand for."""

from __future__ import annotations

import glob
import os
import pathlib

from carjax.errors import CarjaxError
from carjax.files import is_remote, readable
from carjax.sources import remote
from carjax.sources.base import Problem, Source
from carjax.sources.local import LocalFile

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"})
VIDEOS = frozenset(
    {
        ".mp4",
        ".mov",
        ".m4v",
        ".mkv",
        ".webm",
        ".avi",
        ".gif",
        ".mts",
        ".ts",
        ".mpg",
        ".mpeg",
        ".wmv",
    }
    | {".flv", ".3gp", ".ogv"}
)
TARS = frozenset({".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz"})
KNOWN = tuple(IMAGES | VIDEOS | TARS)


def expand(words: list[str]) -> tuple[list[Source], list[Problem]]:
    """Finds the sources, each file once (under its first name), in order of their names.

    Args:
        words: files, folders (their videos, images and tars, at any depth), patterns
            (`**` for any depth), URLs, and `@FILE`: a text file with one of these on each line.

    Returns:
        (the sources, what stands for nothing and why). That a file can be read is not yet known.

    Raises:
        CarjaxError: a list cannot be read, or URLs need a package that is not installed.
    """
    sources: dict[str, Source] = {}
    seen: set[str] = set()
    problems: dict[str, Problem] = {}
    for word in _words(words):
        found: list[Source]
        faults: list[OSError] = []
        try:
            listing = remote.expand(word, KNOWN) if is_remote(word) else _local(word, faults)
            found = [source(path) for path in listing]
        except OSError as error:
            problems[word] = Problem(word, f"cannot be listed: {error.strerror or error}")
            continue
        for fault in faults:
            folder = readable(fault.filename)
            problems[folder] = Problem(folder, f"cannot be listed: {fault.strerror}")
        if not found and not faults:
            problems[word] = Problem(word, "no video or image there")
        for one in found:
            place = os.path.abspath(one.path) if isinstance(one, LocalFile) else one.name
            if place not in seen:
                seen.add(place)
                sources[one.name] = one
    return [sources[name] for name in sorted(sources)], list(problems.values())


def source(path: str) -> Source:
    """Returns the source of one path or URL."""
    return remote.RemoteFile(path) if is_remote(path) else LocalFile(path)


def existing(sources: list[Source]) -> tuple[list[Source], list[Problem]]:
    """Tells local files that are not there from the rest, so that a mistyped path fails at once."""
    problems = [
        Problem(one.name, "no such file")
        for one in sources
        if isinstance(one, LocalFile) and not os.path.lexists(one.path)
    ]
    missing = {problem.source for problem in problems}
    return [one for one in sources if one.name not in missing], problems


def _words(words: list[str]) -> list[str]:
    """Replaces each `@FILE` by its lines."""
    replaced = []
    for word in words:
        if not word.startswith("@"):
            replaced.append(word)
            continue
        try:
            text = pathlib.Path(word[1:]).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise CarjaxError(f"{word}: the list {word[1:]!r} cannot be read: {reason}") from None
        lines = [line.strip() for line in text.splitlines()]
        replaced += [line for line in lines if line and not line.startswith("#")]
    return replaced


def _local(word: str, faults: list[OSError]) -> list[str]:
    if os.path.isdir(word):
        return _walk(word, faults)
    if os.path.lexists(word) or not glob.has_magic(word):
        return [word]
    found: list[str] = []
    for path in glob.glob(word, recursive=True):
        if not os.path.isdir(path):
            found.append(path)
        elif "**" not in word:
            found += _walk(path, faults, only_files=True)
    return found


def _walk(folder: str, faults: list[OSError], only_files: bool = False) -> list[str]:
    """Videos, images and tars in a folder and those below it; nothing hidden.

    What of it cannot be listed is added to `faults`.
    """
    found = []
    for root, folders, files in os.walk(folder, followlinks=True, onerror=faults.append):
        folders[:] = sorted(
            name
            for name in folders
            if not (only_files or name.startswith(".") or _leads_back(root, name))
        )
        for file in files:
            if file.lower().endswith(KNOWN) and not file.startswith("."):
                found.append(os.path.join(root, file))
    return found


def _leads_back(folder: str, name: str) -> bool:
    """Whether what lies in a folder is a link to it, or to a folder around it."""
    path = os.path.join(folder, name)
    if not os.path.islink(path):
        return False
    here, there = os.path.realpath(folder), os.path.realpath(path)
    return os.path.commonpath([here, there]) == there
