"""What each kind of source yields, and what it says when it is broken."""

import bz2
import errno
import gzip
import io
import lzma
import os
import pathlib

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import score_files as files

from carjax.errors import CarjaxError
from carjax.sources import expand, local, readers, stills, tables
from carjax.sources.base import Problem


def read(path, fps="all"):
    """(source, frame) of every frame, and (source, reason) of every problem."""
    items = list(readers.read(expand.source(str(path)), fps))
    problems = [(item.source, item.reason) for item in items if isinstance(item, Problem)]
    return [(i.source, i.frame) for i in items if not isinstance(i, Problem)], problems


# --- names ---------------------------------------------------------------------------------------


def names(*words):
    sources, problems = expand.expand([str(word) for word in words])
    return [source.name for source in sources], [problem.source for problem in problems]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "a.mp4",
        "b/c.JPG",
        "b/d/e.mov",
        "b/.hidden/f.jpg",
        "b/.g.jpg",
        "b/h.txt",
        "[1].mp4",
    ):
        path = pathlib.Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def test_folders_patterns_and_files(tree):
    assert names("b") == (["b/c.JPG", "b/d/e.mov"], [])
    assert names("**/*.mov", "a.mp4", "a.mp4") == (["a.mp4", "b/d/e.mov"], [])
    assert names("b/*") == (["b/c.JPG", "b/d/e.mov", "b/h.txt"], [])
    assert names("a.mp4", "./a.mp4", str(tree / "a.mp4"), "b/../a*") == (["a.mp4"], [])
    pathlib.Path("list.txt").write_text("a.mp4\n# no more\n", encoding="utf-8-sig")
    assert names("@list.txt") == (["a.mp4"], [])
    assert names("[1].mp4") == (["[1].mp4"], [])  # a file of that name, not a pattern
    assert names("*.avi", "none.mp4") == (["none.mp4"], ["*.avi"])


def test_a_folder_s_shards_are_found_however_they_are_packed(tree, memory):
    kinds = ("tar", "tgz", "tar.gz", "tar.bz2", "TAR.XZ")
    shards = sorted(f"shards/{i}.{kind}" for i, kind in enumerate(kinds))
    pathlib.Path("shards").mkdir()
    for name in (*shards, "shards/labels.csv.gz"):
        pathlib.Path(name).write_bytes(b"x")
        memory.pipe_file(f"/{name}", b"x")
    assert names("shards") == (shards, [])
    assert names("memory://shards") == ([f"memory:///{name}" for name in shards], [])


def test_a_folder_that_cannot_be_listed_is_told_and_the_rest_counts(tree, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path) == "b/d":
            raise PermissionError(13, "Permission denied", "b/d")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names("b") == (["b/c.JPG"], ["b/d"])
    assert names("b/d") == ([], ["b/d"])


def test_a_link_to_a_folder_around_it_adds_nothing(tree):
    pathlib.Path("b/latest").symlink_to(".")
    pathlib.Path("b/d/up").symlink_to("../..")
    assert names("b") == (["b/c.JPG", "b/d/e.mov"], [])
    pathlib.Path("b/more").symlink_to(tree / "far")
    (tree / "far").mkdir()
    (tree / "far" / "x.png").write_bytes(b"x")
    assert names("b") == (["b/c.JPG", "b/d/e.mov", "b/more/x.png"], [])


def test_names_that_are_no_utf8_can_be_written(tree):
    path = os.fsencode(tree) + b"/b/\xff.jpg"
    with open(path, "wb") as file:
        file.write(files.picture(0))
    sources, _ = expand.expand(["b"])
    [odd] = [source for source in sources if "xff" in source.name]
    assert odd.name.encode() == b"b/\\xff.jpg"
    assert len(list(readers.read(odd, "all"))) == 1


def test_a_file_of_the_same_size_that_was_changed_is_another(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"one")
    os.utime(path, ns=(0, 1_000))
    before = expand.source(str(path)).fingerprint()
    assert expand.source(str(path)).fingerprint() == before
    path.write_bytes(b"two")
    os.utime(path, ns=(0, 2_000))
    assert expand.source(str(path)).fingerprint() != before


def test_a_file_that_may_not_be_read_is_told_as_such(tmp_path, monkeypatch):
    def refuse(self, size):
        raise PermissionError(13, "Permission denied", self.path)

    monkeypatch.setattr(local.LocalFile, "head", refuse)
    with pytest.raises(CarjaxError, match=r"^no permission to read it$"):
        read(tmp_path / "a.jpg")


# --- pictures ------------------------------------------------------------------------------------


