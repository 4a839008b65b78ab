"""Modules of one's own that register what carjax does not have: densities, backbones, mixers."""

from __future__ import annotations

import importlib

from carjax.errors import UsageError


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
    except ImportError as error:
        raise UsageError(
            f"cannot import {module} ({setting}): put its folder on PYTHONPATH ({error})"
        ) from None
