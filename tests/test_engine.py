"""The parts of a scoring run, each alone: queues, batches, rows, parts and their joining."""

import contextlib
import dataclasses
import pathlib
import shutil
import sys
import threading
import weakref

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carjax.channel import Channel
from carjax.engine import join, manifest, on_ray, output, rows, run, run_files, store
from carjax.engine.batching import Buffers, batches
from carjax.engine.feed import Decoded, End, Feed, fingerprint_of
from carjax.engine.manifest import Commit, Record
from carjax.errors import CarjaxError, UsageError
from carjax.sources import expand
from carjax.sources.base import Problem, Sample

SCHEMA = pa.schema([("source", pa.string()), ("frame", pa.int64())])


def frame(unit, row, shape=(4, 6)):
    return Decoded(
        unit, row, Sample(f"{unit}", row, 0.0, np.full((*shape, 3), row % 251, np.uint8))
    )


# --- channel, feed -------------------------------------------------------------------------------


def test_a_channel_holds_no_more_than_its_depth():
    channel, put = Channel(3), []
    writer = threading.Thread(target=lambda: [put.append(i) for i in range(50) if channel.put(i)])
    writer.start()
    taken = []
    for item in channel:
        taken.append(item)
        assert len(put) <= len(taken) + 3
        if item == 49:
            channel.finish()
    writer.join()
    assert taken == list(range(50))


def test_a_channel_that_is_shut_frees_its_writers_and_passes_failures_on():
    channel = Channel(1)
    assert channel.put(1)
    writer = threading.Thread(target=channel.put, args=(2,))
    writer.start()
    channel.shut()
    writer.join()
    assert not channel.put(3)
    failing = Channel(2)
    failing.put(1)
    failing.finish(ValueError("why"))
    items = iter(failing)
    assert next(items) == 1
    with pytest.raises(ValueError, match="why"):
        next(items)


def test_a_feed_can_be_left_and_survives_whatever_a_source_raises(tmp_path, monkeypatch):
    for i in range(30):
        (tmp_path / f"{i}.jpg").write_bytes(b"x")

    def read(one, fps, decoder):
        if one.path.endswith("3.jpg"):
            raise MemoryError
        for i in range(5):
            yield Sample(one.name, i, 0.0, np.zeros((2, 2, 3), np.uint8))

    monkeypatch.setattr("carjax.sources.readers.read", read)
    sources = [expand.source(str(path)) for path in sorted(tmp_path.iterdir())]
    with Feed(sources, "all", threads=4, depth=2) as feed:
        items = [item for item in feed if item is not None]
    ends = {item.unit: item for item in items if isinstance(item, End)}
    assert len(ends) == 30
    assert {end.failure for end in ends.values()} == {None, "MemoryError"}
    assert sum(isinstance(item, Decoded) for item in items) == 27 * 5
    with Feed(sources, "all", threads=4, depth=2) as feed:
        next(iter(feed))  # and the threads end


# --- batches -------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=60),
    st.integers(1, 7),
    st.integers(0, 20),
)
def test_every_frame_is_in_one_batch_of_its_size(steps, size, most):
    shapes = [(4, 6), (640, 4), (5, 5), (2, 200)]
    count, stream = {}, []
    for shape, unit in steps:
        stream.append(frame(unit, count.get(unit, 0), shapes[shape]))
        count[unit] = count.get(unit, 0) + 1
    waiting = 0
    seen = []
    buffers = Buffers(2)
    for batch in batches(iter(stream), size, buffers, most_waiting=most):
        assert len(batch.images) == size == len(batch.mask)
        assert batch.mask.sum() == len(batch.frames)
        for image, valid, one in zip(batch.images, batch.valid, batch.frames, strict=False):
            assert (image[: valid[0], : valid[1]] == one.row % 251).all()
        seen += [(one.unit, one.row) for one in batch.frames]
        waiting += len(batch.frames)
        buffers.give(batch.images)
    assert sorted(seen) == sorted((one.unit, one.row) for one in stream)


def test_rare_sizes_wait_but_not_for_ever():
    stream = [frame(9, 0, (9, 300)), *(frame(0, i) for i in range(1000))]
    found = [batch.frames[0].unit for batch in batches(stream, 10, Buffers(2), most_waiting=100)]
    assert 9 in found[:70]
    assert found[0] == 0
    idle = [frame(9, 0, (9, 300)), frame(0, 0), None, frame(0, 1)]
    sizes = [len(batch.frames) for batch in batches(idle, 10, Buffers(2), most_waiting=100)]
    assert sizes == [1, 1, 1]


