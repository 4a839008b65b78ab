"""Bars on standard error, for whatever takes long."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)


class Show(Protocol):
    """Moves the bar of that name, which appears when it is first told of."""

    def __call__(self, what: str, done: int, total: int | None, told: str = "") -> None:
        """Shows so much done, of a total that may be unknown, and a word on it beside the bar."""


@contextlib.contextmanager
def bars(*, quiet: bool = False, console: Console | None = None) -> Iterator[Show]:
    """Shows bars while the context lasts; quiet ones are told the same and show nothing."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    shown = console or Console(stderr=True)
    with Progress(*columns, console=shown, disable=quiet) as progress:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int | None, told: str = "") -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total, told="")
            progress.update(tasks[what], completed=done, total=total, told=told)

        yield show
