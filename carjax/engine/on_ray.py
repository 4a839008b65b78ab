"""The engine of a cluster: Ray Data, with one scorer for each device.

A task is a few whole sources. An actor reads and scores them with the engine of one process and
returns their rows all at once, so that decoded frames never cross the network, and a task whose
worker dies is done again as a whole: no row is lost, none comes twice. Ray hands out tasks as
actors come free and holds back where rows are not taken; the driver writes them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pyarrow as pa

from carjax.engine.feed import End
from carjax.engine.rows import UnitRows
from carjax.errors import CarjaxError, first_line, needing
from carjax.sources import expand
from carjax.sources.base import Problem, Source
from carjax.sources.local import LocalFile

if TYPE_CHECKING:
    from carjax.engine.local import Options
    from carjax.model import Model

# A task is so many bytes of sources, and no more sources than this: large enough that a device
# is not kept waiting between two, small enough to be done again.
_TASK_BYTES = 64 * 2**20
_TASK_SOURCES = 256
# A device of these kinds belongs to one actor.
_DEVICES = ("TPU", "GPU")


class RayEngine:
    """Scores sources on a Ray cluster: the one at `RAY_ADDRESS`, or this machine.

    Every worker must reach the sources by the names given.

    Raises:
        CarjaxError: Ray is not installed, or there is no cluster.
    """

    def __init__(self, model: Model, options: Options) -> None:
        with needing("ray", "--engine=ray"):
            import ray
        self._options = options
        if not ray.is_initialized():
            before = signal.getsignal(signal.SIGTERM)
            try:
                ray.init(log_to_driver=False, logging_level=logging.ERROR)
            except OSError as error:
                address = os.environ.get("RAY_ADDRESS")
                there = f"at RAY_ADDRESS={address}" if address else "on this machine"
                raise CarjaxError(
                    f"--engine=ray: no cluster {there}: {first_line(error)}"
                ) from error
            # Ray's own would end the process with a dump of its stacks.
            main = threading.current_thread() is threading.main_thread()
            if main and before is not None:
                signal.signal(signal.SIGTERM, before)
        # One copy in each machine's object store, whatever the number of actors.
        self._model = ray.put(_to_host(model))

    def run(
        self,
        sources: Sequence[Source],
        scratch: pathlib.Path,
        finish: Callable[[End, UnitRows], None],
        progress: Callable[[int], None] = lambda rows: None,
    ) -> None:
        """Scores sources; see `local.LocalEngine.run`."""
        import ray

        data = ray.data
        data.DataContext.get_current().enable_progress_bars = False
        tasks = list(_tasks(sources))
        actors, resources = _actors()
        scored = data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
            _Worker,
            # An actor that dies is started again, and its tasks are done again, without limit.
            fn_constructor_args=(self._model, self._options, os.getcwd()),
            batch_size=1,
            compute=data.ActorPoolStrategy(size=min(actors, len(tasks))),
            **resources,
        )
        for row in scored.iter_rows():
            told = json.loads(row["end"])
            problems = tuple(Problem(*problem) for problem in told.pop("problems"))
            end = End(unit=row["unit"], problems=problems, **told)
            rows = UnitRows(scratch / f"rows-{end.unit}.arrow")
            if row["rows"]:
                rows.add(0, pa.ipc.open_stream(row["rows"]).read_all())
            progress(rows.count)
            finish(end, rows)


class _Worker:
    """An actor: one device, and the engine of one process on it."""

    def __init__(self, model: Any, options: Options, folder: str) -> None:
        import ray

        with contextlib.suppress(OSError):
            os.chdir(folder)  # so that relative paths are the caller's, where the machine has them
        from carjax import runtime
        from carjax.engine.local import LocalEngine

        if not ray.get_gpu_ids():
            os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")
        runtime.set_up_jax()
        self._engine = LocalEngine(ray.get(model), options)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Scores the sources of tasks: one row for each source, with all that became of it."""
        scored: dict[str, list[Any]] = {"unit": [], "end": [], "rows": []}
        for first, paths in zip(batch["first"], batch["paths"], strict=True):
            for end, rows in self._score([expand.source(os.fsdecode(path)) for path in paths]):
                problems = [(problem.source, problem.reason) for problem in end.problems]
                told = dataclasses.asdict(end) | {"problems": problems}
                scored["unit"].append(first + told.pop("unit"))
                scored["end"].append(json.dumps(told))
                scored["rows"].append(rows)
        return scored

    def _score(self, sources: list[Source]) -> list[tuple[End, bytes]]:
        scored: list[tuple[End, bytes]] = []

        def finish(end: End, rows: UnitRows) -> None:
            scored.append((end, _encoded(rows)))
            rows.drop()

        with tempfile.TemporaryDirectory(prefix="carjax-") as scratch:
            self._engine.run(sources, pathlib.Path(scratch), finish)
        return scored


def _encoded(rows: UnitRows) -> bytes:
    """All rows as an Arrow stream; nothing where there are none."""
    tables = list(rows.chunks())
    if not tables:
        return b""
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_stream(buffer, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    return buffer.getvalue().to_pybytes()


def _to_host(model: Model) -> Model:
    return dataclasses.replace(model, params=jax.tree.map(np.asarray, model.params))


def _tasks(sources: Sequence[Source]) -> Iterator[dict[str, Any]]:
    """Cuts the sources into tasks: the number of the first, and the paths."""
    paths: list[bytes] = []
    first = size = 0
    for i, source in enumerate(sources):
        paths.append(os.fsencode(source.path))
        size += _size(source)
        if size >= _TASK_BYTES or len(paths) == _TASK_SOURCES or i == len(sources) - 1:
            yield {"first": first, "paths": paths}
            paths, first, size = [], i + 1, 0


def _size(source: Source) -> int:
    """A local file's size; of others, that of a photo of a phone."""
    if isinstance(source, LocalFile):
        try:
            return os.path.getsize(source.path)
        except OSError:
            return 0
    return 4 * 2**20


def _actors() -> tuple[int, dict[str, Any]]:
    """How many scorers the cluster has devices for, and what each one asks for."""
    import ray

    there = ray.cluster_resources()
    for kind in _DEVICES:
        count = int(there.get(kind, 0))
        if count:
            asks = {"num_gpus": 1} if kind == "GPU" else {"resources": {kind: 1}}
            return count, asks
    return max(1, int(there.get("CPU", 1))), {"num_cpus": 1}
