"""Photos for a listing: what the seller knows, crops, formats, names, and what they hide."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import json
import math
import re
import shutil
import struct
import subprocess

import cv2
import jsonschema
import numpy as np
import pytest
import walk
from hypothesis import given
from hypothesis import strategies as st

import carjax
from carjax import parquet, pipeline, result_folder, selection, video
from carjax.attributes import CAR, VIEWS, find
from carjax.cli import main as command
from carjax.cli import select as select_command
from carjax.errors import UsageError
from carjax.listing import exif, known, photos, plan, redaction
from carjax.report import quality

unit = st.floats(0, 1)


# ------------------------------------------------------------------------------ what is known


def by_hand(table, rows, name, value):
    """The frame of the highest probability of a value among some rows."""
    p = table.probs[name][:, find(CAR, name).classes.index(value)]
    return int(table.frame[rows[np.argmax(p[rows])]])


@pytest.mark.parametrize("policy", ["consensus", "entropy"])
def test_the_photo_shows_best_what_is_stated(policy):
    from carjax.selection import eligibility

    table = walk.table(60, seed=2)
    stated = {"brand": "bmw", "doors": "5"}
    chosen = selection.select_photos(table, policy=policy, known=stated)
    rows = np.flatnonzero(eligibility.main_car_frames(table))
    if policy == "consensus":
        eligible = eligibility.eligible_frames(table) & eligibility.whole_frames(table)
        rows = np.flatnonzero(eligible)
    for name, value in (("brand", "BMW"), ("doors", "5")):
        choice = chosen.attributes[name]
        assert choice.frame == by_hand(table, rows, name, value)
        assert choice.value == choice.known.value == value
        index = find(CAR, name).classes.index(value)
        row = int(np.flatnonzero(table.frame == choice.frame)[0])
        assert choice.probability == pytest.approx(float(table.probs[name][row, index]))
        assert {a.value for a in choice.alternatives} <= {value}
    assert chosen.attributes["type"].known is None


def test_an_unknown_value_falls_back_to_entropy_and_says_so():
    table = walk.table(60, seed=2)
    chosen = selection.select_photos(table, known={"brand": "Lada"})
    brand = chosen.attributes["brand"]
    assert brand.known == known.Known("Lada", "outside")
    assert brand.value is None
    assert "Lada" in brand.reason
    from carjax.selection import eligibility

    rows = eligibility.eligible_frames(table) & eligibility.whole_frames(table)
    lowest = np.argmin(np.where(rows, table.entropy["brand"], np.inf))
    assert brand.frame == table.frame[lowest]


@pytest.mark.parametrize(
    ("pooled", "verdict"),
    [
        ([0.2, 0.8], "agrees"),
        ([0.92, 0.08], "disagrees"),
        ([0.6, 0.4], "unsure"),
        ([0.49, 0.09], "unsure"),
    ],
)
def test_only_a_strong_disagreement_is_told(pooled, verdict):
    attribute = dataclasses.replace(find(CAR, "doors"), classes=("2", "5"))
    said = known.compare(attribute, "5", np.array(pooled))
    assert said.verdict == verdict
    told = known.notice({"known": dataclasses.asdict(said)})
    assert told == ("looks like 2, listing says 5" if verdict == "disagrees" else "")


def test_a_stated_value_has_its_own_probability_and_no_certainty_of_another():
    choice = {"value": "BMW", "probability": 0.1, "certainty": 0.9}
    assert known.sureness(choice) == 0.9
    assert known.sureness(choice | {"known": {"verdict": "disagrees"}}) == 0.1
    # What the model does not know has no probability: the frame is the one of lowest entropy.
    assert known.sureness(choice | {"value": None, "known": {"verdict": "outside"}}) == 0.9


@pytest.mark.parametrize("words", [["brand"], ["brand:"], [":BMW"], ["doors:2", "doors:3"]])
def test_what_cannot_be_read_is_refused(words):
    with pytest.raises(UsageError, match="known"):
        known.parse(words)


@pytest.mark.parametrize("stated", [{"colour": "red"}, {"orientation": "front"}])
def test_an_attribute_that_the_model_does_not_have_is_refused(stated):
    with pytest.raises(UsageError, match="known"):
        selection.select_photos(walk.table(20), known=stated)


def test_what_is_known_of_an_attribute_that_is_not_chosen_is_refused():
    known.check(CAR, {"brand": "BMW"}, ("type", "brand"))
    with pytest.raises(UsageError, match="brand is not among the chosen attributes: type, doors"):
        known.check(CAR, {"brand": "BMW"}, ("type", "doors"))


@pytest.mark.parametrize("stated", [{"brand": "BMW", "doors": "2"}, {"brand": "Lada"}])
def test_the_json_fits_its_schema(stated):
    chosen = selection.select_photos(walk.table(60), known=stated)
    card = {"backbone": "b", "bundle": "m", "version": "1"}
    info = {"path": "x", "frames": 60, "duration_s": 6, "width": 4, "height": 3}
    content = selection.to_json(chosen, video=info | {"scored_frames": 60}, model=card)
    jsonschema.validate(content, selection.schema())
    assert content["attributes"]["brand"]["known"]["value"] == stated["brand"]
    assert "known" not in content["attributes"]["type"]


def test_the_screen_says_what_to_know_of_a_photo():
    disagrees = {"value": "BMW", "verdict": "disagrees", "looks_like": "Audi"}
    choice = {"content": "part", "known": disagrees}
    told = " (part of the car; looks like Audi, listing says BMW)"
    assert select_command._caveat(choice) == told
    unsure = disagrees | {"verdict": "unsure"}
    assert select_command._caveat({"content": "whole", "known": unsure}) == ""
    # That is the reason already, which stands in its place.
    assert select_command._caveat({"known": {"value": "Lada", "verdict": "outside"}}) == ""


# ------------------------------------------------------------------------------ crops


@pytest.mark.parametrize("box", [(math.nan, 0, 1, 1), (0, 0, math.inf, 1)])
def test_a_region_without_an_end_is_refused(box):
    with pytest.raises(UsageError, match="is no region"):
        redaction.fractions(box, 640, 360)


@given(
    st.tuples(unit, unit, unit, unit),
    st.integers(40, 4000),
    st.integers(40, 4000),
    st.sampled_from([4 / 3, 16 / 9]),
)
def test_a_crop_holds_the_car_in_its_shape(corners, width, height, aspect):
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    area = photos.crop_area(np.array([x0, y0, x1, y1]), width, height, aspect)
    cut = photos.crop_area(np.array([x0, y0, x1, y1]), width, height, aspect, cut=True)
    assert cut is not None
    most = min(width, height * aspect)
    if area is None:
        assert (x1 - x0) * width > most or (y1 - y0) * height * aspect > most
        area = cut
    else:
        assert area.left <= x0 * width + 1
        assert area.right >= x1 * width - 1
        assert area.top <= y0 * height + 1
        assert area.bottom >= y1 * height - 1
    assert area.left >= 0
    assert area.top >= 0
    assert area.right <= width
    assert area.bottom <= height
    across, down = area.right - area.left, area.bottom - area.top
    assert abs(across - down * aspect) <= 1 + aspect


def test_a_crop_leaves_a_margin_where_there_is_room():
    area = photos.crop_area(np.array([0.25, 0.4, 0.75, 0.6]), 1600, 1200, 4 / 3)
    assert (area.right - area.left) / 800 == pytest.approx(1.16, abs=0.01)
    assert (area.left + area.right) / 2 == pytest.approx(800, abs=1)


# ------------------------------------------------------------------------------ files


def exif_of(data: bytes, kind: str) -> bytes:
    """The TIFF structure of a photo, found by the container's own rules."""
    if kind == "jpg":
        at = data.index(b"\xff\xe1")
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        assert data[at + 4 : at + 10] == b"Exif\0\0"
        return data[at + 10 : at + 2 + length]
    at = data.index(b"eXIf" if kind == "png" else b"EXIF")
    order = "big" if kind == "png" else "little"
    sized = data[at - 4 : at] if kind == "png" else data[at + 4 : at + 8]
    start = at + 4 if kind == "png" else at + 8
    return data[start : start + int.from_bytes(sized, order)]


