"""A score table as Parquet, a row per frame, and back.

The class names are in the file's metadata, so that a reader needs nothing but the file.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from carjax import feature_columns
from carjax.attributes import (
    CONTENT,
    VIEWS,
    Angular,
    Attribute,
    Categorical,
    Schema,
    attribute_from_json,
    attribute_to_json,
)
from carjax.errors import CarjaxError, UsageError, one_line
from carjax.feature_columns import FeatureColumns, matrix
from carjax.files import readable, replacing
from carjax.table import ScoreTable

if TYPE_CHECKING:  # imported where it is used: most commands write no Parquet
    import pyarrow as pa

METADATA_KEY = b"carjax"
FORMAT_VERSION = 1

_AZIMUTH = ("azimuth_deg", "kappa", "azimuth_floor", "azimuth_entropy")
# Lists of fixed length that a table may lack, and their lengths.
_OPTIONAL = {"car_colour": 3, "content_probs": len(CONTENT.classes)}
# Single numbers per categorical attribute that a table may lack.
_OF_CLASSES = ("disagreement", "novelty")
_BOX = ("box_left", "box_top", "box_right", "box_bottom")


def arrow_schema(
    schema: Schema,
    columns: Sequence[str] | None = None,
    features: FeatureColumns | None = None,
) -> pa.Schema:
    """Returns the columns of a score file, with the schema as JSON in the metadata.

    The columns are `source, frame, time_s`, then for each categorical attribute `A`
    `A, A_probability, A_entropy, A_probs`, then, if the schema has an angular attribute,
    `azimuth_deg, kappa, azimuth_floor, azimuth_entropy, view_probs`, then
    `car_probability, box_left, box_top, box_right, box_bottom, sharpness`, and last what is null
    where not measured: `car_colour` (red, green, blue), `content_probs` (whole, part, none), and
    for each categorical attribute `A_disagreement, A_novelty`. Features come after all of them.

    Args:
        schema: the attributes.
        columns: only these, and the features; None: all.
        features: what the features of the rows are; None: they have none.

    Raises:
        CarjaxError: two columns would have the same name.

    Example:
        >>> arrow_schema((Categorical("doors", ("3", "5")),)).names[:5]
        ['source', 'frame', 'time_s', 'doors', 'doors_probability']
    """
    import pyarrow as pa

    single = pa.float32()
    fields = [("source", pa.string()), ("frame", pa.int64()), ("time_s", pa.float64())]
    for attribute in schema:
        if isinstance(attribute, Categorical):
            name = attribute.name
            fields += [
                (name, pa.string()),
                (f"{name}_probability", single),
                (f"{name}_entropy", single),
                (f"{name}_probs", pa.list_(single)),
            ]
    if any(isinstance(attribute, Angular) for attribute in schema):
        fields += [(name, single) for name in _AZIMUTH]
        fields += [("view_probs", pa.list_(single, len(VIEWS)))]
    fields += [(name, single) for name in ("car_probability", *_BOX, "sharpness")]
    fields += [(name, pa.list_(single, width)) for name, width in _OPTIONAL.items()]
    fields += [(name, single) for name in _class_columns(schema)]
    more = features.fields() if features else []

    names = [name for name, _ in fields + more]
    clash = next((name for name in names if names.count(name) > 1), None)
    if clash is not None:
        raise CarjaxError(f"two columns would be named {clash!r}; rename that attribute")
    if columns is not None:
        fields = [(name, kind) for name, kind in fields if name in columns]
    header: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "attributes": [_describe(a) for a in schema],
    }
    if features is not None:
        header["features"] = features.to_json()
    return pa.schema(fields + more, metadata={METADATA_KEY: json.dumps(header, ensure_ascii=False)})


def kept_columns(
    schema: Schema, wanted: Sequence[str] | None, keys: Sequence[str] = ("source", "frame")
) -> list[str]:
    """Returns the columns to keep, in their order: those wanted, and what tells rows apart.

    Args:
        schema: the attributes.
        wanted: names of columns; None: all.
        keys: what tells rows apart.

    Raises:
        UsageError: there is no column of that name.

    Example:
        >>> kept_columns((Angular("heading"),), ["kappa", "time_s"])
        ['source', 'frame', 'time_s', 'kappa']
    """
    names = arrow_schema(schema).names
    if wanted is None:
        return names
    for name in wanted:
        if name not in names:
            raise UsageError(f"--columns: no {name!r}; there are: {', '.join(names)}")
    return [name for name in names if name in {*keys, *wanted}]


def _class_columns(schema: Schema) -> list[str]:
    names = [a.name for a in schema if isinstance(a, Categorical)]
    return [f"{name}_{kind}" for name in names for kind in _OF_CLASSES]


def to_arrow(
    table: ScoreTable, source: str | Sequence[str], features: FeatureColumns | None = None
) -> pa.Table:
    """Returns rows in the columns of `arrow_schema`.

    Args:
        table: scores of N frames.
        source: the path as given or found: one for all rows, or one for each.
        features: what the table's features are; None leaves them out.

    Returns:
        An Arrow table of N rows. A frame whose probabilities are not finite has a null class.

    Raises:
        CarjaxError: two columns would have the same name.
    """
    import pyarrow as pa

    count = len(table)
    columns: dict[str, object] = {
        "source": [source] * count if isinstance(source, str) else source,
        "frame": table.frame,
        "time_s": table.time_s,
        "car_probability": table.car_probability,
        "sharpness": table.sharpness,
        **{name: table.box[:, i] for i, name in enumerate(_BOX)},
    }
    for attribute in table.categorical:
        name, probs = attribute.name, table.probs[attribute.name]
        label = np.argmax(probs, axis=1)
        unknown = ~np.isfinite(probs).all(axis=1)
        classes = pa.array(attribute.classes, pa.string())
        columns[name] = classes.take(pa.array(label, mask=unknown))
        columns[f"{name}_probability"] = np.take_along_axis(probs, label[:, None], axis=1)[:, 0]
        columns[f"{name}_entropy"] = table.entropy[name]
        columns[f"{name}_probs"] = probs
    if table.angular is not None:
        columns |= {name: getattr(table, name) for name in _AZIMUTH}
        columns["view_probs"] = table.view_probs

    for kind in _OF_CLASSES:
        measured = getattr(table, kind) or {}
        for attribute in table.categorical:
            columns[f"{attribute.name}_{kind}"] = measured.get(attribute.name)
    columns |= {name: getattr(table, name) for name in _OPTIONAL}
    if features is not None:
        columns |= features.columns(table)
    schema = arrow_schema(table.schema, features=features)
    arrays = [_array(columns[field.name], field.type, count) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: Any, kind: pa.DataType, count: int) -> pa.Array:
    """A column from numbers [N], lists [N, K], text, or None where nothing was measured."""
    import pyarrow as pa

    if values is None:
        return pa.nulls(count, kind)
    if not (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)):
        return pa.array(values, kind)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1), kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    starts = np.arange(count + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(starts), flat, type=kind)


def from_arrow(rows: pa.Table) -> tuple[ScoreTable, list[str]]:
    """Returns the table and, for each of its rows, the source.

    The rows may come from several sources; then `frame` and `time_s` start again with each.
    Features are in the table if their columns are in the rows.

    Raises:
        CarjaxError: the rows were not written by carjax.
    """
    described = header_of(rows.schema)
    try:
        schema = tuple(attribute_from_json(entry) for entry in described["attributes"])
        info = FeatureColumns(**described["features"]) if "features" in described else None
    except (KeyError, TypeError, ValueError) as error:
        raise CarjaxError(
            f"its carjax metadata is damaged, or of a newer carjax ({one_line(error)}); score the "
            "videos again"
        ) from None
    extra = {*_OPTIONAL, *_class_columns(schema)}
    needed = [name for name in arrow_schema(schema).names if name not in extra]
    missing = [name for name in needed if name not in rows.column_names]
    if missing:
        raise CarjaxError(f"it lacks the columns {', '.join(missing)}; score the videos again")

    def column(name: str) -> np.ndarray:
        return rows.column(name).to_numpy()

    def measured(name: str) -> bool:
        return name in rows.column_names and len(rows) > 0 and not rows.column(name).null_count

    def optional(name: str) -> np.ndarray | None:
        return matrix(rows, name, _OPTIONAL[name]) if measured(name) else None

    def of_classes(kind: str) -> dict[str, np.ndarray] | None:
        columns = {a.name: f"{a.name}_{kind}" for a in categorical}
        return {a: column(name) for a, name in columns.items() if measured(name)} or None

    count = len(rows)
    angular = any(isinstance(attribute, Angular) for attribute in schema)
    azimuth: dict[str, Any] = {
        name: column(name) if angular else np.zeros(count, np.float32) for name in _AZIMUTH
    }
    categorical = [attribute for attribute in schema if isinstance(attribute, Categorical)]
    table = ScoreTable(
        schema=schema,
        frame=column("frame"),
        time_s=column("time_s"),
        probs={a.name: matrix(rows, f"{a.name}_probs", len(a.classes)) for a in categorical},
        entropy={a.name: column(f"{a.name}_entropy") for a in categorical},
        **azimuth,
        view_probs=(
            matrix(rows, "view_probs", len(VIEWS))
            if angular
            else np.zeros((count, len(VIEWS)), np.float32)
        ),
        car_probability=column("car_probability"),
        box=np.stack([column(name) for name in _BOX], axis=1),
        sharpness=column("sharpness"),
        car_colour=optional("car_colour"),
        content_probs=optional("content_probs"),
        disagreement=of_classes("disagreement"),
        novelty=of_classes("novelty"),
        features=info.read(rows) if info else None,
    )
    return table, rows.column("source").to_pylist()


def header_of(schema: pa.Schema) -> dict[str, Any]:
    """Returns what carjax wrote into the metadata of a score file.

    Raises:
        CarjaxError: it did not write the file, or in another format.
    """
    header = (schema.metadata or {}).get(METADATA_KEY)
    if header is None:
        raise CarjaxError("it has no carjax metadata; give a file that `carjax score` wrote")
    try:
        described = json.loads(header)
        version = described["format_version"]
    except (ValueError, KeyError, TypeError):
        raise CarjaxError("its carjax metadata is damaged; score the videos again") from None
    if version != FORMAT_VERSION:
        raise CarjaxError(
            f"it has format version {version}, this carjax reads {FORMAT_VERSION}; score the "
            "videos again"
        )
    return described


def write(table: ScoreTable, source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Writes the scores of one source as a Parquet file, as `carjax select` does.

    Features stay out of it (`carjax score --save_features` keeps them), and so does the density of
    a smoothed table, of which the moments are kept: smooth again what is read.

    The file appears under its name only when it is complete; one that is there is replaced.

    Args:
        table: scores of N frames.
        source: the video's path as given or found; the same in every row.
        path: the file to write, in a folder that exists.

    Raises:
        CarjaxError: two columns would have the same name.
    """
    import pyarrow.parquet as pq

    rows = to_arrow(table, readable(source))
    # PyArrow opens no path that is not UTF-8.
    with replacing(path) as temporary, temporary.open("wb") as file:
        pq.write_table(rows, file, compression="zstd")


