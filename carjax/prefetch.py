"""An iterator that works ahead in a background thread, in constant memory."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from typing import Any, Generic, TypeVar, cast

from carjax.channel import Channel
from carjax.closing import Closing

T = TypeVar("T")


# The thread must not hold the `Prefetch` itself, which shuts the channel when it is dropped.
def _produce(source: Iterable[T], channel: Channel[T]) -> None:
    """Moves items from `source` to `channel`; at the end closes the source in its own thread."""
    failure: BaseException | None = None
    try:
        iterator = iter(source)
        try:
            while channel.wait_for_room():
                # No name keeps the item: the channel alone decides how many are alive.
                channel.put(next(iterator))
        except StopIteration:
            pass
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
    except BaseException as error:
        failure = error
    channel.finish(failure)


def _shut(channel: Channel[Any], thread: threading.Thread) -> None:
    channel.shut()
    if thread is not threading.current_thread():  # the garbage collector may run in any thread
        thread.join()


class Prefetch(Closing, Generic[T]):
    """An iterator whose items are produced ahead by a background thread; made by `prefetch`."""

    def __init__(self, source: Iterable[T], depth: int) -> None:
        self._channel: Channel[T] = Channel(depth)
        thread = threading.Thread(
            target=_produce, args=(source, self._channel), name="carjax-prefetch", daemon=True
        )
        thread.start()
        # Also runs when the object is dropped, and at exit.
        self._finalizer = weakref.finalize(self, _shut, self._channel, thread)

    def __iter__(self) -> Prefetch[T]:
        return self

    def __next__(self) -> T:
        return cast(T, self._channel.get())

    def close(self) -> None:
        """Stops the thread once its current item is done, and waits for that."""
        self._finalizer()


def prefetch(source: Iterable[T], depth: int = 8) -> Prefetch[T]:
    """Runs an iterator in a background thread, so that decoding overlaps with scoring.

    The thread starts at once and keeps at most `depth` items ahead of the consumer, the one being
    produced included. The source is closed in that thread.

    Args:
        source: any iterable; it is consumed by the thread only.
        depth: the most items that wait.

    Returns:
        An iterator over the same items in the same order; an exception of the source is raised
        after the items before it. Leave it early by `close()` or a `with` block.

    Raises:
        ValueError: `depth` is below 1.

    Example:
        >>> with prefetch(range(3), depth=2) as numbers:
        ...     list(numbers)
        [0, 1, 2]
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, not {depth}")
    return Prefetch(source, depth)