def tags(tiff: bytes) -> dict[int, object]:
    """Every tag of a little-endian TIFF structure and its EXIF directory."""
    found: dict[int, object] = {}

    def read(at: int) -> None:
        (count,) = struct.unpack_from("<H", tiff, at)
        for i in range(count):
            tag, kind, n, offset = struct.unpack_from("<HHII", tiff, at + 2 + 12 * i)
            if kind in (2, 7):
                start = at + 10 + 12 * i if n <= 4 else offset
                found[tag] = tiff[start : start + n].rstrip(b"\0").decode()
            else:
                found[tag] = offset & 0xFFFF if kind == 3 else offset
            if tag == 0x8769:
                read(offset)

    assert tiff[:4] == b"II*\0"
    read(struct.unpack_from("<I", tiff, 4)[0])
    return found


@pytest.mark.parametrize("kind", photos.FORMATS)
def test_photos_are_upright_and_know_their_time_and_nothing_else(kind):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:, :32] = (200, 40, 20)
    zone = datetime.timezone(datetime.timedelta(hours=2))
    taken = datetime.datetime(2023, 5, 1, 12, 0, 3, 250_000, zone)
    data = photos.encode(image, kind, taken)
    again = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(again.astype(int) - image).mean() < 6
    found = tags(exif_of(data, kind))
    assert found.pop(0x8769)  # where the second directory is
    assert found == {
        0x0112: 1,
        0x0132: "2023:05:01 12:00:03",
        0x9000: "0232",
        0x9003: "2023:05:01 12:00:03",
        0x9011: "+02:00",
        0x9291: "250",
        0xA001: 1,
    }


