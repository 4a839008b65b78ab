"""`carjax select` on the shipped sample, against its ground truth; and on everything that fails."""

import csv
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys

import av
import cv2
import jsonschema
import numpy as np
import pytest
import walk

import carjax
from carjax import model as models
from carjax import parquet, pipeline, result_folder, selection
from carjax.attributes import VIEWS
from carjax.cli import main as command
from carjax.cli import select
from carjax.errors import CarjaxError, UsageError
from carjax.grids import apart_deg

ROOT = pathlib.Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "prius_walkaround.mp4"


@pytest.fixture(scope="module")
def truth():
    with SAMPLE.with_suffix(".csv").open() as f:
        rows = list(csv.DictReader(f))
    return {
        "azimuth_deg": np.array([float(r["azimuth_deg"]) for r in rows]),
        "degraded": np.array([r["degraded"] == "1" for r in rows]),
    }


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    out = tmp_path_factory.mktemp("select") / "out"
    content = pipeline.select(models.load(), SAMPLE, out, pipeline.Options(fps="all"))
    return out, content


def test_the_folder_is_complete_and_the_json_fits_its_schema(chosen):
    out, content = chosen
    assert json.loads((out / "selection.json").read_text()) == content
    jsonschema.validate(content, selection.schema())
    assert content["video"]["scored_frames"] == content["video"]["frames"] == 180
    assert "warnings" not in content["video"]
    assert (out / "report.html").is_file()
    names = {p.name for p in out.iterdir()}
    assert names == {"photos", "report.html", "scores.parquet", "selection.json"}


def test_photos_are_the_full_frames_that_the_json_names(chosen):
    out, content = chosen
    choices = [*content["attributes"].values(), *content["orientation"]["views"].values()]
    assert {c["photo"] for c in choices} == {f"photos/{p.name}" for p in out.glob("photos/*")}
    with av.open(str(SAMPLE)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    for choice in choices:
        photo = cv2.imread(str(out / choice["photo"]))[..., ::-1]
        assert photo.shape == (360, 640, 3)
        nearest = np.argmin([np.abs(photo.astype(int) - f).mean() for f in frames])
        assert nearest == choice["frame"]


def test_what_is_chosen_in_memory_is_what_select_writes(chosen):
    """Directions that know of their neighbours, a consensus, an unknown brand."""
    out, content = chosen
    table, _ = parquet.read(out / "scores.parquet")
    model, duration_s = models.load(), content["video"]["duration_s"]
    found = carjax.choose_photos(model, table, duration_s=duration_s)
    for name, choice in found.attributes.items():
        written = content["attributes"][name]
        assert (choice.value, choice.frame) == (written["value"], written["frame"]), name
    for name, view in found.orientation.views.items():
        assert view.frame == content["orientation"]["views"][name]["frame"], name
    with pytest.raises(UsageError, match="no attribute 'wheels'"):
        carjax.choose_photos(model, table, options=pipeline.Options(attributes=("wheels",)))
    other = dataclasses.replace(table, schema=table.schema[1:])
    with pytest.raises(UsageError, match="other attributes than the model"):
        carjax.choose_photos(model, other)


def test_choosing_and_reporting_wait_for_no_import_of_scipy_or_jax():
    code = "import carjax.selection, carjax.report, sys\n"
    code += "sys.exit(any(name in sys.modules for name in ('scipy', 'jax')))"
    assert python(code).returncode == 0


def test_type_checkers_are_told_every_public_name():
    assert sorted(carjax.__all__) == sorted(["__version__", *carjax._PUBLIC])
    assert all(hasattr(carjax, name) for name in carjax.__all__)


def test_every_view_is_found_within_its_bin(chosen, truth):
    _, content = chosen
    views = content["orientation"]["views"]
    assert tuple(views) == VIEWS
    assert content["orientation"]["missing"] == []
    for i, name in enumerate(VIEWS):
        true = truth["azimuth_deg"][views[name]["frame"]]
        assert apart_deg(true, 45 * i) <= 22.5, name
        assert views[name]["probability"] > 0.8
    order = content["orientation"]["order"]
    azimuths = {v["frame"]: v["azimuth_deg"] for v in views.values()}
    assert [azimuths[f] for f in order] == sorted(azimuths.values())


def test_no_spoilt_frame_is_chosen(chosen, truth):
    _, content = chosen
    choices = [*content["attributes"].values(), *content["orientation"]["views"].values()]
    assert not [c["frame"] for c in choices if truth["degraded"][c["frame"]]]


def test_azimuth_over_all_sound_frames(chosen, truth):
    out, _ = chosen
    table, sources = parquet.read(out / "scores.parquet")
    assert set(sources) == {str(SAMPLE)}
    error = apart_deg(table.azimuth_deg, truth["azimuth_deg"])[~truth["degraded"]]
    assert np.median(error) <= 7
    assert (error > 150).mean() <= 0.005


def test_coverage_follows_the_walk(chosen, truth):
    _, content = chosen
    coverage = np.array(content["orientation"]["coverage"])
    assert coverage.mean() == pytest.approx(1 / (2 * np.pi), rel=1e-5)
    # The walk goes all the way around: no 30-degree arc is empty.
    assert coverage.reshape(12, 30).mean(1).min() > 0.2 / (2 * np.pi)


# --- what fails, fails in one line ---------------------------------------------------------------


def run(*arguments, cwd=None):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "carjax", "select", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        check=False,
    )


