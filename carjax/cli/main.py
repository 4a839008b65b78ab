"""`carjax COMMAND …`: finds the command, runs it, and turns a failure into one line and a status.

A command is a module of this package with `main(argv) -> int`; it is imported only when asked
for, so that `carjax --help` and a mistyped path answer at once.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import signal
import sys
import threading
from typing import Any

from carjax.errors import CarjaxError, UsageError

# Command, a module of this package → what it does.
COMMANDS = {
    "select": "choose a video's best photos and write them with a report",
    "score": "score every frame of many videos and photos into a Parquet file",
    "serve": "open the page in which videos are uploaded, and the HTTP API",
    "prepare": "turn a published data set into records that training reads",
    "train": "train one head, or the car box, on frozen features",
    "bundle": "join separately trained heads into one model file",
    "evaluate": "measure a model on labelled photos",
    "experiment": "test the hypothesis: certain where well shown?",
    "weights": "list the backbones; fetch or import published weights",
}


def usage() -> str:
    """Returns the text of `carjax --help`."""
    lines = ["carjax: from a walk-around video of a car, the photos that sell it.", ""]
    lines += ["usage: carjax COMMAND [ARGUMENTS] [--FLAGS]", ""]
    lines += [f"  {name:<10} {what}" for name, what in COMMANDS.items()]
    lines += ["", "carjax COMMAND --help lists a command's flags.", ""]
    lines += ["  carjax select data/prius_walkaround.mp4 --out=out/demo"]
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Runs a command line without the program's name, and returns the exit status."""
    argv = [_at_home(word) for word in argv]
    if argv[:1] == ["help"]:
        argv = [*argv[1:], "--help"]
    try:
        if argv and argv[0] in ("--version", "version"):
            import carjax

            print(f"carjax {carjax.__version__}")
            return 0
        if not argv or argv[0] in ("-h", "--help"):
            print(usage(), flush=True)
            return 0 if argv else UsageError.status
        if argv[0] not in COMMANDS:
            raise UsageError(f"no command {argv[0]!r}; there are: {', '.join(COMMANDS)}")
        module = importlib.import_module(f"carjax.cli.{argv[0]}")
        return module.main(argv[1:])
    except CarjaxError as error:
        print(f"carjax: {' '.join(str(error).split())}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt as error:
        print("carjax: interrupted", file=sys.stderr)
        return 143 if isinstance(error, Terminated) else 130
    except BrokenPipeError:
        # Whoever read the output has gone: not a fault of the run.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except PermissionError as error:
        if error.filename is None:  # not of a path that somebody gave
            raise
        print(f"carjax: {error.filename}: {error.strerror}", file=sys.stderr)
        return CarjaxError.status


class Terminated(KeyboardInterrupt):
    """The process is asked to end, by `timeout`, a container or a service manager."""


def _terminate(number: int, frame: Any) -> None:
    raise Terminated


def _at_home(word: str) -> str:
    """A word with `~` as the home folder, which a shell leaves alone in `--out=~/DIR`."""
    flag, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return (
        flag
        + equals
        + ",".join(
            os.path.expanduser(part) if part == "~" or part.startswith("~/") else part
            for part in value.split(",")
        )
    )


def _again(ignored: Any) -> None:
    """Interrupts once more where Python dropped an interrupt: in a callback, as JAX has them."""
    if issubclass(ignored.exc_type, KeyboardInterrupt) and not sys.is_finalizing():
        # Once the callback is over; a real signal also ends a wait.
        main_thread = threading.main_thread().ident
        number = signal.SIGTERM if issubclass(ignored.exc_type, Terminated) else signal.SIGINT
        again = threading.Timer(0.01, signal.pthread_kill, (main_thread, number))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(ignored)


class _Warnings(logging.Handler):
    """Warnings look as errors do, whatever other packages make of their own."""

    def emit(self, record: logging.LogRecord) -> None:
        # Not a stream of before: a progress bar puts its own in its place.
        print(f"carjax: {record.getMessage()}", file=sys.stderr)


def run() -> None:
    """The console script's entry."""
    sys.unraisablehook = _again
    own = logging.getLogger("carjax")
    own.addHandler(_Warnings())
    own.propagate = False
    signal.signal(signal.SIGTERM, _terminate)
    # What cannot be written as the terminal wants it is no reason to fail at the end.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")
    sys.exit(main(sys.argv[1:]))
