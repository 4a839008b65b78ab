"""From a score table to the photos: `select_photos`, and `schema`, which describes the result.

`eligibility` says which frames may be chosen, of the car that `tracking` follows; `categorical`
and `views` choose among them, `result` holds what was chosen and writes it as JSON, `select` joins
these. `swap` takes another frame for a photo afterwards; `refine` says which frames to score next.
All are pure functions, and importing them imports no JAX. Two more modules join them with time and
need JAX: `smoothing`, of a whole video, and `live`, while one is being filmed.
"""

from carjax.selection.categorical import pool_probabilities
from carjax.selection.result import (
    Alternative,
    AttributeChoice,
    OrientationChoice,
    Selection,
    ViewChoice,
    alternative_frames,
    as_text,
    chosen_frames,
    photographed,
    schema,
    to_json,
    views_of,
)
from carjax.selection.select import POLICIES, VIEW_POLICIES, select_photos, wanted_names
from carjax.selection.views import (
    VIEW_THRESHOLD,
    density_of,
    frames_of_view,
    sound_directions,
    view_masses,
    view_names,
)

__all__ = [
    "POLICIES",
    "VIEW_POLICIES",
    "VIEW_THRESHOLD",
    "Alternative",
    "AttributeChoice",
    "OrientationChoice",
    "Selection",
    "ViewChoice",
    "alternative_frames",
    "as_text",
    "chosen_frames",
    "density_of",
    "frames_of_view",
    "photographed",
    "pool_probabilities",
    "schema",
    "select_photos",
    "sound_directions",
    "to_json",
    "view_masses",
    "view_names",
    "views_of",
    "wanted_names",
]
