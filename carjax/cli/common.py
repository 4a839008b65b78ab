"""What the commands share: parsing absl flags, and setting JAX up before its first use."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

from absl import flags

from carjax import files, machine
from carjax.errors import UsageError

# In glibc's malloc.h.
_M_ARENA_MAX, _ARENAS = -8, 2


class HelpShown(Exception):
    """The user asked for help and has it."""


def parse(values: flags.FlagValues, argv: list[str], synopsis: str) -> list[str]:
    """Parses flags and returns the positional arguments.

    Args:
        values: the command's own flags.
        argv: the words after the command.
        synopsis: first lines of its help.

    Raises:
        UsageError: an unknown flag or a bad value.
        HelpShown: --help was given; the text has been printed.
    """
    if any(word in ("-h", "--help", "-help") for word in argv):
        print(help_text(values, synopsis))
        raise HelpShown
    try:
        return values(["carjax", *argv])[1:]
    except flags.Error as error:
        raise UsageError(str(error)) from None


def help_text(values: flags.FlagValues, synopsis: str) -> str:
    """Returns a help text that fits a screen: one line per flag."""
    lines = [synopsis, ""]
    for name in sorted(values):
        flag = values[name]
        if name != flag.name:
            continue
        boolean = isinstance(flag, flags.BooleanFlag)
        default = "…" if flag.default is None else str(flag.default_as_str).strip("'")
        shown = f"--[no]{name}" if boolean else f"--{name}={default}"
        lines.append(f"  {shown:<30} {flag.help}")
    return "\n".join(lines)


def keep_few_arenas() -> None:
    """Makes glibc share its heaps among threads; does nothing elsewhere.

    Frames are allocated in one thread and freed in another. With a heap for each of 25 threads,
    what is free in one is of no use to the others: 50 to 100 MB more, varying from run to run.
    Arrow's own allocator keeps a heap for each thread as well, 30 MB more: it is not used.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def set_up_jax() -> None:
    """One virtual CPU device per core, few heaps, and compiled programs kept between runs.

    Must run before the first use of a device. `CARJAX_CACHE_DIR` moves the cache (default:
    `~/.cache/carjax`); nothing is set that the user's own environment already sets.
    """
    import jax

    keep_few_arenas()
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        jax.config.update("jax_num_cpu_devices", machine.cores())
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen:
        # Absolute: JAX looks it up at each program, wherever the process is by then.
        chosen = chosen if files.is_remote(chosen) else os.path.abspath(chosen)
        jax.config.update("jax_compilation_cache_dir", chosen)
    else:
        jax.config.update("jax_compilation_cache_dir", str(files.cache_dir() / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