def test_a_picture_is_upright_and_its_colours_are_right():
    image = np.zeros((480, 640, 3), np.uint8)
    image[:, :320] = (200, 30, 40)
    found = stills.decode(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
    np.testing.assert_array_equal(found, image)
    # EXIF orientation 6: the picture was taken with the phone upright.
    jpeg = cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    turned = stills.decode(jpeg[:2] + segment + jpeg[2:])
    assert turned.shape == (640, 480, 3)
    assert turned[:300, :, 0].mean() > 150 > 100 > turned[340:, :, 0].mean()


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_large_jpeg_decoded_small_is_the_one_decoded_whole(factor, reduced):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (12, 16, 3), np.uint8)
    image = cv2.resize(
        coarse, (640 * factor + 32, 480 * factor + 24), interpolation=cv2.INTER_CUBIC
    )
    data = cv2.imencode(".jpg", image)[1].tobytes()
    whole = cv2.resize(cv2.imdecode(np.frombuffer(data, np.uint8), 1), (640, 480), None, 0, 0, 3)
    found = stills.decode(data)
    assert np.abs(found[..., ::-1].astype(int) - whole).mean() < 1
    assert reduced[-1] == 8 * factor + 1  # IMREAD_REDUCED_COLOR_2, _4, _8 are 17, 33, 65


@pytest.fixture
def reduced(monkeypatch):
    """The flags that pictures were decoded with."""
    flags, decode = [], cv2.imdecode
    monkeypatch.setattr(
        stills.cv2, "imdecode", lambda data, flag: flags.append(flag) or decode(data, flag)
    )
    return flags


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".avif"])
def test_a_picture_is_told_from_a_video_by_its_bytes(tmp_path, extension):
    path = tmp_path / "a.mp4"
    path.write_bytes(files.picture(1, (200, 300), extension))
    assert readers.kind_of(expand.source(str(path))) == "still"
    assert read(path) == ([(str(path), 0)], [])


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
def test_a_picture_that_is_cut_or_damaged_is_refused(extension):
    data = files.picture(1, (200, 300), extension)
    assert stills.decode(data).shape == (200, 300, 3)
    for wrong in (b"", data[:10], data[: len(data) // 2]):
        with pytest.raises(CarjaxError):
            stills.decode(wrong)


def test_a_jpeg_may_have_bytes_after_its_end_and_an_end_in_its_thumbnail():
    data = files.picture(1)
    thumbnail = b"\xff\xe2" + (len(data) + 2).to_bytes(2, "big") + data
    stills.decode(data[:2] + thumbnail + data[2:] + b"\0more" * 100)
    with pytest.raises(CarjaxError, match="cut short"):
        stills.decode(data[:2] + thumbnail + data[2:-2])


# --- archives ------------------------------------------------------------------------------------


def test_shards_that_webdataset_writes(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path / "shard-0.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for i in (2, 0, 1):
            writer.write({"__key__": f"{i:03d}", "jpg": files.picture(i), "json": {"i": i}})
    assert read(path) == ([(f"{path}/{i:03d}.jpg", 0) for i in range(3)], [])
    packed = tmp_path / "shard-1.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert len(read(packed)[0]) == 3


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_an_archive_is_known_by_its_bytes(tmp_path, pack):
    path = tmp_path / "shard"
    path.write_bytes(pack(files.tar_bytes([("a.jpg", files.picture(0))])))
    assert read(path) == ([(f"{path}/a.jpg", 0)], [])


def test_of_two_members_of_one_name_the_later_counts(tmp_path):
    """As `tar` unpacks them: it appends what was changed."""
    path = tmp_path / "x.tar"
    path.write_bytes(files.tar_bytes([("a.jpg", files.picture(i)) for i in range(2)]))
    [sample] = readers.read(expand.source(str(path)), "all")
    np.testing.assert_array_equal(sample.image, stills.decode(files.picture(1)))


def test_videos_in_an_archive_and_an_archive_that_is_cut(tmp_path):
    video = files.write_video(tmp_path / "v.mp4", 4).read_bytes()
    members = [("a.jpg", files.picture(0)), ("b.mp4", video), ("z.jpg", files.picture(1))]
    data = files.tar_bytes(members)
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    whole = [(f"{path}/a.jpg", 0), *((f"{path}/b.mp4", i) for i in range(4))]
    assert read(path) == ([*whole, (f"{path}/z.jpg", 0)], [])
    path.write_bytes(data[: data.index(members[2][1]) + 20])
    assert read(path) == (whole, [(str(path), "the archive is cut short; copy it again")])


def test_a_member_whose_name_is_no_utf8_can_be_written(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(files.tar_bytes([(os.fsdecode(b"K\xe4fer.jpg"), files.picture(0))]))
    assert read(path) == ([(f"{path}/K\\xe4fer.jpg", 0)], [])
    read(path)[0][0][0].encode()


def test_a_full_disk_is_no_fault_of_the_archive(tmp_path, monkeypatch):
    """The source fails, and is tried again; nothing of it counts as whole."""
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(files.tar_bytes([("a.jpg", files.picture(0))])))

    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    opened = pathlib.Path.open
    monkeypatch.setattr(
        pathlib.Path,
        "open",
        lambda self, mode="r", **more: Full() if mode == "wb" else opened(self, mode, **more),
    )
    with pytest.raises(CarjaxError, match="No space left"):
        read(path)


def test_of_damaged_deflate_data_what_is_whole_counts(tmp_path):
    noise = np.random.default_rng(0).bytes(200_000)
    members = [("a.jpg", files.picture(0)), ("b.txt", noise), ("c.jpg", files.picture(1))]
    packed = bytearray(gzip.compress(files.tar_bytes(members)))
    middle = len(packed) // 2
    packed[middle : middle + 2000] = bytes([255]) * 2000
    path = tmp_path / "x.tar.gz"
    path.write_bytes(packed)
    found, problems = read(path)
    assert found[0] == (f"{path}/a.jpg", 0)
    assert problems


@pytest.mark.parametrize("data", [b"text" * 200, b"\x1f\x8b no gzip"])
def test_what_is_no_archive(tmp_path, data):
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(CarjaxError, match=r"tar archive|no picture"):
        read(tmp_path / "x.tar")


# --- tables --------------------------------------------------------------------------------------


def test_a_column_as_hugging_face_writes_it(tmp_path):
    images = [{"bytes": files.picture(i), "path": f"{i}.jpg"} for i in range(3)]
    images[1] = None
    pq.write_table(pa.table({"image": images, "hash": [b"1", b"2", b"3"]}), tmp_path / "t.parquet")
    path = str(tmp_path / "t.parquet")
    assert read(path) == ([(path, 0), (path, 2)], [(path, "row 1: no picture")])


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"name": pa.string()}, "no column"),
        ({"a": pa.binary(), "b": pa.binary()}, "more than one"),
        ({"image": pa.binary(), "photo": pa.binary()}, "more than one"),
    ],
)
def test_a_table_without_one_column_of_pictures(schema, says):
    with pytest.raises(CarjaxError, match=says):
        tables.image_column(pa.schema(list(schema.items())))


