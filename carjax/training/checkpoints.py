"""Checkpoints with Orbax: one per chunk of steps, written while the next chunk computes."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from carjax import files, interrupts
from carjax.closing import Closing
from carjax.errors import CarjaxError, one_line

# The newest, and one more in case the machine dies while that is written.
_KEPT = 2


class Checkpoints(Closing):
    """The checkpoints of one run; a context manager that waits for the last write.

    Only arrays are kept, under their path in the pytree, so that a checkpoint does not depend on
    the classes that the state is made of.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        located = files.locate(folder)
        self._remote = files.is_remote(folder)
        self._folder = located if self._remote else located.absolute()
        self._checkpointer = ocp.training.Checkpointer(
            self._folder,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.LatestN(_KEPT),
            cleanup_tmp_directories=True,
        )
        self._hook = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        logging.getLogger("absl").addFilter(_not_of_orbax)

    def _unraisable(self, ignored: Any) -> None:
        """Leaves out what TensorStore tells of writes that were given up, once for each array."""
        if str(ignored.exc_value) != "Event loop is closed":
            self._hook(ignored)

    def close(self) -> None:
        """Waits for the last write.

        Raises:
            OSError: the disk or the bucket refused it.
        """
        with self._writing():
            self._checkpointer.close()
        # Not after a failure, of which Orbax's threads may tell later still.
        sys.unraisablehook = self._hook
        logging.getLogger("absl").removeFilter(_not_of_orbax)

    def save(self, step: int, state: Any) -> None:
        """Starts writing the state after `step` steps; the arrays may be donated afterwards.

        Raises:
            OSError: the disk or the bucket refused the one before.
        """
        # A copy on the host: the next chunk reuses the device's buffers.
        named = _named(jax.device_get(state))
        with self._writing():
            self._checkpointer.save_async(step, named)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What the disk or the bucket refuses in the block is an OSError; interrupts wait.

        Interrupted in the midst of it, Orbax leaves threads that cannot end.
        """
        try:
            with interrupts.deferred():
                yield
        except Exception as error:  # Orbax and TensorStore raise many types for a failed write
            told = re.search(r"os_error_code='(\d+)'", str(error))
            if told:
                raise OSError(int(told[1]), os.strerror(int(told[1]))) from error
            if self._remote:
                raise OSError(one_line(error)[:300]) from error
            raise

    def restore(self, like: Any, sharding: jax.sharding.Sharding) -> Any | None:
        """Reads the newest state.

        Args:
            like: a state of the same structure, shapes and types.
            sharding: where to put every array; any number of devices.

        Returns:
            The state, or None if nothing was saved yet.

        Raises:
            CarjaxError: the checkpoint is broken or of another model.
        """
        latest = self._checkpointer.latest
        if latest is None:
            return None
        wanted = {
            path: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
            for path, x in _named(like).items()
        }
        try:
            found = self._checkpointer.load(latest, wanted)
        except Exception as error:  # Orbax and TensorStore raise many types for a broken folder
            steps = sorted(c.step for c in self._checkpointer.checkpoints)
            way = f"{self._folder} to start afresh"
            if len(steps) > 1:
                way = f"it to go on from step {steps[-2]}, or {way}"
            raise CarjaxError(
                f"{self._folder / str(latest.step)}: not a checkpoint of this run: delete "
                f"{way} ({one_line(error)[:300]})"
            ) from None
        return jax.tree.unflatten(jax.tree.structure(like), [found[k] for k in _named(like)])


def _not_of_orbax(record: logging.LogRecord) -> bool:
    """Drops what Orbax logs, page by page, of failures that `Checkpoints` raises as well."""
    return "orbax" not in record.pathname


def _named(state: Any) -> dict[str, Any]:
    """Flattens a pytree to path → leaf, in the order of its leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves}
