"""A bounded queue between threads that either side can shut."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class Channel(Generic[T]):
    """Passes items from any number of threads to any number of threads, in constant memory.

    `put` waits while the channel is full, so that whoever is fast waits for whoever is slow. Unlike
    `queue.Queue`, it can be shut by the reader, and hands a writer's failure to the reader.

    Example:
        >>> channel = Channel(2)
        >>> channel.put("a"), channel.put("b")
        (True, True)
        >>> channel.finish()
        >>> list(channel)
        ['a', 'b']
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._finished = False
        self._shut = False
        self._error: BaseException | None = None

    def wait_for_room(self) -> bool:
        """Waits until an item may be put; False when no more are wanted."""
        with self._changed:
            return self._room()

    def _room(self) -> bool:
        self._changed.wait_for(lambda: self._finished or len(self._items) < self._depth)
        return not self._finished

    def put(self, item: T) -> bool:
        """Waits for room and adds an item; False when no more are wanted."""
        with self._changed:
            if not self._room():
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def finish(self, error: BaseException | None = None) -> None:
        """Nothing more will be put; the reader gets what waits, then the error, once, if any."""
        with self._changed:
            self._finished = True
            if not self._shut:
                self._error = self._error or error
            self._changed.notify_all()

    def shut(self) -> None:
        """Nothing more is wanted; what waits is dropped, and so is an error."""
        with self._changed:
            self._finished = self._shut = True
            self._error = None
            self._items.clear()
            self._changed.notify_all()

    def get(self, patience_s: float | None = None) -> T | None:
        """Returns the next item; None if nothing came for so many seconds.

        Raises:
            BaseException: the writer's error, once, after the items before it.
            StopIteration: there are no more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._finished, patience_s)
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if not self._finished:
                return None
            error, self._error = self._error, None
            if error is not None:
                raise error
        raise StopIteration

    def items(self, patience_s: float | None = None) -> Iterator[T | None]:
        """Yields items until the end; None each time that nothing came for so many seconds."""
        while True:
            try:
                item = self.get(patience_s)
            except StopIteration:
                return
            yield item
            item = None  # while waiting, nobody holds what was passed on

    def __iter__(self) -> Iterator[T]:
        """Yields items until the end."""
        return cast(Iterator[T], self.items())
