"""Frames, times and failures of real video files, written here with PyAV.

Every frame of a written video is one grey level, so that a picture tells which frame it is.
"""

import csv
import gc
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import threading
from fractions import Fraction

import av
import numpy as np
import pytest

from carjax import video
from carjax.errors import CarjaxError, UsageError
from carjax.prefetch import prefetch
from carjax.video.container import Losses
from carjax.video.decoder import damage
from carjax.video.timing import Clock, sampler

SAMPLE = pathlib.Path(__file__).parents[1] / "data" / "prius_walkaround.mp4"
X264 = {"preset": "ultrafast", "crf": "12"}
GREY_STEP = 8
TICKS = 600
B_PICTURE = 3  # AV_PICTURE_TYPE_B


def grey(index):
    return 16 + GREY_STEP * (index % 28)


def write(
    path,
    ticks,
    *,
    size=(64, 48),
    codec="libx264",
    pix_fmt="yuv420p",
    rate=10,
    tick=Fraction(1, TICKS),
    options=None,
    images=None,
    aspect=None,
    mux=None,
):
    """Writes frames whose timestamps are `ticks`; frame i is grey(i) or images[i]."""
    with av.open(str(path), "w", options=mux or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = tick
        if codec == "libx264":
            stream.options = {**X264, **(options or {})}
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for i, pts in enumerate(ticks):
            image = np.full((size[1], size[0], 3), grey(i), np.uint8)
            frame = av.VideoFrame.from_ndarray(image if images is None else images[i], "rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = int(pts), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def steady(count, rate=10):
    return [round(i * TICKS / rate) for i in range(count)]


def level(image):
    return float(image.mean())


def indices(path, fps):
    return [frame.index for frame in video.frames(path, fps=fps)]


def ffprobe_times(path):
    if shutil.which("ffprobe") is None:
        pytest.skip("ffprobe is not installed")
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-of", "csv=p=0"]
    command += ["-show_entries", "frame=best_effort_timestamp_time", str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return np.array([float(line.strip(",")) for line in lines])


@pytest.fixture(scope="module")
def steady_mp4(tmp_path_factory):
    """30 frames at 10 a second with B-frames, index first."""
    path = tmp_path_factory.mktemp("video") / "steady.mp4"
    options = {"bf": "3", "b_adapt": "0", "preset": "veryfast", "g": "12"}
    return write(path, steady(30), options=options, mux={"movflags": "faststart"})


# ── The sample ────────────────────────────────────────────────────────────────────────────────


def test_sample_matches_its_ground_truth():
    with open(SAMPLE.with_suffix(".csv"), newline="") as file:
        truth = np.array([float(row["time_s"]) for row in csv.DictReader(file)])
    decoder = video.Decoder(SAMPLE, fps="all")
    assert decoder.info.frames == 180
    assert decoder.info.exact_frames
    assert decoder.info.duration_s == pytest.approx(15.0)
    assert decoder.info.average_rate == pytest.approx(12.0)
    frames = [(frame.index, frame.time_s, frame.image.shape) for frame in decoder]
    assert [index for index, _, _ in frames] == list(range(180))
    np.testing.assert_allclose([time for _, time, _ in frames], truth, atol=1e-3)
    assert {shape for _, _, shape in frames} == {(decoder.info.height, decoder.info.width, 3)}
    assert decoder.warnings == []


def test_auto_takes_at_most_eight_a_second_of_the_sample():
    times = [frame.time_s for frame in video.frames(SAMPLE)]
    assert len(times) == 15 * video.AUTO_FPS
    due = np.arange(120) / 8
    assert np.all(np.array(times) >= due - 1e-3)
    assert np.all(np.array(times) < due + 1 / 12)


# ── Order and time ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fps", [0.7, 2.5, "auto", "all"])
def test_what_is_sampled_does_not_depend_on_the_decoder(fps):
    """OpenCV's reader, which counts and times frames itself, picks the same ones by their times."""
    cv2 = pytest.importorskip("cv2")
    capture = cv2.VideoCapture(str(SAMPLE))
    wanted = sampler(fps, capture.get(cv2.CAP_PROP_FPS))
    taken = []
    index = 0
    while capture.grab():
        time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if wanted(time_s, 1e-3):
            taken.append((index, time_s))
        index += 1
    assert index == 180
    own = [(frame.index, frame.time_s) for frame in video.frames(SAMPLE, fps=fps)]
    assert [i for i, _ in taken] == [i for i, _ in own]
    np.testing.assert_allclose([t for _, t in taken], [t for _, t in own], atol=1e-3)


def test_b_frames_come_in_presentation_order(steady_mp4):
    with av.open(str(steady_mp4)) as container:
        kinds = {int(frame.pict_type) for frame in container.decode(video=0)}
    assert B_PICTURE in kinds, "the file must hold B-frames to test this"
    frames = list(video.frames(steady_mp4, fps="all"))
    assert [frame.index for frame in frames] == list(range(30))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(30) / 10, atol=1e-6)
    for frame in frames:
        assert level(frame.image) == pytest.approx(grey(frame.index), abs=GREY_STEP / 2 - 1)


def test_times_agree_with_ffprobe(steady_mp4):
    expected = ffprobe_times(steady_mp4)
    times = [frame.time_s for frame in video.frames(steady_mp4, fps="all")]
    np.testing.assert_allclose(times, expected - expected[0], atol=2e-6)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate_keeps_true_times(tmp_path, suffix):
    ticks = [0, 20, 40, 300, 310, 900, 1500, 1520]
    path = write(tmp_path / f"variable.{suffix}", ticks, options={"bf": "0"})
    times = [frame.time_s for frame in video.frames(path, fps="all")]
    np.testing.assert_allclose(times, np.array(ticks) / TICKS, atol=6e-4)


def test_first_frame_is_at_zero_whatever_the_file_says(tmp_path):
    path = write(tmp_path / "late.mkv", [3000, 3060, 3120])
    times = [frame.time_s for frame in video.frames(path, fps="all")]
    np.testing.assert_allclose(times, [0, 0.1, 0.2], atol=1e-3)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_video_that_begins_late_is_no_longer_for_it(tmp_path, suffix):
    late = [5 * TICKS + tick for tick in steady(40)]
    path = write(tmp_path / f"late.{suffix}", late, options={"bf": "0"})
    info = video.probe(path)
    assert (info.frames, info.duration_s) == (40, pytest.approx(4.0, abs=0.01))
    with video.Decoder(path, fps="all") as decoder:
        assert len(list(decoder)) == 40
    assert decoder.warnings == []


def test_frames_hidden_by_an_edit_list_are_no_frames(tmp_path, steady_mp4):
    """An edit list that starts at 1.05 s: frames before it are decoded but not shown."""
    data = bytearray(steady_mp4.read_bytes())
    at = data.index(b"elst") + 4
    version, entries, _, start = struct.unpack(">IIIi", data[at : at + 16])
    assert (version, entries) == (0, 1)
    timescale_at = data.index(b"mdhd") + 4 + 12
    timescale = struct.unpack(">I", data[timescale_at : timescale_at + 4])[0]
    data[at + 12 : at + 16] = struct.pack(">i", start + round(1.05 * timescale))
    path = tmp_path / "edited.mp4"
    path.write_bytes(data)
    frames = list(video.frames(path, fps="all"))
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert level(frames[0].image) == pytest.approx(grey(30 - len(frames)), abs=3)
    assert len(frames) in (19, 20)
    assert video.probe(path).frames == len(frames)
    assert len(ffprobe_times(path)) == len(frames)


def clock_times(stamps, tick_s=0.01, frame_s=0.1):
    clock = Clock(tick_s, frame_s)
    return [clock.read(stamp) for stamp in stamps]


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([50, 60, 75], [0, 0.1, 0.25]),
        ([None, None, None], [0, 0.1, 0.2]),
        ([0, None, 20], [0, 0.1, 0.2]),
        ([None, 510, 530], [0, 0.1, 0.3]),
        ([0, 10, 10, 20], [0, 0.1, 0.1001, 0.2]),
        ([0, 10, 20, 0, 10], [0, 0.1, 0.2, 0.3, 0.4]),
    ],
    ids=["offset", "none at all", "one missing", "first missing", "repeated", "restarted"],
)
def test_clock(stamps, expected):
    times = clock_times(stamps)
    np.testing.assert_allclose(times, expected, atol=1e-9)
    assert np.all(np.diff(times) > 0)


