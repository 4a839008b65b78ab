"""HDR pictures against the levels of ITU-R BT.2408 and the matrices of ITU-R BT.2087."""

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carjax import video
from carjax.video import hdr

# ITU-R BT.2087: linear BT.709 to linear BT.2020.
TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def hlg(light):
    """The signal of display light in units of reference white, float [..., 3] (BT.2100)."""
    shown = np.asarray(light) * 203 / 1000
    luminance = shown @ [0.2627, 0.6780, 0.0593]
    scene = shown * luminance[..., None] ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    above = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), above)


def levels(signal):
    return np.rint(np.asarray(signal) * 65535).astype(np.uint16)


def srgb(light):
    light = np.asarray(light)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(
    ("what", "signals", "shown"),
    [
        # BT.2408, table 1: an 18% grey card gives 26 cd/m², a white card's 203.
        ("grey card", {hdr.HLG: 0.38, hdr.PQ: 0.38}, srgb(26 / 203)),
        ("white", {hdr.HLG: 0.75, hdr.PQ: 0.58}, srgb(1 - 0.25 * np.exp(-1))),
        ("black", {hdr.HLG: 0.0, hdr.PQ: 0.0}, 0),
        ("brightest", {hdr.HLG: 1.0, hdr.PQ: 1.0}, 255),
    ],
)
def test_grey_levels_are_those_of_bt2408(what, signals, shown):
    for transfer, signal in signals.items():
        picture = hdr.to_srgb(levels(np.full((2, 3, 3), signal)), transfer)
        assert picture.dtype == np.uint8
        assert picture.shape == (2, 3, 3)
        np.testing.assert_allclose(picture, shown, atol=2, err_msg=what)


@given(st.lists(st.floats(0.02, 0.7), min_size=3, max_size=3))
def test_a_colour_of_ordinary_screens_is_kept(light):
    signal = hlg(TO_2020 @ np.array(light))
    (pixel,) = hdr.to_srgb(levels(signal)[None, None], hdr.HLG)[0]
    np.testing.assert_allclose(pixel, srgb(light), atol=2)


@pytest.mark.parametrize("transfer", [hdr.PQ, hdr.HLG])
def test_brighter_is_never_darker(transfer):
    grey = np.repeat(np.arange(0, 65536, 16, dtype=np.uint16)[:, None], 3, axis=1)
    assert np.diff(hdr.to_srgb(grey[None], transfer).astype(int), axis=1).min() >= 0


def write_flat(path, planes, transfer):
    """Three frames of one colour, as phones write them: 10 bits, BT.2020, limited range."""
    frame = av.VideoFrame(64, 48, "yuv420p10le")
    for plane, value in zip(frame.planes, planes, strict=True):
        plane.update(np.full(plane.buffer_size // 2, round(value), "<u2").tobytes())
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        stream.options = {
            "x265-params": f"log-level=none:lossless=1:colorprim=bt2020:transfer={transfer}:"
            "colormatrix=bt2020nc:range=limited"
        }
        for i in range(3):
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_an_hlg_video_shows_its_colours(tmp_path):
    path = tmp_path / "phone.mov"
    light = np.array([0.05, 0.2, 0.6])  # a blue
    signal = hlg(TO_2020 @ light)
    luma = signal @ [0.2627, 0.6780, 0.0593]
    planes = [64 + 876 * luma] + [
        512 + 896 * (signal[i] - luma) / scale for i, scale in ((2, 1.8814), (0, 1.4746))
    ]
    write_flat(path, planes, "arib-std-b67")
    decoder = video.Decoder(path)
    for image in (*(f.image for f in decoder), decoder.grab({1})[1]):
        np.testing.assert_allclose(image.reshape(-1, 3).mean(axis=0), srgb(light), atol=3)


def pq(light):
    """The signal of display light in units of reference white, float [..., 3] (BT.2100)."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    y = (np.asarray(light) * 203 / 10_000) ** m1
    return ((c1 + c2 * y) / (1 + c3 * y)) ** m2


@given(st.lists(st.floats(0.02, 0.7), min_size=3, max_size=3))
def test_a_colour_of_ordinary_screens_is_kept_by_pq(light):
    (pixel,) = hdr.to_srgb(levels(pq(TO_2020 @ np.array(light)))[None, None], hdr.PQ)[0]
    np.testing.assert_allclose(pixel, srgb(light), atol=3)


@pytest.mark.parametrize(("signal", "transfer"), [(hlg, hdr.HLG), (pq, hdr.PQ)])
def test_a_highlight_keeps_its_hue(signal, transfer):
    light = np.array([2.0, 0.5, 0.25])  # red, twice as bright as white
    (pixel,) = hdr.to_srgb(levels(signal(TO_2020 @ light))[None, None], transfer)[0]
    rolled = 1 - 0.25 * np.exp((0.75 - 2.0) / 0.25)
    np.testing.assert_allclose(pixel, srgb(light * rolled / 2.0), atol=3)


def test_a_pq_video_is_shown_as_one(tmp_path):
    path = tmp_path / "pq.mov"
    luma = 64 + 876 * float(pq(0.2))
    write_flat(path, (luma, 512, 512), "smpte2084")
    image = next(video.frames(path)).image
    np.testing.assert_allclose(image.reshape(-1, 3).mean(axis=0), srgb(0.2), atol=3)