def test_no_time_is_made_up():
    assert set(tags(exif.build(None))) == {0x0112, 0x8769, 0x9000, 0xA001}


def test_names_sort_in_walking_order():
    views = {name: {"photo": f"photos/view_{name}.png"} for name in VIEWS}
    views["left"] = None
    content = {
        "attributes": {"type": {"photo": "photos/type.png"}, "brand": {"value": None}},
        "orientation": {"views": dict(reversed(views.items()))},
    }
    names = list(photos.listing_names(content).values())
    assert names == sorted(names)
    assert names[:3] == ["01_front.png", "02_front-left.png", "03_rear-left.png"]
    assert names[-1] == "08_type.png"


# ------------------------------------------------------------------------------ redaction


@pytest.mark.parametrize("box", [(0.2, 0.3, 0.4, 0.2), (64, 54, 128, 36)])
def test_what_a_region_held_is_gone_and_the_rest_is_untouched(box):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (180, 320, 3), np.uint8)
    boxes = [redaction.fractions(box, 320, 180)]
    out = redaction.blurred(image, boxes)
    inside = np.zeros((180, 320), bool)
    inside[54:90, 64:192] = True
    np.testing.assert_array_equal(out[~inside], image[~inside])
    assert len(np.unique(out[inside], axis=0)) <= 4
    # Whatever two regions held, what is left of them are a few multiples of 16.
    other = image.copy()
    other[inside] = image[inside][rng.permutation(inside.sum())]
    left = redaction.blurred(other, boxes)[inside].astype(int)
    assert np.abs(left - out[inside]).max() <= 16


def test_no_region_no_copy():
    image = np.zeros((4, 4, 3), np.uint8)
    assert redaction.blurred(image, []) is image


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3", "is not x,y,w,h"),
        ("a,b,c,d", "is not x,y,w,h"),
        ("nan,0,1,1", "is not x,y,w,h"),
        ("0,0,1,inf", "is not x,y,w,h"),
        ("0,0,0,1", "has no width or no height"),
        ("0,0,-1,1", "has no width or no height"),
    ],
)
def test_a_region_that_is_none_is_refused(text, message):
    with pytest.raises(UsageError, match=f"redact: {text!r} {message}"):
        redaction.parse(text)


def test_a_region_outside_of_the_frame_is_refused():
    told = "redact: 700,0,10,10 lies outside of the frame, which has 640×360 pixels"
    with pytest.raises(UsageError, match=told):
        redaction.fractions((700, 0, 10, 10), 640, 360)


# ------------------------------------------------------------------------------ all of it


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Everything that carjax writes of a video with a phone's metadata, from a telling folder."""
    from types import SimpleNamespace

    folder = tmp_path_factory.mktemp("of_erika_mustermann")
    source = folder / "walk.mov"
    walk.write(source, 40, metadata=walk.PRIVATE)
    table = walk.table(40, seed=3)
    origin = {"backbone": "none", "bundle": "none", "version": "0"}
    shell = SimpleNamespace(spec=SimpleNamespace(unknown_above={}, schema=CAR), origin=origin)
    options = pipeline.Options(
        annotate="all",
        strip_paths=True,
        redact=((64, 74, 32, 32),),
        known={"brand": "BMW", "doors": "2"},
        format="png",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pipeline,
            "score_video",
            lambda model, path, **_: (table, video.Decoder(path, fps="all")),
        )
        content = pipeline.select(shell, source, folder / "out", options)
    return source, folder / "out", content


