"""OpenCV's decoder beside PyAV's, and decoders from outside the package."""

import os
import shutil
import struct
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import toy_decoder
from test_video import (
    BAD_FILES,
    SAMPLE,
    make_bad,
    steady,
    steady_mp4,  # noqa: F401, a fixture
    with_matrix,
    write,
)

from carjax import video
from carjax.errors import CarjaxError, UsageError
from carjax.sources import expand, readers
from carjax.sources.base import Problem
from carjax.video.opencv import OpenCVDecoder

B_FRAMES = {"bf": "3", "b_adapt": "0", "preset": "veryfast"}
VARIABLE = [0, 20, 40, 300, 310, 900, 1500, 1520]


def smooth_images(count, size=(64, 48)):
    """Colour ramps, each frame its own: what an error of decoding or of shrinking would change."""
    across, down = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    return [
        np.stack([255 * across, 255 * down, np.full_like(across, 8 * i)], 2).astype(np.uint8)
        for i in range(count)
    ]


def edited(source, path):
    """Hides the first 1.05 s by an edit list (ISO/IEC 14496-12, 8.6.6)."""
    data = bytearray(source.read_bytes())
    at = data.index(b"elst") + 4 + 12
    timescale_at = data.index(b"mdhd") + 4 + 12
    [timescale] = struct.unpack(">I", data[timescale_at : timescale_at + 4])
    [start] = struct.unpack(">i", data[at : at + 4])
    data[at : at + 4] = struct.pack(">i", start + round(1.05 * timescale))
    path.write_bytes(data)
    return path


def clip(kind, folder):
    """A video of some kind, made to mislead a reader that counts or times frames itself."""
    if kind == "sample":
        return SAMPLE
    many = {"images": smooth_images(30), "options": B_FRAMES}
    if kind == "variable mp4":
        return write(folder / "v.mp4", VARIABLE, images=smooth_images(8), options=B_FRAMES)
    if kind == "variable mkv":
        return write(folder / "v.mkv", VARIABLE, images=smooth_images(8))
    if kind == "late":
        return write(folder / "v.mkv", [3000, 3060, 3120], images=smooth_images(3))
    if kind == "edited":
        return edited(write(folder / "whole.mp4", steady(30), **many), folder / "v.mp4")
    if kind == "oblong":
        images = smooth_images(4)
        return write(folder / "v.mp4", steady(4), images=images, aspect=Fraction(4, 3))
    if kind == "webm":
        tick = Fraction(1, 10)
        return write(
            folder / "v.webm", range(12), images=smooth_images(12), codec="libvpx", tick=tick
        )
    if kind in ("ts", "flv"):
        return write(folder / f"v.{kind}", steady(30), **many)
    if kind == "large":
        return write(
            folder / "v.mp4", steady(4), size=(320, 180), images=smooth_images(4, (320, 180))
        )
    whole = write(folder / "whole.mp4", steady(12), images=smooth_images(12))
    matrix = {
        "turned 90": (0, 1, -1, 0),
        "turned 180": (-1, 0, 0, -1),
        "turned 270": (0, -1, 1, 0),
        "mirrored": (-1, 0, 0, 1),
    }[kind]
    return with_matrix(whole, folder / "v.mp4", *matrix)


KINDS = ["sample", "variable mp4", "variable mkv", "late", "edited", "oblong", "webm", "ts", "flv"]
KINDS += ["large", "turned 90", "turned 180", "turned 270", "mirrored"]


