"""The annotated video: causal, as selection says, drawn exactly, and playable."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pathlib
import re
import shutil
import subprocess

import av
import numpy as np
import pytest
import walk
from hypothesis import given
from hypothesis import strategies as st

from carjax import pipeline, selection, video
from carjax.annotate import annotate, bars, layout, paint, render, ring, running
from carjax.annotate.encode import Mp4Writer
from carjax.annotate.scene import Scene
from carjax.attributes import CAR, VIEWS
from carjax.errors import CarjaxError, NoCarError, UsageError
from carjax.selection import eligibility
from carjax.wording import percent

NAMES = tuple(a.name for a in CAR)
SAMPLE = pathlib.Path(__file__).parents[1] / "data" / "prius_walkaround.mp4"


# ------------------------------------------------------------------------------ running state


def frames_of(table, state):
    """The frames that a state has chosen, named as selection names photos."""
    chosen = {**state.best, **{f"view_{name}": row for name, row in state.views.items()}}
    return {name: int(table.frame[row]) for name, row in chosen.items() if row is not None}


@pytest.mark.parametrize("seed", range(4))
def test_every_state_is_the_selection_of_the_frames_so_far(seed):
    table = walk.table(60, seed=seed)
    states = list(running.states(table, attributes=NAMES))
    assert len(states) == 60
    for n in (1, 7, 26, 43, 60):
        known, state = table.take(slice(n)), states[n - 1]
        try:
            chosen = selection.select_photos(known, policy="entropy", view_policy="first")
        except NoCarError:
            assert not frames_of(table, state)
            continue
        assert frames_of(table, state) == selection.chosen_frames(chosen), n
        if state.coverage is not None:
            np.testing.assert_allclose(state.coverage, chosen.orientation.coverage, atol=1e-4)


def test_a_state_knows_nothing_of_later_frames():
    table = walk.table(60, seed=1)
    early = list(running.states(table.take(slice(30)), attributes=NAMES))
    late = list(running.states(table, attributes=NAMES))[:30]
    for a, b in zip(early, late, strict=True):
        assert (a.best, a.views) == (b.best, b.views)
        for name in NAMES[:-1]:
            np.testing.assert_array_equal(a.probs[name], b.probs[name])
        np.testing.assert_array_equal(a.coverage, b.coverage)


def test_probabilities_are_the_time_weighted_mean_over_frames_with_the_car():
    table = walk.table(50, seed=2)
    time_s = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.2, 50))
    table = dataclasses.replace(table, time_s=time_s, car_probability=np.ones(50, np.float32))
    box, colour = np.tile(table.box[:1], (50, 1)), np.tile(table.car_colour[:1], (50, 1))
    table = dataclasses.replace(table, box=box, car_colour=colour, content_probs=None)
    *_, last = running.states(table, attributes=["doors"])
    expected = np.trapezoid(table.probs["doors"], time_s, axis=0) / (time_s[-1] - time_s[0])
    np.testing.assert_allclose(last.probs["doors"], expected, rtol=1e-6)


# ------------------------------------------------------------------------------ layout, drawing


def rectangles(where):
    found = [where.frame, *(r for p in where.panels for r in (p.bars, p.photo))]
    if where.ring is not None:
        placed = ring.arrange(where.ring, VIEWS, 16 / 9)
        found += [*placed.views.values(), placed.map]
    return found


@given(st.floats(0.3, 3.5), st.integers(0, 9), st.booleans())
def test_layouts_are_even_and_nothing_overlaps(aspect, count, directions):
    where = layout.arrange(aspect, [f"a{i}" for i in range(count)], directions or not count)
    assert where.width % 2 == where.height % 2 == 0
    canvas = np.zeros((where.height, where.width), int)
    for rect in rectangles(where):
        assert min(rect) >= 0
        assert rect.x + rect.w <= where.width
        assert rect.y + rect.h <= where.height
        canvas[rect.rows, rect.columns] += 1
    assert canvas.max() == 1


def test_many_classes_show_the_five_most_probable_in_order():
    probs = np.arange(49.0) / np.arange(49.0).sum()
    lines = bars.lines(tuple(map(str, range(49))), probs)
    assert [line.name for line in lines] == ["48", "47", "46", "45", "44"]
    assert [line.leads for line in lines] == [True, False, False, False, False]
    assert lines[0].share == pytest.approx(probs[48], abs=1e-3)


def test_a_bar_is_exact_to_a_fraction_of_a_pixel():
    image = np.zeros((6, 100, 3), np.uint8)
    paint.bar(image, layout.Rect(0, 0, 100, 6), 0.505, (200, 100, 50))
    assert (image[:, :50] == (200, 100, 50)).all()
    assert (image[:, 51:] == paint.SUNK).all()
    np.testing.assert_allclose(image[0, 50], (np.array((200, 100, 50)) + paint.SUNK) / 2, atol=1)


@pytest.mark.parametrize(("azimuth", "where"), [(0, (0, -1)), (90, (-1, 0)), (180, (0, 1))])
def test_the_red_line_points_to_where_the_camera_stands(azimuth, where):
    placed = ring.arrange(layout.Rect(0, 0, 600, 500), VIEWS, 16 / 9)
    image = np.zeros((500, 600, 3), np.uint8)
    ring.draw_base(image, placed, ())
    ring.draw_map(image, placed, None, azimuth, 1e4)
    red = np.argwhere((image[..., 0] > 230) & (image[..., 2] < 120))[:, ::-1]
    x, y = (red - placed.centre).mean(0) / placed.radius
    np.testing.assert_allclose([x, y], np.array(where) * 0.69, atol=0.04)


def test_the_blue_line_is_the_coverage():
    placed = ring.arrange(layout.Rect(0, 0, 600, 500), VIEWS, 16 / 9)
    image = np.zeros((500, 600, 3), np.uint8)
    coverage = np.where(np.arange(360) < 90, 4.0, 0.0) / (2 * np.pi)
    ring.draw_base(image, placed, ())
    ring.draw_map(image, placed, coverage, None, 0)
    x, y = placed.centre
    dx, dy = (0.7 * placed.radius * f(np.radians(30)) for f in (np.sin, np.cos))
    inside, outside = image[round(y - dy), round(x - dx)], image[round(y + dy), round(x + dx)]
    assert inside[2] > outside[2] + 20
    assert tuple(outside) == paint.SUNK


def test_drawing_what_changes_gives_the_same_picture_as_drawing_all():
    table = walk.table(40, seed=3)
    states = list(running.states(table, attributes=NAMES))
    rng = np.random.default_rng(0)
    frames = [
        video.Frame(i, i / 10, rng.integers(0, 255, (90, 160, 3), np.uint8)) for i in range(40)
    ]
    aspect = 16 / 9
    canvases = [c.copy() for c, _ in render.moments(table, states, frames, aspect, NAMES)]
    assert len({c.tobytes() for c in canvases}) == 40
    album = render._Album(table, states, render._scene(table, states[0], aspect, NAMES), None)
    for row in range(40):
        album.keep(row, frames[row].image)
    car = eligibility.car_frames(table)
    for row in (7, 23, 39):
        fresh: Scene = render._scene(table, states[0], aspect, NAMES)
        moment = render._moment(frames[row], table, states[row], album, bool(car[row]))
        np.testing.assert_array_equal(fresh.draw(moment), canvases[row])


# ------------------------------------------------------------------------------ the file


def boxes(data: bytes) -> list[str]:
    """The names of an MP4's outermost boxes, in order."""
    names, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        names.append(data[at + 4 : at + 8].decode("latin-1"))
        at += size or len(data)
    return names


