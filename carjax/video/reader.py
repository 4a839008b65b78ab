"""Frames of a video by index, decoding only what is near them."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import math
import os
import queue
import threading
import weakref
from collections.abc import Collection, Generator, Iterator, Mapping

import av
import numpy as np

from carjax import runtime
from carjax.closing import Closing
from carjax.errors import CarjaxError
from carjax.prefetch import Prefetch, prefetch
from carjax.video.container import Losses, Path, opened, pixel_aspect
from carjax.video.decoder import Decoder, Frame, VideoInfo, damage
from carjax.video.picture import Renderer
from carjax.video.timeline import Timeline, read_timeline

# Of a stretch with more frames than these, or of one of few, frames are handed on as they come, and
# no more than these wait: 44 MB as they are scored, for each of as many stretches as cores.
_MANY = 64


class UnprovenIndexError(CarjaxError):
    """A frame of a video is not what the file said of it; decode it from its start."""


class Reader(Closing):
    """The frames of a video by index, in any order, as `Decoder` would give them.

    Where the file tells when each frame is shown (`read_timeline`), a frame is decoded from the key
    frame before it, several key frames' stretches at a time, one per core. Otherwise, or with
    `seek=False`, every call decodes from the start of the file. Both give the same pixels. Frames
    of a long stretch are handed on as they are decoded; what is not wanted any more is not decoded
    to its end.

    Args:
        path: a local video file.
        max_side: as in `Decoder`.
        seek: False decodes from the start in any case.

    Attributes:
        info: the video.
        warnings: one line for each kind of damage that was met.

    Raises:
        CarjaxError: as `probe`.

    Example:
        >>> with Reader("data/prius_walkaround.mp4", max_side=64) as reader:
        ...     frames = {frame.index: frame.image.shape for frame in reader.read({7, 100})}
        >>> frames
        {7: (36, 64, 3), 100: (36, 64, 3)}
    """

    def __init__(self, path: Path, *, max_side: int | None = None, seek: bool = True) -> None:
        self._decoder = Decoder(path, fps="all", max_side=max_side)
        self._path = path
        self._max_side = max_side
        self._timeline = read_timeline(path) if seek else None
        self._times: list[float] | None = None
        self._damaged: set[int] = set()
        self._cores = runtime.cores()
        self._pool = concurrent.futures.ThreadPoolExecutor(self._cores, "carjax-decode")
        # Open files, by the number of threads that each decodes with.
        self._idle: dict[int, queue.SimpleQueue[_Stretches]] = collections.defaultdict(
            queue.SimpleQueue
        )
        # Also runs when the reader is dropped.
        self._finalizer = weakref.finalize(self, _shut, self._pool, self._idle)

    def close(self) -> None:
        """Closes the files that are open."""
        self._finalizer()

    @property
    def seeks(self) -> bool:
        """Whether frames are decoded from the key frame before them."""
        return self._timeline is not None

    @property
    def info(self) -> VideoInfo:
        """The video; as counted where that is known."""
        if self._timeline is None:
            return self._decoder.info
        return dataclasses.replace(
            self._decoder.info,
            frames=len(self._timeline),
            exact_frames=True,
            duration_s=self._timeline.duration_s,
        )

    @property
    def warnings(self) -> list[str]:
        """One line for each kind of damage that was met."""
        if self._timeline is None:
            return self._decoder.warnings
        losses = Losses()
        losses.frames = len(self._damaged)
        stated = self._decoder.info
        # An index that lists every frame is the video's length, whatever its header says.
        length = None if stated.exact_frames else stated.duration_s
        return damage(losses, len(self._timeline), self._timeline.duration_s, None, length)

    @property
    def damaged(self) -> frozenset[int]:
        """Frames that were asked for so far, and left out."""
        return frozenset(self._damaged)

    @property
    def time_s(self) -> np.ndarray:
        """Presentation times of all frames, float64 [N].

        Raises:
            RuntimeError: they are not known before `sample` has come to its end.
        """
        if self._timeline is not None:
            return self._timeline.time_s
        if self._times is None:
            raise RuntimeError("the times of this video are known when `sample` has ended")
        return np.array(self._times)

    @property
    def effort(self) -> tuple[np.ndarray, np.ndarray] | None:
        """What each frame costs to decode: `Timeline.stretch` and `Timeline.depth`, int64 [N] each.

        None where every frame is decoded from the start of the file.
        """
        return None if self._timeline is None else (self._timeline.stretch, self._timeline.depth)

    def sample(self, fps: float) -> Generator[Frame, None, None]:
        """Yields one frame for each 1/fps seconds that have any, in order.

        By time: of the frames of each such slot the first key frame, which costs least to decode,
        or, where it has none, the first frame. A video without a timeline always gives the first.

        Raises:
            CarjaxError: no frame is intact.
            UnprovenIndexError: as `read`.
        """
        if self._timeline is None:
            yield from self._sample_all(fps)
            return
        slot = _slots(self._timeline.time_s, fps)
        # Of each slot the first frame, key frames before others.
        order = np.lexsort((np.arange(len(slot)), ~self._timeline.key, slot))
        first = order[np.flatnonzero(np.diff(slot[order], prepend=-1))]
        yield from self.read(first.tolist())
        if len(self._damaged) == len(first):
            raise UnprovenIndexError(f"{self.info.path}: no frame is intact; the file is damaged")

    def read(self, indices: Collection[int]) -> Generator[Frame, None, None]:
        """Yields the frames of these indices, in order, but for those that are damaged.

        Raises:
            CarjaxError: the video has no such frame.
            UnprovenIndexError: what was decoded is not what the file's timeline said.
        """
        yield from self._read(dict.fromkeys(indices, self._max_side))

    def grab(
        self, indices: Collection[int], *, max_sides: Mapping[int, int] | None = None
    ) -> dict[int, np.ndarray]:
        """Decodes the frames of these indices, as `Decoder.grab`: index → uint8 [H, W, 3].

        Raises:
            CarjaxError: the video has no such frame.
            UnprovenIndexError: as `read`.
        """
        if self._timeline is None:
            return self._decoder.grab(indices, max_sides=max_sides)
        sides = dict.fromkeys(indices) | dict(max_sides or {})
        images = {frame.index: frame.image for frame in self._read(sides)}
        if missing := set(indices) - images.keys():
            raise UnprovenIndexError(f"{self.info.path}: frame {min(missing)} is damaged")
        return images

    def _read(self, sides: Mapping[int, int | None]) -> Generator[Frame, None, None]:
        """The frames of these indices; each maps to its longest side in pixels."""
        wanted = sorted(sides)
        # How many frames a header states may be too few.
        most = self.info.frames if self.info.exact_frames else math.inf
        if wanted and (wanted[0] < 0 or wanted[-1] >= most):
            bad = wanted[0] if wanted[0] < 0 else wanted[-1]
            raise CarjaxError(f"{self.info.path}: has no frame {bad}")
        if self._timeline is None:
            yield from self._read_all(sides)
            return
        stretches: dict[int, list[int]] = collections.defaultdict(list)
        for index in wanted:
            stretches[int(self._timeline.stretch[index])].append(index)
        if not stretches:
            return
        threads = max(1, self._cores // len(stretches))
        # Frames shown before their key frame belong to the stretch before, so this is their order.
        todo = iter(sorted(stretches.items()))
        running: collections.deque[_Whole | Prefetch[Frame]] = collections.deque()
        stop = threading.Event()
        try:
            while True:
                long = any(isinstance(ahead, Prefetch) for ahead in running)
                most_ahead = self._cores if long else 2 * self._cores
                while len(running) < most_ahead and (item := next(todo, None)):
                    frames = self._stretch(*item, sides, threads, stop)
                    # A long stretch has a thread of its own, which may wait for its frames to be
                    # taken; those of the pool never wait, so that calls do not wait for each other.
                    if len(item[1]) > _MANY or len(stretches) <= self._cores:
                        running.append(prefetch(frames, depth=_MANY))
                    else:
                        running.append(_Whole(self._pool.submit(list, frames)))
                if not running:
                    return
                # `yield from` would close it before it is told to stop.
                for frame in running[0]:  # noqa: UP028
                    yield frame
                running.popleft()
        finally:
            stop.set()
            for unread in running:
                unread.close()

    def _stretch(
        self,
        row: int,
        wanted: list[int],
        sides: Mapping[int, int | None],
        threads: int,
        stop: threading.Event,
    ) -> Generator[Frame, None, None]:
        """The intact frames of one stretch, in order; runs in a thread of its own or the pool's."""
        assert self._timeline is not None
        stretches = None
        with contextlib.suppress(queue.Empty):
            stretches = self._idle[threads].get_nowait()
        # Not while the exception is handled: the open file would keep it, and so this reader.
        stretches = stretches or _Stretches(self._path, self._timeline, threads)
        for index, frame in stretches.read(row, wanted, sides, stop):
            if frame is None:
                self._damaged.add(index)
            else:
                yield frame
        self._idle[threads].put(stretches)

    def _sample_all(self, fps: float) -> Generator[Frame, None, None]:
        times: list[float] = []
        last_slot = -1
        intact = False
        with contextlib.closing(self._decoder.pictures()) as pictures:
            for picture in pictures:
                times.append(picture.time_s)
                slot = int(_slots(np.array([picture.time_s]), fps)[0])
                if picture.raw.is_corrupt or slot == last_slot:
                    continue
                intact, last_slot = True, slot
                yield Frame(picture.index, picture.time_s, picture.rgb(self._max_side))
        if not intact:
            raise CarjaxError(f"{self.info.path}: no frame is intact; the file is damaged")
        self._times = times

    def _read_all(self, sides: Mapping[int, int | None]) -> Generator[Frame, None, None]:
        if not sides:
            return
        last = max(sides)
        with contextlib.closing(self._decoder.pictures()) as pictures:
            for picture in pictures:
                if picture.index in sides and not picture.raw.is_corrupt:
                    side = sides[picture.index]
                    yield Frame(picture.index, picture.time_s, picture.rgb(side))
                if picture.index == last:
                    break