def test_clock_increases_strictly_on_any_stamps():
    rng = np.random.default_rng(0)
    for _ in range(50):
        stamps = [None if rng.random() < 0.2 else int(s) for s in rng.integers(-50, 50, 40)]
        assert np.all(np.diff(clock_times(stamps)) > 0)


# ── Sampling ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        ("all", range(30)),
        ("auto", [0, 2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15, 17, 18, 19, 20, 22, 23, 24, 25]),
        (5, range(0, 30, 2)),
        (1, [0, 10, 20]),
        (0.5, [0, 20]),
        (3, [0, 4, 7, 10, 14, 17, 20, 24, 27]),
        (10, range(30)),
        (60.0, range(30)),
    ],
)
def test_sampled_indices_of_ten_frames_a_second(steady_mp4, fps, expected):
    got = indices(steady_mp4, fps)
    if fps == "auto":
        expected = [*expected, 27, 28, 29]
    assert got == list(expected)


def test_auto_takes_a_slow_video_whole(tmp_path):
    path = write(tmp_path / "slow.mp4", steady(9, rate=5), rate=5)
    assert indices(path, "auto") == list(range(9))


def test_sampling_survives_rounded_times(tmp_path):
    """Matroska rounds to 1 ms; half of 60 frames a second must still be every second one."""
    path = write(tmp_path / "rounded.mkv", steady(24, rate=60), rate=60)
    assert indices(path, 30) == list(range(0, 24, 2))


