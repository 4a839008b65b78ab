"""carjax: from a walk-around video of a car, the photos that sell it.

The names below are the library's public entry; importing the package alone imports no JAX.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name → (module, its name there).
_PUBLIC = {
    "load_model": ("carjax.model", "load"),
    "Model": ("carjax.model", "Model"),
    "FrameScores": ("carjax.scoring", "FrameScores"),
    "score_frames": ("carjax.scoring", "score_frames"),
    "select_photos": ("carjax.selection", "select_photos"),
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Imports a public name on its first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'carjax' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    """Lists the public names."""
    return sorted(__all__)
