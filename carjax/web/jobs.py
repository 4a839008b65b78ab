"""The queue: jobs wait for the one process that scores, and go when nobody has used them for long.

All state lives in this object and in one temporary folder, which goes with the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import os
import pathlib
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Literal

from carjax.errors import CarjaxError
from carjax.web.limits import NO_ROOM, Limits
from carjax.web.process import Child, NoCar, TaskFailed
from carjax.web.upload import Upload

State = Literal["uploading", "queued", "running", "done", "failed"]
# What a running job is at.
Stage = Literal["decoding", "scoring", "writing"]

_HELPERS = 2
_HELPER_BYTES = 3_000_000_000
_HELPER_SECONDS = 60.0
_LOAD_SECONDS = 600.0
# Compiled for while nobody waits, the last one first.
_SHAPES = ("portrait", "landscape")
# Disk that must stay free after the largest uploads.
_SPARE_BYTES = 500_000_000
_SWEEP_SECONDS = 5.0
_FOLDER = "carjax-serve-"


class Busy(CarjaxError):
    """The queue is full; `retry_s` says when to ask again."""

    def __init__(self, message: str, retry_s: float) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class Missing(CarjaxError):
    """There is no such job (any more)."""


class Outdated(CarjaxError):
    """The edit is based on photos that have changed since."""


@dataclasses.dataclass(eq=False)
class Job:
    """One upload and what became of it.

    Attributes:
        id: 128 random bits: who knows it may see the job.
        folder: the job's own.
        state: where it stands.
        name: the upload's name.
        options: what was asked for (`tasks.select`).
        stage: of a running job.
        frames: scored so far.
        expected: about how many will be.
        video: what `limits.check` found.
        error: of a failed job, for the user.
        no_car: it failed because the video shows no car.
        warnings: what to know of the video: one line each.
        revision: counts the edits.
        used: when it was last asked for, `time.monotonic()`.
        scoring_since: when the model was there and the video was begun; 0 before.
    """

    id: str
    folder: pathlib.Path
    state: State = "uploading"
    name: str = ""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    stage: Stage | None = None
    frames: int = 0
    expected: int = 0
    video: dict[str, Any] | None = None
    error: str | None = None
    no_car: bool = False
    warnings: list[str] = dataclasses.field(default_factory=list)
    revision: int = 0
    used: float = dataclasses.field(default_factory=time.monotonic)
    scoring_since: float = 0.0
    changed: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    frames_task: asyncio.Task[None] | None = None
    editing: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.state in ("done", "failed")

    def change(self, **fields: Any) -> None:
        """Sets fields and wakes those that watch."""
        for name, value in fields.items():
            setattr(self, name, value)
        self.changed.set()
        self.changed = asyncio.Event()


class Jobs:
    """The jobs of one server.

    Args:
        limits: the bounds.
        model: a bundle's name or file; None means the shipped one.
        weights: of a backbone that is not shipped.
        failed: called with the reason when the model cannot be loaded: the server is of no use.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        model: str | None = None,
        weights: str | None = None,
        failed: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.limits = limits
        self.attributes: list[dict[str, Any]] | None = None
        self._model = {"model": model, "weights": weights}
        self._failed = failed
        self._jobs: dict[str, Job] = {}
        self._waiting: list[Job] = []
        self._scorer = Child(round(limits.memory_gb * 1e9))
        self._helpers: asyncio.Queue[Child] = asyncio.Queue()
        self._all_helpers = [Child(_HELPER_BYTES) for _ in range(_HELPERS)]
        for helper in self._all_helpers:
            self._helpers.put_nowait(helper)
        self._one_pass = asyncio.Semaphore(1)
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._root = pathlib.Path()
        self._lock = -1
        # Of earlier jobs: frames scored a second, seconds from the last frame to the end.
        self._rate: float | None = None
        self._tail: float | None = None

    async def start(self) -> None:
        """Makes the folder, removes those of servers that were killed, and loads the model."""
        await asyncio.to_thread(_remove_left)
        self._root, self._lock = _make_root()
        self._tasks = [asyncio.create_task(self._serve()), asyncio.create_task(self._sweep())]

    async def close(self) -> None:
        """Ends the processes and deletes everything."""
        frames = [job.frames_task for job in self._jobs.values() if job.frames_task]
        for task in [*self._tasks, *frames]:
            task.cancel()
        await asyncio.gather(*self._tasks, *frames, return_exceptions=True)
        for child in (self._scorer, *self._all_helpers):
            await child.close()
        await asyncio.to_thread(shutil.rmtree, self._root, ignore_errors=True)
        os.close(self._lock)

    @property
    def full(self) -> bool:
        """Whether the queue has no place left."""
        return sum(not job.finished for job in self._jobs.values()) > self.limits.queue

    # ------------------------------------------------------------------ the life of a job

    def reserve(self) -> Job:
        """Takes a place in the queue for an upload that begins.

        Raises:
            Busy: there is none.
        """
        if self.full:
            raise Busy("the server is busy; try again in a moment", self._retry_s())
        self._forget_failed()
        if sum(job.state == "done" for job in self._jobs.values()) >= self.limits.keep:
            raise Busy("the server keeps as many results as it can; try again later", 60)
        free = shutil.disk_usage(self._root).free
        uploads = 1 + sum(job.state == "uploading" for job in self._jobs.values())
        if free < uploads * self.limits.bytes + _SPARE_BYTES:
            raise Busy(NO_ROOM, 60)
        identity = secrets.token_urlsafe(16)
        job = Job(identity, self._root / identity)
        (job.folder / "video").mkdir(parents=True)
        self._jobs[identity] = job
        return job

    def _forget_failed(self) -> None:
        """Keeps no more failed jobs than results: they hold nothing but their message."""
        failed = [job for job in self._jobs.values() if job.state == "failed"]
        failed.sort(key=lambda job: job.used)
        for job in failed[: -self.limits.keep]:
            del self._jobs[job.id]

    async def submit(self, job: Job, upload: Upload, options: Mapping[str, Any]) -> None:
        """Checks the upload and lets the job wait for its turn.

        Raises:
            TaskFailed: it is no video, or over the limits.
        """
        job.name, job.options = upload.name, dict(options)
        limits = dataclasses.asdict(self.limits)
        video = await self._help("check", folder=str(job.folder), name=job.name, limits=limits)
        job.change(state="queued", video=video, expected=video.pop("expected"))
        self._waiting.append(job)
        self._work.set()

    def get(self, identity: str) -> Job:
        """Returns a job that was submitted.

        Raises:
            Missing: there is none of that name.
        """
        job = self._jobs.get(identity)
        if job is None or job.state == "uploading":
            raise Missing(
                "no such job: it was deleted, or its time is over; upload the video again"
            )
        job.used = time.monotonic()
        return job

    def done(self, identity: str) -> Job:
        """Returns a job that has a result.

        Raises:
            Missing: there is none of that name, or it has none (yet).
        """
        job = self.get(identity)
        if job.state != "done":
            raise Missing(f"the job is {job.state}; it has no result")
        return job

    async def remove(self, job: Job) -> None:
        """Ends a job wherever it is, and deletes its folder."""
        self._jobs.pop(job.id, None)
        with contextlib.suppress(ValueError):
            self._waiting.remove(job)
        for task in (job.task, job.frames_task):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait({task})
        if not job.finished:
            self._advance(job, state="failed", error="the job was deleted")
        async with job.editing:  # what an edit still writes goes too
            await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)

    async def watch(self, job: Job) -> AsyncIterator[None]:
        """Yields at once and at each change, until the job is finished."""
        while True:
            # Before the answer is made: what changes while it is being sent is told after it.
            changed, finished = job.changed, job.finished
            yield
            if finished:
                return
            await changed.wait()

    def _advance(self, job: Job, **fields: Any) -> None:
        """Changes a job, and wakes those too that watch one that waits: it has less before it."""
        job.change(**fields)
        for other in self._waiting:
            other.change()

    # ------------------------------------------------------------------ a finished job

    async def edit(self, job: Job, revision: int | None, task: str, **arguments: Any) -> None:
        """Runs one of the tasks that change a finished job.

        Args:
            job: what to change.
            revision: that the change is based on; None: whichever there is.
            task: of `tasks.TASKS`.
            **arguments: of the task.

        Raises:
            TaskFailed: the change makes no sense.
            Outdated: there is a newer revision.
            Missing: the job was deleted meanwhile.
        """
        async with job.editing:
            self.get(job.id)
            if revision not in (None, job.revision):
                raise Outdated(
                    "the photos have changed meanwhile, perhaps in another window: look at them, "
                    "and change them again"
                )
            await self._help(task, folder=str(job.folder), **arguments)
            job.change(revision=job.revision + 1)

    async def frame(self, job: Job, index: int, patience_s: float = 30.0) -> pathlib.Path:
        """Returns the file of a scored frame at a limited size.

        Those of photos are there with them. The first call for another decodes the video once, in
        order, and keeps every scored frame.

        Raises:
            Missing: no such frame was scored.
            TaskFailed: the video could not be decoded again; the next call tries once more.
            Busy: it is not there yet.
        """
        path = job.folder / "frames" / f"{index}.jpg"
        if path.exists():
            return path
        if job.frames_task is None:
            job.frames_task = asyncio.create_task(self._decode_frames(job))
        decoding = job.frames_task
        until = time.monotonic() + patience_s
        while not path.exists():
            if decoding.done():
                if not decoding.cancelled() and (failure := decoding.exception()):
                    job.frames_task = None
                    raise failure
                if path.exists():
                    break
                raise Missing("no such frame was scored")
            if time.monotonic() > until:
                raise Busy("the frames are being decoded; try again in a moment", 10)
            await asyncio.sleep(0.05)
        return path

    async def _decode_frames(self, job: Job) -> None:
        async with self._one_pass:
            await self._help("frames", seconds=self.limits.job_seconds, folder=str(job.folder))

    # ------------------------------------------------------------------ what is left to wait

    def position(self, job: Job) -> int:
        """How many jobs are before this one that waits."""
        ahead = self._waiting.index(job) if job in self._waiting else 0
        return ahead + any(other.state == "running" for other in self._jobs.values())

    def remaining_s(self, job: Job) -> float | None:
        """How long a job still takes, by this server's own pace; None while that is not known."""
        if job.state == "queued" and job in self._waiting:
            ahead = self._waiting[: self._waiting.index(job) + 1]
            running = [other for other in self._jobs.values() if other.state == "running"]
            times = [self._own_remaining_s(other) for other in (*running, *ahead)]
            return None if None in times else sum(t for t in times if t is not None)
        return self._own_remaining_s(job) if job.state == "running" else None

    def _own_remaining_s(self, job: Job) -> float | None:
        left = max(job.expected - job.frames, 0)
        rate = self._rate
        if job.frames and job.scoring_since:
            # The first batch may compile: the pace so far, smoothed by that of earlier jobs.
            elapsed = max(time.monotonic() - job.scoring_since, 1e-3)
            own = job.frames / elapsed
            rate = own if rate is None else (rate + own) / 2
        if rate is None:
            return None
        return left / rate + (self._tail or 1.0)

    def _retry_s(self) -> float:
        running = [job for job in self._jobs.values() if job.state == "running"]
        times = [self._own_remaining_s(job) for job in running]
        return max([10.0, *(t for t in times if t is not None)])

    # ------------------------------------------------------------------ loops

    async def _help(self, task: str, *, seconds: float = _HELPER_SECONDS, **arguments: Any) -> Any:
        helper = await self._helpers.get()
        try:
            return await helper.run(task, arguments, seconds=seconds)
        finally:
            self._helpers.put_nowait(helper)

    async def _serve(self) -> None:
        try:
            self.attributes = await self._scorer.run("load", self._model, seconds=_LOAD_SECONDS)
        except TaskFailed as error:
            self._failed(str(error))
            return
        cold = list(_SHAPES)
        while True:
            if self._waiting:
                job = self._waiting.pop(0)
                job.task = asyncio.create_task(self._run(job))
                await asyncio.wait({job.task})
                if self._scorer.pid is None:  # ended with the job, and the model with it
                    cold = list(_SHAPES)
            elif cold:
                shape = {"shape": cold.pop()}
                with contextlib.suppress(TaskFailed):
                    await self._scorer.run("warm", self._model | shape, seconds=_LOAD_SECONDS)
            else:
                self._work.clear()
                await self._work.wait()

    async def _run(self, job: Job) -> None:
        self._advance(job, state="running", stage="decoding")
        last = time.monotonic()

        def report(message: dict[str, Any]) -> None:
            nonlocal last
            last = time.monotonic()
            job.scoring_since = job.scoring_since or last
            self._advance(job, **message)

        arguments = {
            "folder": str(job.folder),
            "name": job.name,
            "options": job.options,
            "limits": dataclasses.asdict(self.limits),
            **self._model,
        }
        try:
            warnings = await self._scorer.run(
                "select", arguments, seconds=self.limits.job_seconds, report=report
            )
        except TaskFailed as error:
            shutil.rmtree(job.folder, ignore_errors=True)
            self._advance(job, state="failed", error=str(error), no_car=isinstance(error, NoCar))
            return
        self._rate = job.frames / max(last - job.scoring_since, 1e-3)
        self._tail = time.monotonic() - last
        job.used = time.monotonic()
        self._advance(job, state="done", stage=None, warnings=warnings)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            oldest = time.monotonic() - 60 * self.limits.keep_minutes
            for job in list(self._jobs.values()):
                if job.finished and job.used < oldest and not job.editing.locked():
                    await self.remove(job)


def _make_root() -> tuple[pathlib.Path, int]:
    """A folder for a server and the handle of its lock, which goes with the process."""
    while True:
        root = pathlib.Path(tempfile.mkdtemp(prefix=_FOLDER))
        lock = os.open(root, os.O_RDONLY)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        if root.exists():
            return root, lock
        os.close(lock)  # another server took it for one that was left, just before it was locked


def _remove_left() -> None:
    """Removes the folders of servers that were killed: nobody holds their lock."""
    for root in pathlib.Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        try:
            lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # not ours
        with contextlib.suppress(OSError):  # held, or cannot be told
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(root, ignore_errors=True)
        os.close(lock)
