"""High dynamic range pictures (HLG, PQ), as many phones record them, shown on ordinary screens.

Display light of ITU-R BT.2100 is scaled so that its reference white, 203 cd/m² (ITU-R BT.2408), is
white, turned from BT.2020's primaries to BT.709's, and encoded as sRGB. Highlights above white are
rolled off; colours that sRGB lacks are clipped.
"""

from __future__ import annotations

import numpy as np

# Transfer characteristics of ITU-T H.273.
PQ, HLG = 16, 18
_WHITE = 203.0
# An HLG screen of 1000 cd/m² has the system gamma 1.2 (BT.2100, table 5).
_HLG_PEAK, _HLG_GAMMA = 1000.0, 1.2
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
# Linear BT.2020 to linear BT.709: the inverse of the matrix of ITU-R BT.2087.
_TO_709 = np.linalg.inv(
    [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]
).astype(np.float32)
# From here on light is compressed, so that twice white is just short of the brightest.
_KNEE = 0.75
# Of 16 bits the first 12 are looked up; videos have 10 or 12.
_SPARE_BITS = 4
_LEVELS = 4096
_LIGHT = np.linspace(0.0, 1.0, _LEVELS) ** 2
_PEAKS = np.linspace(0.0, 10.0, _LEVELS) ** 2  # up to above any light, in units of white
_ROWS = 16


def to_srgb(picture: np.ndarray, transfer: int) -> np.ndarray:
    """Shows an HDR picture as an ordinary one.

    Args:
        picture: uint16 [H, W, 3]; R′G′B′ of BT.2020 primaries, full range.
        transfer: `PQ` or `HLG`.

    Returns:
        uint8 [H, W, 3]; sRGB.

    Example:
        >>> white = np.full((1, 1, 3), round(0.75 * 65535), np.uint16)  # HLG's reference white
        >>> to_srgb(white, HLG)[0, 0].tolist()
        [244, 244, 244]
    """
    shown = np.empty(picture.shape, np.uint8)
    for start in range(0, len(picture), _ROWS):  # as much as the cache holds
        rows = slice(start, start + _ROWS)
        shown[rows] = _shown(picture[rows], transfer)
    return shown


def _shown(picture: np.ndarray, transfer: int) -> np.ndarray:
    light = (_PQ_LIGHT if transfer == PQ else _HLG_LIGHT)[picture >> _SPARE_BITS]
    if transfer == HLG:
        # The screen's gamma is of the luminance, so that hues stay.
        light *= _GAMMA[_nearest(light @ _LUMINANCE)][..., None]
    light = np.maximum(light @ _TO_709.T, 0.0)
    peak = light.max(axis=-1)
    light *= np.interp(peak, _PEAKS, _ROLL_OFF)[..., None].astype(np.float32)
    return _SRGB[_nearest(light)]


def _nearest(light: np.ndarray) -> np.ndarray:
    """The index of light in [0, 1] in the tables, which are even in its square root."""
    return (np.sqrt(np.minimum(light, 1.0)) * np.float32(_LEVELS - 1) + np.float32(0.5)).astype(
        np.int32
    )


def _pq_light() -> np.ndarray:
    """BT.2100 table 4: the light of each level, in units of reference white."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    level = np.linspace(0.0, 1.0, _LEVELS) ** (1.0 / m2)
    light = (np.maximum(level - c1, 0.0) / (c2 - c3 * level)) ** (1.0 / m1)
    return (10_000.0 / _WHITE * light).astype(np.float32)


def _hlg_light() -> np.ndarray:
    """BT.2100 table 5: the scene's light of each level, in [0, 1]."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    level = np.linspace(0.0, 1.0, _LEVELS)
    light = np.where(level <= 0.5, level * level / 3.0, (np.exp((level - c) / a) + b) / 12.0)
    return light.astype(np.float32)


def _srgb() -> np.ndarray:
    """IEC 61966-2-1: the byte of each level of the square root of light."""
    level = np.where(_LIGHT <= 0.0031308, 12.92 * _LIGHT, 1.055 * _LIGHT ** (1 / 2.4) - 0.055)
    return np.rint(255.0 * level).astype(np.uint8)


def _gamma() -> np.ndarray:
    """What an HLG screen makes of the scene's light, by its luminance, in units of white."""
    factor = _HLG_PEAK / _WHITE * _LIGHT ** (_HLG_GAMMA - 1.0)
    return factor.astype(np.float32)


def _roll_off() -> np.ndarray:
    """What is left of light by its brightest primary, `_PEAKS`."""
    room, light = 1.0 - _KNEE, np.maximum(_PEAKS, _KNEE)
    return (1.0 - room * np.exp((_KNEE - light) / room)) / light


_PQ_LIGHT, _HLG_LIGHT, _SRGB = _pq_light(), _hlg_light(), _srgb()
_GAMMA, _ROLL_OFF = _gamma(), _roll_off()