def test_a_batch_beyond_the_memory_is_one_line():
    with pytest.raises(CarjaxError, match=r"frames of 640×360 .* a smaller --batch"):
        Buffers(1).take((10**12, 360, 640, 3))


def test_images_are_let_go_once_they_are_copied():
    kept = []

    def stream():
        for i in range(64):
            one = frame(0, i)
            kept.append(weakref.ref(one.sample.image))
            yield one

    buffers = Buffers(2)
    arrays = set()
    for batch in batches(stream(), 4, buffers, most_waiting=8):
        assert sum(ref() is not None for ref in kept) <= 6
        arrays.add(id(batch.images))
        buffers.give(batch.images)
    assert len(arrays) == 1  # one array, used again


# --- rows ----------------------------------------------------------------------------------------


def table(name, *frames):
    return pa.table({"source": [name] * len(frames), "frame": list(frames)}, SCHEMA)


@pytest.mark.parametrize("spilled", [True, False])
def test_rows_are_in_order_in_whatever_order_they_come(tmp_path, monkeypatch, spilled):
    if spilled:
        monkeypatch.setattr(rows, "_SPILL_ROWS", 3)
    collector = rows.Collector(tmp_path)
    assert collector.add(0, 2, table("a", 2, 3)) is None
    assert collector.end(End(0, 6, "", ())) is None
    assert collector.add(1, 0, table("b", 0)) is None
    assert collector.add(0, 0, table("a", 0, 1)) is None
    end, whole = collector.add(0, 4, table("a", 4, 5))
    assert end.unit == 0
    assert [f for t in whole.chunks() for f in t["frame"].to_pylist()] == list(range(6))
    whole.drop()
    assert list(tmp_path.iterdir()) == []
    assert collector.end(End(1, 1, "", ()))[1].first == "b"


@given(st.lists(st.integers(1, 7), min_size=1, max_size=12), st.randoms(), st.booleans())
def test_a_source_of_mixed_sizes_is_sorted_in_small_pieces(tmp_path_factory, runs, random, spilled):
    unit = rows.UnitRows(tmp_path_factory.mktemp("unit") / "spill")
    starts = np.cumsum([0, *runs])
    batches = [(start, range(start, start + n)) for start, n in zip(starts, runs, strict=False)]
    random.shuffle(batches)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_SPILL_ROWS", 5 if spilled else 10_000)
        for start, frames in batches:
            unit.add(start, table("a", *frames))
        pieces = [t["frame"].to_pylist() for t in unit.chunks()]
    assert [f for piece in pieces for f in piece] == list(range(starts[-1]))
    if spilled:
        assert max(map(len, pieces)) < 5 + 5 + max(runs)
    unit.drop()


# --- parts and their joining ---------------------------------------------------------------------


def test_what_could_not_be_written_is_not_said_to_be_done(tmp_path, monkeypatch):
    place = store.LocalStore(tmp_path)
    out = output.Output(
        place, "run", "run", tmp_path, output.Share(), SCHEMA, part_rows=99, checkpoint_s=1000
    )

    def add(name):
        unit = rows.UnitRows(tmp_path / "spill")
        unit.add(0, table(name, 0, 1))
        out.add(Record(name, "", 2, name), unit)

    with monkeypatch.context() as patch:

        def full(*_):
            raise OSError(28, "No space left on device")

        patch.setattr(store.LocalStore, "put", full)
        add("a")
        with pytest.raises((OSError, CarjaxError), match="No space left"):
            out.commit()
    assert out.commit() is None
    add("b")
    assert [record.source for record in out.commit().records] == ["b"]
    (commit,) = manifest.read_commits(place, "run", "run")
    ((part, count),) = commit.parts
    assert (manifest.numbers(part, "part"), count) == ((0, 0), 2)


