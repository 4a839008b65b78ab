"""The report, on a synthetic table along the true azimuths of the sample video."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import html.parser
import itertools
import json
import math
import os
import pathlib
import re
import urllib.parse
import xml.etree.ElementTree as ET

import cv2
import jsonschema
import numpy as np
import pytest
import score_tables
from scipy import stats

from carjax.attributes import CAR, VIEWS
from carjax.report import polar, timelines, write_report
from carjax.report.series import series
from carjax.report.svg import certainty_bar, number
from carjax.report.timelines import Mark
from carjax.selection import schema
from carjax.table import ScoreTable
from carjax.wording import clock, percent

SAMPLE = pathlib.Path(__file__).parents[1] / "data" / "prius_walkaround.mp4"
TRUTH = {"type": "hatchback", "brand": "Toyota", "doors": "5", "seats": "5"}


# ------------------------------------------------------------------------------ fixtures


def make_table(stride: int = 1) -> ScoreTable:
    """Plausible scores: the true azimuths with noise, less certain where the video is spoilt."""
    with open(SAMPLE.with_suffix(".csv"), encoding="utf-8") as f:
        rows = list(csv.DictReader(f))[::stride]
    rng = np.random.default_rng(0)
    n = len(rows)
    truth = np.array([float(r["azimuth_deg"]) for r in rows])
    spoilt = np.array([r["degraded"] == "1" for r in rows])
    azimuth = (truth + rng.normal(0, 3, n)) % 360
    kappa = np.where(spoilt, 4.0, 140 * np.exp(rng.normal(0, 0.5, n)))
    # Each attribute shows from its own direction, so its certainty peaks there.
    best = {"type": 50.0, "brand": 0.0, "doors": 90.0, "seats": 120.0}
    probs = {}
    for attribute in CAR[:-1]:
        k = len(attribute.classes)
        facing = np.cos(np.radians(truth - best[attribute.name]))
        logits = rng.normal(0, 0.15, (n, 1)) * rng.normal(0, 1, (n, k)) + rng.normal(0, 0.4, k)
        logits[:, attribute.classes.index(TRUTH[attribute.name])] += (
            np.where(spoilt, 1.5, 4.5 + 2.2 * facing) + rng.normal(0, 0.25, n) + math.log(k / 4)
        )
        p = np.exp(logits - logits.max(1, keepdims=True))
        probs[attribute.name] = p / p.sum(1, keepdims=True)
    car = np.where(np.arange(n) >= n - max(n // 30, 1), 0.1, 0.95) if n > 2 else np.ones(n)
    return score_tables.make_table(
        CAR,
        frame=np.array([int(r["frame"]) for r in rows]),
        time_s=np.array([float(r["time_s"]) for r in rows]),
        probs=probs,
        azimuth_deg=azimuth,
        kappa=kappa,
        car_probability=car.astype(np.float32),
    )


def make_selection(table: ScoreTable, path: str = "data/prius_walkaround.mp4") -> dict:
    """The content of selection.json by the plainest rules, without the code that makes it."""
    attributes = {}
    for attribute in table.categorical:
        p, h = table.probs[attribute.name], table.entropy[attribute.name]
        items = []
        for i in np.argsort(h):
            if all(abs(table.time_s[i] - m["time_s"]) >= 1 for m in items) and len(items) < 4:
                items.append(
                    {
                        "value": attribute.classes[p[i].argmax()],
                        "probability": float(p[i].max()),
                        "entropy": float(h[i]),
                        "certainty": float(1 - h[i] / math.log(len(attribute.classes))),
                        "frame": int(table.frame[i]),
                        "time_s": float(table.time_s[i]),
                    }
                )
        attributes[attribute.name] = items[0] | {
            "photo": f"photos/{attribute.name}.jpg",
            "video_probability": 0.91,
            "alternatives": items[1:],
        }
    views = {}
    for v, name in enumerate(VIEWS):
        i = int(table.view_probs[:, v].argmax())
        views[name] = None
        if table.view_probs[i, v] > 0.8:
            views[name] = {
                "azimuth_deg": float(table.azimuth_deg[i]),
                "kappa": float(table.kappa[i]),
                "probability": float(table.view_probs[i, v]),
                "frame": int(table.frame[i]),
                "time_s": float(table.time_s[i]),
                "photo": f"photos/view_{name}.jpg",
            }
    found = [v for v in views.values() if v]
    grid = np.radians(np.arange(360)[:, None] - table.azimuth_deg)
    return {
        "schema_version": 1,
        "video": {
            "path": path,
            "frames": 180,
            "duration_s": 15.0,
            "width": 640,
            "height": 360,
            "scored_frames": len(table),
        },
        "attributes": attributes,
        "orientation": {
            "views": views,
            "missing": [name for name, v in views.items() if v is None],
            "order": [v["frame"] for v in sorted(found, key=lambda v: v["azimuth_deg"])],
            "coverage": stats.vonmises.pdf(grid, table.kappa).mean(1).tolist(),
        },
        "model": {"backbone": "efficientnet_lite2", "bundle": "car_heads", "version": "0.1.0"},
    }


def named_photos(selection: dict) -> dict[str, int]:
    """Photo path → frame, of every photo that the selection names."""
    items = [a for a in selection["attributes"].values() if "photo" in a]
    items += [v for v in selection.get("orientation", {"views": {}})["views"].values() if v]
    return {item["photo"]: item["frame"] for item in items}


def grey_photos(selection: dict, shape: tuple[int, int] = (360, 640)) -> dict[str, np.ndarray]:
    return {path: np.full((*shape, 3), 128, np.uint8) for path in named_photos(selection)}


def drop_view(selection: dict, *names: str) -> None:
    for name in names:
        selection["orientation"]["views"][name] = None
    missing = [n for n, v in selection["orientation"]["views"].items() if v is None]
    selection["orientation"]["missing"] = missing


class Page(html.parser.HTMLParser):
    """A page's tags, text outside style, and whether its tags close in order."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.stack: list[str] = []
        self.svgs = [ET.fromstring(s) for s in re.findall(r"<svg.*?</svg>", text, re.S)]
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if "style" not in self.stack:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def write(
    selection: dict, table: ScoreTable, out: pathlib.Path, photos: dict | None = None
) -> Page:
    jsonschema.validate(selection, schema())
    photos = grey_photos(selection) if photos is None else photos
    path = write_report(selection, table, photos, out)
    assert path == out / "report.html"
    assert [p.name for p in out.iterdir()] == ["report.html"]
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def table() -> ScoreTable:
    return make_table()