def test_sampling_follows_time_not_count(tmp_path):
    ticks = [*range(0, 600, 60), 1200, 1800, 1860]
    path = write(tmp_path / "gap.mp4", ticks, options={"bf": "0"})
    assert indices(path, 1) == [0, 10, 11]


@pytest.mark.parametrize(
    ("text", "value"), [("auto", "auto"), ("all", "all"), ("2", 2.0), ("0.5", 0.5), (7, 7.0)]
)
def test_parse_fps(text, value):
    assert video.parse_fps(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "-inf", "", "fast", "1/2", None, 0])
def test_parse_fps_refuses(text):
    with pytest.raises(UsageError, match="fps must be auto, all or a number above 0") as caught:
        video.parse_fps(text)
    assert caught.value.status == 2


def test_wrong_fps_fails_before_the_file_is_opened():
    with pytest.raises(UsageError):
        video.frames("no/such/file.mp4", fps=-1)


# ── Picture ───────────────────────────────────────────────────────────────────────────────────

QUARTERS = np.zeros((48, 64, 3), np.uint8)
QUARTERS[:24, :32] = (255, 0, 0)
QUARTERS[:24, 32:] = (0, 255, 0)
QUARTERS[24:, :32] = (0, 0, 255)
QUARTERS[24:, 32:] = (255, 255, 255)


def with_matrix(source, target, a, b, c, d):
    """Copies an MP4 with another display matrix in its track header (ISO/IEC 14496-12, 8.3.2)."""
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 44
    assert struct.unpack(">9i", data[at : at + 36]) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


@pytest.fixture(scope="module")
def quarters_mp4(tmp_path_factory):
    path = tmp_path_factory.mktemp("quarters") / "quarters.mp4"
    return write(path, steady(2), images=[QUARTERS] * 2)


@pytest.mark.parametrize(
    ("matrix", "rotation", "expected"),
    [
        ((1, 0, 0, 1), 0, QUARTERS),
        ((0, 1, -1, 0), 90, np.rot90(QUARTERS, -1)),  # a phone held upright
        ((-1, 0, 0, -1), 180, np.rot90(QUARTERS, 2)),
        ((0, -1, 1, 0), 270, np.rot90(QUARTERS, 1)),
        ((-1, 0, 0, 1), 180, QUARTERS[:, ::-1]),  # a mirrored front camera
        ((0, 1, 1, 0), 90, QUARTERS.transpose(1, 0, 2)),
    ],
    ids=["none", "90", "180", "270", "mirrored", "transposed"],
)
def test_display_matrix_is_honoured(tmp_path, quarters_mp4, matrix, rotation, expected):
    path = with_matrix(quarters_mp4, tmp_path / "turned.mp4", *matrix)
    info = video.probe(path)
    frames = [frame.image for frame in video.frames(path, fps="all")]
    assert info.rotation == rotation
    assert (info.height, info.width) == expected.shape[:2]
    for image in frames:
        assert image.shape == expected.shape
        assert image.dtype == np.uint8
        difference = np.abs(image.astype(int) - expected)
        assert np.median(difference) <= 4
        assert difference.mean() < 12


def test_turned_frames_agree_with_ffmpeg(tmp_path, quarters_mp4):
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    path = with_matrix(quarters_mp4, tmp_path / "turned.mp4", 0, 1, -1, 0)
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-frames:v", "1"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    expected = np.frombuffer(raw, np.uint8).reshape(64, 48, 3).astype(int)
    image = next(video.frames(path)).image
    assert np.abs(image - expected).mean() < 2


