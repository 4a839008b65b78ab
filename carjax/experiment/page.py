"""What the experiments share: a result, its charts, and its tables in a Markdown page."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from carjax import errors, files
from carjax.errors import CarjaxError

# A table of the page stands between <!-- table NAME --> and <!-- end NAME -->.
_BLOCK = re.compile(r"(<!-- table (?P<name>\w+) -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL)


def publish(
    content: Mapping[str, Any],
    result: pathlib.Path,
    page: pathlib.Path | None,
    *,
    charts: Callable[[Mapping[str, Any]], Mapping[str, str]],
    tables: Callable[[Mapping[str, Any]], Mapping[str, str]],
) -> None:
    """Writes an experiment's charts beside its result, its tables into a page, the result last.

    Args:
        content: of the result, a file of JSON.
        result: that file.
        page: with markers for the tables; None: there is no page.
        charts: content → {file name: SVG}.
        tables: content → {name: Markdown}.

    Raises:
        CarjaxError: the folder or the page cannot be written.
    """
    # Tables and charts show the numbers that are written, not their last bits.
    content = rounded(content)
    out = result.parent
    with errors.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, svg in charts(content).items():
            files.write(out / name, svg)
    if page is not None:
        with errors.writing(page, "or give another --page"):
            files.write(page, fill(page.read_text(encoding="utf-8"), tables(content)))
    with errors.writing(out):  # last: whoever sees it has all of it
        files.write(result, json.dumps(content, indent=1, allow_nan=False) + "\n")


def check_page(page: pathlib.Path) -> None:
    """Raises a CarjaxError unless the page exists and has a table to renew."""
    if not page.is_file():
        raise CarjaxError(f"{page}: no such page")
    if not _BLOCK.search(page.read_text(encoding="utf-8")):
        raise CarjaxError(f"{page}: has no '<!-- table NAME -->' … '<!-- end NAME -->'")


def fill(page: str, renewed: Mapping[str, str]) -> str:
    """Puts tables between their markers; a table without figures says so.

    Example:
        >>> fill("<!-- table a -->\\nold\\n<!-- end a -->", {"a": "new"})
        '<!-- table a -->\\nnew\\n<!-- end a -->'
    """

    def put(block: re.Match[str]) -> str:
        text = renewed.get(block["name"], "Not measured.").rstrip("\n")
        return f"{block[1]}{text}\n{block[3]}"

    return _BLOCK.sub(put, page)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rounded(value: Any) -> Any:
    """The same content with numbers of six digits: a diff then shows what changed."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value
