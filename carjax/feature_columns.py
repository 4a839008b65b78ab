"""Frozen features as columns of a score file: what they are, and the numbers.

Each frame has one row, and so `features_pooled`, a list of C float16, and with the grid
`features_grid`, a list of cells · cells · Cm float16 in the order of `grid[row, column, channel]`.
What they were computed with stands in the file's metadata.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from carjax.errors import CarjaxError
from carjax.features import KEPT_CELLS, Features, Level

if TYPE_CHECKING:  # imported where it is used: most commands write no features
    import pyarrow as pa

    from carjax.model import Model
    from carjax.table import ScoreTable

NAMES = {"pooled": "features_pooled", "grid": "features_grid"}


@dataclasses.dataclass(frozen=True)
class FeatureColumns:
    """What the features in a score file are; features of equal ones can be compared.

    Attributes:
        level: 'pooled', or 'grid' for both levels.
        backbone: its name in the registry.
        weights_sha256: `model.weights_hash` of its parameters.
        input_size: side of its input in pixels.
        pooled: C, the number of pooled features.
        cells: the grid is cells × cells; 0 where it was not kept.
        channels: Cm, the number of features of a cell.
    """

    level: Level
    backbone: str
    weights_sha256: str
    input_size: int
    pooled: int
    cells: int
    channels: int

    @property
    def widths(self) -> dict[str, int]:
        """Column → the numbers that a row has in it."""
        pooled = {NAMES["pooled"]: self.pooled}
        if self.level == "pooled":
            return pooled
        return {**pooled, NAMES["grid"]: self.cells**2 * self.channels}

    def fields(self) -> list[tuple[str, pa.DataType]]:
        """The columns and their types."""
        import pyarrow as pa

        return [(name, pa.list_(pa.float16(), width)) for name, width in self.widths.items()]

    def columns(self, table: ScoreTable) -> dict[str, np.ndarray]:
        """Returns column → float16 [N, width] of a table's features.

        Raises:
            ValueError: the table has none.
        """
        if table.features is None:
            raise ValueError("the frames were scored without features")
        levels = {NAMES[level]: array for level, array in table.features._asdict().items()}
        return {name: levels[name].reshape(len(table), n) for name, n in self.widths.items()}

    def read(self, rows: pa.Table) -> Features | None:
        """Returns `ScoreTable.features` of rows, the grid empty where it is not in them.

        None where no features are in them.

        Raises:
            CarjaxError: a row lacks some.
        """
        pooled, grid = NAMES["pooled"], NAMES["grid"]
        if pooled not in rows.column_names:
            return None
        cells = self.cells if grid in rows.column_names else 0
        cell_features = np.zeros(0, np.float16)
        if cells:
            cell_features = matrix(rows, grid, cells**2 * self.channels)
        return Features(
            matrix(rows, pooled, self.pooled),
            cell_features.reshape(len(rows), cells, cells, self.channels),
        )

    def check_weights(self, weights_sha256: str) -> None:
        """Raises a CarjaxError unless the features are of the backbone with that hash."""
        if weights_sha256 != self.weights_sha256:
            raise CarjaxError(
                f"its features are of {self.backbone} with weights {self.weights_sha256[:12]}…, "
                f"not {weights_sha256[:12]}…: score with that backbone"
            )

    def to_json(self) -> dict[str, Any]:
        """The JSON form; `FeatureColumns(**form)` inverts it."""
        return dataclasses.asdict(self)


def matrix(rows: pa.Table, name: str, width: int) -> np.ndarray:
    """Returns a column of lists as an array [N, width].

    Raises:
        CarjaxError: a row has no list, or one of another length.
    """
    import pyarrow as pa

    lists = rows.column(name).combine_chunks()
    kind = lists.type
    of_lists = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
    if not of_lists or lists.null_count or not (lists.value_lengths().to_numpy() == width).all():
        raise CarjaxError(f"its column {name} does not hold {width} numbers in every row")
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), width)


def of_model(model: Model, level: Level) -> FeatureColumns:
    """Returns what the features are that a model's `Scorer(features=level)` gives."""
    from carjax.backbones import registry

    spec = model.spec
    example = registry.example_features(spec.backbone, spec.input_size)
    return FeatureColumns(
        level=level,
        backbone=spec.backbone,
        weights_sha256=model.card["backbone_sha256"],
        input_size=spec.input_size,
        pooled=example.pooled.shape[-1],
        cells=KEPT_CELLS if level == "grid" else 0,
        channels=example.grid.shape[-1],
    )
