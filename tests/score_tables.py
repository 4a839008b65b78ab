"""Small score tables for tests of what is made of one."""

import numpy as np
from scipy import stats

from carjax.attributes import Angular, Categorical
from carjax.table import ScoreTable

DOORS = Categorical("doors", ("2", "3", "4", "5"))
SMALL = (DOORS, Angular("orientation"))


def entropy_of(probs):
    return -(probs * np.log(np.maximum(probs, 1e-30))).sum(-1)


def bin_masses(azimuth_deg, kappa, floor, views=8):
    """SciPy's von Mises, apart from the package's own."""
    centres = np.radians(np.arange(views) * 360 / views)
    half = np.pi / views
    offset = centres - np.radians(azimuth_deg)[:, None]
    offset = (offset + np.pi) % (2 * np.pi) - np.pi
    k = np.asarray(kappa, float)[:, None]
    mass = stats.vonmises.cdf(offset + half, k) - stats.vonmises.cdf(offset - half, k)
    floor = np.asarray(floor, float)[:, None]
    return (1 - floor) * mass + floor / views


def make_table(schema=SMALL, count=None, probs=None, azimuth_deg=None, **columns):
    """Frames that are all fit to be chosen, but for what is given."""
    if count is None:
        count = len(azimuth_deg if azimuth_deg is not None else next(iter(probs.values())))
    azimuth_deg = np.zeros(count) if azimuth_deg is None else np.asarray(azimuth_deg, float)
    kappa = np.broadcast_to(columns.pop("kappa", 200.0), count)
    floor = np.broadcast_to(columns.pop("azimuth_floor", 0.0), count)
    probs = dict(probs or {})
    for a in schema:
        if isinstance(a, Categorical):
            probs.setdefault(a.name, np.full((count, len(a.classes)), 1 / len(a.classes)))
    values = {
        "frame": np.arange(count),
        "time_s": np.arange(count) / 12,
        "probs": {n: np.asarray(p, np.float32) for n, p in probs.items()},
        "entropy": {n: entropy_of(np.asarray(p)).astype(np.float32) for n, p in probs.items()},
        "azimuth_deg": azimuth_deg.astype(np.float32),
        "kappa": kappa.astype(np.float32),
        "azimuth_floor": floor.astype(np.float32),
        "azimuth_entropy": np.zeros(count, np.float32),
        "view_probs": bin_masses(azimuth_deg, kappa, floor).astype(np.float32),
        "car_probability": np.full(count, 0.9, np.float32),
        "box": np.tile(np.array([0.2, 0.2, 0.8, 0.8], np.float32), (count, 1)),
        "sharpness": np.full(count, 300, np.float32),
    }
    return ScoreTable(schema=schema, **(values | columns))