@pytest.fixture
def selection(table) -> dict:
    return make_selection(table)


# ------------------------------------------------------------------------------ the page


def test_shows_every_number_of_the_selection(selection, table, tmp_path):
    page = write(selection, table, tmp_path / "out")
    for name, item in selection["attributes"].items():
        assert (
            f"{name.capitalize()} {item['value']} Certainty {percent(item['certainty'])}"
            in page.text
        )
        assert f"Entropy {item['entropy']:.2f} nats Time {clock(item['time_s'])}" in page.text
        assert f"Frame {item['frame']} Next best moments" in page.text
        for other in item["alternatives"]:
            row = f"{other['value']} {percent(other['certainty'])} {clock(other['time_s'])}"
            assert row in page.text
    for name, view in selection["orientation"]["views"].items():
        assert (
            f"{name.replace('-', ' ').capitalize()} {percent(view['probability'])} sure"
            in page.text
        )
        assert f"azimuth {view['azimuth_deg']:.1f}° · κ {view['kappa']:.0f}" in page.text
    for fact in (
        "Length 0:15.0",
        "180 of 180",
        "640 × 360",
        "Views found 8 of 8",
        "car_heads 0.1.0",
    ):
        assert fact in page.text
    assert "not the chance that the answer is right" in page.text


def test_thumbnails_are_the_chosen_frames_and_the_page_is_small(selection, table, tmp_path):
    capture = cv2.VideoCapture(str(SAMPLE))
    frames = [capture.read()[1] for _ in range(180)]
    named = named_photos(selection)
    photos = {path: frames[frame][:, :, ::-1] for path, frame in named.items()}
    page = write(selection, table, tmp_path, photos)
    assert (tmp_path / "report.html").stat().st_size < 500_000
    links, images = page.all("a"), page.all("img")
    assert len(links) == len(images) == 12
    for link, image in zip(links, images, strict=True):
        assert urllib.parse.unquote(link["href"]) in named
        data = base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))
        small = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert small.shape == (270, 480, 3)
        assert (image["width"], image["height"]) == ("480", "270")
        whole = frames[named[link["href"]]]
        threefold = whole.repeat(3, 0).repeat(3, 1)  # three quarters of the size, and still BGR
        expected = threefold.reshape(270, 4, 480, 4, 3).mean((1, 3))
        assert np.abs(small - expected).mean() < 4
        assert image["alt"]
    assert {link["href"] for link in links} == set(named)