def test_rows_that_do_not_arrive_are_told(tmp_path):
    place = store.LocalStore(tmp_path)
    out = output.Output(
        place, "run", "run", tmp_path, output.Share(), SCHEMA, part_rows=99, checkpoint_s=1000
    )
    unit = rows.UnitRows(tmp_path / "spill")
    unit.add(0, table("a", 0, 1))
    out.add(Record("a", "", 3, "a"), unit)
    with pytest.raises(CarjaxError, match="rows of 1 sources were lost"):
        out.commit()
    assert manifest.read_commits(place, "run", "run") == []
    commit = Commit("commit-0", (), (Record("a", "", 3, "a"),))
    read = (table for _, tables in join.rows_of(place, [("run", commit)]) for table in tables)
    with pytest.raises(CarjaxError, match="commit-0: its parts hold fewer rows"):
        list(read)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12),
    st.integers(1, 12),
    st.integers(0, 1000),
)
def test_parts_hold_every_row_once_sorted_and_join_to_one_file(
    tmp_path_factory, counts, most, seed
):
    folder = tmp_path_factory.mktemp("parts")
    place = store.LocalStore(folder)
    share = output.Share()
    out = output.Output(
        place, "run", "run", folder, share, SCHEMA, part_rows=most, checkpoint_s=1000
    )
    names = [f"{i:02d}" for i in range(len(counts))]
    order = np.random.default_rng(seed).permutation(len(counts))
    for i in order:
        unit = rows.UnitRows(folder / "spill")
        if counts[i]:
            unit.add(0, table(names[i], *range(counts[i])))
        out.add(Record(names[i], "", counts[i], names[i]), unit)
    out.commit()
    parts = [pq.read_table(p) for p in sorted((folder / "run").glob("part-*.parquet"))]
    assert all(0 < len(part) <= most for part in parts)
    assert all(
        part.equals(part.sort_by([("source", "ascending"), ("frame", "ascending")]))
        for part in parts
    )
    commits = [("run", commit) for commit in manifest.read_commits(place, "run", "run")]
    joined = []
    for _, tables in join.rows_of(place, commits):
        joined += [row for t in tables for row in t.to_pylist()]
    expected = [
        {"source": n, "frame": f} for n, c in zip(names, counts, strict=True) for f in range(c)
    ]
    assert joined == expected


def test_a_run_that_goes_on_counts_on_from_its_own_process(tmp_path):
    place = store.LocalStore(tmp_path)

    def put(process):
        share = output.Share(process, 2)
        out = output.Output(
            place, "run", "run", tmp_path, share, SCHEMA, part_rows=9, checkpoint_s=1000
        )
        unit = rows.UnitRows(tmp_path / "spill")
        unit.add(0, table("a", 0))
        out.add(Record("a", "", 1, "a"), unit)
        return out.commit()

    for process in (1, 0, 1, 1):
        put(process)
    for kind in ("part", "commit"):
        found = [manifest.numbers(name, kind) for name in place.names("run")]
        assert sorted(filter(None, found)) == [(0, 0), (1, 0), (1, 1), (1, 2)]


def test_of_two_records_the_later_counts_and_of_two_processes_the_one_that_is_done():
    done = Record("a", "1", 1, "a")
    failed = Record("a", "2", 0, "a", (("a", "why"),), failed=True)
    first, second = Commit("1", (), (done,)), Commit("2", (), (failed,))
    assert manifest.current([first, second], one_writer=True)["a"] is failed
    assert manifest.current([first, second], one_writer=False)["a"] is done
    assert manifest.current([second, first], one_writer=False)["a"] is done
    again = dataclasses.replace(first, records=(dataclasses.replace(done),))
    with pytest.raises(CarjaxError, match="two processes"):
        manifest.current([first, again], one_writer=False)


def test_a_commit_without_parts_can_be_replaced(tmp_path):
    """As that of a source all of whose pictures were bad, and which was mended since."""
    place, name = store.open_store(str(tmp_path / "x"))
    bad, good = (
        Record("a.tar", fingerprint, rows, "a") for fingerprint, rows in (("1", 0), ("2", 3))
    )
    old = "commit-00000-000000"
    manifest.write_commit(place, name, Commit(old, (), (bad,)))
    part = "part-00000-000001.parquet"
    new = Commit("commit-00000-000001", ((part, 3),), (good,), replaces=(old,))
    manifest.write_commit(place, name, new)
    place.write(f"{name}/{part}", b"rows")
    commits = manifest.read_commits(place, name, name)
    assert manifest.current(commits, one_writer=False) == {"a.tar": good}


def test_shares_are_disjoint_and_whole_and_go_by_the_name_alone():
    sources = [expand.source(f"{i}.jpg") for i in range(300)]
    shares = [output.Share(i, 3).of(sources) for i in range(3)]
    assert sorted(s.name for share in shares for s in share) == sorted(s.name for s in sources)
    assert all(70 < len(share) < 130 for share in shares)
    for share, i in zip(shares, range(3), strict=True):
        assert output.Share(i, 3).of(sources[1:]) == [s for s in share if s is not sources[0]]
    # Machines of any kind agree, today and later.
    assert [s.name for s in output.Share(0, 3).of(sources[:8])] == [
        f"{i}.jpg" for i in (0, 2, 5, 7)
    ]