def write_video(path, images, rate=10, rotate=None, audio_only=False):
    with av.open(str(path), "w") as container:
        if audio_only:
            stream = container.add_stream("aac", rate=44100)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
            frame.sample_rate = 44100
            container.mux(stream.encode(frame))
        else:
            stream = container.add_stream("libx264", rate=rate)
            stream.height, stream.width = images[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            for image in images:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    (folder / "text.mp4").write_text("not a video\n" * 100)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "folder.mp4").mkdir()
    (folder / "cut.mp4").write_bytes(SAMPLE.read_bytes()[:3000])
    write_video(folder / "audio.mp4", [], audio_only=True)
    cv2.imwrite(str(folder / "photo.jpg"), np.zeros((40, 40, 3), np.uint8))
    return folder


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none.mp4", "no such file"),
        ("text.mp4", "not a video"),
        ("empty.mp4", "empty"),
        ("folder.mp4", "folder"),
        ("cut.mp4", "damaged"),
        ("audio.mp4", "audio"),
        ("photo.jpg", "image"),
    ],
)
def test_a_bad_video_is_one_line_and_status_1(bad, tmp_path, capsys, name, says):
    assert command.main(["select", str(bad / name), f"--out={tmp_path / 'out'}"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
    assert name in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "one video"),
        ([SAMPLE], "--out"),
        ([SAMPLE, SAMPLE, "--out=x"], "one video"),
        ([SAMPLE, "--out=x", "--fps=-1"], "fps"),
        ([SAMPLE, "--out=x", "--fps=fast"], "fps"),
        ([SAMPLE, "--out=x", "--views=5"], "views"),
        ([SAMPLE, "--out=x", "--view_threshold=2"], "view_threshold"),
        ([SAMPLE, "--out=x", "--view_threshold=1"], "view_threshold"),
        ([SAMPLE, "--out=x", "--policy=luck"], "policy"),
        ([SAMPLE, "--out=x", "--attribute=type"], "attribute"),
        ([SAMPLE, "--out=x", "--temporal=model"], "needs --temporal_model=FILE"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys, arguments, says):
    assert command.main(["select", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error


def test_without_a_command_the_usage_is_shown_and_the_status_is_2(capsys):
    assert command.main([]) == 2
    assert capsys.readouterr().out == command.usage() + "\n"


def test_an_address_is_refused_with_a_way_out(capsys):
    assert command.main(["select", "https://example.org/a.mp4", "--out=x"]) == 1
    assert "an address, not a file: download it first" in capsys.readouterr().err


def test_help_of_a_command_is_that_commands_help(capsys):
    assert command.main(["help"]) == 0
    with pytest.raises(SystemExit, match=r"^0$"):
        command.main(["help", "select"])
    both = capsys.readouterr().out
    assert "--view_policy" in both
    assert command.usage() in both


def test_the_table_tells_a_side_that_no_frame_shows_clearly_from_one_never_seen(capsys, tmp_path):
    coverage = np.full(360, 1 / (2 * np.pi))
    coverage[160:200] = 0.0  # never seen from behind
    views = dict.fromkeys(VIEWS) | {
        "front": {
            "azimuth_deg": 359.8,
            "probability": 0.9,
            "time_s": 1.0,
            "photo": "photos/view_front-left.jpg",
        }
    }
    content = {"attributes": {}, "orientation": {"views": views, "coverage": coverage.tolist()}}
    select.show(content, tmp_path)
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert " 0° " in rows["front"]
    assert rows["front"].endswith("photos/view_front-left.jpg")
    assert "no clear frame" in rows["left"]
    assert "not in the video" in rows["rear"]


def test_a_home_folder_is_meant_by_its_sign(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command.main(["select", "~/no.mp4", "--out=~/out"]) == 1
    assert f"{tmp_path}/no.mp4" in capsys.readouterr().err
    words = ["--heads=~/a,b~,~/c", "~user", "--out=a~/b"]
    assert [command._at_home(word) for word in words] == [
        f"--heads={tmp_path}/a,b~,{tmp_path}/c",
        "~user",
        "--out=a~/b",
    ]


@pytest.mark.parametrize("name", ["bundle", "evaluate", "serve", "train"])
def test_a_word_that_is_no_flag_is_refused(name, capsys):
    assert command.main([name, "--", "word"]) == 2
    assert capsys.readouterr().err == f"carjax: carjax {name} takes flags only, not 'word'\n"


def test_a_folder_that_may_not_be_entered_is_one_line(monkeypatch, capsys, tmp_path):
    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(pathlib.Path, "is_dir", refuse)
    assert command.main(["select", str(SAMPLE), f"--out={tmp_path / 'out'}"]) == 1
    assert (
        "out: Permission denied: make it writable or give another --out" in capsys.readouterr().err
    )
    assert command.main(["bundle", f"--heads={tmp_path}", "--out=x.safetensors"]) == 1
    assert capsys.readouterr().err == "carjax: .: Permission denied\n"


def test_a_reader_that_has_gone_is_no_fault():
    """As `head` has, once it has its lines."""
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [sys.executable, "-m", "carjax", "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (process.returncode, process.stderr) == (0, "")


def python(code, **rest):
    """Runs Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        **rest,
    )


def test_a_warning_looks_as_an_error_does():
    code = """
import logging, sys
from carjax.cli import main as command

def warn(argv):
    logging.getLogger("carjax.video").warning("the video ends at %d s", 3)
    return 0

sys.modules["carjax.cli.score"] = type(sys)("score")
sys.modules["carjax.cli.score"].main = warn
sys.argv = ["carjax", "score"]
command.run()
"""
    process = python(code)
    assert process.returncode == 0
    assert process.stderr == "carjax: the video ends at 3 s\n"


@pytest.mark.slow
def test_what_is_asked_to_end_ends_as_if_interrupted(tmp_path):
    """A service manager or `timeout` sends SIGTERM: nothing hidden may stay."""
    code = f"""
import os, signal, sys
from carjax import pipeline, result_folder
from carjax.cli import main as command

def dies(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGTERM)

pipeline._write_photos = dies
sys.argv = ["carjax", "select", {str(SAMPLE)!r}, "--out=out", "--fps=1", "--attributes=doors"]
command.run()
"""
    process = python(code, cwd=tmp_path)
    assert process.returncode == 143, process.stderr
    assert process.stderr.endswith("carjax: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_that_python_drops_comes_again():
    """As in a callback of the garbage collector, where exceptions go nowhere."""
    code = """
import gc, signal, sys, time
from carjax.cli import main as command

def callback(phase, info):
    gc.callbacks.remove(callback)
    signal.raise_signal(signal.SIGINT)

def work(argv):
    gc.callbacks.append(callback)
    gc.collect()
    time.sleep(60)  # ends at once
    return 0

sys.modules["carjax.cli.score"] = type(sys)("score")
sys.modules["carjax.cli.score"].main = work
sys.argv = ["carjax", "score"]
command.run()
"""
    process = python(code)
    assert process.returncode == 130
    assert process.stderr == "carjax: interrupted\n"


def test_a_bad_path_is_found_without_importing_jax(tmp_path):
    code = (
        "import sys; from carjax.cli.main import main; "
        "status = main(['select', 'none.mp4', '--out=x']); "
        "sys.exit(10 * ('jax' in sys.modules) + status)"
    )
    process = python(code, cwd=tmp_path)
    assert process.returncode == 1, process.stderr


def run_of(folder, *names):
    """Writes what a run that chose those photos leaves."""
    with result_folder.writing(folder) as part:
        for name in names:
            (part / "photos" / name).write_bytes(b"new")
        choices = {name: {"photo": f"photos/{name}"} for name in names}
        (part / "selection.json").write_text(json.dumps({"attributes": choices}))


def test_only_photos_of_an_earlier_run_are_replaced(tmp_path):
    run_of(tmp_path / "out", "type.jpg", "view_left.jpg")
    (tmp_path / "out" / "photos" / "mine.jpg").write_bytes(b"mine")
    run_of(tmp_path / "out", "type.png")
    names = {p.name for p in (tmp_path / "out" / "photos").iterdir()}
    assert names == {"mine.jpg", "type.png"}
    # Nobody tells whose it is.
    (tmp_path / "out" / "selection.json").unlink()
    (tmp_path / "out" / "annotated.mp4").write_bytes(b"mine")
    run_of(tmp_path / "out", "type.jpg")
    names = {p.name for p in (tmp_path / "out" / "photos").iterdir()}
    assert names == {"mine.jpg", "type.jpg", "type.png"}
    assert (tmp_path / "out" / "annotated.mp4").read_bytes() == b"mine"


def test_what_a_stopped_run_left_goes_with_the_next(tmp_path, monkeypatch):
    out = tmp_path / "out"
    run_of(out, "type.jpg", "view_left.jpg")
    replace = os.replace

    def stops(source, target):
        if pathlib.Path(target) == out / "selection.json":
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stops)
        with pytest.raises(KeyboardInterrupt):
            run_of(out, "type.png", "brand.png")
    assert not (out / "selection.json").exists()
    result_folder.check_out(out, overwrite=False)  # it is known as carjax's all the same
    with pytest.raises(CarjaxError, match="did not write"):
        result_folder.check_out(out, overwrite=False, manifest="metrics.json")
    run_of(out, "type.jpg")
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == {
        "selection.json",
        "photos/type.jpg",
    }


def test_an_interrupt_waits_until_all_has_moved(tmp_path, monkeypatch):
    out = tmp_path / "out"
    run_of(out, "type.jpg", "view_left.jpg")
    replace = os.replace

    def interrupted(source, target):
        if pathlib.Path(target).name == "brand.png":
            signal.raise_signal(signal.SIGINT)
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_of(out, "brand.png", "type.png")
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == {
        "selection.json",
        "photos/brand.png",
        "photos/type.png",
    }
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_file_that_says_a_folder_is_complete_comes_last(tmp_path, monkeypatch):
    out = tmp_path / "out"
    replace, moved = os.replace, []

    def follow(source, target):
        moved.append(pathlib.Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", follow)
    run_of(out, "type.jpg", "view_left.jpg")
    assert sorted(moved[-3:-1]) == ["type.jpg", "view_left.jpg"]
    assert moved[-1] == "selection.json"


def test_nothing_outside_of_the_folder_is_removed_whatever_its_files_say(tmp_path):
    out, mine = tmp_path / "out", tmp_path / "photos" / "mine.jpg"
    for folder in (out, mine.parent):
        folder.mkdir()
    mine.write_bytes(b"mine")
    (out / ".carjax.json").write_text('["../photos/mine.jpg"]')
    choices = {"type": {"photo": str(mine)}}
    (out / "selection.json").write_text(json.dumps({"attributes": choices}))
    run_of(out, "type.jpg")
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize("denied", [os.W_OK, os.X_OK])
def test_a_folder_that_may_only_be_read_is_refused_first(tmp_path, monkeypatch, denied):
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & denied)
    told = "^cannot write .*out: .* does not permit it: make it writable or give another --out$"
    with pytest.raises(CarjaxError, match=told):
        result_folder.check_out(tmp_path / "out", overwrite=False)


def test_a_video_is_not_replaced_by_its_own_results(tmp_path, capsys):
    copy = tmp_path / "annotated.mp4"
    copy.write_bytes(SAMPLE.read_bytes())
    assert command.main(["select", str(copy), f"--out={tmp_path}", "--overwrite"]) == 2
    assert "would be overwritten by the results" in capsys.readouterr().err
    assert copy.is_file()


def test_the_folder_may_be_the_current_one_or_on_a_disk_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    with result_folder.writing(pathlib.Path()) as part:
        assert part.parent == tmp_path / "out"  # nothing crosses from one disk to another
        (part / "selection.json").write_text("{}")
        result_folder.check_out(tmp_path / "out", overwrite=False)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"selection.json", "photos"}


def test_a_foreign_folder_is_refused_without_overwrite(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert command.main(["select", str(SAMPLE), f"--out={tmp_path}"]) == 1
    assert "--overwrite" in capsys.readouterr().err
    result_folder.check_out(tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_output_that_cannot_be_made_is_refused_first(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert command.main(["select", str(SAMPLE), f"--out={tmp_path / 'file' / 'out'}"]) == 1
    assert "is a file, not a folder" in capsys.readouterr().err
    with pytest.raises(CarjaxError, match="is a file"):
        result_folder.check_out(tmp_path / "file", overwrite=True)


def test_a_failed_run_leaves_nothing_that_looks_finished(tmp_path):
    target = tmp_path / "out"

    def break_off():
        with result_folder.writing(target) as folder:
            (folder / "photos" / "type.jpg").write_bytes(b"x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_replaces_the_first(tmp_path):
    target = tmp_path / "out"
    for name in ("a", "b"):
        run_of(target, f"{name}.jpg")
    assert [p.name for p in (target / "photos").iterdir()] == ["b.jpg"]
    assert list(json.loads((target / "selection.json").read_text())["attributes"]) == ["b.jpg"]


def test_a_video_without_a_car_is_status_3(tmp_path):
    rng = np.random.default_rng(0)
    noise = cv2.resize(rng.integers(0, 255, (9, 16, 3), dtype=np.uint8), (320, 180))
    images = [np.roll(noise, 8 * i, axis=1) for i in range(6)]
    video = write_video(tmp_path / "nothing.mp4", images)
    process = run(video, f"--out={tmp_path / 'out'}")
    assert process.returncode == 3, process.stderr
    assert process.stderr.splitlines()[-1].startswith("carjax: no car")
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_one_frame_and_only_some_attributes(tmp_path):
    with av.open(str(SAMPLE)) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    video = write_video(tmp_path / "one.mp4", [frame])
    process = run(video, f"--out={tmp_path / 'out'}", "--attributes=doors,orientation", "--views=4")
    assert process.returncode == 0, process.stderr
    content = json.loads((tmp_path / "out" / "selection.json").read_text())
    jsonschema.validate(content, selection.schema())
    assert list(content["attributes"]) == ["doors"]
    assert set(content["orientation"]["views"]) == {"front", "left", "rear", "right"}
    assert content["attributes"]["doors"]["frame"] == 0


@pytest.mark.slow
def test_a_truncated_video_gives_what_it_holds(tmp_path):
    source = tmp_path / "cut.ts"
    with av.open(str(SAMPLE)) as container, av.open(str(source), "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 3])
    process = run(source, f"--out={tmp_path / 'out'}", "--fps=2")
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    assert (tmp_path / "out" / "selection.json").is_file()


def test_what_to_know_of_a_video_is_told_everywhere(tmp_path, capsys):
    with av.open(str(SAMPLE)) as container:
        images = [f.to_ndarray(format="rgb24") // 6 for f in container.decode(video=0)][:120:5]
    source = write_video(tmp_path / "dark.mkv", images, rate=4)
    source.write_bytes(source.read_bytes()[: int(source.stat().st_size * 0.7)])
    out = tmp_path / "out"
    assert command.main(["select", str(source), f"--out={out}", "--fps=all"]) == 0
    content = json.loads((out / "selection.json").read_text())
    jsonschema.validate(content, selection.schema())
    cut, dark = content["video"]["warnings"]
    assert "ends at" in cut
    assert "very dark" in dark
    told = capsys.readouterr().err
    page = (out / "report.html").read_text()
    for line in (cut, dark):
        assert f"carjax: {line}" in told
        assert line[1:] in page


def test_the_report_is_opened_where_that_is_asked_for(tmp_path, monkeypatch):
    content = {"video": {"scored_frames": 1, "frames": 1}, "attributes": {}}
    opened = []
    shipped = models.load()
    monkeypatch.setattr(models, "load", lambda *args, **kwargs: shipped)
    monkeypatch.setattr(pipeline, "select", lambda *args, **kwargs: content)
    monkeypatch.setattr("carjax.runtime.set_up_jax", lambda: None)
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.chdir(tmp_path)
    walk.write("walk.mp4", 4)
    assert command.main(["select", "walk.mp4", "--out=out"]) == 0
    assert opened == []
    assert command.main(["select", "walk.mp4", "--out=out", "--show"]) == 0
    assert opened == [(tmp_path / "out" / "report.html").as_uri()]


def test_help_fits_a_screen(capsys):
    assert command.main(["--help"]) == 0
    with pytest.raises(SystemExit, match=r"^0$"):
        command.main(["select", "--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 110
    assert len(text.splitlines()) < 50
    told = text[text.index("  --") :].splitlines()
    assert [line[:4] for line in told] == ["  --"] * len(told)  # one line per flag


@pytest.mark.parametrize(
    "name", ["selection.json", "scores.parquet", "report.html", "annotated.mp4"]
)
def test_no_result_takes_the_place_of_the_source(tmp_path, name):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="would be overwritten"):
        result_folder.check_apart(tmp_path / "link", tmp_path / name)
    result_folder.check_apart(tmp_path, tmp_path / f"my_{name}")
    result_folder.check_apart(tmp_path, tmp_path / "other" / name)