def test_loads_nothing_and_links_relatively(selection, table, tmp_path):
    page = write(selection, table, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for _, attrs in page.tags:
        for key in ("src", "href", "srcset", "data", "action", "xlink:href", "poster"):
            value = attrs.get(key)
            if value is not None and not value.startswith("data:"):
                parts = urllib.parse.urlsplit(value)
                assert not parts.scheme
                assert not parts.netloc
                assert not value.startswith("/")
        assert not any(key.startswith("on") for key in attrs)
    assert [s.get("type") for s in page.all("script")] == ["application/json", "module"]
    assert not re.search(r"https?://|@import|url\(", text)
    policy = next(
        m["content"] for m in page.all("meta") if "content" in m and "src" in m["content"]
    )
    assert policy.startswith("default-src 'none'; img-src data:;")
    script = re.search('<script type="module">(.*?)</script>', text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")


def test_the_series_is_the_table(selection, table, tmp_path):
    write(selection, table, tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    held = json.loads(re.search('id="series">(.*?)</script>', text, re.S)[1])
    assert held["frame"] == table.frame.tolist()
    assert held["time_s"] == pytest.approx(table.time_s.tolist(), abs=5e-4)
    doors = held["attributes"]["doors"]
    assert doors["label"] == table.probs["doors"].argmax(1).tolist()
    assert doors["probability"] == pytest.approx(table.probs["doors"].max(1).tolist(), abs=6e-4)
    assert held["view_probability"] == pytest.approx(table.view_probs.max(1).tolist(), abs=6e-4)


def test_is_accessible(selection, table, tmp_path):
    page = write(selection, table, tmp_path)
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("title")) >= 1
    assert len(page.all("h1")) == 1
    assert len(page.all("main")) == 1
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {s["aria-labelledby"] for s in page.all("section")} == set(ids) - {"series"}
    for svg in page.svgs:
        assert svg.get("aria-hidden") == "true" or (
            svg.get("role") == "img" and svg.get("aria-label")
        )


def luminance(colour: str) -> float:
    """Relative luminance of '#rrggbb' (WCAG 2.2)."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_of_wcag_aa(mode):
    style = (pathlib.Path(timelines.__file__).parent / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.S)
    colours = dict(re.findall(r"--(\w+): (#\w{6})", blocks[mode]))
    for ink in ("text", "muted", "accent", "mark"):
        for paper in ("page", "card"):
            a, b = sorted((luminance(colours[ink]), luminance(colours[paper])))
            assert (b + 0.05) / (a + 0.05) >= 4.5, (ink, paper)


def test_names_missing_views_and_reasons(selection, table, tmp_path):
    drop_view(selection, "rear-right", "left")
    selection["attributes"]["brand"] = {"value": None, "reason": "no sharp frame shows a car"}
    page = write(selection, table, tmp_path)
    assert (
        "6 of 8 views found. To complete them, film the left side and the rear right side."
        in page.text
    )
    assert "Film the rear right side" in page.text
    assert "Film the left side" in page.text
    assert "Brand not found no sharp frame shows a car" in page.text
    assert len(page.all("img")) == 9
    polar = next(svg for svg in page.svgs if svg.get("class") == "polar")
    assert [p.get("class") for p in polar.iter("path")].count("rim missing") == 2


def test_numbers_of_an_unknown_class_name_the_class_that_they_are_of(selection, table, tmp_path):
    brand = selection["attributes"]["brand"]
    brand |= {"value": None, "reason": "unknown brand", "nearest": "Honda", "probability": 0.64}
    brand["video_probability"] = 0.43
    brand["alternatives"] = [{**brand["alternatives"][0], "value": "Honda", "probability": 0.52}]
    said = write(selection, table, tmp_path).text
    said = said[said.index("Brand unknown brand") : said.index("Doors ")]
    assert "The nearest that the model knows: Honda, 64% Video probability of Honda 43%" in said
    assert "Certainty" not in said
    assert "Frame probability" not in said
    assert "Honda 99% certain" in said  # by which they follow each other; no probability


def test_escapes_what_comes_from_outside(selection, table, tmp_path):
    nasty = "<script>alert('1')</script> & \"Ä車\u202e"
    selection["video"]["path"] = f"/films/<b>{nasty}.mp4"
    selection["model"]["bundle"] = nasty
    item = selection["attributes"]["brand"]
    item["value"] = nasty * 20
    item["alternatives"][0]["value"] = nasty
    selection["attributes"]["doors"] = {"value": None, "reason": nasty}
    page = write(selection, table, tmp_path)
    assert [s.get("type") for s in page.all("script")] == ["application/json", "module"]
    assert not page.all("b")
    assert f"/films/<b>{nasty}.mp4" in " ".join(page.words)
    titles = [t.text for svg in page.svgs for t in svg.iter("title")]
    assert any(t.startswith(f"{nasty}, certainty") for t in titles)
    assert any((img["alt"] or "").endswith(nasty * 20) for img in page.all("img"))


def test_paths_that_are_not_unicode_and_odd_photo_names(selection, table, tmp_path):
    selection["video"]["path"] = os.fsdecode(b"clip\xff.mp4")
    selection["attributes"]["type"]["photo"] = "photos/a b#c?d:é.jpg"
    page = write(selection, table, tmp_path)
    assert "clip\\udcff.mp4" in page.text
    link = page.all("a")[0]["href"]
    assert urllib.parse.urlsplit(link).path == link
    assert urllib.parse.unquote(link) == "photos/a b#c?d:é.jpg"


@pytest.mark.parametrize("absent", ["orientation", "attributes", "some"])
def test_what_was_not_asked_for_is_not_shown(selection, table, tmp_path, absent):
    if absent == "orientation":
        del selection["orientation"]
    elif absent == "attributes":
        selection["attributes"] = {}
    else:
        del selection["attributes"]["seats"], selection["attributes"]["brand"]
    page = write(selection, table, tmp_path)
    assert ("Around the car" in page.text) == (absent != "orientation")
    assert ("The photos" in page.text) == (absent != "attributes")
    drawn = [s.get("class") for s in page.svgs].count("timeline")
    assert drawn == {"orientation": 4, "attributes": 2, "some": 4}[absent]
    assert ("Seats" in page.text) == (absent == "orientation")


def test_nothing_found_at_all_still_makes_a_page(selection, table, tmp_path):
    drop_view(selection, *VIEWS)
    selection["orientation"] |= {"order": [], "coverage": [1 / (2 * math.pi)] * 360}
    selection["attributes"] = {n: {"value": None, "reason": "no car"} for n in TRUTH}
    page = write(selection, table, tmp_path, photos={})
    assert page.all("img") == page.all("a") == []
    assert "0 of 8 views found" in page.text
    for side in ("front", "front left side", "rear", "rear right side"):
        assert f"Film the {side}" in page.text


def test_four_views(selection, table, tmp_path):
    views = selection["orientation"]["views"]
    selection["orientation"]["views"] = {n: views[n] for n in VIEWS[::2]}
    page = write(selection, table, tmp_path)
    assert "All 4 views found." in page.text
    azimuth = [s for s in page.svgs if s.get("class") == "timeline"][4]
    bands = [r for r in azimuth.iter("rect") if r.get("class").startswith("band")]
    assert len(bands) == 4
    assert [t.text for t in azimuth.iter("text")][:4] == [
        "front 0°",
        "left 90°",
        "rear 180°",
        "right 270°",
    ]


@pytest.mark.parametrize("duration", [0.0, 1 / 12])
def test_one_frame(tmp_path, duration):
    table = make_table(stride=1000)
    assert len(table) == 1
    selection = make_selection(table)
    selection["video"] |= {"frames": 1, "scored_frames": 1, "duration_s": duration}
    page = write(selection, table, tmp_path)
    assert "1 of 1" in page.text
    for svg in page.svgs:
        assert "nan" not in ET.tostring(svg, encoding="unicode")
        if svg.get("class") == "timeline":
            drawn = {e.get("class").split()[0] for e in svg.iter() if e.get("class")}
            assert drawn & {"single", "dots"}


def test_portrait_thumbnails_stay_small(selection, table, tmp_path):
    selection["video"] |= {"width": 1080, "height": 1920}
    page = write(selection, table, tmp_path, grey_photos(selection, (1920, 1080)))
    assert page.all("body") == [{"class": "portrait"}]
    assert {(i["width"], i["height"]) for i in page.all("img")} == {("270", "480")}


def test_a_photo_that_is_not_there_or_not_an_image_is_an_error(selection, table, tmp_path):
    photos = grey_photos(selection)
    del photos["photos/view_rear.jpg"]
    with pytest.raises(ValueError, match=r"photos has no 'photos/view_rear\.jpg'"):
        write_report(selection, table, photos, tmp_path)
    photos["photos/view_rear.jpg"] = np.zeros((4, 4, 3), np.float32)
    with pytest.raises(ValueError, match=r"view_rear\.jpg: a photo must be uint8 \[H, W, 3\]"):
        write_report(selection, table, photos, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(selection, table, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="file"):
        write_report(selection, table, grey_photos(selection), tmp_path / "file")


def test_replaces_an_older_report(selection, table, tmp_path):
    (tmp_path / "report.html").write_text("old")
    page = write(selection, table, tmp_path)
    assert "old" not in page.text.split()


# ------------------------------------------------------------------------------ the charts


def points(path: str) -> np.ndarray:
    """The points of a path of straight absolute lines, [N, 2]."""
    return np.array([[float(v) for v in p.split()] for p in re.findall(r"[ML]([^MLVHZhv]+)", path)])


def find(svg: str | ET.Element, kind: str) -> list[ET.Element]:
    root = ET.fromstring(svg) if isinstance(svg, str) else svg
    return [e for e in root.iter() if e.get("class") == kind]


def test_polar_points_match_the_coverage(selection):
    coverage = np.array(selection["orientation"]["coverage"])
    drawn = points(find(polar.coverage_polar(coverage), "density")[0].get("d"))
    assert drawn.shape == (360, 2)
    east, north = drawn[:, 0] - 200, 200 - drawn[:, 1]
    # Counter-clockwise from the top of the screen.
    azimuth = np.degrees(np.arctan2(-east, north)) % 360
    away = (azimuth - np.arange(360) + 180) % 360 - 180
    assert np.abs(away).max() < 0.1
    # The area outside the hub is the probability: solve for the density and compare.
    radius = np.hypot(east, north)
    share = (radius**2 - 54**2) / (140**2 - 54**2)
    np.testing.assert_allclose(share * coverage.max(), coverage, atol=0.002 * coverage.max())
    assert radius.max() == pytest.approx(140, abs=0.1)


def test_polar_area_is_the_share_of_the_video():
    azimuth = np.arange(360)
    density = stats.vonmises.pdf(np.radians(azimuth - 90), 8)
    radius = polar.polar_radius(density, density.max())
    area = 0.5 * (radius**2 - 54**2)
    for low, high in ((45, 135), (80, 100), (180, 300)):
        part = slice(low, high + 1)
        drawn = np.trapezoid(area[part]) / area.sum()
        true = np.diff(stats.vonmises.cdf(np.radians(np.array([low, high]) - 90), 8))[0]
        assert drawn == pytest.approx(true, abs=1e-3)


@pytest.mark.parametrize(
    ("azimuth", "where"), [(0, (200, 60)), (90, (60, 200)), (180, (200, 340)), (270, (340, 200))]
)
def test_polar_convention_left_side_of_the_car_is_left(azimuth, where):
    name = VIEWS[azimuth // 45]
    svg = polar.coverage_polar(np.full(360, 0.16), {name: float(azimuth)})
    dot = find(svg, "dot")[0]
    assert (float(dot.get("cx")), float(dot.get("cy"))) == pytest.approx(where)
    labels = {"".join(t.itertext()): t for t in ET.fromstring(svg).iter("text")}
    text = labels[f"{name}{azimuth}°"]
    assert np.hypot(float(text.get("x")) - where[0], float(text.get("y")) - where[1]) < 40


def test_polar_arcs_are_the_bins():
    svg = polar.coverage_polar(np.full(360, 0.16), {n: None for n in VIEWS[::2]} | {"left": 99.0})
    found = find(svg, "rim found")
    assert len(find(svg, "rim missing")) == 3
    numbers = [float(v) for v in re.findall(r"[\d.]+", found[0].get("d"))]
    ends = [(numbers[0], numbers[1]), (numbers[-2], numbers[-1])]
    angles = [math.degrees(math.atan2(200 - x, 200 - y)) % 360 for x, y in ends]
    assert angles == pytest.approx([47, 133], abs=0.1)
    assert numbers[4:7] == [0, 0, 0]  # no rotation, the small arc, counter-clockwise


def test_the_arc_of_a_single_view_goes_almost_all_around():
    svg = polar.coverage_polar(np.full(360, 0.16), {"front": 3.0})
    numbers = re.findall(r"[\d.]+", find(svg, "rim found")[0].get("d"))
    assert numbers[4:7] == ["0", "1", "0"]  # no rotation, the large arc, counter-clockwise


@pytest.mark.parametrize(("value", "text"), [(-0.04, "0"), (2.0, "2"), (-1.26, "-1.3")])
def test_coordinates_have_no_digit_that_says_nothing(value, text):
    assert number(value) == text


def test_flat_coverage_is_a_circle_on_the_even_ring():
    svg = polar.coverage_polar(np.full(360, 1 / (2 * math.pi)))
    radius = np.hypot(*(points(find(svg, "density")[0].get("d")) - 200).T)
    even = float(find(svg, "even")[0].get("r"))
    assert np.abs(radius - even).max() < 0.15
    assert 54 < even < 140


@pytest.mark.parametrize("bad", [[0.1] * 359, [-0.1] + [0.1] * 359, [math.nan] + [0.1] * 359])
def test_polar_refuses_what_is_no_coverage(bad):
    with pytest.raises(ValueError, match="360 finite numbers"):
        polar.coverage_polar(bad)


def test_polar_refuses_unknown_views():
    with pytest.raises(ValueError, match="no view is named 'roof'"):
        polar.coverage_polar([0.16] * 360, {"roof": 1.0})


def test_timeline_draws_the_numbers():
    svg = timelines.timeline(
        [0, 2, 5],
        [0.0, 1.0, 0.5],
        name="type",
        chosen=Mark(2, 1.0, "SUV & co"),
        alternatives=[Mark(5, 0.5, "<b>")],
        no_car=[True, False, False],
        end_s=10,
    )
    left, right, top, bottom = 44, 426, 26, 140
    expected = [[left, bottom], [left + (right - left) * 0.2, top]]
    expected.append([left + (right - left) * 0.5, (top + bottom) / 2])
    np.testing.assert_allclose(points(find(svg, "line")[0].get("d")), expected, atol=0.06)
    chosen, other, shade = (find(svg, k)[0] for k in ("chosen", "alternative", "nocar"))
    assert [float(chosen.get(k)) for k in ("cx", "cy")] == pytest.approx(expected[1], abs=0.06)
    assert [float(other.get(k)) for k in ("cx", "cy")] == pytest.approx(expected[2], abs=0.06)
    assert chosen[0].text == "SUV & co"
    assert other[0].text == "<b>"
    # The first frame reaches half-way to the second: one second of ten.
    assert float(shade.get("x")) == left
    assert float(shade.get("width")) == pytest.approx((right - left) / 10, abs=0.06)
    words = [t.text for t in ET.fromstring(svg).iter("text")]
    assert {"certainty", "0%", "50%", "100%", "time (m:ss)", "0:02.0 · 100%"} <= set(words)


def test_shading_joins_runs():
    svg = timelines.timeline(np.arange(6), np.ones(6), name="x", no_car=[0, 1, 1, 0, 0, 1])
    spans = [(float(r.get("x")), float(r.get("width"))) for r in find(svg, "nocar")]
    scale = (426 - 44) / 5
    expected = [(44 + 0.5 * scale, 2 * scale), (44 + 4.5 * scale, 0.5 * scale)]
    np.testing.assert_allclose(spans, expected, atol=0.06)


def test_long_timelines_are_thinned_and_keep_their_peaks():
    rng = np.random.default_rng(1)
    values = rng.uniform(0.4, 0.6, 50_000)
    values[31_234], values[7_777] = 0.99, 0.01
    svg = timelines.timeline(np.arange(50_000) / 30, values, name="type")
    drawn = points(find(svg, "line")[0].get("d"))
    assert len(drawn) <= 600
    assert (np.diff(drawn[:, 0]) >= 0).all()
    assert drawn[:, 1].min() == pytest.approx(140 - 114 * 0.99, abs=0.06)
    assert drawn[:, 1].max() == pytest.approx(140 - 114 * 0.01, abs=0.06)
    azimuth = timelines.azimuth_timeline(np.arange(50_000) / 30, values * 360, values)
    assert azimuth.count("h0") <= 600
    assert max(len(svg), len(azimuth)) < 25_000


def test_azimuth_dots_lie_in_the_bands_of_their_views():
    azimuths = [0, 337.6, 337.4, 22.4, 90, 180, 270.0]
    svg = timelines.azimuth_timeline(
        np.arange(7), azimuths, np.full(7, 0.99), chosen=[Mark(1, 337.6, "f")]
    )
    bands = [e for e in ET.fromstring(svg).iter("rect")]
    drawn = [tuple(map(float, p)) for p in re.findall(r"M([\d.]+) ([\d.]+)h0", svg)]
    inside = []
    for _, y in drawn:
        edges = [(float(b.get("y")), float(b.get("y")) + float(b.get("height"))) for b in bands]
        inside.append(next(VIEWS[i] for i, (a, b) in enumerate(edges) if a <= y <= b))
    assert inside == ["front", "front", "front-right", "front", "left", "rear", "right"]
    assert float(find(svg, "chosen")[0].get("cy")) == pytest.approx(drawn[1][1])


def test_azimuth_dots_are_fainter_when_less_certain():
    svg = timelines.azimuth_timeline(range(4), [10] * 4, [0.3, 0.6, 0.9, 0.99])
    order = [find(svg, f"dots level{k}")[0].get("d") for k in range(4)]
    assert [float(re.match(r"M([\d.]+)", d)[1]) for d in order] == sorted(
        float(re.match(r"M([\d.]+)", d)[1]) for d in order
    )
    assert all(d.count("M") == 1 for d in order)


def test_kappa_axis_is_logarithmic_and_gives_the_spread():
    svg = timelines.kappa_timeline([0, 1, 2], [1, 10, 1000], chosen=[Mark(1, 10, "rear")])
    y = points(find(svg, "line")[0].get("d"))[:, 1]
    assert (y[0] - y[1]) * 2 == pytest.approx(y[1] - y[2], abs=0.2)
    words = [t.text for t in ET.fromstring(svg).iter("text")]
    assert {"1", "10 ±18°", "100 ±5.7°", "1000 ±1.8°"} <= set(words)


def test_kappa_axis_reaches_the_chosen_photos_whose_kappa_may_be_0():
    marks = [Mark(0, 0, "front"), Mark(1, 5000, "rear")]
    svg = timelines.kappa_timeline([0, 1, 2], [20, 30, 40], chosen=marks)
    *_, low, high = map(float, find(svg, "timeline")[0].get("data-plot").split())
    assert (low, high) == (-1, 4)
    bottom, top = (float(mark.get("cy")) for mark in find(svg, "chosen"))
    share = (math.log10(5000) + 1) / 5
    assert top == pytest.approx(bottom + share * (26 - bottom), abs=0.1)


def test_scores_that_are_not_finite_are_left_out():
    values = [0.5, math.nan, 0.7]
    svg = timelines.timeline([0, 1, 2], values, name="type")
    assert len(points(find(svg, "line")[0].get("d"))) == 2
    assert "nan" not in svg + timelines.kappa_timeline([0, 1, 2], values)
    endless = timelines.timeline([0, 1, 2], [0.5, math.inf, 0.7], name="type")
    assert len(points(find(endless, "line")[0].get("d"))) == 2
    azimuth = timelines.azimuth_timeline([0, 1, 2], values, [0.9, 0.9, math.nan])
    assert azimuth.count("h0") == 1
    nothing = [math.nan] * 3
    assert find(timelines.timeline([0, 1, 2], nothing, name="type"), "line") == []
    assert "nan" not in timelines.kappa_timeline([0, 1, 2], nothing)


def test_a_single_frame_at_the_start_is_a_dot_at_the_left():
    axes = timelines.timeline([0], [0.5], name="type", chosen=Mark(0, 0.5, "SUV"))
    left, _, _, _, end, *_ = map(float, find(axes, "timeline")[0].get("data-plot").split())
    assert end == 1
    assert [float(find(axes, kind)[0].get("cx")) for kind in ("single", "chosen")] == [left, left]


@pytest.mark.parametrize(("times", "values"), [([], []), ([0, 1], [0.5])])
def test_timelines_refuse_arrays_that_do_not_match(times, values):
    with pytest.raises(ValueError, match="as many values as times"):
        timelines.timeline(times, values, name="type")
    with pytest.raises(ValueError, match="as many values as times"):
        timelines.kappa_timeline(times, values)


def test_axis_times_stay_few_for_any_length():
    for end in (0.05, 0.7, 3, 15, 61, 600, 5000, 100_000):
        svg = timelines.timeline([0, end], [0, 1], name="type", end_s=end)
        ticks = [
            t.text
            for t in ET.fromstring(svg).iter("text")
            if re.fullmatch(r"\d+:\d\d(\.\d)?", t.text)
        ]
        assert 1 <= len(ticks) <= 8
        assert len(set(ticks)) == len(ticks)


def test_certainty_bar_is_clipped():
    def width(value):
        return float(find(certainty_bar(value), "fill")[0].get("width"))

    assert [width(v) for v in (-0.1, 0.255, 2)] == [0, 25.5, 100]


def test_selection_survives_json(selection, table, tmp_path):
    page = write(json.loads(json.dumps(selection)), table, tmp_path)
    assert "All 8 views found." in page.text


# ------------------------------------------------------------------------------ what else it says


def test_what_the_seller_knows_is_compared_with_what_the_video_shows(selection, table, tmp_path):
    known = {"value": "BMW", "verdict": "disagrees", "looks_like": "Toyota"}
    selection["attributes"]["brand"] |= {"value": "BMW", "known": known}
    page = write(selection, table, tmp_path)
    assert "Looks like Toyota, listing says BMW." in page.text


def test_alternatives_are_shown_where_there_are_pictures(selection, table, tmp_path):
    others = selection["attributes"]["type"]["alternatives"]
    previews = {others[0]["frame"]: np.full((360, 640, 3), 90, np.uint8)}
    photos = grey_photos(selection)
    write_report(selection, table, photos, tmp_path, previews=previews)
    text = (tmp_path / "report.html").read_text()
    assert text.count('width="200" height="112"') == 1


def test_says_how_it_was_filmed_and_links_to_the_annotated_video(selection, table, tmp_path):
    photos = grey_photos(selection)
    write_report(selection, table, photos, tmp_path, annotated="annotated.mp4")
    text = (tmp_path / "report.html").read_text()
    assert '<a href="annotated.mp4">' in text
    assert "frames are good enough for a photo" in text
    assert "640 × 360 pixels, and so are the photos" in text


def test_a_long_video_still_makes_a_page_of_less_than_five_megabytes(selection, table, tmp_path):
    rows = np.arange(40_000) % len(table)
    long = dataclasses.replace(
        table.take(rows), frame=np.arange(40_000), time_s=np.arange(40_000) / 30
    )
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (360, 640, 3), np.uint8)  # the worst for JPEG
    photos = dict.fromkeys(named_photos(selection), noise)
    selection["video"]["duration_s"] = 40_000 / 30
    write_report(selection, long, photos, tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 5_000_000


def test_the_series_in_numbers(table):
    held = series(table)
    for attribute in table.categorical:
        entropy = table.entropy[attribute.name]
        certainty = 1 - entropy / math.log(len(attribute.classes))
        said = held["attributes"][attribute.name]
        assert said["certainty"] == pytest.approx(certainty.tolist(), abs=6e-4)
        assert said["classes"] == list(attribute.classes)
    assert held["azimuth_deg"] == pytest.approx(table.azimuth_deg.tolist(), abs=6e-4)
    assert held["kappa"] == pytest.approx(table.kappa.tolist(), abs=6e-4)
    assert held["view"] == table.view_probs.argmax(1).tolist()
    kappa = np.where(np.arange(len(table)) == 3, np.inf, table.kappa)
    assert series(dataclasses.replace(table, kappa=kappa))["kappa"][3] is None


def test_the_last_frame_is_shaded_to_the_end_of_the_video():
    svg = timelines.timeline([0, 2, 5], [0, 1, 0.5], name="x", no_car=[0, 0, 1], end_s=10)
    shade = find(svg, "nocar")[0]
    assert float(shade.get("x")) == pytest.approx(44 + 382 * 0.35, abs=0.06)
    assert float(shade.get("width")) == pytest.approx(382 * 0.65, abs=0.06)


def test_the_coverage_says_where_it_is_highest():
    coverage = np.full(360, 0.9 / (2 * math.pi))
    coverage[123], coverage[30] = 1.5 / (2 * math.pi), 0.5 / (2 * math.pi)
    assert "Most of the video shows azimuth 123°." in polar.coverage_polar(coverage)
    # Less than twice as much as evenly: it does not reach the rim.
    curve = points(find(polar.coverage_polar(coverage), "density")[0].get("d")) - 200
    assert np.hypot(*curve[123]) == pytest.approx(
        math.sqrt(54**2 + (140**2 - 54**2) * 0.75), abs=0.1
    )


def test_the_plot_tells_the_script_where_it_lies():
    svg = timelines.kappa_timeline([0, 1, 2], [1, 10, 1000], end_s=4)
    said = [float(v) for v in ET.fromstring(svg).get("data-plot").split()]
    assert said == [118, 26, 426, 232, 4, 0, 3]


def test_times_stand_where_they_belong():
    svg = timelines.timeline([0, 12], [0, 1], name="x", end_s=12)
    ticks = {
        t.text: float(t.get("x"))
        for t in ET.fromstring(svg).iter("text")
        if re.fullmatch(r"\d+:\d\d", t.text)
    }
    want = {f"0:{s:02d}": 44 + 382 * s / 12 for s in range(0, 13, 2)}
    assert ticks == pytest.approx(want, abs=0.06)


def test_a_stem_goes_down_to_the_axis():
    svg = timelines.timeline([0, 2], [0, 1], name="x", chosen=Mark(1, 0.5, "a"))
    assert find(svg, "stem")[0].get("d") == "M235 83V140"


def test_four_views_are_bands_of_a_quarter():
    svg = timelines.azimuth_timeline(
        range(3), [316, 44, 90], [1] * 3, views=VIEWS[::2], chosen=[Mark(0, 316, "f")]
    )
    bands = [e for e in ET.fromstring(svg).iter("rect")]
    low, high = (float(bands[0].get("y")) + k * float(bands[0].get("height")) for k in (1, 0))
    drawn = [float(y) for _, y in re.findall(r"M([\d.]+) ([\d.]+)h0", svg)]
    assert [high <= y <= low for y in drawn] == [True, True, False]
    assert float(find(svg, "chosen")[0].get("cy")) == pytest.approx(drawn[0])


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.994, "99%"),
        (0.995, ">99%"),
        (1.0, "100%"),
        (0.005, "1%"),
        (0.004, "<1%"),
        (0.125, "13%"),
        (0.0, "0%"),
    ],
)
def test_a_percentage_claims_nothing_by_rounding(fraction, text):
    assert percent(fraction) == text


def test_a_dot_at_a_bound_is_not_below_it():
    svg = timelines.azimuth_timeline(range(3), [10] * 3, [0.5, 0.8, 0.95])
    assert [len(find(svg, f"dots level{k}")) for k in range(4)] == [0, 1, 1, 1]