@pytest.mark.parametrize(
    ("size", "attributes"),
    [((320, 180), NAMES), ((180, 320), NAMES), ((202, 202), ["type"]), ((320, 180), NAMES[-1:])],
)
def test_browsers_play_it(tmp_path, size, attributes):
    source, out = tmp_path / "walk.mp4", tmp_path / "annotated.mp4"
    walk.write(source, 24, size)
    annotate(source, walk.table(24), out, attributes=attributes)
    names = boxes(out.read_bytes())
    assert names.index("moov") < names.index("mdat")
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert context.width % 2 == context.height % 2 == 0
        assert context.colorspace == context.color_primaries == 1  # BT.709
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, np.arange(24) / 10, atol=1e-4)
    if shutil.which("ffprobe"):
        command = "ffprobe -v error -count_frames -show_entries stream=nb_read_frames -of json"
        said = subprocess.run(
            [*command.split(), str(out)], capture_output=True, text=True, check=True
        ).stdout
        assert json.loads(said)["streams"][0]["nb_read_frames"] == "24"


def test_odd_sides_are_refused(tmp_path):
    with pytest.raises(ValueError, match="even"):
        Mp4Writer(tmp_path / "x.mp4", 321, 180, 10)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_file_that_cannot_be_written_is_an_error():
    writer = Mp4Writer("/dev/full", 320, 180, 10)
    noise = np.random.default_rng(0).integers(0, 256, (180, 320, 3), np.uint8)

    def film():
        for i in range(100):
            writer.write(noise, i / 10)

    with pytest.raises(OSError, match="No space left") as full:
        film()
    assert full.value.errno == errno.ENOSPC
    writer.__exit__(CarjaxError, CarjaxError(), None)


