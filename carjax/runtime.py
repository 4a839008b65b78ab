"""What this process runs on: its cores, JAX set up for them, and the other processes of its run."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

from carjax import files
from carjax.errors import CarjaxError, first_line

# In glibc's malloc.h.
_M_ARENA_MAX, _ARENAS = -8, 2
# The older way to say how many CPU devices there are, in XLA_FLAGS.
_DEVICES_FLAG = "xla_force_host_platform_device_count"


def cores() -> int:
    """Returns how many cores this process may use; those of the machine where none can be told."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    flags = os.environ.get("XLA_FLAGS", "")
    if "JAX_NUM_CPU_DEVICES" not in os.environ and _DEVICES_FLAG not in flags:
        jax.config.update("jax_num_cpu_devices", cores())
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen:
        # Absolute: JAX looks it up at each program, wherever the process is by then.
        chosen = chosen if files.is_remote(chosen) else os.path.abspath(chosen)
        jax.config.update("jax_compilation_cache_dir", chosen)
    else:
        jax.config.update("jax_compilation_cache_dir", str(files.cache_dir() / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def join_processes(
    coordinator: str | None,
    processes: int | None,
    process_id: int | None,
    instead: str = "--coordinator=HOST:PORT, --processes and --process_id",
) -> None:
    """Joins the other processes of the run; must come before the first use of a device.

    Args:
        coordinator: where the first process listens; None: the pod or job says so.
        processes: how many there are, or None.
        process_id: which of them this one is, or None.
        instead: the flags to give where nothing says so.

    Raises:
        CarjaxError: they cannot be reached, or nothing says where they are.
    """
    import jax

    try:
        jax.distributed.initialize(coordinator, processes, process_id)
    except (RuntimeError, ValueError) as error:
        raise CarjaxError(f"--distributed: {first_line(error)}: give {instead}") from None
