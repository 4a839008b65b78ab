"""Interrupts that wait."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM wait for the end of the block; a second one does not wait.

    Handlers belong to the main thread: in another one nothing waits.

    Example:
        >>> done = []
        >>> try:
        ...     with deferred():
        ...         signal.raise_signal(signal.SIGINT)
        ...         done.append("all of it")
        ... except KeyboardInterrupt:
        ...     print(done)
        ['all of it']
    """
    before: dict[int, Any] = {}
    came: list[int] = []

    def hold(number: int, frame: Any) -> None:
        came.append(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not None:  # it is Python's
                before[number] = signal.signal(number, hold)
    try:
        yield
    except KeyboardInterrupt:  # a second one
        came.clear()
        raise
    finally:
        restore()
        if came:
            signal.raise_signal(came[0])