def test_one_run_at_a_time_writes_an_output(tmp_path):
    target = run_files.Target(str(tmp_path / "x.parquet"))
    with (
        run_files.RunFiles(target).writing(),
        pytest.raises(CarjaxError, match="another carjax score"),
        run_files.RunFiles(target).writing(),
    ):
        pass


@pytest.mark.parametrize("part_rows", [None, 5])
def test_what_another_run_is_writing_is_not_overwritten(tmp_path, part_rows):
    target = run_files.Target(str(tmp_path / "x.parquet"), part_rows=part_rows)
    again = run_files.RunFiles(dataclasses.replace(target, overwrite=True))
    live = run_files.RunFiles(target)
    with live.writing() as scratch:
        (scratch / "rows").write_bytes(b"1")
        with pytest.raises(CarjaxError, match="another carjax score"):
            again.clear()
        assert (scratch / "rows").exists()
    again.clear()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_somebody_s_table_of_errors_stays(tmp_path, overwrite):
    file = tmp_path / "x.parquet.errors.csv"
    target = run_files.Target(str(tmp_path / "x.parquet"), overwrite=overwrite)
    file.write_text("my,errors\n")
    for write in (
        lambda: run_files.RunFiles(target),
        lambda: run_files.only_errors(target.out, []),
    ):
        with pytest.raises(CarjaxError, match=r"x.parquet.errors.csv, and there lies one"):
            write()
    assert file.read_text() == "my,errors\n"
    file.write_bytes(manifest.errors_csv([("a", "b")]))
    run_files.RunFiles(target)


def test_only_what_carjax_wrote_is_overwritten(tmp_path):
    target = run_files.Target(str(tmp_path / "x"), part_rows=5)
    begun(tmp_path / "x", "a", part_rows=5)
    mine = ("notes.txt", "part-00000-mine.parquet", "photos/part-00000-000000.parquet")
    for name in mine:
        (tmp_path / "x" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "x" / name).write_text("mine")
    with pytest.raises(CarjaxError, match=r"holds more, such as notes\.txt"):
        run_files.RunFiles(run_files.Target(str(tmp_path / "x"), overwrite=True))
    run_files.RunFiles(dataclasses.replace(target, overwrite=True)).clear()
    left = (tmp_path / "x").rglob("*")
    assert {str(p.relative_to(tmp_path / "x")) for p in left if p.is_file()} == {*mine}