@pytest.mark.parametrize("kind", [pytest.param(KINDS[0], marks=pytest.mark.slow), *KINDS[1:]])
def test_opencv_gives_the_indices_times_and_pictures_of_pyav(kind, tmp_path):
    path = clip(kind, tmp_path)
    for fps in ("all", "auto", 3.0):
        for side in (None, 50):
            own = list(video.Decoder(path, fps=fps, max_side=side))
            decoder = OpenCVDecoder(path, fps=fps, max_side=side)
            found = list(decoder)
            assert [frame.index for frame in found] == [frame.index for frame in own]
            times = [frame.time_s for frame in found]
            np.testing.assert_allclose(times, [frame.time_s for frame in own], atol=1e-9)
            for one, other in zip(found, own, strict=True):
                assert one.image.shape == other.image.shape
                assert one.image.dtype == np.uint8
                assert np.abs(one.image.astype(int) - other.image).mean() < 4
            assert list(decoder)[-1].index == own[-1].index, "a second pass starts anew"


@pytest.mark.parametrize("backend", ["pyav", "opencv"])
@pytest.mark.parametrize(("kind", "reason"), BAD_FILES)
def test_bad_files_give_the_same_line(tmp_path, capfd, steady_mp4, kind, reason, backend):  # noqa: F811
    path = tmp_path / "walk.mp4"
    make_bad(kind, path, steady_mp4)
    with pytest.raises(CarjaxError, match=reason) as caught:
        list(video.load_backend(backend)(path, fps="all", max_side=None))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_opencv_tells_of_a_video_that_is_cut_short(tmp_path):
    whole = write(tmp_path / "w.mp4", steady(30), mux={"movflags": "faststart"})
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: int(0.9 * whole.stat().st_size)])
    decoders = [video.Decoder(path, fps="all"), OpenCVDecoder(path, fps="all")]
    counts = {len(list(decoder)) for decoder in decoders}
    assert len(counts) == 1
    assert 0 < counts.pop() < 30
    assert "cut short" in decoders[1].warnings[0]
    assert decoders[1].warnings[0] == decoders[0].warnings[0]
    # In a process of its own: OpenCV reads how much to say when it opens its first video.
    code = (
        "import sys; from carjax.video.opencv import *; list(OpenCVDecoder(sys.argv[1], fps='all'))"
    )
    alone = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert (alone.returncode, alone.stderr) == (0, "")


def joined(path, folder):
    """A transport stream whose clock starts again in the middle."""
    one = write(folder / "one.ts", steady(12)).read_bytes()
    path.write_bytes(one + one)
    return path


def two_streams(path):
    """A small stream first, then the one that matters."""
    with av.open(str(path), "w") as container:
        streams = []
        for width, height in ((32, 24), (64, 48)):
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for i in range(3):
            for stream in streams:
                image = np.zeros((stream.height, stream.width, 3), np.uint8)
                frame = av.VideoFrame.from_ndarray(image, "rgb24")
                frame.pts = i
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode())
    return path


def untrue(kind, folder):
    if kind == "raw":
        return write(folder / "v.h264", steady(12))
    if kind == "avi":
        return write(folder / "v.avi", range(30), tick=Fraction(1, 10), options=B_FRAMES)
    if kind == "mpeg":
        tick = Fraction(1, 25)
        return write(folder / "v.mpg", range(12), codec="mpeg2video", rate=25, tick=tick)
    if kind == "interlaced":
        return write(folder / "v.mp4", steady(12), options={"x264-params": "tff=1"})
    if kind == "joined":
        return joined(folder / "v.ts", folder)
    return two_streams(folder / "v.mkv")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("raw", "no timestamps"),
        ("avi", "a wrong time for frame"),
        ("mpeg", "a wrong time for frame"),
        ("joined", "a wrong time for frame 12"),
        ("two streams", "first video stream"),
        ("interlaced", "interlaced"),
    ],
)
def test_opencv_refuses_what_it_would_time_or_read_wrongly(tmp_path, kind, reason):
    path = untrue(kind, tmp_path)
    assert list(video.Decoder(path, fps="all"))
    with pytest.raises(CarjaxError, match=f"{reason}.*use the decoder pyav") as caught:
        list(OpenCVDecoder(path, fps="all"))
    assert str(caught.value).startswith(f"{path}: ")


