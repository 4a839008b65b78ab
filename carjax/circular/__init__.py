"""Directions on the circle: the von Mises distribution and the azimuth density built from it.

Angles are in radians unless a name ends in `_deg`. Every function is pure JAX, has no branch on a
value, and is meant for float32: it works under `jit`, `vmap` and `grad` for every concentration κ
from 0 (uniform) to 1e6 (a standard deviation of 0.06°). Two rules make that possible:

* Nothing grows. Bessel functions appear only in the scaled forms I0(κ)·exp(−κ) and I1(κ)·exp(−κ),
  and κ·(cos d − 1) is computed as −2κ·sin²(d/2), which is exact where d is small and κ is large.
* Nothing cancels. Differences of angles keep their rounding error, and 1 − A(κ) and A'(κ) come from
  their asymptotic series where the closed forms would subtract nearly equal numbers.

References: Mardia and Jupp, "Directional Statistics" (2000), sections 3.5.4 and 5.3; Abramowitz and
Stegun, "Handbook of Mathematical Functions" (1964), 9.6.10 and 9.7.1.
"""

from carjax.circular.angles import (
    LOG_TWO_PI,
    TWO_PI,
    angular_difference_deg,
    circular_mean,
)
from carjax.circular.bessel import (
    concentration,
    log_i0,
    mean_resultant_length,
)
from carjax.circular.coverage import coverage_map
from carjax.circular.density import (
    Density,
    entropy,
    from_single,
    hdr_mass,
    interval_prob,
    log_prob,
    mirror,
    on_grid,
    view_probs,
)
from carjax.circular.peaks import (
    azimuth_deg,
    mean_direction,
    mode,
)
from carjax.circular.von_mises import (
    vonmises_entropy,
    vonmises_interval_prob,
    vonmises_log_prob,
)

__all__ = [
    "LOG_TWO_PI",
    "TWO_PI",
    "Density",
    "angular_difference_deg",
    "azimuth_deg",
    "circular_mean",
    "concentration",
    "coverage_map",
    "entropy",
    "from_single",
    "hdr_mass",
    "interval_prob",
    "log_i0",
    "log_prob",
    "mean_direction",
    "mean_resultant_length",
    "mirror",
    "mode",
    "on_grid",
    "view_probs",
    "vonmises_entropy",
    "vonmises_interval_prob",
    "vonmises_log_prob",
]