def test_an_overwrite_that_is_stopped_leaves_what_the_next_one_knows_as_carjax_s(
    tmp_path, monkeypatch
):
    begun(tmp_path / "x", "a", part_rows=5)
    target = run_files.Target(str(tmp_path / "x"), part_rows=5, overwrite=True)
    remove, removed = store.LocalStore.remove, []

    def stopped(self, name):
        if removed:
            raise KeyboardInterrupt
        removed.append(name)
        remove(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(store.LocalStore, "remove", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_files.RunFiles(target).clear()
    assert removed[0].startswith("x/part-")
    run_files.RunFiles(target).clear()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("part_rows", [None, 5])
def test_a_folder_of_others_is_refused_whatever_lies_in_it(tmp_path, part_rows, overwrite):
    for folder in ("x/2024", "y.run"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.jpg").write_bytes(b"mine")
    for name, says in (("x", "did not write"), ("y", "there lies a.jpg")):
        target = run_files.Target(str(tmp_path / name), part_rows=part_rows, overwrite=overwrite)
        with pytest.raises(CarjaxError, match=says):
            run_files.RunFiles(target)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_place_of_a_run_s_folder_is_left_alone(tmp_path, overwrite):
    (tmp_path / "y.run").write_bytes(b"mine")
    target = run_files.Target(str(tmp_path / "y"), overwrite=overwrite)
    with pytest.raises(CarjaxError, match="there lies a file of that name"):
        run_files.RunFiles(target)


def test_several_processes_do_not_overwrite_each_other(tmp_path):
    target = run_files.Target(str(tmp_path / "x"), output.Share(0, 2), overwrite=True)
    with pytest.raises(CarjaxError, match="by one process, not by several"):
        run_files.RunFiles(target)


def test_sources_do_not_lie_in_the_output(tmp_path):
    (tmp_path / "photos" / "2024").mkdir(parents=True)
    (tmp_path / "elsewhere.jpg").write_bytes(b"1")
    (tmp_path / "photos" / "2024" / "a.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    (tmp_path / "link").symlink_to("photos")
    sources, _ = expand.expand([str(tmp_path / "link")])
    assert len(sources) == 1
    for out in ("photos", "link", "photos/../link/2024"):
        for url in ("", "file://", "local://"):
            with pytest.raises(CarjaxError, match="holds a source"):
                run_files.check_apart(f"{url}{tmp_path}/{out}", sources)
    run_files.check_apart(str(tmp_path / "photos" / "x.parquet"), sources)
    run_files.check_apart(str(tmp_path / "phot"), sources)
    remote = [expand.source("gs://bucket/photos/a.jpg")]
    for out in (
        "gs://bucket/photos",
        "gcs://bucket/photos/",
        "gs://bucket/./photos",
        "gs:///bucket/photos",
    ):
        with pytest.raises(CarjaxError, match="holds a source"):
            run_files.check_apart(out, remote)
    run_files.check_apart("gs://bucket/photos.parquet", remote)


def test_what_a_bucket_raises_is_one_line(tmp_path):
    fsspec = pytest.importorskip("fsspec")

    class Refuses(fsspec.AbstractFileSystem):
        protocol = "refuses"
        cachable = False

        def ls(self, path, detail=True, **kwargs):
            raise RuntimeError("no\ncredentials")

        info = exists = isfile = isdir = glob = ls

    fsspec.register_implementation("refuses", Refuses, clobber=True)
    _, problems = expand.expand(["refuses://bucket/*.mp4"])
    assert problems == [Problem("refuses://bucket/*.mp4", "cannot be listed: no credentials")]
    with pytest.raises(CarjaxError, match=r"write refuses://b/x\.parquet: no credentials"):
        run_files.RunFiles(run_files.Target("refuses://b/x.parquet"))


def test_a_bucket_holds_what_a_folder_holds(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").store.clear()
    for out in (str(tmp_path / "out" / "x"), "memory://out/x"):
        place, name = store.open_store(out)
        assert place.names(name) == []
        place.write(f"{name}/b", b"1")
        with place.scratch(f"{name}/scratch") as scratch:
            (scratch / "file").write_bytes(b"22")
            place.put(scratch / "file", f"{name}/a")
        assert place.names(name) == ["a", "b"]
        assert (place.size(f"{name}/a"), place.size(f"{name}/c")) == (2, None)
        place.move(f"{name}/a", f"{name}/b")
        with place.open(f"{name}/b") as file:
            assert file.read() == b"22"
        assert place.is_folder(name)
        place.remove(name)
        assert not place.is_folder(name)
        place.remove(name)


@pytest.mark.parametrize(
    ("out", "example"),
    [
        ("gs://my-bucket", "gs://my-bucket/scores.parquet"),
        ("s3://my-bucket/", "s3://my-bucket/scores.parquet"),
        ("memory://x.parquet", "memory://x.parquet/scores.parquet"),
        ("gs://", "gs://bucket/scores.parquet"),
    ],
)
def test_a_bucket_without_a_file_s_name_is_refused(tmp_path, monkeypatch, out, example):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"name a file in the bucket, such as {example}$"):
        run_files.RunFiles(run_files.Target(out))
    assert not list(tmp_path.iterdir())


def test_where_too_many_wait_the_most_of_one_size_go_first():
    stream = [frame(9, 0, (9, 300)), *(frame(0, i) for i in range(3)), frame(9, 1, (9, 300))]
    found = [
        [one.unit for one in batch.frames]
        for batch in batches(iter(stream), 10, Buffers(2), most_waiting=3)
    ]
    assert found == [[0, 0, 0], [9, 9]]


def test_the_first_of_an_archive_is_that_of_its_sorted_rows(tmp_path):
    unit = rows.UnitRows(tmp_path / "spill")
    unit.add(1, table("x.tar/b", 0))
    unit.add(0, table("x.tar/a", 0))
    assert unit.first == "x.tar/a"


def test_what_waits_for_longer_than_a_checkpoint_is_written(tmp_path):
    place = store.LocalStore(tmp_path)
    made = []
    for seconds in (1000.0, 0.0):
        out = output.Output(
            place, "run", "run", tmp_path, output.Share(), SCHEMA, part_rows=99,
            checkpoint_s=seconds,
        )  # fmt: skip
        unit = rows.UnitRows(tmp_path / "spill")
        unit.add(0, table("a", 0))
        made.append(len(out.add(Record("a", "", 1, "a"), unit)))
    assert made == [0, 1]


def test_leftovers_are_removed_by_the_process_that_looks_after_them(tmp_path):
    place = store.LocalStore(tmp_path)
    parts = [f"part-0000{i}-000000{run}.parquet" for run in ("", "-0a1b2c3d") for i in range(4)]
    others = ["part-00001-mine.parquet", "part-1.parquet", "part-x-1.parquet"]
    for name in (*parts, *others):
        place.write(f"run/{name}", b"1")
    kept = Commit("commit", ((parts[1], 1),), ())
    output.remove_leftovers(place, "run", "run", [kept], output.Share(1, 2))
    assert place.names("run") == sorted([*parts[:3], parts[4], parts[6], *others])


SETTINGS = {"model": "1"}


def begun(out, *names, part_rows=None):
    """A run that has committed a row for each of these sources, and how to go on inside of it."""
    run = run_files.RunFiles(run_files.Target(str(out), part_rows=part_rows))
    with run.writing() as scratch:
        run.keep_settings(SETTINGS)
        parts = run.output(scratch, SCHEMA)
        for name in names:
            unit = rows.UnitRows(scratch / "spill")
            unit.add(0, table(name, 0))
            parts.add(Record(name, "", 1, name), unit)
            parts.commit()
    return run


class PlainEngine:
    """A row for each file, the size of which is its frame; an empty one fails."""

    def run(self, sources, scratch, finish, progress=lambda rows: None):
        for i, source in enumerate(sources):
            unit = rows.UnitRows(scratch / f"rows-{i}")
            size = pathlib.Path(source.path).stat().st_size
            if size:
                unit.add(0, table(source.name, size))
            failure = None if size else "the file is empty"
            finish(End(i, unit.count, fingerprint_of(source), (), failure), unit)


def scored(out, names, share=None, engine=PlainEngine, **target):
    """Scores files of the folder of `out` as that process; returns the summary."""
    sources, _ = expand.expand([str(out.parent / name) for name in names])
    files = run_files.RunFiles(run_files.Target(str(out), share or output.Share(), **target))
    return run.score_sources(sources, [], files, SETTINGS, SCHEMA, engine)


def frames_in(out):
    """Name → the frame in its one row, of a folder of parts."""
    listed = [row for part in out.glob("part-*") for row in pq.read_table(part).to_pylist()]
    found = {pathlib.Path(row["source"]).name: row["frame"] for row in listed}
    assert len(found) == len(listed), "a row twice"
    return found


def test_a_source_that_was_bad_and_is_mended_is_in_the_output(tmp_path):
    """Its first part was replaced: what is said of that one must not be said of the next."""
    for size in (1, 0, 4):
        (tmp_path / "a.jpg").write_bytes(b"1" * size)
        assert scored(tmp_path / "x", ["a.jpg"], part_rows=5).rows == bool(size)
    assert frames_in(tmp_path / "x") == {"a.jpg": 4}


def test_what_one_process_replaced_does_not_hide_what_others_score_later(tmp_path):
    names = [f"{name}.jpg" for name in "abcdefgh"]
    for name in names:
        (tmp_path / name).write_bytes(b"1")
    out, shares = tmp_path / "x", [output.Share(i, 2) for i in range(2)]
    for share in shares:
        scored(out, names[:4], share)
    for name in names[:4]:
        (tmp_path / name).write_bytes(b"22")
    with pytest.raises(CarjaxError, match="with one process first"):
        scored(out, names[:4], shares[0])
    scored(out, names[:4])
    for share in (*shares, *shares):  # the second time there is nothing left to do
        done = scored(out, names, share).done
    assert done == len(names)
    assert frames_in(out) == dict.fromkeys(names[:4], 2) | dict.fromkeys(names[4:], 1)


def test_a_file_that_arrives_while_processes_score_ruins_nothing(tmp_path):
    names = [f"{name}.jpg" for name in "bcdefgh"]
    for name in ("a.jpg", *names):
        (tmp_path / name).write_bytes(b"1")
    out = tmp_path / "x"

    class Slow(PlainEngine):
        def run(self, *words):
            scored(out, ["a.jpg", *names], output.Share(1, 2))
            super().run(*words)

    scored(out, names, output.Share(0, 2), Slow)
    summary = scored(out, ["a.jpg", *names], output.Share(0, 2))
    assert summary.done == 8
    assert frames_in(out) == dict.fromkeys(["a.jpg", *names], 1)


def test_a_folder_whose_names_have_no_word_of_their_run_is_gone_on_with(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"1")
    out = tmp_path / "x"
    scored(out, ["a.jpg"], part_rows=5)
    (part,), (commit,) = out.glob("part-*"), (out / "_carjax").glob("commit-*")
    earlier = "part-00000-000000.parquet"
    part.rename(out / earlier)
    text = commit.read_text().replace(part.name, earlier)
    (out / "_carjax" / "commit-00000-000000.json").write_text(text)
    commit.unlink()
    assert scored(out, ["a.jpg", "b.jpg"], part_rows=5).skipped == 1
    (tmp_path / "a.jpg").write_bytes(b"22")
    assert scored(out, ["a.jpg", "b.jpg"], part_rows=5).skipped == 1
    assert frames_in(out) == {"a.jpg": 2, "b.jpg": 1}


def test_what_was_scored_and_is_not_in_the_output_is_told(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"1")
    monkeypatch.setattr(output.Output, "add", lambda *_: [])
    with pytest.raises(CarjaxError, match="lacks 1 sources that were scored"):
        scored(tmp_path / "x", ["a.jpg"])


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_engine_that_cannot_be_made_is_no_fault_of_the_output(tmp_path, overwrite):
    def engine():
        raise ConnectionError("no cluster")

    (tmp_path / "a.jpg").write_bytes(b"1")
    with pytest.raises(CarjaxError, match=r"^scoring cannot begin: no cluster$"):
        scored(tmp_path / "x", ["a.jpg"], engine=engine, overwrite=overwrite)


def test_a_ray_cluster_that_is_not_there_is_one_line(monkeypatch):
    class Ray:
        is_initialized = staticmethod(lambda: False)

        @staticmethod
        def init(**_):
            raise ConnectionError("Could not connect\nto GCS")

    monkeypatch.setitem(sys.modules, "ray", Ray)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(CarjaxError, match=r"no cluster at RAY_ADDRESS=10\.0\.0\.1:6379: Could not"):
        on_ray.RayEngine(None, None)


def test_the_progress_of_a_run_that_goes_on_begins_at_what_is_done(tmp_path):
    told = []
    for names in (["a.jpg", "b.jpg"], ["a.jpg", "b.jpg", "c.jpg"]):
        (tmp_path / names[-1]).write_bytes(b"1")
        (tmp_path / "a.jpg").touch()
        told.clear()
        sources, _ = expand.expand([str(tmp_path / name) for name in names])
        files = run_files.RunFiles(run_files.Target(str(tmp_path / "x"), part_rows=5))
        run.score_sources(
            sources, [], files, SETTINGS, SCHEMA, PlainEngine, lambda *words: told.append(words)
        )
    # The empty one is tried again.
    assert told == [(0, 1, 0), (0, 1, 1), (0, 2, 1)]


def ended(run):
    with run.writing() as scratch:
        run.end(SETTINGS, SCHEMA, scratch)


def test_a_stop_while_the_run_s_folder_is_removed_is_made_good_by_the_next_run(
    tmp_path, monkeypatch
):
    run = begun(tmp_path / "o.parquet", "a", "b")
    remove = shutil.rmtree

    def stopped(path, **rest):
        if ".run." not in str(path):
            return remove(path, **rest)
        next(pathlib.Path(path).glob("part-*")).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stopped)
        with pytest.raises(KeyboardInterrupt):
            ended(run)
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 2
    ended(run_files.RunFiles(run_files.Target(str(tmp_path / "o.parquet"))))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "o.parquet",
        "o.parquet.manifest.jsonl",
    ]


def test_what_a_lost_part_held_counts_as_not_scored(tmp_path):
    run = begun(tmp_path / "o.parquet", "a", "b")
    next((tmp_path / "o.parquet.run").glob("part-00000-000001-*.parquet")).unlink()
    assert list(run.current(run.commits())) == ["a"]
    # What the old commit says of it must not come back.
    with run.writing() as scratch:
        run.remove_leftovers(run.commits())
        parts = run.output(scratch, SCHEMA)
        unit = rows.UnitRows(scratch / "spill")
        unit.add(0, table("c", 0))
        parts.add(Record("c", "", 1, "c"), unit)
        parts.commit()
    assert sorted(run.current(run.commits())) == ["a", "c"]
    ended(run)
    assert pq.read_table(tmp_path / "o.parquet").column("source").to_pylist() == ["a", "c"]


def test_while_a_run_ends_no_other_one_begins(tmp_path, monkeypatch):
    run = begun(tmp_path / "o.parquet", "a")
    move = run.store.move
    refused = []

    def moved(name, target):
        with pytest.raises(CarjaxError, match="another carjax score is writing there"):
            run_files.RunFiles(run_files.Target(str(tmp_path / "o.parquet")))
        refused.append(name)
        move(name, target)

    early = run_files.RunFiles(run_files.Target(str(tmp_path / "o.parquet")))
    monkeypatch.setattr(run.store, "move", moved)
    ended(run)
    assert len(refused) == 2
    # One that looked before the end sees the finished file once it may write.
    with early.writing():
        assert list(early.current(early.commits())) == ["a"]


def test_a_run_that_ends_leaves_the_next_one_s_folder_alone(tmp_path):
    run = begun(tmp_path / "o.parquet", "a")
    with contextlib.ExitStack() as late:
        with run.writing() as scratch:
            run.end(SETTINGS, SCHEMA, scratch)
            other = run_files.RunFiles(run_files.Target(str(tmp_path / "o.parquet")))
            theirs = late.enter_context(other.writing())
        (theirs / "begun").touch()
        with pytest.raises(CarjaxError, match="another carjax score is writing there"):
            late.enter_context(other.writing())


def test_of_two_runs_with_other_settings_one_is_refused(tmp_path):
    first, second = (
        run_files.RunFiles(run_files.Target(str(tmp_path / "o"), output.Share(i, 2)))
        for i in range(2)
    )
    for one in (first, second):
        one.check_settings({"fps": one.target.share.process})
    first.keep_settings({"fps": 0})
    with pytest.raises(CarjaxError, match="was begun with another fps"):
        second.keep_settings({"fps": 1})


def test_what_another_run_ended_with_while_this_one_waited_is_compared(tmp_path):
    early = run_files.RunFiles(run_files.Target(str(tmp_path / "o.parquet")))
    ended(begun(tmp_path / "o.parquet", "a"))
    with pytest.raises(CarjaxError, match="was begun with another model"):
        run.score_sources([], [], early, {"model": "2"}, SCHEMA, lambda: None)


@pytest.mark.parametrize("content", ["", "[1]", "3", '{"parts": 1}', "{"])
def test_a_damaged_state_is_one_line(tmp_path, content):
    begun(tmp_path / "x", "a", part_rows=5)
    state = tmp_path / "x" / "_carjax"
    (commit,) = state.glob("commit-*")
    files = run_files.RunFiles(run_files.Target(str(tmp_path / "x")))
    whole = commit.read_text()
    commit.write_text(content)
    with pytest.raises(CarjaxError, match=rf"{commit.name}: is damaged: remove it"):
        files.commits()
    commit.write_text(whole)
    (state / "settings.json").write_text(content)
    with pytest.raises(CarjaxError, match=r"settings\.json is damaged|with another"):
        files.check_settings(SETTINGS)


def test_a_manifest_of_another_format_is_refused(tmp_path):
    out = tmp_path / "o.parquet"
    ended(begun(out, "a"))
    manifest_file = tmp_path / "o.parquet.manifest.jsonl"
    manifest_file.write_text(manifest_file.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(CarjaxError, match="has format 2, this carjax writes 1"):
        run_files.RunFiles(run_files.Target(str(out)))


def test_parts_of_changed_sources_are_read_once_to_be_written_anew(tmp_path, monkeypatch):
    names = ["a.jpg", "b.jpg", "c.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(b"1")
    scored(tmp_path / "x", names, part_rows=5)
    opened = []
    whole = store.LocalStore.open

    def counted(self, name):
        opened.append(name)
        return whole(self, name)

    monkeypatch.setattr(store.LocalStore, "open", counted)
    (tmp_path / "b.jpg").write_bytes(b"22")
    scored(tmp_path / "x", names, part_rows=5)
    assert sum(name.endswith(".parquet") for name in opened) == 1
    assert frames_in(tmp_path / "x") == {"a.jpg": 1, "b.jpg": 2, "c.jpg": 1}


def test_a_commit_that_goes_while_it_is_read_does_not_count(tmp_path):
    class Losing(store.LocalStore):
        def names(self, folder):
            return [*super().names(folder), "commit-00001-000000.json"]

    begun(tmp_path / "o.parquet", "a")
    state = "o.parquet.run"
    (commit,) = manifest.read_commits(Losing(tmp_path), state, state)
    assert commit.records[0].source == "a"


def test_only_what_was_being_removed_is_removed_with_a_folder(tmp_path):
    place = store.LocalStore(tmp_path)
    place.write("walk/a", b"1")
    (tmp_path / ".walk.0123456789abcdef.part").mkdir()
    (tmp_path / ".walk.v2.0123456789abcdef.part").mkdir()
    place.remove("walk")
    assert [p.name for p in tmp_path.iterdir()] == [".walk.v2.0123456789abcdef.part"]


def test_a_source_whose_bytes_cannot_be_told_is_not_called_changed():
    class Silent:
        name = "a"

        def fingerprint(self):
            raise OSError

    assert run._changed([Silent()], {"a": Record("a", "1", 1, "a")}) == set()