def scored(monkeypatch, table):
    """Lets the pipeline read these scores, and decode for itself."""
    monkeypatch.setattr(
        pipeline, "score_video", lambda model, path, **_: (table, video.Decoder(path, fps="all"))
    )


def watched(monkeypatch):
    """The moments that are drawn from now on."""
    seen, draw = [], Scene.draw
    monkeypatch.setattr(Scene, "draw", lambda self, m: seen.append(m) or draw(self, m))
    return seen


@pytest.fixture
def shell():
    """As much of a model as selecting from given scores needs."""
    from types import SimpleNamespace

    origin = {"backbone": "none", "bundle": "none", "version": "0"}
    return SimpleNamespace(spec=SimpleNamespace(unknown_above={}, schema=CAR), origin=origin)


def test_with_causal_policies_the_last_state_is_the_selection(tmp_path, monkeypatch, shell):
    table = walk.table(40, seed=3)
    walk.write(tmp_path / "walk.mp4", 40)
    scored(monkeypatch, table)
    options = pipeline.Options(policy="entropy", view_policy="first", annotate="all")
    seen = watched(monkeypatch)
    content = pipeline.select(shell, tmp_path / "walk.mp4", tmp_path / "out", options)
    assert len(seen) == 40  # nothing is added at the end
    last = seen[-1]
    assert not last.final
    *_, state = running.states(table, attributes=NAMES)
    for name, choice in content["attributes"].items():
        assert choice["frame"] == table.frame[state.best[name]]
        assert last.best[name].value == choice["value"]
        assert last.best[name].certainty == pytest.approx(choice["certainty"])
    for name, view in content["orientation"]["views"].items():
        assert (view is None) == (last.views[name] is None)
        assert view is None or view["frame"] == table.frame[state.views[name]]
    np.testing.assert_allclose(last.coverage, content["orientation"]["coverage"], atol=1e-4)


def test_other_policies_show_their_choice_for_a_second_and_say_so(tmp_path, monkeypatch, shell):
    table = walk.table(40, seed=3)
    walk.write(tmp_path / "walk.mp4", 40)
    scored(monkeypatch, table)
    seen = watched(monkeypatch)
    content = pipeline.select(
        shell, tmp_path / "walk.mp4", tmp_path / "out", pipeline.Options(annotate="all")
    )
    assert len(seen) == 50
    assert [m.final for m in seen] == [""] * 40 + ["consensus, best view"] * 10
    for name, choice in content["attributes"].items():
        assert seen[-1].best[name].certainty == pytest.approx(choice["certainty"])
    for name, view in content["orientation"]["views"].items():
        assert (view is None) == (seen[-1].views[name] is None)


