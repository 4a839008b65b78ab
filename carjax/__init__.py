"""carjax: from a walk-around video of a car, the photos that sell it.

The names below are the library's public entry; importing the package alone imports no JAX.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers see; at run time a name is imported when it is asked for
    from carjax.model import Model
    from carjax.model import load as load_model
    from carjax.pipeline import choose as choose_photos
    from carjax.scan import score_video
    from carjax.scoring import FrameScores, Scorer, score_frames, to_table
    from carjax.selection import select_photos
    from carjax.table import ScoreTable

__version__ = "0.1.0"

# Public name → (module, its name there).
_PUBLIC = {
    "load_model": ("carjax.model", "load"),
    "Model": ("carjax.model", "Model"),
    "FrameScores": ("carjax.scoring", "FrameScores"),
    "Scorer": ("carjax.scoring", "Scorer"),
    "score_frames": ("carjax.scoring", "score_frames"),
    "score_video": ("carjax.scan", "score_video"),
    "ScoreTable": ("carjax.table", "ScoreTable"),
    "to_table": ("carjax.scoring", "to_table"),
    "select_photos": ("carjax.selection", "select_photos"),
    "choose_photos": ("carjax.pipeline", "choose"),
}

# Spelt out, because type checkers read it as it stands.
__all__ = [
    "FrameScores",
    "Model",
    "ScoreTable",
    "Scorer",
    "__version__",
    "choose_photos",
    "load_model",
    "score_frames",
    "score_video",
    "select_photos",
    "to_table",
]


def __getattr__(name: str) -> Any:
    """Imports a public name, or a module of the package, on its first use (PEP 562)."""
    if name in _PUBLIC:
        module, attribute = _PUBLIC[name]
        return getattr(importlib.import_module(module), attribute)
    if (
        name.isidentifier()
        and not name.startswith("_")
        and importlib.util.find_spec(f"carjax.{name}")
    ):
        return importlib.import_module(f"carjax.{name}")
    raise AttributeError(f"module 'carjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Lists the public names."""
    return sorted(__all__)