def test_a_table_that_is_cut(tmp_path):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": [files.picture(0)]}), buffer)
    (tmp_path / "t.parquet").write_bytes(buffer.getvalue()[:-30])
    with pytest.raises(CarjaxError, match="Parquet"):
        read(tmp_path / "t.parquet")


# --- URLs ----------------------------------------------------------------------------------------


@pytest.fixture
def memory():
    fsspec = pytest.importorskip("fsspec")
    files_ = fsspec.filesystem("memory")
    files_.store.clear()
    yield files_
    files_.store.clear()


def test_a_bucket_is_listed_and_read(memory, tmp_path):
    memory.pipe_file("/walks/a.mp4", files.write_video(tmp_path / "a.mp4", 3).read_bytes())
    memory.pipe_file("/walks/deep/b.jpg", files.picture(0))
    memory.pipe_file("/walks/notes.txt", b"text")
    urls = ["memory://walks/a.mp4", "memory://walks/deep/b.jpg"]
    listed = [name.replace("memory:///", "memory://") for name in names("memory://walks")[0]]
    assert listed == urls
    assert len(names("memory://walks/*.mp4")[0]) == 1
    assert names("memory://none/*.mp4") == ([], ["memory://none/*.mp4"])
    assert read(urls[0])[0] == [(urls[0], i) for i in range(3)]
    assert read(urls[1])[0] == [(urls[1], 0)]
    before = expand.source(urls[1]).fingerprint()
    memory.pipe_file("/walks/deep/b.jpg", files.picture(1) + b" ")
    assert expand.source(urls[1]).fingerprint() != before


def test_a_web_server_is_read(tmp_path):
    pytest.importorskip("aiohttp")
    video = files.write_video(tmp_path / "a.mp4", 3).read_bytes()
    with files.Server({"/a.mp4": video, "/b.jpg?size=1": files.picture(0)}) as server:
        assert len(read(f"{server.url}/a.mp4")[0]) == 3
        assert len(read(f"{server.url}/b.jpg?size=1")[0]) == 1  # no pattern
        before = expand.source(f"{server.url}/a.mp4").fingerprint()
        assert before.startswith(f"{len(video)}:")
        server.files["/a.mp4"] = bytes(len(video))  # of that size, with another entity tag
        assert expand.source(f"{server.url}/a.mp4").fingerprint() != before
        with pytest.raises(CarjaxError, match="no such file"):
            read(f"{server.url}/none.mp4")
