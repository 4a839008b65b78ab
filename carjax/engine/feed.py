"""Decoding threads: many sources are read at once, ahead of the device, in constant memory."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator, Sequence

from carjax import video
from carjax.channel import Channel
from carjax.closing import Closing
from carjax.errors import one_line
from carjax.sources import readers
from carjax.sources.base import Problem, Sample, Source

# After so long without a frame, what waits for others of its size is scored.
_IDLE_S = 2.0
# A thread that waits for a server cannot be stopped; it ends with the process.
_CLOSING_S = 2.0


@dataclasses.dataclass(frozen=True, eq=False)
class Decoded:
    """One frame, the `row`-th of the source `unit`."""

    unit: int
    row: int
    sample: Sample


@dataclasses.dataclass(frozen=True)
class End:
    """A source is read through.

    Attributes:
        unit: the source's position in the run.
        rows: how many frames it gave.
        fingerprint: as it was when reading began; '' where it could not be told.
        problems: what was wrong with parts of it.
        failure: why the whole source failed; its frames do not count. None: it did not.
    """

    unit: int
    rows: int
    fingerprint: str
    problems: tuple[Problem, ...]
    failure: str | None = None


class Feed(Closing):
    """Reads sources with a few threads, each one source at a time, in their order.

    A source that fails, for whatever reason, ends with `End.failure` and never the run.

    Args:
        sources: what to read.
        fps: which frames of videos to take.
        decoder: what decodes them, by its name, see `video.load_backend`.
        threads: how many sources are read at once.
        depth: the most frames that wait.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        fps: video.Fps,
        decoder: str = "pyav",
        *,
        threads: int,
        depth: int,
    ) -> None:
        self._fps = fps
        self._decoder = decoder
        self._channel: Channel[Decoded | End] = Channel(depth)
        self._lock = threading.Lock()
        self._waiting = iter(enumerate(sources))
        self._running = threads
        self._threads = [
            threading.Thread(target=self._work, name=f"carjax-decode-{i}", daemon=True)
            for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def __iter__(self) -> Iterator[Decoded | End | None]:
        """Frames of all sources as they come; those of one source in order, then its end.

        None where none has come for a while.
        """
        return self._channel.items(_IDLE_S)

    def close(self) -> None:
        """Stops the threads, and waits for them, but not for a source that does not answer."""
        self._channel.shut()
        latest = time.monotonic() + _CLOSING_S
        for thread in self._threads:
            thread.join(max(0.0, latest - time.monotonic()))

    def _work(self) -> None:
        failure: BaseException | None = None
        try:
            while True:
                with self._lock:
                    unit, source = next(self._waiting, (-1, None))
                if source is None or not self._read(unit, source):
                    break
        except BaseException as error:
            failure = error
        with self._lock:
            self._running -= 1
            last = self._running == 0
        if last or failure is not None:
            self._channel.finish(failure)

    def _read(self, unit: int, source: Source) -> bool:
        """Reads one source; False when no more is wanted."""
        rows, problems, fingerprint, failure = 0, [], "", None
        try:
            fingerprint = fingerprint_of(source)
            # Here and not at once: on another machine it may be missing, which then is told as
            # any failure of a source.
            decoder = video.load_backend(self._decoder)
            for item in readers.read(source, self._fps, decoder):
                if isinstance(item, Problem):
                    problems.append(item)
                    continue
                if not self._channel.put(Decoded(unit, rows, item)):
                    return False
                rows += 1
        except Exception as error:  # a damaged file may raise anything
            failure = one_line(error)
        return self._channel.put(End(unit, rows, fingerprint, tuple(problems), failure))


def fingerprint_of(source: Source) -> str:
    """Returns the source's fingerprint, or '' where it cannot be told."""
    try:
        return source.fingerprint()
    except Exception:  # a server may raise anything; reading the source will say what is wrong
        return ""
