"""Where the time of a run went."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Stopwatch:
    """Adds up wall time by what it was spent on.

    Attributes:
        seconds: what → seconds, in order of first use.

    Example:
        >>> watch = Stopwatch()
        >>> with watch("write"):
        ...     pass
        >>> str(watch)
        'write 0.00'
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        """Counts the time inside the block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] = self.seconds.get(what, 0.0) + time.perf_counter() - start

    def __str__(self) -> str:
        """All that was timed, in seconds."""
        return ", ".join(f"{what} {seconds:.2f}" for what, seconds in self.seconds.items())
