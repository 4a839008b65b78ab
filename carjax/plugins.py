"""Modules of one's own that register what carjax does not have: densities, backbones, mixers."""

from __future__ import annotations

import hashlib
import importlib
import os
import pathlib
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from carjax.errors import UsageError, one_line

Kind = TypeVar("Kind", bound=type)


def load(module: str, setting: str) -> None:
    """Imports a module, so that it registers what it has; '' is none.

    Args:
        module: its name, as for `import`.
        setting: what names the module, in an error.

    Raises:
        UsageError: it cannot be imported.
    """
    if not module:
        return
    try:
        importlib.import_module(module)
    except Exception as error:  # a module may raise anything
        missing = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(
            f"{error.name}."
        )
        hint = "put its folder on PYTHONPATH" if missing else "fix the error"
        raise UsageError(
            f"cannot import {module} ({setting}): {hint} ({one_line(error)})"
        ) from None


def code_of(modules: Iterable[str]) -> str | None:
    """Returns a hash of the code of imported modules, of packages all of it; '' of no module.

    None where one has no file to read, as what was typed in.
    """
    digest = hashlib.sha256()
    names = sorted({module.partition(".")[0] for module in modules})
    for name in names:
        files = _sources(name)
        if not files:
            return None
        for file in files:
            digest.update(file.read_bytes())
    return digest.hexdigest() if names else ""


def _sources(name: str) -> list[pathlib.Path]:
    """The files of an imported module or package; none of what was typed in, or run as a script."""
    module = sys.modules.get(name)
    if folders := getattr(module, "__path__", ()):
        return sorted(file for folder in folders for file in pathlib.Path(folder).rglob("*.py"))
    file = getattr(module, "__file__", None)
    return [pathlib.Path(file)] if file else []


def adder(table: dict[str, Any], name: str) -> Callable[[Kind], Kind]:
    """Returns a decorator that puts a class into a table under a name.

    It raises a ValueError if the name stands for what another file registered.
    """

    def add(kind: Kind) -> Kind:
        taken = table.get(name)
        if taken is not None and _place(taken) != _place(kind):
            raise ValueError(f"{name!r} is registered by {taken.__module__}: choose another name")
        table[name] = kind
        return kind

    return add


def _place(kind: type) -> str:
    """The file of a class: a module may have two names, as a script that is imported as well."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return os.path.realpath(file) if file else kind.__module__
