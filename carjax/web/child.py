"""The child process's side of `process`: reads tasks from standard input, answers line by line."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from typing import Any, TextIO

from carjax.errors import CarjaxError, is_full, one_line
from carjax.web.limits import NO_ROOM


def main(memory_bytes: int) -> None:
    """Runs tasks until standard input ends."""
    limit_memory(memory_bytes)
    # What a library prints must not end up among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    while True:
        request = json.loads(requests.get())
        _answer(request["task"], request["arguments"], answers)


def limit_memory(memory_bytes: int) -> None:
    """Makes the system refuse this process more memory than that (Linux)."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        return  # not to be had on this system


def _read(requests: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)  # the server is gone, whatever is being done


def _answer(task: str, arguments: dict[str, Any], answers: TextIO) -> None:
    from carjax.web import tasks

    def send(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message, allow_nan=False) + "\n")
        answers.flush()

    try:
        send({"result": tasks.TASKS[task](report=send, **arguments)})
    except Exception as error:
        if is_full(error):
            send({"error": NO_ROOM, "kind": "room"})
            return
        if isinstance(error, CarjaxError):
            send({"error": one_line(error), "kind": type(error).__name__})
            return
        # XLA has its own way to say that there is no memory left.
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            send({"error": one_line(error), "kind": "memory"})
            return
        traceback.print_exc()
        send({"error": "the server failed on this video; its log says why", "kind": "fault"})


if __name__ == "__main__":
    main(int(sys.argv[1]))
