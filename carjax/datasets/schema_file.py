"""`schema.json`: the attributes of a folder of photos, for other objects than cars."""

from __future__ import annotations

import json
import pathlib

from carjax import parquet
from carjax.attributes import Categorical, Schema, attribute_from_json
from carjax.errors import CarjaxError

NAME = "schema.json"
# What every prepared example has beside its attributes.
RESERVED = frozenset(
    {"image", "name", "file", "sha256", "model", "model_split", "box", "split", "row"}
)
_EXAMPLE = '[{"name": "ripeness", "classes": ["green", "ripe"]}, {"name": "heading"}]'


def read(path: pathlib.Path) -> Schema:
    """Reads a schema: a list of {"name", "classes"}, or {"name"} alone for an angle in degrees.

    Raises:
        CarjaxError: no such file, or another form.
    """
    try:
        schema = tuple(attribute_from_json(row) for row in json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise CarjaxError(f"{path}: {error.strerror}; expected {_EXAMPLE}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CarjaxError(f"{path}: not a schema ({error!r}); expected {_EXAMPLE}") from None
    names = [attribute.name for attribute in schema]
    if not names or not all(isinstance(n, str) and n.isidentifier() for n in names):
        raise CarjaxError(f"{path}: an attribute's name is one word, not {names}")
    if len(set(names)) < len(names) or RESERVED & set(names):
        taken = ", ".join(sorted(RESERVED))
        raise CarjaxError(f"{path}: names must differ, also from {taken}; they are {names}")
    try:
        parquet.arrow_schema(schema)
    except CarjaxError as error:
        raise CarjaxError(f"{path}: in a file of scores {error}") from None
    for attribute in schema:
        if isinstance(attribute, Categorical) and not (
            attribute.classes and all(isinstance(c, str) and c for c in attribute.classes)
        ):
            raise CarjaxError(f"{path}: {attribute.name}: classes must be words, at least one")
    return schema
