"""`carjax score`: its rows, its errors, and that no way of running it changes either."""

import contextlib
import csv
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import score_files as files

from carjax import model as models
from carjax import parquet, scan, scoring, video
from carjax.backbones import pretrained
from carjax.cli import main as command
from carjax.engine import local, run_files
from carjax.engine import run as runs
from carjax.sources import expand, stills

ROOT = pathlib.Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "prius_walkaround.mp4"
TIMEOUT_S = 240

pytestmark = pytest.mark.usefixtures("quick_compilation")


def environment():
    """Of a process that computes what this one computes."""
    same = {"JAX_NUM_CPU_DEVICES": "2", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return {**os.environ, "PYTHONPATH": str(ROOT), **same}


@pytest.fixture(scope="module")
def weights(tiny_model, tmp_path_factory):
    """Flags that name the tiny model, as files."""
    folder = tmp_path_factory.mktemp("model")
    models.save(tiny_model, folder / "tiny.safetensors")
    pretrained.save(tiny_model.params["backbone"], folder / "backbone.safetensors", np.float32)
    return [
        f"--model={folder / 'tiny.safetensors'}",
        f"--backbone_weights={folder / 'backbone.safetensors'}",
    ]


@pytest.fixture(scope="module", autouse=True)
def built_once():
    """One scorer of each size for all runs: what it computes is compiled once."""
    scorers = {}

    def scorer(model, batch_size=None, **words):
        key = model.spec, batch_size, words.get("features")
        if key not in scorers:
            scorers[key] = built(model, batch_size, **words)
        return scorers[key]

    built = scoring.Scorer
    patch = pytest.MonkeyPatch()
    patch.setattr(scoring, "Scorer", scorer)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Sources of every kind, some of them broken; read only."""
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "photos" / "deep").mkdir(parents=True)
    for i in range(5):
        (folder / "photos" / f"{i}.jpg").write_bytes(files.picture(i))
    (folder / "photos" / "deep" / "tall.png").write_bytes(files.picture(6, (80, 60), ".png"))
    (folder / "photos" / "notes.txt").write_text("not a source")
    files.write_video(folder / "a.mp4", 7, seed=1, rate=8)
    files.write_video(folder / "b.mp4", 23, seed=2)
    files.write_video(folder / "c.mkv", 2, seed=3, rate=8)
    members = [(f"{i}.jpg", files.picture(i)) for i in (12, 10, 11)]
    members += [("10.json", b"{}"), ("bad.jpg", b"no picture")]
    (folder / "shard.tar").write_bytes(files.tar_bytes(members))
    images = [files.picture(20), None, files.picture(21)]
    pq.write_table(pa.table({"id": [1, 2, 3], "image": images}), folder / "table.parquet")
    (folder / "text.mp4").write_text("not a video\n" * 100)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "cut.jpg").write_bytes(files.picture(3)[:-200])
    return folder


BROKEN = {
    "cut.jpg": "cut short",
    "empty.jpg": "empty",
    "none.mp4": "no such file",
    "shard.tar/bad.jpg": "not an image",
    "table.parquet": "row 1: no picture",
    "text.mp4": "not a video",
}
WORDS = ["*.*", "photos", "none.mp4"]
EXPECTED = {
    **{f"photos/{i}.jpg": 1 for i in range(5)},
    **{f"shard.tar/{i}.jpg": 1 for i in (10, 11, 12)},
    "photos/deep/tall.png": 1,
    "a.mp4": 7,
    "b.mp4": 18,  # of 23 at ten a second, eight a second
    "c.mkv": 2,
    "table.parquet": 2,
}


def score(*words):
    return command.main(["score", *map(str, words)])


def rows(path):
    """The rows of a file or a folder of parts, whatever their order, as (source, frame) → row."""
    parts = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    listed = [row for part in parts for row in pq.read_table(part).to_pylist()]
    found = {(row["source"], row["frame"]): row for row in listed}
    assert len(found) == len(listed), "a row twice"
    return found


def errors(path):
    with open(f"{path}.errors.csv", newline="") as file:
        reader = csv.reader(file)
        assert next(reader) == ["source", "reason"]
        return list(reader)


def in_order(path):
    keys = list(zip(*pq.read_table(path, columns=["source", "frame"]).columns, strict=True))
    keys = [(source.as_py(), frame.as_py()) for source, frame in keys]
    return keys == sorted(keys)


@pytest.fixture(scope="module")
def whole(mixed, weights, tmp_path_factory):
    """One unbroken run into one file."""
    out = tmp_path_factory.mktemp("whole") / "x.parquet"
    before = pathlib.Path.cwd()
    os.chdir(mixed)
    try:
        assert score(*WORDS, f"--out={out}", *weights) == 0
    finally:
        os.chdir(before)
    return out


# --- one run -----------------------------------------------------------------------------------


def test_a_row_for_every_frame_and_an_error_for_all_that_is_wrong(whole):
    counts = {}
    for source, _ in rows(whole):
        counts[source] = counts.get(source, 0) + 1
    assert counts == EXPECTED
    assert in_order(whole)
    told = dict(errors(whole))
    assert told.keys() == BROKEN.keys()
    for source, reason in BROKEN.items():
        assert reason in told[source]
    assert not [p for p in whole.parent.iterdir() if p.name.endswith(".run")]


def test_columns_are_those_of_select_and_other_readers_take_the_file(whole):
    table, sources = parquet.read(whole)
    assert len(table) == len(sources) == sum(EXPECTED.values())
    assert pq.read_schema(whole).equals(parquet.arrow_schema(table.schema))


def test_rows_of_a_table_and_of_an_archive_are_those_of_their_pictures(whole, mixed, tmp_path):
    found = rows(whole)
    assert [key for key in found if key[0] == "table.parquet"] == [
        ("table.parquet", 0),
        ("table.parquet", 2),
    ]
    # The same picture, whether it lies in a file or in an archive.
    same = {"source": ""}
    assert found["photos/3.jpg", 0] | same != found["photos/4.jpg", 0] | same


def test_rows_are_exactly_those_of_select(mixed, weights, tmp_path):
    """Batches that many sources share give what a video alone gives, bit for bit."""
    model = models.load(weights[0][8:], backbone_weights=weights[1][19:])
    for name in ("a.mp4", "b.mp4"):
        table, _ = scan.score_video(model, mixed / name, fps=video.AUTO_FPS)
        expected = parquet.to_arrow(table, str(mixed / name))
        out = tmp_path / f"{name}.parquet"
        words = [mixed / "photos", mixed / name, f"--out={out}", "--batch=6", *weights]
        assert score(*words) == 0
        found = pq.read_table(out)
        found = found.filter(pa.compute.equal(found["source"], str(mixed / name)))
        assert found.equals(expected)


def test_columns_that_are_not_wanted_are_not_there(mixed, weights, tmp_path):
    out = tmp_path / "x.parquet"
    assert score(mixed / "a.mp4", f"--out={out}", "--columns=kappa,brand", *weights) == 0
    assert pq.read_schema(out).names == ["source", "frame", "brand", "kappa"]
    assert (
        score(mixed / "a.mp4", f"--out={tmp_path / 'y.parquet'}", "--columns=colour", *weights) == 2
    )


def test_fps(mixed, weights, tmp_path):
    for fps, count in (("all", 23), ("2", 5)):
        out = tmp_path / f"{fps}.parquet"
        assert score(mixed / "b.mp4", f"--out={out}", f"--fps={fps}", *weights) == 0
        assert len(rows(out)) == count


@pytest.mark.slow
def test_opencv_gives_the_rows_of_the_same_frames(mixed, weights, tmp_path):
    words = [mixed / "b.mp4", mixed / "text.mp4", SAMPLE, "--fps=2", *weights]
    for decoder in ("pyav", "opencv"):
        assert score(*words, f"--decoder={decoder}", f"--out={tmp_path / decoder}") == 0
    own, other = rows(tmp_path / "pyav"), rows(tmp_path / "opencv")
    assert {k: row["time_s"] for k, row in own.items()} == pytest.approx(
        {k: row["time_s"] for k, row in other.items()}, abs=1e-9
    )
    assert errors(tmp_path / "opencv") == errors(tmp_path / "pyav")


def test_a_decoder_from_outside_the_package_scores_alone_and_in_processes(mixed, weights, tmp_path):
    words = [mixed / "b.mp4", mixed / "a.mp4", mixed / "photos", *weights]
    own, toy, parts = (tmp_path / name for name in ("own", "toy", "parts"))
    assert score(*words, f"--out={own}") == 0
    words.append("--decoder=toy_decoder:Negative")
    assert score(*words, f"--out={toy}") == 0
    for process in (0, 1):
        flags = ["--processes=2", f"--process_id={process}"]
        assert score(*words, f"--out={parts}", *flags) == 0
    assert rows(own).keys() == rows(toy).keys()
    for key, row in rows(own).items():
        assert (row == rows(toy)[key]) == key[0].endswith((".jpg", ".png"))
    assert rows(parts) == rows(toy)
    told = [[str(mixed / name), "is a negative"] for name in ("a.mp4", "b.mp4")]
    assert errors(toy) == errors(parts) == told


def test_what_was_begun_before_there_were_decoders_goes_on(mixed, weights, tmp_path):
    out = tmp_path / "x.parquet"
    assert score(mixed / "a.mp4", f"--out={out}", *weights) == 0
    head = json.loads((tmp_path / "x.parquet.manifest.jsonl").read_text().splitlines()[0])
    assert head["settings"].keys() == {"model", "fps", "columns"}
    words = [mixed / "a.mp4", mixed / "c.mkv", f"--out={out}", *weights]
    assert score(*words, "--decoder=pyav") == 0
    assert len(rows(out)) == 9


def test_a_video_that_is_cut_short_keeps_its_rows_and_is_told(weights, tmp_path):
    path = files.write_video(tmp_path / "v.mp4", 40, size=(160, 120), movflags="faststart")
    path.write_bytes(path.read_bytes()[:-2000])
    out = tmp_path / "x.parquet"
    assert score(path, f"--out={out}", *weights) == 0
    assert 0 < len(rows(out)) < 32
    [(source, reason)] = errors(out)
    assert source == str(path)
    assert "cut short" in reason


# --- parts, processes, resuming ----------------------------------------------------------------


def test_parts_are_bounded_sorted_and_hold_the_same_rows(mixed, whole, weights, tmp_path, chdir):
    chdir(mixed)
    out = tmp_path / "x.parquet"
    assert score(*WORDS, f"--out={out}", "--part_rows=8", "--checkpoint_s=1000", *weights) == 0
    sizes = {p.name: pq.read_metadata(p).num_rows for p in out.glob("part-*.parquet")}
    assert max(sizes.values()) == 8
    assert len(sizes) >= 6  # 38 rows
    assert all(in_order(out / name) for name in sizes)
    assert rows(out) == rows(whole)
    assert errors(out) == errors(whole)
    assert parquet.read(out)[0].frame.shape == (38,)


@pytest.mark.parametrize("processes", [2, 3])
def test_the_number_of_processes_changes_nothing(mixed, whole, weights, tmp_path, chdir, processes):
    chdir(mixed)
    out = tmp_path / "x.parquet"
    for i in reversed(range(processes)):
        words = [f"--processes={processes}", f"--process_id={i}"]
        assert score(*WORDS, f"--out={out}", *words, *weights) == 0
    names = {p.name.split("-")[1] for p in out.glob("part-*.parquet")}
    assert names == {f"{i:05d}" for i in range(processes)}
    assert rows(out) == rows(whole)
    assert errors(out) == errors(whole)
    # And nothing is left for one process.
    before = sorted(p.stat().st_mtime_ns for p in out.glob("part-*.parquet"))
    assert score(*WORDS, f"--out={out}", *weights) == 0
    assert sorted(p.stat().st_mtime_ns for p in out.glob("part-*.parquet")) == before


def test_a_second_run_does_nothing_and_new_sources_are_added(
    mixed, whole, weights, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(mixed, "tree")
    monkeypatch.chdir("tree")
    pathlib.Path("b.mp4").rename("later.mp4")
    out = tmp_path / "x.parquet"
    assert score(*WORDS, f"--out={out}", *weights) == 0
    written = out.read_bytes()
    assert score(*WORDS, f"--out={out}", *weights) == 0
    assert out.read_bytes() == written
    # A new video, and one that is now another.
    pathlib.Path("later.mp4").rename("b.mp4")
    shutil.copy("a.mp4", "new.mp4")
    pathlib.Path("photos/0.jpg").write_bytes(files.picture(77))
    assert score(*WORDS, f"--out={out}", *weights) == 1
    pathlib.Path("later.mp4").write_bytes(pathlib.Path("b.mp4").read_bytes())
    assert score(*WORDS, f"--out={out}", *weights) == 0
    assert in_order(out)
    found = rows(out)
    expected = rows(whole)
    assert found.keys() == (
        expected.keys()
        | {("new.mp4", i) for i in range(7)}
        | {("later.mp4", i) for _, i in expected if _ == "b.mp4"}
    )
    changed = [key for key in expected if found[key] != expected[key]]
    assert changed == [("photos/0.jpg", 0)]


def test_parts_of_a_changed_source_are_written_anew(mixed, weights, tmp_path):
    shutil.copytree(mixed / "photos", tmp_path / "photos")
    out = tmp_path / "x.parquet"
    words = [tmp_path / "photos", f"--out={out}", "--part_rows=4", *weights]
    assert score(*words) == 0
    before = rows(out)
    photo = tmp_path / "photos" / "2.jpg"
    photo.write_bytes(files.picture(88))
    assert score(*words) == 0
    after = rows(out)
    assert after.keys() == before.keys()
    assert [key for key in after if after[key] != before[key]] == [(str(photo), 0)]
    photo.write_bytes(b"")
    assert score(*words) == 0
    assert rows(out).keys() == before.keys() - {(str(photo), 0)}
    assert errors(out) == [[str(photo), "the file is empty"]]


def slurm_job(processes):
    """The environment of each process of a Slurm job on this machine."""
    for number in range(4096):
        # JAX's rule for the port of the first process.
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("localhost", 65535 - 4095 + number))
            break
    job = {"SLURM_JOB_ID": str(number), "SLURM_STEP_NODELIST": "localhost"}
    job |= {"SLURM_NTASKS": str(processes), "SLURM_STEP_NUM_NODES": "1"}
    return [job | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(processes)]


@pytest.mark.slow
def test_the_processes_of_a_slurm_job_find_out_their_shares(mixed, whole, weights, tmp_path):
    out = tmp_path / "x.parquet"
    words = [*WORDS, f"--out={out}", *weights]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "carjax", "score", "--distributed", *words],
            cwd=mixed,
            env=environment() | job,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for job in slurm_job(2)
    ]
    try:
        for process in processes:
            _, error = process.communicate(timeout=TIMEOUT_S)
            assert process.returncode == 0, error[-3000:]
    finally:
        for process in processes:
            process.kill()
    names = {p.name.split("-")[1] for p in out.glob("part-*.parquet")}
    assert names == {"00000", "00001"}
    assert rows(out) == rows(whole)
    assert errors(out) == errors(whole)


@pytest.mark.parametrize(
    "extra",
    [[], pytest.param(["--part_rows=4"], marks=pytest.mark.slow)],
    ids=["one file", "parts"],
)
def test_a_run_that_is_killed_goes_on_and_gives_the_rows_of_an_unbroken_one(
    mixed, whole, weights, tmp_path, extra
):
    with files.Server({"/stuck.jpg": files.picture(4)}, hold="/stuck.jpg") as server:
        out = tmp_path / "x.parquet"
        words = [*WORDS, f"{server.url}/stuck.jpg", f"--out={out}", *extra, *weights]
        process = subprocess.Popen(
            [sys.executable, "-m", "carjax", "score", *words, "--checkpoint_s=0", "--threads=2"],
            cwd=mixed,
            env=environment(),
            stderr=subprocess.DEVNULL,
        )
        state = out / "_carjax" if extra else tmp_path / "x.parquet.run"
        # One source never comes, so that the run cannot end before it is killed.
        try:
            while len(list(state.glob("commit-*.json"))) < 6:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.05)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(TIMEOUT_S)
        assert extra or not out.exists()
        done = {path.name: path.read_bytes() for path in state.glob("commit-*.json")}
        # A part that was not committed, as if the kill had come a moment later.
        stray = (out if extra else state) / "part-00000-000999-0a1b2c3d.parquet"
        shutil.copy(next(stray.parent.glob("part-*.parquet")), stray)
        server.release.set()
        again = subprocess.run(
            [sys.executable, "-m", "carjax", "score", *words],
            cwd=mixed,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert again.returncode == 0, again.stderr
    if extra:  # what was done was not done again
        assert all((state / name).read_bytes() == data for name, data in done.items())
    known = sum(not r[5] for data in done.values() for r in json.loads(data)["records"])
    assert f"{known} of them before" in again.stdout
    found = rows(out)
    stuck = found.pop((f"{server.url}/stuck.jpg", 0))
    assert stuck | {"source": "photos/4.jpg"} == found["photos/4.jpg", 0]
    assert found == rows(whole)
    assert errors(out) == errors(whole)


def test_a_source_that_does_not_answer_holds_up_no_interrupt(mixed, tiny_model, tmp_path):
    def interrupt(rows, done, failed):
        if rows and threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    photos, options = mixed / "photos", local.Options(batch=1, threads=2)
    run = run_files.RunFiles(run_files.Target(str(tmp_path / "x"), checkpoint_s=1000))
    with files.Server({"/stuck.jpg": files.picture(4)}, hold="/stuck.jpg") as server:
        sources, _ = expand.expand([f"{photos}/*.jpg", f"{server.url}/stuck.jpg"])
        late = threading.Timer(60, server.release.set)
        late.start()
        with pytest.raises(KeyboardInterrupt):
            runs.score_sources(
                sources,
                [],
                run,
                {},
                parquet.arrow_schema(tiny_model.spec.schema),
                lambda: local.LocalEngine(tiny_model, options),
                interrupt,
            )
        assert not server.release.is_set()
        late.cancel()
    kept = run.current(run.commits())  # what was finished is committed
    assert kept
    assert all(name.startswith(str(photos)) for name in kept)


def test_a_join_that_was_killed_is_ended(mixed, weights, tmp_path, monkeypatch):
    out = tmp_path / "x.parquet"
    words = [mixed / "a.mp4", f"--out={out}", *weights]
    ended = run_files.RunFiles._end_join
    monkeypatch.setattr(run_files.RunFiles, "_end_join", lambda self: None)
    assert score(*words) == 0
    assert not out.exists()
    monkeypatch.setattr(run_files.RunFiles, "_end_join", ended)
    assert score(*words) == 0
    assert len(rows(out)) == 7
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "x.parquet",
        "x.parquet.errors.csv",
        "x.parquet.manifest.jsonl",
    ]


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ([], ["--fps=all"], "another fps"),
        ([], ["--columns=kappa"], "another columns"),
        ([], ["--nolocalise"], "another model"),
        (["--part_rows=5"], ["--fps=1"], "another fps"),
        ([], ["--decoder=toy_decoder:Negative"], "another decoder (the default, now toy_decoder"),
    ],
)
def test_other_settings_are_refused_and_overwritten_on_request(
    mixed, weights, tmp_path, capsys, first, second, says
):
    out = tmp_path / "x.parquet"
    words = [mixed / "b.mp4", f"--out={out}", *weights]
    assert score(*words, *first) == 0
    before = rows(out)
    assert score(*words, *second) == 1
    error = capsys.readouterr().err
    assert says in error.splitlines()[-1]
    assert len(error.splitlines()[-1]) < 300
    assert rows(out) == before
    assert score(*words, *second, "--overwrite") == 0
    assert rows(out) != before


@pytest.mark.parametrize("extra", [[], ["--part_rows=8"]], ids=["one file", "parts"])
def test_a_bucket_takes_the_output_and_a_run_goes_on_there(
    mixed, whole, weights, tmp_path, chdir, extra
):
    fsspec = pytest.importorskip("fsspec")
    bucket = fsspec.filesystem("memory")
    bucket.store.clear()
    chdir(mixed)
    out = f"memory://bucket/{len(extra)}/x.parquet"
    for words in (["a.mp4", "c.mkv"], WORDS, WORDS):
        assert score(*words, f"--out={out}", *extra, *weights) == 0
    bucket.get(out, str(tmp_path / "x.parquet"), recursive=bool(extra))
    bucket.get(f"{out}.errors.csv", str(tmp_path / "x.parquet.errors.csv"))
    assert rows(tmp_path / "x.parquet") == rows(whole)
    assert errors(tmp_path / "x.parquet") == errors(whole)
    assert not bucket.exists(f"{out}.run")
    bucket.store.clear()


# --- what fails, fails in one line ---------------------------------------------------------------


def last_line(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def test_a_file_of_others_is_not_overwritten(mixed, weights, tmp_path, capsys):
    out = tmp_path / "x.parquet"
    shutil.copy(mixed / "table.parquet", out)
    assert score(mixed / "a.mp4", f"--out={out}", *weights) == 1
    assert "no manifest" in last_line(capsys)
    folder = tmp_path / "folder.parquet"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    for extra in ([], ["--overwrite"]):
        assert score(mixed / "a.mp4", f"--out={folder}", *extra, *weights) == 1
        assert "did not write" in last_line(capsys)
    assert (folder / "mine.txt").exists()


def test_sources_that_were_scored_are_not_dropped(mixed, weights, tmp_path, capsys):
    out = tmp_path / "x.parquet"
    assert score(mixed / "a.mp4", f"--out={out}", *weights) == 0
    assert score(mixed / "c.mkv", f"--out={out}", *weights) == 1
    assert "a.mp4" in last_line(capsys)
    assert len(rows(out)) == 7
    assert not (tmp_path / "x.parquet.run").exists()


def test_a_source_that_is_gone_keeps_its_rows(mixed, weights, tmp_path):
    photo = tmp_path / "photo.jpg"
    shutil.copy(mixed / "photos" / "1.jpg", photo)
    words = [photo, mixed / "a.mp4", f"--out={tmp_path / 'x.parquet'}", *weights]
    assert score(*words) == 0
    before = rows(tmp_path / "x.parquet")
    photo.unlink()
    assert score(*words) == 0
    assert rows(tmp_path / "x.parquet") == before
    assert errors(tmp_path / "x.parquet") == [[str(photo), "no such file"]]


def test_one_file_and_parts_are_not_mixed_up(mixed, weights, tmp_path, capsys, monkeypatch):
    words = [mixed / "a.mp4", f"--out={tmp_path / 'x.parquet'}", *weights]
    assert score(*words) == 0
    assert score(*words, "--part_rows=5") == 1
    assert "is one file" in last_line(capsys)
    words = [mixed / "a.mp4", f"--out={tmp_path / 'y.parquet'}", *weights]
    monkeypatch.setattr(run_files.RunFiles, "end", lambda *_: None)  # as if killed before the end
    assert score(*words) == 0
    assert score(*words, "--part_rows=5") == 1
    assert "begun as one file" in last_line(capsys)


def test_a_folder_that_cannot_be_written_is_one_line(mixed, weights, capsys):
    assert score(mixed / "a.mp4", "--out=/proc/x.parquet", *weights) == 1
    assert "cannot write /proc/x.parquet" in last_line(capsys)


def test_a_call_that_is_wrong_removes_nothing(mixed, weights, tmp_path, monkeypatch):
    words = [mixed / "a.mp4", f"--out={tmp_path / 'x.parquet'}", *weights]
    assert score(*words) == 0
    assert score(*words, "--overwrite", "--columns=colour") == 2
    assert score("none.mp4", *words[1:], "--overwrite") == 1
    monkeypatch.setitem(sys.modules, "ray", None)
    assert score(*words, "--overwrite", "--engine=ray") == 1
    assert len(rows(tmp_path / "x.parquet")) == 7


@pytest.mark.parametrize("extra", [[], ["--overwrite"]])
def test_a_source_is_not_overwritten(mixed, weights, tmp_path, capsys, chdir, extra):
    chdir(tmp_path)
    shutil.copy(mixed / "a.mp4", "a.mp4")
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    for out in ("a.mp4", f"{tmp_path}/./link.mp4"):
        assert score("a.mp4", f"--out={out}", *extra, *weights) == 2
        assert "is a source itself" in last_line(capsys)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "link.mp4"]


@pytest.mark.parametrize("manifest", ["", "{}", "[1]", "{", '{"size": 1}'])
def test_a_damaged_manifest_is_one_line(mixed, weights, tmp_path, capsys, manifest):
    out = tmp_path / "x.parquet"
    shutil.copy(mixed / "table.parquet", out)
    (tmp_path / "x.parquet.manifest.jsonl").write_text(manifest)
    assert score(mixed / "a.mp4", f"--out={out}", *weights) == 1
    assert "no manifest tells what it holds" in last_line(capsys)


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ([], 2, "carjax score needs a SOURCE"),
        (["a.mp4"], 2, "--out"),
        (["a.mp4", "--out=x.parquet", "--fps=no"], 2, "fps"),
        (["a.mp4", "--out=x.parquet", "--decoder=ffmpeg"], 2, "MODULE:NAME, not 'ffmpeg'"),
        (["a.mp4", "--out=x.parquet", "--decoder=no.such:x"], 2, "cannot import no.such"),
        (["a.mp4", "--out=x.parquet", "--processes=2"], 2, "--process_id"),
        (["a.mp4", "--out=x.parquet", "--processes=2", "--process_id=2"], 2, "0 to 1"),
        (["a.mp4", "--out=x", "--processes=2", "--process_id=0", "--overwrite"], 2, "one process"),
        (["a.mp4", "--out=x.parquet", "--distributed", "--overwrite"], 2, "one process"),
        (["a.mp4", "--out=x.parquet", "--part_rows=0"], 2, "part_rows"),
        (["a.mp4", "--out=x.parquet", "--checkpoint_s=nan"], 2, "not nan"),
        (["none.mp4", "--out=x.parquet"], 1, "none.mp4: no such file"),
        (["*.nothing", "--out=x.parquet"], 1, "no video or image"),
        (["@none.txt", "--out=x.parquet"], 1, "none.txt"),
        (["nothing://a.mp4", "--out=x.parquet"], 1, "nothing"),
    ],
)
def test_a_wrong_call_is_one_line(tmp_path, monkeypatch, capsys, words, status, says):
    monkeypatch.chdir(tmp_path)
    assert score(*words) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error


def test_where_nothing_can_be_scored_the_status_is_1_and_the_errors_are_written(
    mixed, weights, tmp_path
):
    out = tmp_path / "x.parquet"
    assert score(mixed / "text.mp4", mixed / "empty.jpg", f"--out={out}", *weights) == 1
    assert len(errors(out)) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet.errors.csv"]


def test_lists_name_sources(mixed, weights, tmp_path, capsys):
    listed = tmp_path / "list.txt"
    listed.write_text(f"# two\n{mixed / 'a.mp4'}\n\n{mixed}/photos/[01].jpg\n{mixed / 'a.mp4'}\n")
    out = tmp_path / "x.parquet"
    assert score(f"@{listed}", f"--out={out}", *weights) == 0
    assert len(rows(out)) == 9
    assert capsys.readouterr().err == ""  # no terminal, no bar


def test_a_picture_keeps_its_shape_on_one_of_three_canvases():
    shapes = {(30, 90): (480, 640), (640, 50): (640, 480), (600, 600): (640, 640)}
    shapes |= {(1280, 960): (640, 480)}
    for shape, canvas in shapes.items():
        sample = stills.sample("a", 0, files.picture(0, shape))
        assert sample.canvas == canvas
        scale = min(1, 640 / max(shape))
        assert sample.image.shape == (*(round(side * scale) for side in shape), 3)


def test_help_fits_a_screen(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        command.main(["score", "--help"])
    text = capsys.readouterr().out
    assert "--decoder=pyav" in text
    assert max(map(len, text.splitlines())) <= 110
    assert len(text.splitlines()) < 50


def test_sampling_is_that_of_the_decoder(mixed, whole):
    frames = [frame.index for frame in video.frames(mixed / "b.mp4")]
    assert [frame for source, frame in rows(whole) if source == "b.mp4"] == frames


@pytest.fixture
def chdir(monkeypatch):
    return monkeypatch.chdir


def test_rows_of_a_picture_that_was_broken_since_leave_the_one_file(mixed, weights, tmp_path):
    shutil.copytree(mixed / "photos", tmp_path / "photos")
    out = tmp_path / "x.parquet"
    words = [tmp_path / "photos", f"--out={out}", *weights]
    assert score(*words) == 0
    before = rows(out)
    photo = tmp_path / "photos" / "2.jpg"
    photo.write_bytes(b"")
    assert score(*words) == 0
    assert rows(out).keys() == before.keys() - {(str(photo), 0)}
    assert errors(out) == [[str(photo), "the file is empty"]]


def test_errors_are_those_of_what_was_named(mixed, weights, tmp_path):
    good, bad, out = mixed / "photos" / "1.jpg", mixed / "empty.jpg", tmp_path / "x.parquet"
    words = [f"--out={out}", "--part_rows=4", *weights]
    score(good, bad, *words)
    assert [source for source, _ in errors(out)] == [str(bad)]
    score(good, *words)
    assert errors(out) == []
