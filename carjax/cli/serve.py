"""`carjax serve`: the page and the HTTP API, for this computer or, if told so, for others."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from absl import flags

from carjax.cli import common
from carjax.errors import CarjaxError, UsageError, needing
from carjax.web.limits import Limits

if TYPE_CHECKING:
    import uvicorn

SYNOPSIS = """usage: carjax serve

Opens a page at http://127.0.0.1:8000 to upload or record a walk-around and get its photos, and the
same over HTTP (/docs). Uploads stay on this computer, and are deleted after --keep_minutes.
There are no accounts and no encryption: before --host opens it to others, put a proxy in front."""

# Flag → what `--help` says of a limit; types and defaults are those of `Limits`.
_LIMITS = {
    "megabytes": "largest upload, in 10⁶ bytes",
    "seconds": "longest video",
    "megapixels": "largest frame, in 10⁶ pixels",
    "frames": "most frames of a video",
    "job_seconds": "longest run of one job",
    "memory_gb": "memory of the process that scores, in 10⁹ bytes",
    "queue": "jobs that may wait; more are told “busy”",
    "keep": "results kept at a time",
    "keep_minutes": "how long a result is kept after its last use",
    "upload_minutes": "longest upload",
    "idle_seconds": "longest silence during an upload",
}


def define_flags() -> flags.FlagValues:
    """Returns the command's flags."""
    values = flags.FlagValues()
    flags.DEFINE_string("host", "127.0.0.1", "address to listen on", flag_values=values)
    flags.DEFINE_integer("port", 8000, "port; 0 takes a free one", flag_values=values)
    common.define_model(values, localise=False)
    for field in dataclasses.fields(Limits):
        define: Any = flags.DEFINE_integer if field.type == "int" else flags.DEFINE_float
        define(field.name, field.default, _LIMITS[field.name], flag_values=values)
    return values


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit status."""
    values = define_flags()
    common.parse_flags(values, argv, SYNOPSIS, "serve")
    limits = Limits(**{name: getattr(values, name) for name in _LIMITS})
    for name in _LIMITS:
        value, least = getattr(limits, name), 0 if name == "queue" else 1e-9
        if not (value >= least and math.isfinite(value)):
            above = "0 or more" if name == "queue" else "above 0, and finite"
            raise UsageError(f"--{name} is {value:g}; it must be {above}")
    with needing("web", "the page"):
        import uvicorn

        from carjax.web import app, guard, jobs

    reasons: list[str] = []

    def failed(reason: str) -> None:
        reasons.append(reason)
        server.should_exit = True

    queue = jobs.Jobs(
        limits,
        model=_absolute(values.model),
        weights=_absolute(values.backbone_weights),
        failed=failed,
    )
    with _listening(values.host, values.port) as listener:
        host, port = listener.getsockname()[:2]
        config = uvicorn.Config(
            app.create_app(queue, local=guard.is_local(host)),
            log_config=None,  # its own would close the handlers of whoever calls this function
            log_level="warning",
            access_log=False,  # a job's id is its password
            timeout_graceful_shutdown=2,
            server_header=False,
            limit_concurrency=200,
        )
        server = uvicorn.Server(config)
        shown = f"[{host}]" if ":" in host else host
        print(f"carjax: http://{shown}:{port} (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt), _ending_with_the_terminal(server):
            server.run(sockets=[listener])
    if reasons:
        raise CarjaxError(reasons[0])
    return 0


def _absolute(path: str | None) -> str | None:
    """A file's full path, for a process that works elsewhere; a bundle's name stays as it is."""
    return os.fspath(pathlib.Path(path).absolute()) if path and os.path.exists(path) else path


@contextlib.contextmanager
def _ending_with_the_terminal(server: uvicorn.Server) -> Iterator[None]:
    """A terminal that is closed ends the server as Ctrl-C does: uploads must not stay on disk."""
    # Under nohup it is ignored, and stays so; only the main thread may change that.
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGHUP, lambda number, frame: setattr(server, "should_exit", True))
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket.

    Raises:
        CarjaxError: the address cannot be had.
    """
    if not 0 <= port < 65536:
        raise UsageError(f"--port is {port}; it must be 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()  # from here on who calls waits, and is not refused
    except OSError as error:
        flag = "--host" if isinstance(error, socket.gaierror) else "--port"
        raise CarjaxError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; give another {flag}"
        ) from None
    with listener:
        yield listener
