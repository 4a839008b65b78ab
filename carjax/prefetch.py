"""An iterator that works ahead in a background thread, in constant memory."""

from __future__ import annotations

import threading
import types
import weakref
from collections import deque
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Queue(Generic[T]):
    """What `Prefetch` and its thread share; the thread must not hold the `Prefetch` itself."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.changed = threading.Condition()
        self.items: deque[T] = deque()
        self.error: BaseException | None = None
        self.finished = False
        self.stopped = False

    def wait_for_room(self) -> bool:
        """Waits until an item may be produced; False when no more are wanted."""
        with self.changed:
            self.changed.wait_for(lambda: self.stopped or len(self.items) < self.depth)
            return not self.stopped

    def put(self, item: T) -> None:
        with self.changed:
            if not self.stopped:
                self.items.append(item)
            self.changed.notify_all()

    def finish(self, error: BaseException | None) -> None:
        with self.changed:
            self.error = error
            self.finished = True
            self.changed.notify_all()

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.items.clear()
            self.changed.notify_all()

    def get(self) -> T:
        """The next item, or the source's error, once; then StopIteration."""
        with self.changed:
            self.changed.wait_for(lambda: self.items or self.finished or self.stopped)
            if self.items:
                item = self.items.popleft()
                self.changed.notify_all()
                return item
            error, self.error = self.error, None
            if error is not None and not self.stopped:
                raise error
        raise StopIteration


def _produce(source: Iterable[T], queue: _Queue[T]) -> None:
    """Moves items from `source` to `queue`; at the end closes the source in its own thread."""
    failure: BaseException | None = None
    try:
        iterator = iter(source)
        try:
            while queue.wait_for_room():
                # No name keeps the item: the queue alone decides how many are alive.
                queue.put(next(iterator))
        except StopIteration:
            pass
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
    except BaseException as error:
        failure = error
    queue.finish(failure)


def _shut(queue: _Queue[Any], thread: threading.Thread) -> None:
    queue.stop()
    if thread is not threading.current_thread():  # the garbage collector may run in any thread
        thread.join()


class Prefetch(Generic[T]):
    """An iterator whose items are produced ahead by a background thread; made by `prefetch`."""

    def __init__(self, source: Iterable[T], depth: int) -> None:
        self._queue: _Queue[T] = _Queue(depth)
        thread = threading.Thread(
            target=_produce, args=(source, self._queue), name="carjax-prefetch", daemon=True
        )
        thread.start()
        # Also runs when the object is dropped, and at exit.
        self._finalizer = weakref.finalize(self, _shut, self._queue, thread)

    def __iter__(self) -> Prefetch[T]:
        return self

    def __next__(self) -> T:
        return self._queue.get()

    def close(self) -> None:
        """Stops the thread once its current item is done, and waits for that."""
        self._finalizer()

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()


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