def read(
    path: str | os.PathLike[str],
    *,
    features: bool = False,
    sources: str | os.PathLike[str] | Collection[str] | None = None,
) -> tuple[ScoreTable, list[str]]:
    """Reads a score file, or a folder of `part-*.parquet` files in order of name.

    Args:
        path: the file or the folder.
        features: also read the features that it may hold: 3 to 20 KB for each row.
        sources: keep only the rows of these, or of this one; None: all.

    Returns:
        The table, and the source of each of its rows.

    Raises:
        CarjaxError: there is no such file, or it is not one that carjax wrote.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if isinstance(sources, str | os.PathLike):
        sources = [readable(sources)]
    with errors_of(path):
        tables = [_read_part(pq.ParquetFile(part), features, sources) for part in parts(path)]
        if any(not t.schema.equals(tables[0].schema, check_metadata=True) for t in tables):
            raise CarjaxError("its parts were scored with different models; score them again")
        return from_arrow(pa.concat_tables(tables))


def parts(path: str | os.PathLike[str]) -> list[Path]:
    """Returns the files of scores: that one, or of a folder `part-*.parquet` in order of name.

    Raises:
        CarjaxError: the folder has none.
    """
    path = Path(path)
    found = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    if not found:
        raise CarjaxError("the folder has no part-*.parquet")
    return found


@contextlib.contextmanager
def errors_of(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever is wrong with a file of scores is a CarjaxError that names it."""
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise CarjaxError(f"no such file: {path}") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise CarjaxError(f"cannot read {path}: {reason}") from error
    except pa.ArrowInvalid:
        raise CarjaxError(f"cannot read {path}: it is not a Parquet file of scores") from None
    except CarjaxError as error:
        raise CarjaxError(f"cannot read {path}: {error}") from None


def _read_part(file: Any, features: bool, sources: Collection[str] | None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    left_out, names = feature_columns.NAMES.values(), file.schema_arrow.names
    kept = names if features else [name for name in names if name not in left_out]
    rows = file.read() if kept == names else file.read(columns=kept)
    if sources is None:
        return rows
    return rows.filter(pc.field("source").isin(pa.array(list(sources), pa.string())))


def _describe(attribute: Attribute) -> dict[str, object]:
    # Readers of before went by the kind; ours goes by the classes.
    kind = "categorical" if isinstance(attribute, Categorical) else "angular"
    return {"kind": kind, **attribute_to_json(attribute)}
