"""Frames by index, decoded from the key frame before them, against decoding from the start."""

import collections
import dataclasses
import gc
import shutil
import subprocess
import time
import weakref
from fractions import Fraction

import av
import numpy as np
import pytest

from carjax import video
from carjax.errors import CarjaxError
from carjax.video import reader as reader_module
from carjax.video.picture import Renderer
from carjax.video.timeline import read_timeline

COUNT, RATE = 75, 25


def pictures(count=COUNT, size=(96, 64)):
    """A texture that drifts, so that frames refer to each other, with noise of its own in each."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (size[1] // 4, size[0] // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    for i in range(count):
        noise = rng.integers(-8, 8, base.shape)
        yield np.clip(np.roll(base, i, axis=1).astype(int) + noise, 0, 255).astype(np.uint8)


def write(path, codec="libx264", options=None, pix_fmt="yuv420p", ticks=None, mux=None):
    with av.open(str(path), "w", options=mux or {}) as container:
        stream = container.add_stream(codec, rate=RATE, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        stream.codec_context.time_base = Fraction(1, 600)
        for i, image in enumerate(pictures()):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pix_fmt)
            frame.pts = 24 * i if ticks is None else ticks[i]
            frame.time_base = Fraction(1, 600)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def x264(**options):
    return {"codec": "libx264", "options": {"preset": "fast", "g": "12", **options}}


def x265(params):
    params = f"log-level=none:pools=1:{params}"
    return {"codec": "libx265", "options": {"preset": "fast", "x265-params": params}}


IRREGULAR = np.cumsum(np.random.default_rng(3).integers(5, 90, COUNT)).tolist()
VIDEOS = {
    "closed.mp4": x264(),
    "closed.mkv": x264(),
    "b_pyramid.mp4": x264(bf="5", **{"x264-params": "b-pyramid=normal:b-adapt=0"}),
    "open.mp4": x264(**{"x264-params": "open-gop=1:b-adapt=0:bframes=3:scenecut=0"}),
    "open.mkv": x264(**{"x264-params": "open-gop=1:b-adapt=0:bframes=3:scenecut=0"}),
    "one_key.mp4": x264(g="1000"),
    "all_key.mov": x264(g="1"),
    "irregular.mp4": {**x264(), "ticks": IRREGULAR},
    "hevc_open.mp4": x265("keyint=12:open-gop=1:bframes=3:b-adapt=0"),
    "hevc_closed.mkv": x265("keyint=12:open-gop=0:bframes=4"),
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "cpu-used": "8"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12", "g": "12"}},
    "motion.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
}
# These do not tell, or are not believed: every frame is decoded from the start.
WHOLE = {
    "a.ts": x264(),
    "a.avi": {"codec": "mpeg4", "options": {"g": "12"}},
    "a.mp4": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "vp8.webm": {"codec": "libvpx", "options": {"g": "12", "auto-alt-ref": "1"}},
}
PICKS = [{0}, {74}, {11, 12, 13}, {10}, {24, 60}, {3, 17, 18, 35, 36, 37, 47, 71}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reader")


def written(folder, name, **how):
    path = folder / name
    if not path.exists():
        try:
            write(path, **how)
        except av.codec.codec.UnknownCodecError:
            pytest.skip(f"PyAV was built without {how['codec']}")
    return path


@pytest.mark.parametrize("name", VIDEOS)
def test_frames_by_index_are_those_of_a_pass_from_the_start(folder, name):
    path = written(folder, name, **VIDEOS[name])
    expected = list(video.frames(path, fps="all"))
    with video.Reader(path) as reader:
        assert reader.seeks
        np.testing.assert_array_equal(reader.time_s, [frame.time_s for frame in expected])
        assert reader.info.frames == len(expected)
        for pick in PICKS:
            got = list(reader.read(pick))
            assert [frame.index for frame in got] == sorted(pick)
            for frame in got:
                assert frame.time_s == expected[frame.index].time_s
                np.testing.assert_array_equal(frame.image, expected[frame.index].image)
        assert [frame.index for frame in reader.read(range(COUNT))] == list(range(COUNT))


@pytest.mark.parametrize("name", WHOLE)
def test_other_files_are_decoded_from_the_start(folder, name):
    path = written(folder, name, **WHOLE[name])
    expected = list(video.frames(path, fps="all"))
    with video.Reader(path) as reader:
        assert not reader.seeks
        with pytest.raises(RuntimeError, match="sample"):
            _ = reader.time_s
        first = [frame.index for frame in reader.sample(5.0)]
        assert first == list(range(0, COUNT, 5))
        assert reader.time_s.tolist() == [frame.time_s for frame in expected]
        for frame in reader.read({3, 40}):
            np.testing.assert_array_equal(frame.image, expected[frame.index].image)
        assert reader.info.frames == COUNT


def test_a_header_that_states_too_few_frames_hides_none(folder, monkeypatch):
    path = written(folder, "vp8.webm", **WHOLE["vp8.webm"])
    with video.Reader(path) as reader:
        few = dataclasses.replace(reader.info, frames=10, exact_frames=False)
        monkeypatch.setattr(video.Reader, "info", property(lambda self: few))
        assert [frame.index for frame in reader.read({COUNT - 1})] == [COUNT - 1]


@pytest.mark.parametrize("name", ["open.mp4", "hevc_open.mp4", "vp9.webm", "irregular.mp4"])
def test_times_and_key_frames_agree_with_ffprobe(folder, name):
    if shutil.which("ffprobe") is None:
        pytest.skip("ffprobe is not installed")
    path = written(folder, name, **VIDEOS[name])
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-of", "csv=p=0"]
    command += ["-show_entries", "frame=key_frame,best_effort_timestamp_time", str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    key, time_s = zip(*(line.strip(",").split(",")[:2] for line in lines), strict=True)
    timeline = read_timeline(path)
    times = np.array(time_s, float)
    np.testing.assert_allclose(timeline.time_s, times - times[0], atol=2e-6)
    assert timeline.key.tolist() == [flag == "1" for flag in key]


def test_the_effort_of_a_frame_is_what_is_decoded_for_it(folder):
    path = written(folder, "closed.mp4", **VIDEOS["closed.mp4"])
    with av.open(str(path)) as container:
        # Rank in the file by time: the order of decoding, told by the packets alone.
        stamps = [packet.pts for packet in container.demux(video=0) if packet.size]
    rank = np.argsort(stamps)
    with video.Reader(path) as reader:
        stretch, depth = reader.effort
    np.testing.assert_array_equal(stretch, np.arange(COUNT) // 12)
    np.testing.assert_array_equal(depth, rank - 12 * stretch + 1)


def test_a_frame_shown_before_its_key_frame_is_decoded_from_the_one_before(folder):
    path = written(folder, "open.mp4", **VIDEOS["open.mp4"])
    timeline = read_timeline(path)
    with video.Reader(path) as reader:
        stretch, depth = reader.effort
    key = np.flatnonzero(timeline.key)
    following = np.append(key, COUNT)[np.searchsorted(key, np.arange(COUNT), "right")]
    last = np.append(timeline.position, COUNT)[following]
    leading = np.flatnonzero(timeline.position > last)
    assert len(leading)  # the encoder made some
    for i in leading:
        assert key[stretch[i]] < i < key[stretch[i] + 1]
        # Its key frame, all up to the next one, and that too come first.
        assert depth[i] > last[i] - timeline.position[key[stretch[i]]] + 1


def test_a_sample_takes_a_frame_of_each_slot_and_key_frames_first(folder):
    path = written(folder, "closed.mp4", **VIDEOS["closed.mp4"])
    timeline = read_timeline(path)
    assert np.flatnonzero(timeline.key).tolist() == [0, 12, 24, 36, 48, 60, 72]
    with video.Reader(path) as reader:
        # Slots of 0.4 s, ten frames: the key frame where there is one, else the first.
        assert [f.index for f in reader.sample(2.5)] == [0, 12, 24, 36, 48, 50, 60, 72]
        assert [f.index for f in reader.sample(1000.0)] == list(range(COUNT))


def test_the_threads_change_nothing(folder, monkeypatch):
    path = written(folder, "b_pyramid.mp4", **VIDEOS["b_pyramid.mp4"])
    pixels = []
    for cores in (1, 2, 5):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        with video.Reader(path, max_side=48) as reader:
            pixels.append([frame.image for frame in reader.read(PICKS[-1])])
    np.testing.assert_array_equal(pixels[0], pixels[1])
    np.testing.assert_array_equal(pixels[0], pixels[2])


def test_grab_is_full_size_and_names_a_frame_that_is_not_there(folder):
    path = written(folder, "closed.mp4", **VIDEOS["closed.mp4"])
    with video.Reader(path, max_side=16) as reader:
        assert reader.grab({5, 74})[74].shape == (64, 96, 3)
        assert reader.grab(set()) == {}
        with pytest.raises(CarjaxError, match="has no frame 75"):
            reader.grab({75})


def test_a_reader_may_be_left_in_the_middle(folder):
    path = written(folder, "closed.mp4", **VIDEOS["closed.mp4"])
    with video.Reader(path) as reader:
        frames = reader.read(range(COUNT))
        assert next(frames).index == 0
        frames.close()
        assert next(reader.read({30})).index == 30


def test_frames_of_a_long_stretch_come_one_by_one(folder, monkeypatch):
    monkeypatch.setattr("carjax.video.reader._MANY", 8)
    rendered = []
    render = Renderer.render
    monkeypatch.setattr(
        Renderer, "render", lambda self, *words: rendered.append(1) or render(self, *words)
    )
    path = written(folder, "one_key.mp4", **VIDEOS["one_key.mp4"])
    with video.Reader(path) as reader:
        rendered.clear()  # that of `probe`
        frames = reader.read(range(COUNT))
        for i in range(10):
            assert next(frames).index == i
            assert len(rendered) <= i + 1 + 8
        # Another call does not wait for this one.
        assert [frame.index for frame in reader.read({3, 70})] == [3, 70]
        assert [frame.index for frame in frames] == list(range(10, COUNT))


@pytest.mark.parametrize(("name", "cores", "free"), [("one_key.mp4", 2, 35), ("closed.mp4", 1, 16)])
def test_decoding_stops_in_the_middle_of_a_stretch(folder, monkeypatch, name, cores, free):
    """Of one long stretch, and of one of many: closed.mp4 has a key frame for each 12 frames."""
    packets, stops, told, checked = [], [], [], reader_module._Stretches._checked
    read = reader_module._Stretches.read

    def noted(self, row, wanted, sides, stop):
        stops.append(stop)
        return read(self, row, wanted, sides, stop)

    def gated(self, packet):
        packets.append(packet)
        if len(packets) > free:
            told.append(stops[0].wait(60))
        return checked(self, packet)

    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(reader_module._Stretches, "read", noted)
    monkeypatch.setattr(reader_module._Stretches, "_checked", gated)
    path = written(folder, name, **VIDEOS[name])
    with video.Reader(path) as reader:
        frames = reader.read({0, *range(11, COUNT, 12)})
        assert next(frames).index == 0
        frames.close()
        assert len(packets) <= free + 2
        assert all(told)
        monkeypatch.undo()
        assert [frame.index for frame in reader.read({5, 70})] == [5, 70]


def test_interlaced_frames_are_not_believed(folder):
    path = written(folder, "fields.mp4", **x264(**{"x264-params": "tff=1"}))
    with video.Reader(path) as reader, pytest.raises(video.UnprovenIndexError, match="interlaced"):
        list(reader.read({30}))
    with video.Reader(path, seek=False) as reader:
        assert [frame.index for frame in reader.read({30})] == [30]


def test_a_file_whose_pictures_are_damaged_is_not_believed(folder):
    whole = written(folder, "closed.mp4", **VIDEOS["closed.mp4"])
    with av.open(str(whole)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    data = bytearray(whole.read_bytes())
    data[packets[30].pos + 4 : packets[30].pos + packets[30].size] = bytes(packets[30].size - 4)
    path = folder / "damaged.mp4"
    path.write_bytes(data)
    with video.Reader(path) as reader, pytest.raises(video.UnprovenIndexError):
        list(reader.read(range(24, 40)))


def test_a_cut_file_that_seeks_says_so_as_a_whole_pass_does(folder):
    whole = written(folder, "whole.mkv", **x264(g="12"))
    with video.Reader(whole) as reader:
        assert reader.warnings == []
    data = whole.read_bytes()
    path = folder / "cut.mkv"
    path.write_bytes(data[: len(data) * 6 // 10])
    with video.Reader(path) as reader:
        assert reader.seeks
        (line,) = reader.warnings
        assert line.startswith("the picture ends at")
    decoder = video.Decoder(path, fps="all")
    collections.deque(decoder, maxlen=0)
    assert line in decoder.warnings


def test_a_cut_file_has_the_frames_that_are_left(folder):
    whole = written(folder, "first.mp4", **x264(), mux={"movflags": "faststart"})
    data = whole.read_bytes()
    path = folder / "cut.mp4"
    path.write_bytes(data[: len(data) * 6 // 10])
    with video.Reader(path) as reader:
        assert not reader.seeks
        frames = [frame.index for frame in reader.sample(1000.0)]
        assert frames == list(range(len(frames)))
        assert 20 < len(frames) < COUNT
        assert reader.info.frames == len(frames)
        assert "of 75 frames" in reader.warnings[0]


@pytest.mark.parametrize("name", ["closed.mp4", "irregular.mp4", "b_pyramid.mp4", "open.mkv"])
def test_the_length_is_that_of_a_whole_pass(folder, name):
    path = written(folder, name, **VIDEOS[name])
    decoder = video.Decoder(path, fps="all")
    collections.deque(decoder, maxlen=0)
    with video.Reader(path) as reader:
        assert reader.info.duration_s == pytest.approx(decoder.info.duration_s, abs=2e-3)


def test_grab_keeps_to_the_longest_sides_that_are_named(folder):
    path = written(folder, "closed.mp4", **VIDEOS["closed.mp4"])
    for seek in (True, False):
        with video.Reader(path, seek=seek) as reader:
            images = reader.grab({5, 74}, max_sides={74: 48})
            assert (images[5].shape, images[74].shape) == ((64, 96, 3), (32, 48, 3))


def test_a_sample_survives_rounded_times(folder):
    """Matroska rounds to 1 ms: at 30 a second, 0.033 lies in the second slot."""
    path = written(folder, "thirty.mkv", **x264(), ticks=[20 * i for i in range(COUNT)])
    with video.Reader(path) as reader:
        assert reader.seeks
        assert [frame.index for frame in reader.sample(30.0)] == list(range(COUNT))


def test_frames_hidden_by_an_edit_list_are_not_counted(folder):
    whole = written(folder, "closed.mp4", **VIDEOS["closed.mp4"])
    data = bytearray(whole.read_bytes())
    at = data.index(b"elst") + 16
    start = int.from_bytes(data[at : at + 4], "big")
    timescale_at = data.index(b"mdhd") + 16
    timescale = int.from_bytes(data[timescale_at : timescale_at + 4], "big")
    data[at : at + 4] = (start + timescale // 5).to_bytes(4, "big")  # begins 0.2 s in
    path = folder / "edited.mp4"
    path.write_bytes(data)
    expected = list(video.frames(path, fps="all"))
    assert len(expected) == COUNT - 5
    with video.Reader(path) as reader:
        frames = list(reader.sample(1000.0))
        assert reader.info.frames == len(expected)
    assert [frame.index for frame in frames] == list(range(len(expected)))
    for got, want in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(got.image, want.image)


def test_a_file_that_begins_with_frames_of_a_lost_stretch_is_not_believed(folder):
    whole = written(folder, "open.mkv", **VIDEOS["open.mkv"])
    path = folder / "begins_late.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [p for p in source.demux(video=0) if p.size]
        late = [i for i, p in enumerate(packets) if p.is_keyframe][1]
        assert min(p.pts for p in packets[late:]) < packets[late].pts  # shown before the key frame
        for packet in packets[late:]:
            packet.stream = stream
            target.mux(packet)
    expected = list(video.frames(path, fps="all"))
    with video.Reader(path) as reader:
        frames = list(reader.sample(1000.0))
    assert [frame.index for frame in frames] == [frame.index for frame in expected]
    for got, want in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(got.image, want.image)


def test_a_reader_that_is_dropped_is_closed(tmp_path):
    reader = video.Reader(write(tmp_path / "a.mp4", options={"g": "12"}))
    assert len(list(reader.sample(1))) == 3
    reader.grab({3})
    dropped, pool = weakref.ref(reader), reader._pool
    del reader
    latest = time.monotonic() + 20
    while dropped() is not None and time.monotonic() < latest:
        gc.collect()
        time.sleep(0.01)  # a thread of the pool may be about to let it go
    assert dropped() is None
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(print)


def test_a_reader_whose_own_thread_lets_it_go_last_is_closed(tmp_path):
    reader = video.Reader(write(tmp_path / "a.mp4", options={"g": "12"}))
    assert len(list(reader.sample(1))) == 3
    assert any(not files.empty() for files in reader._idle.values())
    reader._pool.submit(reader.close).result(20)
    assert all(files.empty() for files in reader._idle.values())
