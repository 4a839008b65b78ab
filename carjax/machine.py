"""What this machine offers."""

from __future__ import annotations

import os


def cores() -> int:
    """Returns how many cores this process may use; those of the machine where none can be told."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
