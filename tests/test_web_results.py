"""A finished job's folder: what edits leave as it was, and what follows from them."""

import dataclasses
import datetime
import json
import shutil
import types

import av
import numpy as np
import pytest
import test_video
import walk
from test_listing import exif_of, tags

from carjax import pictures, pipeline, video
from carjax.attributes import CAR
from carjax.errors import UsageError
from carjax.listing import photos
from carjax.report.series import series
from carjax.web import results

FRAMES, RATE = 32, 4
PHOTO, SMALL = "out/photos/doors.jpg", "small/doors.jpg"
SIZE = (1280, 720)
EVERY = {"g": "1"}  # frame is a key frame
# Around the dots of the video, left of the middle; each side is a whole number of pixels.
BOX = (0.225, 0.45, 0.05, 0.1)


@pytest.fixture(scope="module")
def table():
    return walk.table(FRAMES, RATE, seed=1)


@pytest.fixture(scope="module")
def finished(table, tmp_path_factory):
    """The folder of a job as the server makes it, with one photo: that of the doors."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "video").mkdir()
    source = folder / "video" / "walk.mov"
    walk.write(source, FRAMES, SIZE, RATE, metadata=walk.PRIVATE)
    origin = {"backbone": "none", "bundle": "none", "version": "0"}
    shell = types.SimpleNamespace(
        spec=types.SimpleNamespace(unknown_above={}, schema=CAR), origin=origin
    )
    with pytest.MonkeyPatch.context() as patch:
        decoder = video.Decoder(source, fps="all")
        patch.setattr(pipeline, "score_video", lambda *words, **rest: (table, decoder))
        options = pipeline.Options(attributes=("doors",), strip_paths=True, temporal="none")
        pipeline.select(shell, source, folder / "out", options)
    results.publish_first(folder)
    return folder


@pytest.fixture
def job(finished, tmp_path):
    """The folder of a job that nobody has edited yet."""
    return shutil.copytree(finished, tmp_path / "job")


def read(job, name):
    return json.loads((job / name).read_text())


def doors(job):
    return read(job, "out/selection.json")["attributes"]["doors"]


def picture(job, path=PHOTO):
    return pictures.decoded((job / path).read_bytes()).astype(int)


def test_a_blur_stays_where_it_is_when_the_photos_are_cut(job, table):
    frame = doors(job)["frame"]
    before = picture(job)
    results.redact(job, frame, [BOX])
    whole = picture(job)
    area = photos.crop_area(table.box[table.row_of(frame)], *SIZE, 4 / 3)
    dots = (slice(324, 396), slice(288, 352))
    assert np.abs(whole - before)[dots].mean() > 20
    assert area.left < 288
    assert area.top < 324

    results.crop(job, "4:3")
    cut = picture(job)
    assert cut.shape == area.of(whole).shape
    assert np.abs(cut - area.of(whole)).max() < 40
    assert np.abs(picture(job, SMALL) - cut).max() < 40  # it needs no shrinking
    details = read(job, "details.json")
    assert (details["crop"], details["boxes"]) == ("4:3", {str(frame): [list(BOX)]})

    results.redact(job, frame, [])
    assert np.abs(picture(job) - area.of(before)).max() < 40
    results.crop(job, "none")
    details = read(job, "details.json")
    assert (details["crop"], details["boxes"]) == ("none", {})
    assert (job / PHOTO).read_bytes() == (job / "original" / f"{frame}.jpg").read_bytes()


def test_a_frame_that_no_photo_shows_is_not_blurred(job):
    other = doors(job)["frame"] + 1
    with pytest.raises(UsageError, match=f"no photo is of frame {other}"):
        results.redact(job, other, [BOX])
    assert read(job, "details.json")["boxes"] == {}


def test_small_pictures_of_a_large_frame_are_960_wide(job):
    assert picture(job).shape == (720, 1280, 3)
    assert picture(job, SMALL).shape == (540, 960, 3)


def test_the_frames_of_photos_are_there_before_the_video_is_decoded_again(job):
    choice = doors(job)
    frames = [choice["frame"], choice["alternatives"][0]["frame"]]
    results.redact(job, frames[0], [BOX])
    results.swap_photo(job, "doors", frames[1])
    assert sorted(path.name for path in (job / "frames").iterdir()) == sorted(
        f"{frame}.jpg" for frame in frames
    )
    for frame in frames:
        whole = picture(job, f"original/{frame}.jpg")
        small = picture(job, f"frames/{frame}.jpg")
        assert small.shape == (360, 640, 3)
        # What is blurred, is chosen on the picture without blur.
        assert np.abs(small - whole.reshape(360, 2, 640, 2, 3).mean((1, 3))).mean() < 3


@pytest.mark.parametrize("seek", [True, False])
def test_frames_are_those_that_were_scored_where_packets_are_lost(tmp_path, monkeypatch, seek):
    """A reader that seeks counts the lost packet, one that decodes from the start does not."""
    (tmp_path / "video").mkdir()
    path = test_video.write(tmp_path / "video" / "walk.mp4", test_video.steady(24), options=EVERY)
    with av.open(str(path)) as container:
        lost = [packet for packet in container.demux(video=0) if packet.size][8]
    data = bytearray(path.read_bytes())
    data[lost.pos + 4 : lost.pos + lost.size] = bytes(lost.size - 4)
    path.write_bytes(data)
    wanted = [0, 5, 16, 20]
    with video.Reader(path, seek=seek) as reader:
        scored = {frame.index: frame for frame in reader.read(wanted)}
        assert reader.seeks is seek
    assert scored[20].time_s == pytest.approx(2.0 if seek else 2.1)
    table = dataclasses.replace(
        walk.table(24).take(wanted), time_s=np.array([scored[i].time_s for i in wanted])
    )
    monkeypatch.setattr(results, "_read", lambda folder: ({}, table))
    results.small_frames(tmp_path)
    for index, frame in scored.items():
        shown = pictures.decoded((tmp_path / "frames" / f"{index}.jpg").read_bytes())
        np.testing.assert_allclose(shown, frame.image, atol=3)


@pytest.mark.parametrize("edit", ["blur", "swap"])
def test_an_edited_photo_carries_the_time_of_its_frame(job, table, edit):
    choice = doors(job)
    if edit == "blur":
        results.redact(job, choice["frame"], [BOX])
    else:
        results.swap_photo(job, "doors", choice["alternatives"][0]["frame"])
        assert doors(job)["frame"] != choice["frame"]
    began = datetime.datetime(2023, 5, 1, 12, tzinfo=datetime.UTC)
    after = float(table.time_s[table.row_of(doors(job)["frame"])])
    assert after >= 1
    taken = began + datetime.timedelta(seconds=after)
    found = tags(exif_of((job / PHOTO).read_bytes(), "jpg"))
    assert found[0x9003] == taken.strftime("%Y:%m:%d %H:%M:%S")
    assert found[0x9291] == f"{taken.microsecond // 1000:03d}"


def test_directions_know_of_their_neighbours_where_the_selection_does(job, table, monkeypatch):
    """The file has what frames say alone."""

    def smoothed(table):
        return dataclasses.replace(table, azimuth_deg=table.azimuth_deg[::-1])

    monkeypatch.setattr("carjax.selection.smoothing.smoothed", smoothed)
    content = read(job, "out/selection.json")
    for temporal, expected in (("none", table), ("filter", smoothed(table))):
        (job / "out/selection.json").write_text(json.dumps(content | {"temporal": temporal}))
        results.crop(job, "16:9")
        shown = read(job, "details.json")["series"]["azimuth_deg"]
        assert shown == series(expected)["azimuth_deg"]


def test_a_reader_with_fewer_frames_than_were_scored_is_not_believed():
    scored = types.SimpleNamespace(frame=np.array([0, 3]), time_s=np.array([0.0, 0.3]))
    for count, same in ((3, False), (4, True)):
        reader = types.SimpleNamespace(time_s=np.arange(count) / 10)
        assert results._numbers(reader, scored) is same
