"""The folder of a run: whose it is, its curves, its results; local, or in a bucket."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np
from flax.traverse_util import flatten_dict

from carjax import errors, files
from carjax.errors import CarjaxError, one_line
from carjax.files import HEAD_FILE

PREDICTIONS_FILE = "held_out.npz"
RESULT_FILE = "result.json"
METRICS_FILE = "metrics.csv"
CONFIG_FILE = "config.json"
CHECKPOINTS = "checkpoints"
DATA_FILE = "data.sha256"
# What earlier versions had no choice of, as it was then.
_AS_IT_WAS = {"mirror": True, "head.module": "", "head.members": 1, "latent_samples": 1}


class RunFolder:
    """One run's files; of several processes only the one that `writes` changes any.

    Args:
        path: made by `claim` if it does not exist; any path that etils knows, such as `gs://…`.
        writes: whether this process writes.
    """

    def __init__(self, path: str | os.PathLike[str], *, writes: bool = True) -> None:
        self.path = files.locate(path)
        self._writes = writes

    def claim(self, config: ml_collections.ConfigDict) -> None:
        """Makes the folder for this run, or checks that it is this run's.

        A run that ended before its first line of metrics, for want of data or by its learning rate
        say, leaves the folder to the next.

        Raises:
            CarjaxError: it holds another run, or cannot be one.
        """
        path = self.path / CONFIG_FILE
        mine = json.loads(json.dumps(config.to_dict()))
        wanted = flatten_dict(mine, sep=".")
        try:
            found = self._config() if path.exists() else None
            if found is None or not self.begun():
                if self._writes:
                    self.path.mkdir(parents=True, exist_ok=True)
                    self.write(CONFIG_FILE, json.dumps(mine, indent=1).encode() + b"\n")
                return
        except OSError as error:
            raise CarjaxError(f"{self.path}: cannot be the run's folder ({error})") from None
        known = {k: v for k, v in _AS_IT_WAS.items() if k in wanted}
        theirs = known | flatten_dict(found, sep=".")
        changed = [k for k in wanted.keys() | theirs.keys() if wanted.get(k) != theirs.get(k)]
        if changed:
            raise CarjaxError(
                f"{self.path}: holds a run with other settings ({', '.join(sorted(changed))}): "
                "give another --workdir, or delete it"
            )

    def _config(self) -> dict[str, Any]:
        """What `config.json` holds: the settings of a run, whoever else calls a file so."""
        path = self.path / CONFIG_FILE
        try:
            found = json.loads(path.read_text())
        except ValueError:
            found = None
        if not (isinstance(found, dict) and found.keys() >= {"attribute", "steps"}):
            raise CarjaxError(
                f"{path}: is not of a run of carjax train, which needs a file of that name: give "
                "another --workdir"
            )
        return found

    def claim_data(self, data: str, features: str) -> None:
        """Notes what the run learns from, or checks that it is what it began with.

        Args:
            data: `Material.fingerprint`.
            features: `Material.features_fingerprint`.

        Raises:
            CarjaxError: it is not.
        """
        mine = (data, features)
        if not (self.begun() and (self.path / DATA_FILE).exists()):
            self.write(DATA_FILE, "".join(f"{line}\n" for line in mine).encode())
            return
        # Earlier versions noted no features.
        theirs = self._read(DATA_FILE, str.split)[:2]
        for line, own, what in zip(
            theirs,
            mine,
            (
                "photos, labels, folds or recordings",
                "features (the backbone's weights or code, or scores of recordings)",
            ),
            strict=False,
        ):
            if line != own:
                raise CarjaxError(
                    f"{self.path}: began with other {what}: give another --workdir, or delete it"
                )

    def begun(self) -> bool:
        """Whether a chunk of steps is behind the run: its metrics precede its checkpoint."""
        return any((self.path / name).exists() for name in (METRICS_FILE, HEAD_FILE))

    def finished(self) -> dict[str, Any] | None:
        """Returns the content of `result.json` once the head is there."""
        if not (self.path / HEAD_FILE).exists():
            return None
        return self._read(RESULT_FILE, json.loads)

    def _read(self, name: str, parse: Callable[[str], Any]) -> Any:
        try:
            return parse((self.path / name).read_text())
        except (OSError, ValueError, KeyError) as error:
            raise CarjaxError(
                f"{self.path / name}: cannot be read ({one_line(error)}): delete {self.path} to "
                "start afresh"
            ) from None

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.csv`, none if there is no such file.

        Raises:
            CarjaxError: it is broken.
        """
        if not (self.path / METRICS_FILE).exists():
            return []

        def parse(text: str) -> list[dict[str, Any]]:
            return [row | {"step": int(row["step"])} for row in csv.DictReader(io.StringIO(text))]

        return self._read(METRICS_FILE, parse)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes `result.json`."""
        self.write(RESULT_FILE, json.dumps(result, indent=1).encode() + b"\n")

    def write_predictions(self, columns: Mapping[str, np.ndarray]) -> None:
        """Writes `held_out.npz`."""
        buffer = io.BytesIO()
        arrays: Any = {name: np.asarray(column) for name, column in columns.items()}
        np.savez(buffer, **arrays)
        self.write(PREDICTIONS_FILE, buffer.getvalue())

    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole, in the process that writes.

        Raises:
            CarjaxError: the disk refuses it.
        """
        if self._writes:
            with self.writing():
                files.write(self.path / name, data)

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Says in one line that the disk refuses what the block writes into the folder."""
        return errors.writing(
            self.path, "and start the same command again, or give another --workdir"
        )


class Curves:
    """What a run measures as it goes: `metrics.csv`, and the same for TensorBoard.

    Args:
        folder: of the run.
        step: lines after it are dropped: their checkpoint was lost.
        writes: whether this process writes.
    """

    def __init__(self, folder: RunFolder, step: int, *, writes: bool = True) -> None:
        self._folder = folder
        self._rows = [row for row in folder.read_metrics() if row["step"] <= step]
        self._board: Any = None
        if writes:
            from tensorboardX import SummaryWriter

            where = folder.path / "tensorboard"
            self._board = SummaryWriter(os.fspath(where), purge_step=step + 1)

    def add(self, row: Mapping[str, float]) -> None:
        """Adds the figures of one step; `row` holds it as 'step'."""
        self._rows.append(dict(row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(row))
        writer.writeheader()
        writer.writerows(self._rows)
        self._folder.write(METRICS_FILE, text.getvalue().encode())
        if self._board is not None:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, row["step"])
            self._board.flush()

    def close(self) -> None:
        """Closes the files."""
        if self._board is not None:
            self._board.close()