def test_the_final_choice_says_where_a_class_is_unknown(tmp_path, monkeypatch, shell):
    table = walk.table(40, seed=3)
    unknown = table.categorical[0].name
    novelty = {a.name: np.full(40, 0.2, np.float32) for a in table.categorical}
    novelty[unknown][:] = 0.9
    walk.write(tmp_path / "walk.mp4", 40)
    scored(monkeypatch, dataclasses.replace(table, novelty=novelty))
    shell.spec.unknown_above = {a.name: 0.5 for a in table.categorical}
    seen = watched(monkeypatch)
    content = pipeline.select(
        shell, tmp_path / "walk.mp4", tmp_path / "out", pipeline.Options(annotate="all")
    )
    for name, choice in content["attributes"].items():
        assert seen[-1].best[name].value == (choice["value"] or f"unknown {name}")
        if name != unknown:
            assert seen[-1].best[name].strength == ""  # its certainty
    choice = content["attributes"][unknown]
    assert choice["value"] is None
    nearest = f"{choice['nearest']}: {percent(choice['probability'])}"
    assert seen[-1].best[unknown].strength == nearest


def test_one_attribute_with_the_default_policies(tmp_path, monkeypatch, shell):
    """Its layout has no ring for the views that were chosen."""
    table = walk.table(40, seed=3)
    walk.write(tmp_path / "walk.mp4", 40)
    scored(monkeypatch, table)
    seen = watched(monkeypatch)
    name = table.categorical[0].name
    content = pipeline.select(
        shell, tmp_path / "walk.mp4", tmp_path / "out", pipeline.Options(annotate=name)
    )
    assert any(content["orientation"]["views"].values())
    assert len(seen) == 50
    assert set(seen[-1].best) == {name}


@pytest.mark.parametrize("unknown", [False, True])
def test_the_last_frame_names_what_the_selection_names(tmp_path, monkeypatch, shell, unknown):
    """A value that the seller states, and a class that the model does not know."""
    table = walk.table(40, seed=3)
    attribute = table.categorical[0]
    walk.write(tmp_path / "walk.mp4", 40)
    policies = {"policy": "entropy", "view_policy": "first"}
    if unknown:
        novelty = {a.name: np.full(40, 0.9, np.float32) for a in table.categorical}
        table = dataclasses.replace(table, novelty=novelty)
        shell.spec.unknown_above = {attribute.name: 0.5}
    else:
        rare = attribute.classes[int(np.argmin(table.probs[attribute.name].mean(0)))]
        policies = {"known": {attribute.name: rare}}
        shell.spec.schema = table.schema
    scored(monkeypatch, table)
    seen = watched(monkeypatch)
    options = pipeline.Options(annotate="all", **policies)
    content = pipeline.select(shell, tmp_path / "walk.mp4", tmp_path / "out", options)
    choice = content["attributes"][attribute.name]
    want = f"unknown {attribute.name}" if unknown else rare
    share = percent(choice["probability"])
    strength = f"{choice['nearest']}: {share}" if unknown else f"shows it {share}"
    assert (choice["value"] or choice["reason"]) == want
    assert seen[-1].best[attribute.name].value == want
    assert seen[-1].best[attribute.name].strength == strength


def test_what_cannot_be_drawn_is_refused(tmp_path):
    table = walk.table(4)
    for shown, wrong in (
        (table, {"attributes": ["wheels"]}),
        (table, {"attributes": "type"}),
        (table, {"attributes": []}),
        (table, {"attributes": ["type"], "views": 5}),
        (table.take(slice(0)), {"attributes": ["type"]}),
    ):
        with pytest.raises(UsageError):
            annotate("no such file", shown, tmp_path / "x.mp4", **wrong)