def test_oblong_pixels_become_square(tmp_path):
    path = write(tmp_path / "oblong.mp4", steady(2), aspect=Fraction(4, 3), images=[QUARTERS] * 2)
    info = video.probe(path)
    image = next(video.frames(path)).image
    assert (info.width, info.height) == (85, 48)
    assert image.shape == (48, 85, 3)
    assert image[5, 5, 0] > 200
    assert image[5, 80, 1] > 200


def test_oblong_and_turned(tmp_path):
    path = write(tmp_path / "oblong.mp4", steady(2), aspect=Fraction(1, 2), images=[QUARTERS] * 2)
    path = with_matrix_any(path, tmp_path / "both.mp4")
    info = video.probe(path)
    assert next(video.frames(path)).image.shape == (info.height, info.width, 3) == (64, 96, 3)


def with_matrix_any(source, target):
    """Turns by 90 degrees, whatever the header's size fields."""
    return with_matrix(source, target, 0, 1, -1, 0)


def test_odd_sizes(tmp_path):
    path = write(tmp_path / "odd.mkv", steady(3), size=(37, 53), pix_fmt="yuv444p")
    assert next(video.frames(path)).image.shape == (53, 37, 3)
    assert (video.probe(path).width, video.probe(path).height) == (37, 53)


def test_max_side_scales_down_only(quarters_mp4):
    small = next(video.frames(quarters_mp4, max_side=32)).image
    same = next(video.frames(quarters_mp4, max_side=500)).image
    assert small.shape == (24, 32, 3)
    assert same.shape == (48, 64, 3)
    assert small[2, 2, 0] > 200
    assert small[2, 30, 1] > 200


def test_the_ticks_of_a_clock_are_no_rate(tmp_path):
    with av.open(str(tmp_path / "a.webm"), "w") as container:
        stream = container.add_stream("libvpx", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(30):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = 40 * i, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    info = video.probe(tmp_path / "a.webm")
    assert info.frames == 30
    assert 23 < info.average_rate < 27


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mkv", "libx264", "yuv420p"),
        ("a.mov", "libx264", "yuv420p"),
        ("a.webm", "libvpx", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.gif", "gif", "rgb8"),
        ("a.ts", "libx264", "yuv420p"),
        ("a.flv", "libx264", "yuv420p"),
    ],
)
def test_containers(tmp_path, name, codec, pix_fmt):
    path = write(
        tmp_path / name, range(12), codec=codec, pix_fmt=pix_fmt, tick=Fraction(1, 10), rate=10
    )
    decoder = video.Decoder(path, fps="all")
    frames = list(decoder)
    assert [frame.index for frame in frames] == list(range(12))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(12) / 10, atol=2e-3)
    for frame in frames[::5]:
        assert level(frame.image) == pytest.approx(grey(frame.index), abs=20)
    assert (decoder.info.frames, decoder.info.exact_frames) == (12, True)
    assert decoder.info.duration_s == pytest.approx(1.2, abs=0.02)
    assert decoder.warnings == []


def test_an_avi_whose_frames_are_predicted_from_later_ones(tmp_path):
    path = write(tmp_path / "b.avi", range(30), tick=Fraction(1, 10), rate=10, options={"bf": "2"})
    frames = list(video.frames(path, fps="all"))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(30) / 10, atol=1e-9)
    for frame in frames[::5]:
        assert level(frame.image) == pytest.approx(grey(frame.index), abs=20)


def test_a_recording_without_a_stated_length(tmp_path):
    """Browsers stream WebM to disk: no duration in the header."""
    path = write(tmp_path / "live.mkv", steady(20), mux={"live": "1"})
    info = video.probe(path)
    assert (info.frames, info.exact_frames) == (20, False)
    assert info.duration_s == pytest.approx(2.0, abs=0.01)


def test_one_frame(tmp_path):
    path = write(tmp_path / "one.mp4", [0])
    for fps in ("auto", "all", 0.1):
        assert [(f.index, f.time_s) for f in video.frames(path, fps=fps)] == [(0, 0.0)]
    assert video.probe(path).frames == 1