def test_names_that_opencv_could_take_for_something_else(tmp_path, steady_mp4):  # noqa: F811
    series = tmp_path / "walk%03d.mp4"
    shutil.copy(steady_mp4, series)
    assert len(list(OpenCVDecoder(series, fps="all"))) == 30
    odd = os.path.join(os.fsencode(tmp_path), b"\xff.mp4")
    shutil.copy(steady_mp4, odd)
    with pytest.raises(CarjaxError, match="not UTF-8"):
        list(OpenCVDecoder(os.fsdecode(odd), fps="all"))


def test_wrong_fps_fails_before_the_file_is_opened():
    with pytest.raises(UsageError, match="fps must be"):
        OpenCVDecoder("no/such/file.mp4", fps=-1)


# ── Decoders by name ──────────────────────────────────────────────────────────────────────────


def test_backends_are_found_by_name():
    assert video.load_backend("pyav") is video.Decoder
    assert video.load_backend("opencv") is OpenCVDecoder
    assert video.load_backend("toy_decoder:Negative") is toy_decoder.Negative


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ffmpeg", "must be pyav, opencv or MODULE:NAME, not 'ffmpeg'"),
        ("", "must be"),
        (":Negative", "must be"),
        ("toy_decoder:", "must be"),
        (
            "no.such:thing",
            "cannot import no.such (decoder 'no.such:thing'): put its folder",
        ),
        (".toy_decoder:Negative", "cannot import .toy_decoder"),
        (
            "broken_decoder:Frames",
            "(decoder 'broken_decoder:Frames'): fix the error (two lines)",
        ),
        ("toy_decoder:Positive", "Positive is not in it"),
        ("toy_decoder:NOT_CALLABLE", "NOT_CALLABLE is not callable"),
    ],
)
def test_a_name_without_a_decoder_is_one_line(tmp_path, monkeypatch, name, says):
    (tmp_path / "broken_decoder.py").write_text("raise RuntimeError('two\\nlines')\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    with pytest.raises(UsageError) as caught:
        video.load_backend(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_decoder_of_ones_own_reads_videos_and_those_in_archives(tmp_path, steady_mp4):  # noqa: F811
    import score_files as files

    shard = tmp_path / "x.tar"
    shard.write_bytes(files.tar_bytes([("a.mp4", steady_mp4.read_bytes())]))
    for path, name in ((steady_mp4, steady_mp4), (shard, f"{shard}/a.mp4")):
        source = expand.source(str(path))
        *frames, problem = readers.read(source, "all", toy_decoder.Negative)
        assert problem == Problem(str(name), "is a negative")
        for frame, own in zip(frames, video.frames(steady_mp4, fps="all"), strict=True):
            np.testing.assert_array_equal(frame.image, 255 - own.image)


IMAGE = np.zeros((4, 6, 3), np.uint8)


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([], "no frame"),
        ([(0, 0.0, IMAGE), (0, 0.1, IMAGE)], "do not increase"),
        ([(0, 0.0, IMAGE), (1, 0.0, IMAGE)], "do not increase"),
        ([(0, float("nan"), IMAGE)], "do not increase"),
        ([(-1, 0.0, IMAGE)], "do not increase"),
        ([(0, 0.0, IMAGE[..., 0])], r"uint8 \[4, 6\], where uint8 \[H, W, 3\]"),
        ([(0, 0.0, IMAGE / 2)], "float64"),
        ([(0, 0.0, np.zeros((10, 641, 3), np.uint8))], "more than 640 pixels"),
    ],
)
def test_a_decoder_that_breaks_its_contract_is_told(steady_mp4, frames, says):  # noqa: F811
    class Frames:
        warnings = ()

        def __init__(self, path, *, fps, max_side):
            pass

        def __iter__(self):
            return (video.Frame(*frame) for frame in frames)

    with pytest.raises(CarjaxError, match=says):
        list(readers.read(expand.source(str(steady_mp4)), "all", Frames))