def test_if_drawing_fails_the_photos_are_kept(tmp_path, monkeypatch, shell):
    walk.write(tmp_path / "walk.mp4", 40)
    scored(monkeypatch, walk.table(40))
    monkeypatch.setattr(Scene, "draw", lambda self, moment: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pipeline.select(
            shell, tmp_path / "walk.mp4", tmp_path / "out", pipeline.Options(annotate="all")
        )
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"photos", "report.html", "scores.parquet", "selection.json"}


@pytest.mark.parametrize(
    "writer",
    ["pyarrow.parquet.write_table", "carjax.files.write", "carjax.annotate.encode.Mp4Writer.write"],
)
def test_a_disk_that_refuses_is_one_line_that_names_the_folder(
    tmp_path, monkeypatch, shell, writer
):
    def refuses(*args, **kwargs):
        raise OSError(errno.EFBIG, "File too large")

    walk.write(tmp_path / "walk.mp4", 40)
    scored(monkeypatch, walk.table(40))
    monkeypatch.setattr(writer, refuses)
    out, options = tmp_path / "out", pipeline.Options(annotate="all")
    told = re.escape(f"cannot write {out}: File too large: give another --out")
    with pytest.raises(CarjaxError, match=f"^{told}$"):
        pipeline.select(shell, tmp_path / "walk.mp4", out, options)


@pytest.mark.slow
def test_the_sample_is_annotated(tmp_path):
    from carjax import model

    options = pipeline.Options(policy="entropy", view_policy="first", annotate="all")
    content = pipeline.select(model.load(), SAMPLE, tmp_path / "out", options)
    from carjax import parquet

    table, _ = parquet.read(tmp_path / "out" / "scores.parquet")
    *_, state = running.states(table, attributes=NAMES)
    chosen = {n: c["frame"] for n, c in content["attributes"].items()}
    chosen |= {f"view_{n}": v["frame"] for n, v in content["orientation"]["views"].items() if v}
    assert frames_of(table, state) == chosen
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as container:
        # All frames, and a second more to say that the head does not know this brand.
        assert content["attributes"]["brand"]["value"] is None
        assert sum(1 for _ in container.decode(video=0)) == 180 + 12


@pytest.mark.parametrize("seed", range(4))
def test_sharpness_measured_as_frames_come_is_that_of_all_of_them(seed):
    rng = np.random.default_rng(seed)
    n = 80
    time_s = np.cumsum(rng.choice([0.03, 0.1, 1.5], n))
    sharpness = rng.uniform(0, 1, n)
    rule = running._Sharp(time_s, sharpness)
    mask = rng.random(n) < 0.8
    for k in range(1, n + 1):
        if k % 17 == 0:  # some frames are taken back
            mask[: k // 2] = rng.random(k // 2) < 0.8
        weights = eligibility.time_weights(time_s[:k])
        rows = np.flatnonzero(mask[:k])
        if not rows.size:
            continue
        low, high = eligibility.neighbourhoods(time_s[rows])
        local = eligibility.local_sharpness(sharpness[rows], weights[rows], low, high)
        expected = eligibility.sharp_beside(sharpness[rows], weights[rows], local)
        np.testing.assert_array_equal(rule.after(mask[:k], weights), expected)


@pytest.mark.parametrize("views", [8, 4])
def test_a_state_is_the_selection_also_where_scores_are_no_numbers(views):
    table = walk.table(60, seed=2)
    rng = np.random.default_rng(0)

    def spoilt(array):
        array = np.array(array, np.float32)
        array[rng.random(60) < 0.2] = np.nan
        return array

    table = dataclasses.replace(
        table,
        entropy={name: spoilt(h) for name, h in table.entropy.items()},
        view_probs=spoilt(table.view_probs),
        box=spoilt(table.box),
    )
    states = list(running.states(table, attributes=NAMES, views=views))
    for n in (10, 26, 43, 60):
        chosen = selection.select_photos(
            table.take(slice(n)), policy="entropy", view_policy="first", views=views
        )
        assert frames_of(table, states[n - 1]) == selection.chosen_frames(chosen), n
        np.testing.assert_allclose(states[n - 1].coverage, chosen.orientation.coverage, atol=1e-4)