def write_colour(path, rgb, matrix, full_range=False, size=(64, 48), stated=True):
    """A known colour, encoded by the definition of Y'CbCr (ITU-R BT.601 and BT.709)."""
    red, green, blue = rgb
    kr, kb = {5: (0.299, 0.114), 1: (0.2126, 0.0722)}[matrix]
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / (1 - kb) / 2, (red - y) / (1 - kr) / 2
    if not full_range:
        y, cb, cr = 16 + y * 219 / 255, cb * 224 / 255, cr * 224 / 255
    pix_fmt = "yuvj420p" if full_range else "yuv420p"
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options=X264)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.color_range = 2 if full_range else 1
        if stated:
            stream.codec_context.colorspace = matrix
        planes = [np.full(width * height, round(y), np.uint8)]
        planes += [np.full(width * height // 4, round(128 + c), np.uint8) for c in (cb, cr)]
        yuv = np.concatenate(planes).reshape(height * 3 // 2, width)
        for i in range(2):
            frame = av.VideoFrame.from_ndarray(yuv, pix_fmt)
            frame.color_range = 2 if full_range else 1
            if stated:
                frame.colorspace = matrix
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("matrix", "full_range"), [(5, False), (5, True), (1, False), (1, True)])
def test_colour_matrix_and_range_of_the_file_are_used(tmp_path, matrix, full_range):
    if matrix == 1 and int(av.__version__.split(".")[0]) < 17:
        pytest.skip("PyAV before 17 decodes BT.709 as BT.601")
    colour = (200, 60, 40)
    path = write_colour(tmp_path / "colour.mp4", colour, matrix, full_range)
    image = next(video.frames(path)).image
    np.testing.assert_allclose(image[20, 20].astype(int), colour, atol=4)


@pytest.mark.parametrize(("size", "matrix"), [((96, 718), 5), ((96, 720), 1)])
@pytest.mark.parametrize("max_side", [None, 64])
def test_an_unstated_colour_matrix_is_that_of_players(tmp_path, size, matrix, max_side):
    colour = (200, 60, 40)
    path = write_colour(tmp_path / "colour.mp4", colour, matrix, size=size, stated=False)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).colorspace == 2  # unspecified
    image = next(video.frames(path, max_side=max_side)).image
    np.testing.assert_allclose(image[20, 4].astype(int), colour, atol=4)


# ── Failures ──────────────────────────────────────────────────────────────────────────────────


def silent_tone(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        for i in range(8):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, 1024 * i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def unknown_colours(path):
    """Y'CgCo, matrix 8 of ITU-T H.273, which FFmpeg decodes and does not convert."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options=X264)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.colorspace = 8
        frame = av.VideoFrame(64, 48, "yuv420p")
        frame.colorspace = 8
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def make_bad(kind, path, good):
    data = good.read_bytes()
    if kind == "folder":
        path.mkdir()
    elif kind == "audio":
        silent_tone(path)
    elif kind == "colours":
        unknown_colours(path)
    elif kind == "device":
        os.mkfifo(path)
    elif kind != "missing":
        path.write_bytes(
            {
                "empty": b"",
                "text": b"These are words, not pictures.\n" * 300,
                "noise": np.random.default_rng(1).bytes(40_000),
                "playlist": b"#EXTM3U\n#EXTINF:1,\n" + str(good).encode() + b"\n#EXT-X-ENDLIST\n",
                "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(100),
                "heic": b"\0\0\0\x18ftypheic" + bytes(100),
                "no index": data[: data.index(b"moov") - 4],
                "no frames": data[: data.index(b"mdat") + 4],
                "codec": data.replace(b"avc1", b"zzzz"),
            }[kind]
        )


# (kind of `make_bad`, what the line about it says)
BAD_FILES = [
    ("missing", "no such file"),
    ("folder", "is a folder"),
    ("device", "is not a regular file"),
    ("empty", "is empty"),
    ("text", "is not a video"),
    ("noise", "is not a video|holds no video|no picture"),
    ("playlist", "is not a video"),
    ("jpeg", "is an image, not a video"),
    ("heic", "is an image, not a video"),
    ("audio", "has sound but no picture"),
    ("no index", "cut short or damaged"),
    ("no frames", "no frame can be decoded"),
    ("codec", "codec is not supported|no frame can be decoded"),
    ("colours", r"its colours \(yuv420p, matrix 8\) cannot be converted; convert"),
]


@pytest.mark.parametrize(("kind", "reason"), BAD_FILES)
def test_bad_files_give_one_clear_line(tmp_path, steady_mp4, kind, reason):
    path = tmp_path / "walk.mp4"
    make_bad(kind, path, steady_mp4)
    for call in (video.probe, video.frames, lambda p: video.grab(p, {0})):
        with pytest.raises(CarjaxError, match=reason) as caught:
            call(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.status == 1


def test_no_permission(tmp_path, steady_mp4):
    path = tmp_path / "locked.mp4"
    shutil.copy(steady_mp4, path)
    path.chmod(0)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may read anything
    try:
        with pytest.raises(CarjaxError, match="no permission"):
            video.probe(path)
    finally:
        if root:
            os.seteuid(0)


def test_addresses_are_not_opened():
    for address in ("http://127.0.0.1:9/a.mp4", "concat:a.mp4|b.mp4", "a\0b.mp4"):
        with pytest.raises(
            CarjaxError, match=r"an address, not a file|no such file|cannot be read"
        ):
            video.probe(address)


def test_a_bad_path_fails_without_loading_jax():
    code = (
        "import sys\nfrom carjax import video\n"
        "try:\n    video.probe('no/such.mp4')\n"
        "except Exception as error:\n    print(error, {'jax', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "no/such.mp4: no such file set()"


def test_truncated_file_yields_what_is_left(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)
    whole = write(tmp_path / "whole.mp4", steady(30), images=noise, mux={"movflags": "faststart"})
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    decoder = video.Decoder(path, fps="all")
    cut = {frame.index: frame.image for frame in decoder}
    assert 12 < len(cut) < 24
    assert sorted(cut) == list(range(len(cut)))
    assert decoder.info.frames == len(cut)
    assert decoder.info.duration_s == pytest.approx(len(cut) / 10)
    assert decoder.warnings
    assert "30 frames" in decoder.warnings[0] or "of 3.0 s" in decoder.warnings[0]
    for frame in video.frames(whole, fps="all"):
        if frame.index in cut:
            np.testing.assert_array_equal(frame.image, cut[frame.index])
    if shutil.which("ffprobe"):
        assert len(ffprobe_times(path)) == len(cut)


def test_damaged_bytes_never_end_in_a_traceback(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)
    whole = write(tmp_path / "whole.mkv", steady(30), images=noise).read_bytes()
    for seed in range(8):
        data = np.frombuffer(whole, np.uint8).copy()
        rng = np.random.default_rng(seed)
        data[rng.integers(400, len(data), 60)] ^= 0xFF
        path = tmp_path / f"damaged{seed}.mkv"
        path.write_bytes(data)
        try:
            decoder = video.Decoder(path, fps="all")
            frames = list(decoder)
        except CarjaxError:  # nothing was left; any other exception fails the test
            continue
        assert len(frames) <= 31
        assert np.all(np.diff([frame.time_s for frame in frames]) > 0)
        assert len(frames) == 30 or decoder.warnings


# ── One pass for single frames; memory ────────────────────────────────────────────────────────


def test_grab_gives_the_pixels_of_frames(steady_mp4):
    all_frames = {frame.index: frame.image for frame in video.frames(steady_mp4, fps="all")}
    grabbed = video.grab(steady_mp4, {29, 0, 7, 13})
    assert sorted(grabbed) == [0, 7, 13, 29]
    for index, image in grabbed.items():
        np.testing.assert_array_equal(image, all_frames[index])


def test_grab_of_nothing_and_of_a_frame_that_is_not_there(steady_mp4):
    assert video.grab(steady_mp4, set()) == {}
    with pytest.raises(CarjaxError, match="has no frame 30"):
        video.grab(steady_mp4, {3, 30})


def test_grab_is_full_size(quarters_mp4):
    decoder = video.Decoder(quarters_mp4, max_side=16)
    assert decoder.grab({1})[1].shape == (48, 64, 3)


def test_decoding_twice_gives_the_same(steady_mp4):
    decoder = video.Decoder(steady_mp4, fps=5)
    first = [(frame.index, level(frame.image)) for frame in decoder]
    assert first == [(frame.index, level(frame.image)) for frame in decoder]


def test_decoded_frames_are_freed_without_the_garbage_collector(tmp_path, quarters_mp4):
    path = with_matrix(quarters_mp4, tmp_path / "turned.mp4", 0, 1, -1, 0)
    long = write(tmp_path / "long.mp4", steady(40))
    gc.collect()
    gc.disable()
    try:
        for source in (path, long):
            for _ in video.frames(source, fps="all"):
                pass
        alive = sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())
    finally:
        gc.enable()
    assert alive <= 8


# ── Batches ───────────────────────────────────────────────────────────────────────────────────


def make_frames(count, shape=(4, 6, 3)):
    for i in range(count):
        yield video.Frame(2 * i, i / 5, np.full(shape, i + 1, np.uint8))


def test_batches_have_one_shape_and_a_padded_tail():
    batches = list(video.batches(make_frames(7), 3))
    assert [batch.images.shape for batch in batches] == [(3, 4, 6, 3)] * 3
    assert [batch.mask.tolist() for batch in batches] == [
        [True] * 3,
        [True] * 3,
        [True, False, False],
    ]
    assert np.concatenate([b.index for b in batches]).tolist() == [0, 2, 4, 6, 8, 10, 12, -1, -1]
    assert batches[2].images[1:].sum() == 0
    assert np.isnan(batches[2].time_s[1:]).all()
    assert batches[1].images[2].max() == batches[1].images[2].min() == 6
    assert batches[0].time_s.tolist() == [0, 0.2, 0.4]


def test_batches_without_a_tail_and_without_frames():
    assert len(list(video.batches(make_frames(6), 3))) == 2
    assert list(video.batches(make_frames(0), 3)) == []
    with pytest.raises(ValueError, match="at least 1"):
        next(video.batches(make_frames(1), 0))


def test_batches_resize_a_changed_resolution():
    frames = [*make_frames(1), video.Frame(9, 3.0, np.full((9, 9, 3), 5, np.uint8))]
    (batch,) = video.batches(frames, 2)
    assert batch.images.shape == (2, 4, 6, 3)
    assert (batch.images[1] == 5).all()


# ── Prefetching ───────────────────────────────────────────────────────────────────────────────


class Source:
    """Counts what it produced; signals when it was closed."""

    def __init__(self, count, error=None):
        self.produced = 0
        self.closed = threading.Event()
        self.reached = threading.Semaphore(0)
        self._count, self._error = count, error

    def __iter__(self):
        try:
            for i in range(self._count):
                self.produced += 1
                self.reached.release()
                yield i
            if self._error is not None:
                raise self._error
        finally:
            self.closed.set()


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "carjax-prefetch"]


def test_prefetch_keeps_order_and_ends():
    source = Source(50)
    items = prefetch(source, depth=3)
    assert list(items) == list(range(50))
    assert list(items) == []
    assert source.closed.wait(10)
    items.close()
    assert prefetch_threads() == []


def test_prefetch_works_ahead_but_never_further_than_its_depth():
    source = Source(40)
    with prefetch(source, depth=4) as items:
        for _ in range(4):
            assert source.reached.acquire(timeout=10)  # ahead without a consumer
        for taken, item in enumerate(items):
            assert item == taken
            # The item handed over has left the queue, and its place may be filled again.
            assert source.produced <= taken + 1 + 4
    assert source.produced == 40


def test_prefetch_raises_the_error_after_the_items_before_it():
    items = prefetch(Source(3, error=CarjaxError("broken")), depth=8)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(CarjaxError, match="broken"):
        next(items)
    assert list(items) == []


def test_prefetch_passes_on_a_keyboard_interrupt():
    items = prefetch(Source(0, error=KeyboardInterrupt()), depth=1)
    with pytest.raises(KeyboardInterrupt):
        next(items)


def test_prefetch_closes_early():
    source = Source(10**9)
    items = prefetch(source, depth=2)
    assert next(items) == 0
    items.close()
    assert source.closed.is_set()
    assert prefetch_threads() == []
    assert source.produced <= 4
    assert list(items) == []
    items.close()


def test_prefetch_stops_when_it_is_dropped():
    source = Source(10**9)
    items = prefetch(source, depth=2)
    next(items)
    del items
    gc.collect()
    assert source.closed.is_set()
    assert prefetch_threads() == []


def test_prefetch_stops_when_its_consumer_fails():
    source = Source(10**9)

    def consume():
        with prefetch(source, depth=2) as items:
            next(items)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        consume()
    assert source.closed.is_set()


def test_prefetch_does_not_hold_up_the_exit_of_the_program():
    code = (
        "import itertools\nfrom carjax.prefetch import prefetch\n"
        "items = prefetch(itertools.count(), 2)\nprint(next(items))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout.strip(), done.stderr) == ("0", "")


def test_prefetch_refuses_a_depth_below_one():
    with pytest.raises(ValueError, match="at least 1"):
        prefetch([], depth=0)


def test_prefetched_decoding(steady_mp4):
    with prefetch(video.batches(video.frames(steady_mp4, fps="all"), 8), 2) as batches:
        index = np.concatenate([batch.index[batch.mask] for batch in batches])
    assert index.tolist() == list(range(30))


def test_a_rate_just_above_the_wanted_one_takes_every_frame():
    wanted = sampler(8.0, 8.004)
    assert all(wanted(i / 8.004, 1e-4) for i in range(200))


def test_a_coarse_clock_takes_no_frame_before_its_time():
    # An AVI's ticks are as long as its frames: half of one is no rounding error.
    wanted = sampler(8.0, 30.0)
    assert [i for i in range(30) if wanted(i / 30, 1 / 30)] == [0, 4, 8, 12, 15, 19, 23, 27]


def test_a_clock_that_jumps_back_by_one_frame_was_restarted():
    np.testing.assert_allclose(clock_times([0, 10, 0, 10]), [0, 0.1, 0.2, 0.3], atol=1e-9)


def test_grab_keeps_to_the_longest_sides_that_are_named(quarters_mp4):
    images = video.Decoder(quarters_mp4, fps="all").grab({0, 1}, max_sides={1: 32})
    assert images[0].shape == (48, 64, 3)
    assert images[1].shape == (24, 32, 3)


@pytest.mark.parametrize(
    ("end_s", "stated_s", "said"),
    [(4.2, 5, False), (3.9, 5, True), (18.5, 20, False), (17.9, 20, True)],
)
def test_a_picture_that_ends_a_little_early_is_not_cut(end_s, stated_s, said):
    # A tenth of the length and a second: sound often goes on for longer.
    assert bool(damage(Losses(), 90, end_s, None, stated_s)) is said


@pytest.mark.parametrize(
    ("tags", "moment"),
    [
        ({"creation_time": "2023-05-01T12:00:00.000000Z"}, "2023-05-01T12:00:00+00:00"),
        (
            {
                "creation_time": "2023-05-01T12:00:00.000000Z",
                "com.apple.quicktime.creationdate": "2023-05-01T14:00:00+0200",
            },
            "2023-05-01T14:00:00+02:00",
        ),
        ({"creation_time": "1904-01-01T00:00:00.000000Z"}, None),
        ({"com.apple.quicktime.creationdate": "9999-12-31T23:59:59+0000"}, None),
        ({}, None),
    ],
    ids=["utc", "local", "never set", "no more to come", "not said"],
)
def test_when_it_was_recorded(tmp_path, tags, moment):
    path = tmp_path / "when.mov"
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update(tags)
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode())
    found = video.recorded_at(path)
    assert (found and found.isoformat()) == moment


def test_tags_that_are_no_text(tmp_path):
    path = tmp_path / "tags.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "my car"
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"my car", b"my \xff\xfe\xfd"))
    assert video.probe(path).frames == 1


def test_the_main_stream_is_the_largest(tmp_path):
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for width in (64, 128, 32):
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
            streams.append(stream)
        for stream in streams:
            container.mux(stream.encode(av.VideoFrame(stream.width, 48, "yuv420p")))
            container.mux(stream.encode())
    assert video.coded_size(path) == (128, 48)
    assert next(video.frames(path)).image.shape == (48, 128, 3)


def test_the_length_of_a_stream_is_from_the_first_shown_to_the_last(tmp_path):
    # The last packet of the file is of a frame that is shown before others.
    options = {"bf": "3", "b_adapt": "0", "preset": "veryfast"}
    path = write(tmp_path / "live.mkv", steady(16), options=options, mux={"live": "1"})
    with av.open(str(path)) as container:
        stamps = [p.pts for p in container.demux(video=0) if p.size]
    assert stamps[-1] < max(stamps)
    assert video.probe(path).duration_s == pytest.approx(1.6, abs=0.01)


def test_pixels_that_would_be_far_from_square_are_taken_for_square(tmp_path):
    path = write(tmp_path / "odd.mp4", steady(2), aspect=Fraction(9, 1))
    assert (video.probe(path).width, video.probe(path).height) == (64, 48)


def test_sound_that_goes_on_is_no_picture(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=8000)
        for i in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 9 * i, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for i in range(50):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), "f4"), "fltp", "mono")
            silence.sample_rate, silence.pts = 8000, 800 * i
            container.mux(sound.encode(silence))
        container.mux(sound.encode())
    info = video.probe(path)
    assert (info.frames, info.exact_frames) == (20, True)
    assert info.duration_s == pytest.approx(2.0, abs=0.05)