def _shut(
    pool: concurrent.futures.ThreadPoolExecutor, idle: dict[int, queue.SimpleQueue[_Stretches]]
) -> None:
    # The last reference may go in one of the pool's own threads, which cannot wait for itself.
    pool.shutdown(wait=threading.current_thread() not in pool._threads, cancel_futures=True)
    for stretches in idle.values():
        while not stretches.empty():
            stretches.get().close()


def _slots(time_s: np.ndarray, fps: float) -> np.ndarray:
    """Which slot of 1/fps seconds each time lies in; times that are rounded to 1 ms stay right."""
    return np.floor((time_s + 1e-3) * fps).astype(np.int64)


class _Whole:
    """The frames of a stretch once all of them are decoded."""

    def __init__(self, future: concurrent.futures.Future[list[Frame]]) -> None:
        self._future = future

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._future.result())

    def close(self) -> None:
        """Waits for the thread; it has been told to stop."""
        self._future.cancel()
        concurrent.futures.wait([self._future])


class _Stretches:
    """One open file, in which stretches from a key frame on are decoded."""

    def __init__(self, path: Path, timeline: Timeline, threads: int) -> None:
        self._timeline = timeline
        self._name = os.fspath(path)
        self._closing = contextlib.ExitStack()
        self._container, self._stream = self._closing.enter_context(opened(path))
        self._stream.codec_context.thread_count = threads
        self._renderer = Renderer(self._name, pixel_aspect(self._stream))
        # Frames that none is predicted from are decoded only where they are asked for; other
        # decoders read this setting once or never.
        self._skips = self._stream.codec_context.codec.canonical_name in ("h264", "hevc")

    def close(self) -> None:
        self._closing.close()

    def read(
        self,
        row: int,
        wanted: list[int],
        sides: Mapping[int, int | None],
        stop: threading.Event,
    ) -> Iterator[tuple[int, Frame | None]]:
        """Decodes the frames of these indices from one key frame on, in order.

        Yields:
            (index, the frame; None where it is damaged), until `stop` is set.
        """
        timeline = self._timeline
        targets = {int(timeline.pts[index]): index for index in wanted}
        due = collections.deque(wanted)
        done: dict[int, Frame | None] = {}  # before its turn
        for raw in self._decode(row, targets, int(timeline.position[wanted].max()), stop):
            index = targets.pop(int(raw.pts or 0), -1)
            if index < 0:
                continue
            done[index] = None
            if not raw.is_corrupt:
                image = self._renderer.render(raw, sides[index])
                done[index] = Frame(index, float(timeline.time_s[index]), image)
            while due and due[0] in done:
                index = due.popleft()
                yield index, done.pop(index)
        if targets and not stop.is_set():
            raise self._unproven("a frame that it lists cannot be decoded")

    def _decode(
        self, row: int, targets: Collection[int], last: int, stop: threading.Event
    ) -> Iterator[av.VideoFrame]:
        """Decoded frames from a key frame to the packet at position `last`, or until a stop."""
        timeline = self._timeline
        key = int(timeline.key_index[row])
        start, key_pts = int(timeline.position[key]), int(timeline.pts[key])
        context = self._stream.codec_context
        context.flush_buffers()
        wanted = set(targets)
        try:
            self._container.seek(int(timeline.key_dts[row]), stream=self._stream, backward=True)
            position = -1
            for packet in self._container.demux(self._stream):
                if stop.is_set():
                    return
                if packet.pts is None:
                    break
                if packet.pts == key_pts:
                    position = start
                elif position < 0:
                    # Seeking may end at a key frame before, never after.
                    if packet.pts > key_pts and packet.is_keyframe:
                        raise self._unproven("a key frame that it lists is not found")
                    continue
                if self._skips:
                    context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
                yield from self._checked(packet)
                if position == last:
                    break
                position += 1
            yield from self._checked(None)
        except av.FFmpegError as error:
            raise self._unproven(f"it cannot be decoded ({error.strerror})") from error

    def _checked(self, packet: av.Packet | None) -> Iterator[av.VideoFrame]:
        for raw in self._stream.codec_context.decode(packet):
            # Two fields may be two packets of one frame.
            if raw.interlaced_frame or raw.pts is None:
                raise self._unproven("its frames are interlaced or have no time")
            yield raw

    def _unproven(self, reason: str) -> UnprovenIndexError:
        return UnprovenIndexError(f"{self._name}: does not keep to its own index: {reason}")
