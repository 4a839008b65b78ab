"""A child process that runs tasks one at a time, and can be ended at any moment.

Requests and answers are JSON, a line each. A child holds what is slow to load (the model) and all
that can go wrong with a foreign file: when a task takes too long or too much memory, the child
goes, and the next task gets a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from carjax.errors import CarjaxError

# An answer holds no pictures: the longest one is the series of a video.
_LINE_BYTES = 16_000_000


class TaskFailed(CarjaxError):
    """The task ended with a message for the user."""


class NoCar(TaskFailed):
    """The video shows no car."""


class NoRoom(TaskFailed):
    """The disk is full."""


class Unavailable(TaskFailed):
    """The server cannot do it now."""


class Fault(TaskFailed):
    """The server's own fault."""


class TaskOverrun(TaskFailed):
    """The task took too long."""


class TaskDied(TaskFailed):
    """The child process ended: most likely it ran out of the memory that it may use."""


class Child:
    """One child process, started when it is first needed.

    Args:
        memory_bytes: how much memory it may use.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory = memory_bytes
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The process's id; None while there is none."""
        return None if self._process is None else self._process.pid

    async def run(
        self,
        task: str,
        arguments: Mapping[str, Any],
        *,
        seconds: float,
        report: Callable[[dict[str, Any]], None] = lambda message: None,
    ) -> Any:
        """Runs a task of `tasks.TASKS` and returns its result.

        Args:
            task: its name.
            arguments: its keyword arguments, in JSON's types.
            seconds: the longest time.
            report: called with what the task reports on its way.

        Raises:
            TaskFailed: the task failed, took too long, or took the process with it.
        """
        async with self._lock:
            try:
                async with asyncio.timeout(seconds):
                    return await self._ask(task, arguments, report)
            except TimeoutError:
                await self.close()
                raise TaskOverrun(f"this took longer than {seconds:g} s and was ended") from None
            except asyncio.CancelledError:
                await self.close()
                raise
            except (OSError, ValueError) as error:  # no process to be had, or no answer of ours
                await self.close()
                logging.getLogger(__name__).error("no answer of a child: %s", error)
                raise Unavailable("the server cannot do this now; try again later") from error

    async def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()

    async def _ask(
        self, task: str, arguments: Mapping[str, Any], report: Callable[[dict[str, Any]], None]
    ) -> Any:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "carjax.web.child", str(self._memory)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LINE_BYTES,
                # Ctrl-C is for the server, which then ends its children.
                start_new_session=True,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        line = json.dumps({"task": task, "arguments": dict(arguments)}) + "\n"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(line.encode())
            await process.stdin.drain()
        while answer := await process.stdout.readline():
            message = json.loads(answer)
            if "result" in message:
                return message["result"]
            if "error" in message:
                if message["kind"] == "memory":
                    break
                kinds = {"NoCarError": NoCar, "room": NoRoom, "fault": Fault}
                raise kinds.get(message["kind"], TaskFailed)(message["error"])
            report(message)
        await self.close()
        if task in ("load", "warm"):
            raise TaskDied("the model needs more memory than --memory_gb allows")
        raise TaskDied(
            "this video needs more memory than the server allows; film at a lower resolution"
        )