def test_what_is_stated_is_printed_as_text(exported, capsys):
    _, out, content = exported
    brand = content["attributes"]["brand"] | {"value": "[/red]"}
    select_command.show({"attributes": {"brand": brand}}, out)
    assert "[/red]" in capsys.readouterr().out


def test_no_export_tells_place_device_owner_or_folder(exported):
    source, out, content = exported
    raw = source.read_bytes()
    for secret in (walk.PLACE, walk.DEVICE, walk.OWNER):
        assert secret.encode() in raw  # the video does tell
    assert b"\xa9xyz" in raw
    files = [p for p in out.rglob("*") if p.is_file()]
    assert {p.suffix for p in files} == {".png", ".html", ".json", ".mp4", ".parquet"}
    for path in files:
        data = path.read_bytes()
        for secret in (walk.PLACE, walk.DEVICE, walk.OWNER, str(source.parent), "erika_muster"):
            assert secret.encode() not in data, path.name
    assert content["video"]["path"] == "walk.mov"
    assert parquet.read(out / "scores.parquet")[1] == ["walk.mov"] * 40


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_an_independent_reader_finds_no_private_tag(exported):
    _, out, _ = exported
    files = [*out.glob("photos/*"), out / "annotated.mp4"]
    said = json.loads(
        subprocess.run(
            ["exiftool", "-j", "-G1", "-a", "-ee", *map(str, files)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    for tagged in said:
        names = {name.split(":")[-1] for name in tagged}
        private = (
            "GPS",
            "Make",
            "Model",
            "Artist",
            "Author",
            "Owner",
            "Serial",
            "Title",
            "Comment",
        )
        assert not [name for name in names if name.startswith(private)], tagged


def test_photos_carry_the_time_of_their_frame(exported):
    _, out, content = exported
    choice = content["attributes"]["type"]
    found = tags(exif_of((out / choice["photo"]).read_bytes(), "png"))
    started = datetime.datetime(2023, 5, 1, 12, tzinfo=datetime.UTC)
    taken = started + datetime.timedelta(seconds=choice["time_s"])
    assert found[0x9003] == taken.strftime("%Y:%m:%d %H:%M:%S")
    assert found[0x9291] == f"{taken.microsecond // 1000:03d}"


def test_the_region_is_gone_from_photos_and_annotated_video(exported):
    source, out, content = exported
    (original,) = video.grab(source, {0}).values()
    assert original[74:106, 64:96].std() > 100  # black and white dots
    for path in out.glob("photos/*.png"):
        assert cv2.imread(str(path))[74:106, 64:96].std() < 40
    for frame in video.frames(out / "annotated.mp4", fps="all"):
        # Nothing in the current frame is black but the dots.
        assert frame.image[60:310, 40:490].min() > 25
    assert content["attributes"]["brand"]["value"] == "BMW"


def test_the_region_is_gone_from_every_picture_of_the_report(exported):
    """Alternatives are shown there, and nowhere else."""
    _, out, content = exported
    page = (out / "report.html").read_text()
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    frames = {a["frame"] for c in content["attributes"].values() for a in c["alternatives"]}
    assert len(found) > len(list(out.glob("photos/*"))) > len(frames) > 0
    for data in found:
        image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 0)
        assert cv2.resize(image, (320, 180))[78:102, 68:92].std() < 30


@pytest.mark.parametrize("text", ["0.6,0.7,1.05,0.1", "10,20,30,0.5", "0.5,20,30,40"])
def test_a_region_is_of_pixels_or_of_fractions(text):
    with pytest.raises(UsageError, match="neither whole pixels nor fractions"):
        redaction.fractions(redaction.parse(text), 640, 360)
    assert redaction.fractions((64, 36.0, 128, 36), 640, 360) == (0.1, 0.1, 0.2, 0.1)


def test_stated_doors_may_be_a_number():
    doors = find(CAR, "doors")
    assert known.class_of(doors, 4) == known.class_of(doors, 4.0) == doors.classes.index("4")
    assert known.compare(doors, 9, np.full(4, 0.25)).value == "9"


def test_photos_of_an_earlier_run_do_not_stay(tmp_path):
    target = tmp_path / "out"
    for kind in ("png", "jpg"):
        with result_folder.writing(target) as folder:
            (folder / "photos" / f"type.{kind}").write_bytes(b"x")
            if kind == "png":
                (folder / result_folder.ANNOTATED).write_bytes(b"x")
            choice = {"photo": f"photos/type.{kind}"}
            (folder / "selection.json").write_text(json.dumps({"attributes": {"type": choice}}))
    found = {p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()}
    assert found == {"photos/type.jpg", "selection.json"}


# ------------------------------------------------------------------------------ what to film again


def test_the_plan_names_what_is_missing_and_why():
    flat = [1 / (2 * np.pi)] * 360
    empty = [0.0 if 20 < a < 160 else 2 / (2 * np.pi) for a in range(360)]
    views = {name: {"content": "whole"} for name in VIEWS} | {"left": None}
    content = {"attributes": {}, "orientation": {"views": views, "coverage": empty}}
    assert plan.shots(content) == ["film the left side: the video does not show it"]
    content["orientation"]["coverage"] = flat
    (line,) = plan.shots(content)
    assert line.startswith("film the left side again, slowly")
    content["orientation"]["views"]["left"] = {"content": "part"}
    assert plan.shots(content) == [
        "film the left side from further away: no frame shows the whole car"
    ]
    content["attributes"] = {"doors": {"value": None, "reason": "no sharp frame shows a car"}}
    assert plan.shots(content)[1] == "film what shows the doors: no sharp frame shows a car"


def test_quality_notes_add_up():
    table = walk.table(60, seed=1)
    lines = quality.notes(table, {"width": 1920, "height": 1080})
    shares = [int(line.split("%")[0].lstrip("<>")) for line in lines]
    assert sum(shares) == pytest.approx(100, abs=3)
    assert any("another car" in line for line in lines)
    small = quality.notes(table, {"width": 320, "height": 180})
    assert small[:-1] == lines
    assert "320 × 180" in small[-1]


# ------------------------------------------------------------------------------ the command


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--known=brand", "attribute:value"),
        ("--redact=1,2,3", "x,y,w,h"),
        ("--redact=900,900,10,10", "outside"),
        ("--crop=1:1", "crop"),
        ("--format=gif", "format"),
    ],
)
def test_wrong_flags_fail_in_one_line(tmp_path, capsys, flag, message):
    walk.write(tmp_path / "walk.mp4", 4)
    words = ["select", str(tmp_path / "walk.mp4"), f"--out={tmp_path / 'out'}", flag]
    assert command.main(words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("carjax: ")
    assert not (tmp_path / "out").exists()


def test_annotating_scores_every_frame(tmp_path, capsys):
    walk.write(tmp_path / "walk.mp4", 4)
    words = ["select", str(tmp_path / "walk.mp4"), f"--out={tmp_path / 'out'}", "--annotate=all"]
    assert command.main([*words, "--fps=2"]) == 2
    assert "leave out --fps" in capsys.readouterr().err
    with pytest.raises(UsageError, match="one of: brand"):
        pipeline.check_options(
            carjax.load_model(), pipeline.Options(attributes=("brand",), annotate="type")
        )


def test_a_tall_car_has_a_margin_too_and_lies_in_the_middle():
    area = photos.crop_area(np.array([0.45, 0.2, 0.55, 0.7]), 1600, 1000, 4 / 3)
    assert (area.bottom - area.top) / 500 == pytest.approx(1.16, abs=0.01)
    assert (area.top + area.bottom) / 2 == pytest.approx(450, abs=1)
    assert (area.left + area.right) / 2 == pytest.approx(800, abs=1)


def test_a_photo_is_cut_to_the_car_where_all_of_it_fits():
    image = np.arange(180 * 320 * 3, dtype=np.uint32).reshape(180, 320, 3)
    box = np.array([0.5, 0.4, 0.8, 0.8])  # 160…256 by 72…144 pixels
    area = photos.crop_area(box, 320, 180, 4 / 3)
    photo = photos.cropped(image, box, "4:3")
    np.testing.assert_array_equal(photo, image[area.top : area.bottom, area.left : area.right])
    assert photo.shape[1] / photo.shape[0] == pytest.approx(4 / 3, abs=0.02)
    assert photo.shape < image.shape
    assert photos.cropped(image, box, "none") is image
    assert photos.cropped(image, box * np.nan, "4:3") is image
    assert photos.cropped(image, np.array([0.0, 0.3, 1.0, 0.7]), "4:3") is image  # too wide


@pytest.mark.parametrize(
    ("pooled", "verdict"),
    [([0.5, 0.1], "disagrees"), ([0.499, 0.1], "unsure"), ([0.5, 0.101], "unsure")],
)
def test_odds_of_five_to_one_are_a_disagreement(pooled, verdict):
    attribute = dataclasses.replace(find(CAR, "doors"), classes=("2", "5"))
    assert known.compare(attribute, "5", np.array(pooled)).verdict == verdict


def test_the_plan_asks_for_a_clearer_picture_of_what_is_uncertain_alone():
    unsure = {"frame": 1, "value": "2", "certainty": 0.31}
    content = {
        "attributes": {
            "brand": unsure | {"value": None},  # none that the model knows
            "type": unsure | {"known": {"value": "SUV", "verdict": "unsure"}},
            "seats": unsure | {"certainty": 0.9},
            "doors": unsure,
        }
    }
    assert plan.shots(content) == [
        "film what shows the doors more clearly: the best frame has a certainty of 31%"
    ]
    part = {"attributes": {"doors": unsure | {"content": "part"}}}
    assert plan.shots(part) == [
        "film what shows the doors from further away: the photo shows only a part"
    ]


@pytest.mark.parametrize(("views", "half"), [(VIEWS, 22), (VIEWS[::2], 45)])
def test_a_side_is_passed_by_the_mean_over_its_own_bin(views, half):
    cells = np.arange(360)
    away = np.abs((cells - 90 + 180) % 360 - 180)
    for share, found in ((0.45, False), (0.55, True)):
        # That share of an even coverage in the bin of the left side, none or much elsewhere.
        for elsewhere in (0.0, 3.0):
            level = np.where(away <= half, share, elsewhere) / (2 * np.pi)
            orientation = {"views": dict.fromkeys(views), "coverage": level.tolist()}
            assert plan.passes(orientation, "left") is found
    # Both sides of the bin count, and what is near to its ends.
    for part in (cells > 90, cells < 90, away > half / 2):
        level = np.where((away <= half) & part, 1.3, 0.0) / (2 * np.pi)
        assert plan.passes({"views": dict.fromkeys(views), "coverage": level.tolist()}, "left")


def test_a_region_may_be_the_whole_frame():
    assert redaction.fractions(redaction.parse("0,0,1,1"), 640, 360) == (0, 0, 1, 1)
    image = np.random.default_rng(0).integers(0, 256, (36, 64, 3), np.uint8)
    out = redaction.blurred(image, [redaction.fractions((0, 0, 1, 1), 64, 36)])
    assert len(np.unique(out.reshape(-1, 3), axis=0)) <= 4 * 4
    assert set(np.unique(out) % 16) == {8}  # many frames of one plate add up to no more


def test_every_pixel_that_a_region_touches_is_covered():
    image = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    image |= 1  # what is left of a region is even
    # From 0.7 of pixel 20 to 0.3 of pixel 60, and from 0.7 of pixel 10 to 0.3 of pixel 40.
    box = (20.7 / 130, 10.7 / 90, 39.6 / 130, 29.6 / 90)
    covered = (redaction.blurred(image, [box]) % 2 == 0).all(axis=2)
    expected = np.zeros((90, 130), bool)
    expected[10:41, 20:61] = True
    np.testing.assert_array_equal(covered, expected)


@pytest.mark.parametrize(("hours", "zone"), [(-3.5, "-03:30"), (0, "+00:00"), (13, "+13:00")])
def test_the_zone_and_the_fraction_of_a_second_have_their_full_length(hours, zone):
    taken = datetime.datetime(
        2023, 5, 1, 12, 0, 3, 7_900, datetime.timezone(datetime.timedelta(hours=hours))
    )
    found = tags(exif.build(taken))
    assert found[0x9011] == zone
    assert found[0x9291] == "007"
