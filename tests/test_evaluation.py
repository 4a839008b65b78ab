"""Evaluation: metrics against scikit-learn and SciPy, label tables, and the command end to end."""

import csv
import dataclasses
import functools
import hashlib
import json
import math
import pathlib
import re
import sys

import av
import cv2
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest
import scipy.stats
import sklearn.calibration
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from carjax import certainty, circular
from carjax import model as models
from carjax.attributes import CAR, TYPES, VIEWS, Angular, Categorical
from carjax.cli import evaluate as evaluate_command
from carjax.cli.main import main as command_line
from carjax.datasets import photos as photo_sets
from carjax.errors import CarjaxError
from carjax.evaluation import labels, metrics, page, run

SAMPLE = pathlib.Path(__file__).parents[1] / "data" / "prius_walkaround.mp4"


def random_predictions(n=400, k=5, seed=0):
    """Probabilities that know something, and labels of all classes but the last."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, k - 1, n)
    logits = rng.normal(size=(n, k)) + 1.5 * np.eye(k)[label]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), label


def random_truths(n, seed=0, kappa=30.0):
    """Densities of batch [n], and one direction drawn from each, in degrees."""
    rng = np.random.default_rng(seed)
    mu = rng.uniform(-np.pi, np.pi, n)
    truth = scipy.stats.vonmises(kappa).rvs(n, random_state=rng) + mu
    density = circular.from_single(jnp.asarray(mu, jnp.float32), jnp.full(n, kappa))
    return density, np.degrees(truth) % 360


# --- Metrics --------------------------------------------------------------------------------------


def test_class_metrics_against_scikit_learn():
    probs, label = random_predictions()
    predicted = probs.argmax(1)
    got = metrics.categorical_metrics(np.log(probs), label)
    everything = list(range(probs.shape[1]))
    want = {
        "accuracy": sklearn.metrics.accuracy_score(label, predicted),
        "balanced_accuracy": sklearn.metrics.recall_score(
            label, predicted, labels=np.unique(label), average="macro"
        ),
        "nll": sklearn.metrics.log_loss(label, probs, labels=everything),
        "brier": sklearn.metrics.brier_score_loss(
            label, probs, labels=everything, scale_by_half=False
        ),
        "ece": certainty.calibration_error(probs.max(1), predicted == label),
    }
    for name, value in want.items():
        assert got[name] == pytest.approx(value, rel=1e-9), name
    counts = metrics.confusion(metrics.classified(probs, label), probs.shape[1])
    np.testing.assert_array_equal(
        counts, sklearn.metrics.confusion_matrix(label, predicted, labels=everything)
    )


def test_aurc_orders_by_entropy():
    probs, label = random_predictions()
    entropy = scipy.stats.entropy(probs, axis=1)
    wrong = (probs.argmax(1) != label)[np.argsort(entropy)]
    want = (np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean()
    got = metrics.categorical_metrics(np.log(probs), label)["aurc"]
    assert got == pytest.approx(want, abs=2e-4)  # entropies are float32: neighbours may swap


def test_angular_metrics_against_scipy():
    density, truth = random_truths(300)
    # A fifth of the cars is seen from the wrong end.
    truth = (truth + 180.0 * (np.arange(300) % 5 == 0)) % 360
    mu = np.degrees(np.asarray(density.mu[:, 0], np.float64))
    error = np.abs((mu - truth + 180) % 360 - 180)
    loglik = scipy.stats.vonmises.logpdf(np.radians(truth), 30.0, loc=np.radians(mu))
    got = metrics.angular_metrics(density, truth)
    assert got["mederr_deg"] == pytest.approx(np.median(error), abs=1e-3)
    assert got["maad_deg"] == pytest.approx(error.mean(), abs=1e-3)
    assert got["acc_pi_6"] == pytest.approx((np.radians(error) <= np.pi / 6).mean())
    assert got["acc_pi_18"] == pytest.approx((np.radians(error) <= np.pi / 18).mean())
    assert got["flip_rate"] == pytest.approx((error > 150).mean())
    assert 0.1 < got["flip_rate"] < 0.3
    assert got["loglik_nats_per_rad"] == pytest.approx(loglik.mean(), rel=1e-4)
    inside = 1 - 2 * scipy.stats.vonmises.sf(np.radians(error), 30.0)
    for level in (50, 80, 95):
        want = (inside <= level / 100).mean()
        assert got[f"coverage{level}"] == pytest.approx(want, abs=1.5 / 300)


def test_truths_drawn_from_mixtures_are_covered():
    rng = np.random.default_rng(3)
    n = 2000
    weights, mu, kappa, floor = [0.5, 0.3, 0.2], [0.0, np.pi, 2.0], [80.0, 20.0, 3.0], 0.1
    chosen = rng.choice(3, n, p=weights)
    drawn = scipy.stats.vonmises.rvs(np.array(kappa)[chosen], random_state=rng)
    truth = np.where(
        rng.random(n) < floor, rng.uniform(0, 2 * np.pi, n), drawn + np.take(mu, chosen)
    )
    density = circular.Density(
        *(jnp.tile(jnp.array(x), (n, 1)) for x in (weights, mu, kappa)), jnp.full(n, floor)
    )
    got = metrics.angular_metrics(density, np.degrees(truth))
    for level in (50, 80, 95):
        deviation = math.sqrt(level / 100 * (1 - level / 100) / n)
        assert abs(got[f"coverage{level}"] - level / 100) < 4 * deviation


angles = st.floats(-720, 720, width=32)


@settings(max_examples=40)
@given(st.lists(st.tuples(angles, angles), min_size=4, max_size=4), angles)
def test_angular_metrics_do_not_depend_on_where_zero_is(pairs, turn):
    mu, truth = np.array(pairs).T
    kappa = np.array([0.5, 5.0, 50.0, 500.0])

    def of(mu, truth):
        return metrics.directed(circular.from_single(jnp.deg2rad(jnp.array(mu)), kappa), truth)

    rows, turned, mirrored = of(mu, truth), of(mu + turn, truth + turn), of(-mu, -truth)
    error = np.abs((mu - truth + 180) % 360 - 180)
    np.testing.assert_allclose(rows.error_deg, error, atol=2e-3)
    for other in (turned, mirrored):
        np.testing.assert_allclose(other.error_deg, rows.error_deg, atol=5e-3)
        np.testing.assert_allclose(other.loglik, rows.loglik, rtol=1e-3, atol=2e-2)
        np.testing.assert_allclose(other.entropy, rows.entropy, atol=1e-4)
        np.testing.assert_allclose(other.hdr_mass, rows.hdr_mass, atol=8e-3)
    m = {name: metric(rows) for name, metric in metrics.ANGULAR_METRICS.items()}
    assert 0 <= m["mederr_deg"] <= 180
    assert 0 <= m["maad_deg"] <= 180
    assert m["acc_pi_18"] <= m["acc_pi_6"] <= 1 - m["flip_rate"]
    assert m["coverage50"] <= m["coverage80"] <= m["coverage95"]


def test_view_bins_are_those_of_the_density():
    degrees = np.arange(0.0, 360.0, 3.7)
    density = circular.from_single(jnp.deg2rad(degrees), 1e6)
    want = np.asarray(circular.view_probs(density)).argmax(1)
    np.testing.assert_array_equal(metrics.view_bin(degrees), want)
    np.testing.assert_array_equal(metrics.view_bin(degrees - 360), want)


def test_summaries_hold_an_interval_around_every_value():
    probs, label = random_predictions()
    rows = metrics.classified(probs, label)
    summary = metrics.summarise(rows, metrics.CATEGORICAL_METRICS, samples=200)
    assert summary["n"] == len(label)
    for name in metrics.CATEGORICAL_METRICS:
        low, high = summary["ci95"][name]
        assert low < high
        assert low <= summary[name] <= high
    # The bootstrap of a share against the normal approximation.
    low, high = summary["ci95"]["accuracy"]
    share = summary["accuracy"]
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(share * (1 - share) / 400), rel=0.2)
    # Four alike photos of each model say no more than one.
    fourfold = metrics.take(rows, np.repeat(np.arange(len(label)), 4))
    models = np.repeat([f"model {i}" for i in range(len(label))], 4)
    whole = metrics.summarise(fourfold, metrics.CATEGORICAL_METRICS, models, samples=200)
    apart = metrics.summarise(fourfold, metrics.CATEGORICAL_METRICS, samples=200)
    width = [high - low for low, high in (s["ci95"]["accuracy"] for s in (summary, whole, apart))]
    assert width[1] == pytest.approx(width[0], rel=0.2)
    assert width[2] == pytest.approx(width[0] / 2, rel=0.2)
    one = metrics.summarise(rows, metrics.CATEGORICAL_METRICS, np.full(len(label), "Golf"))
    assert one["accuracy"] == summary["accuracy"]
    assert set(one["ci95"].values()) == {None}
    none = metrics.summarise(metrics.take(rows, label < 0), metrics.CATEGORICAL_METRICS)
    assert none["n"] == 0
    assert none["accuracy"] is None
    assert none["ci95"]["accuracy"] is None


# --- Charts ---------------------------------------------------------------------------------------


def test_charts_of_classes():
    probs, label = random_predictions()
    rows = metrics.classified(probs, label)
    confusion, reliability, risk = page._class_charts(rows, ["a", "b", "c", "d", "e"])
    predicted = probs.argmax(1)
    want = sklearn.metrics.confusion_matrix(label, predicted, labels=np.arange(5), normalize="true")
    np.testing.assert_allclose(confusion.data[0].z, want)
    curve = sklearn.calibration.calibration_curve(predicted == label, probs.max(1), n_bins=15)
    np.testing.assert_allclose((reliability.data[1].y, reliability.data[1].x), curve)
    assert reliability.layout.xaxis.title.text == "stated probability"
    assert risk.data[0].y[-1] == pytest.approx((predicted != label).mean())
    assert np.mean(risk.data[0].y[:100]) < 0.7 * risk.data[0].y[-1]  # the surest come first


def test_charts_of_a_direction():
    kappa = np.geomspace(1.0, 1000.0, 300)
    density, truth = random_truths(300, kappa=kappa)
    rows = metrics.directed(density, truth - 720)
    _, points, _, coverage, risk = page._direction_charts(rows)
    np.testing.assert_allclose(points.data[1].x, truth, atol=1e-6)
    np.testing.assert_allclose(points.data[1].y, rows.predicted_deg)
    assert points.layout.xaxis.title.text == "true, degrees"
    inside = [(rows.hdr_mass <= mass).mean() for mass in coverage.data[1].x]
    np.testing.assert_allclose(coverage.data[1].y, inside)
    assert coverage.layout.xaxis.title.text == "mass of the region"
    # The most concentrated, which are the last, come first.
    np.testing.assert_allclose(
        risk.data[0].y, np.cumsum(rows.error_deg[::-1]) / np.arange(1, 301), atol=0.2
    )


# --- Label tables ---------------------------------------------------------------------------------


def write_table(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_label_table(tmp_path):
    table = write_table(
        tmp_path / "t.csv",
        "\ufefffile,make,colour,type,seats,azimuth_deg,model",
        "a.jpg,Audi,red,sedan,>5,359.5,A4",
        "b.jpg,,red,spaceship,,,",
        "c.jpg,Kia,,spaceship,2,-10,Rio",
    )
    got = labels.read(table, tmp_path, CAR)
    assert got.missing == {"doors": "doors"}
    assert got.unknown_classes == {"type": {"spaceship": 2}, "brand": {"Kia": 1}}
    assert got.photos.names == ("a.jpg", "b.jpg", "c.jpg")
    assert got.photos.paths[1] == tmp_path / "b.jpg"
    assert got.photos.labels["type"].tolist() == [TYPES.index("sedan"), -1, -1]
    assert got.photos.labels["seats"].tolist() == [3, -1, 0]
    np.testing.assert_array_equal(got.photos.labels["orientation"], [359.5, np.nan, -10])
    assert got.photos.group.tolist() == ["A4", "", "Rio"]


def test_windows_are_scored_as_training_reads_them(shipped, tmp_path):
    image = np.zeros((60, 90, 3), np.uint8)
    image[:, 45:] = 255
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), image)
    table = write_table(
        tmp_path / "labels.csv",
        "file,type,left,top,right,bottom",
        "a.png,sedan,0,0,45,60",
        "a.png,SUV,45,0,90,50.5",
        "a.png,SUV,,,,",
    )
    got = labels.read(table, tmp_path / "images", CAR).photos
    trained_on = photo_sets.read_labels(tmp_path, CAR[:1])
    for i, shape in enumerate([(60, 45, 3), (51, 45, 3), (60, 90, 3)]):
        assert got.read(i).shape == shape
        np.testing.assert_array_equal(got.read(i), trained_on.read(i))
    scored = run.score_photos(shipped, got)
    dark, bright, _ = scored.scores.probs["type"]
    assert not np.allclose(dark, bright, atol=1e-3)
    run._write_predictions(tmp_path / "p.csv", [], scored, {})
    with (tmp_path / "p.csv").open() as f:
        rows = [[row[s] for s in ("file", *photo_sets.SIDES)] for row in csv.DictReader(f)]
    assert rows[1:] == [["a.png", "45", "0", "90", "50.5"], ["a.png", "", "", "", ""]]


def test_a_split_table(tmp_path):
    table = write_table(tmp_path / "s.csv", "file,fold", "a.jpg,0", "c.jpg,1")
    assert labels.read_split(table, ["a.jpg", "b.jpg", "c.jpg"]).tolist() == ["0", "", "1"]
    with pytest.raises(CarjaxError, match="no file of the label table"):
        labels.read_split(table, ["x.jpg"])
    with pytest.raises(CarjaxError, match="no column split or fold"):
        labels.read_split(write_table(table, "file,part", "a.jpg,0"), ["a.jpg"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"file,type\n", "no row"),
        (b"photo,type\na.jpg,sedan\n", "no column file; it has: photo, type"),
        (b"file,colour\na.jpg,red\n", "no column to evaluate; expected some of type, make"),
        (b"file,type\n,sedan\n", "line 2: names no file"),
        (
            b"file,azimuth_deg\na.jpg,12\nb.jpg,left\n",
            "line 3: azimuth_deg: 'left' is not an angle",
        ),
        (b"file,azimuth_deg\na.jpg,nan\n", "line 2: azimuth_deg: 'nan' is not an angle"),
        (b"\xff\xfe\x00f\x00i", "not a CSV table"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(CarjaxError, match=re.escape(message)) as caught:
        labels.read(path, tmp_path, CAR)
    assert "\n" not in str(caught.value)


# --- The command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    return models.load()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Thirteen frames of the sample as JPEG and PNG, more than a batch: the last is of one.

    The table also names a broken file, first of all, and one that is not there.
    """
    folder = tmp_path_factory.mktemp("photos")
    with SAMPLE.with_suffix(".csv").open() as f:
        truth = [r for r in csv.DictReader(f) if r["degraded"] == "0"][::13][:13]
    lines = ["file,class_name,make,type,doors,seats,azimuth_deg", "broken.jpg,,,,,,"]
    with av.open(str(SAMPLE)) as container:
        frames = [f.to_ndarray(format="bgr24") for f in container.decode(video=0)]
    for i, row in enumerate(truth):
        name = f"{i:02d}.{'jpg' if i % 2 else 'png'}"
        cv2.imwrite(str(folder / name), frames[int(row["frame"])][:, : 640 - 10 * i])
        kind = "hovercraft" if i == 3 else "hatchback"
        model = "" if i == 5 else ("Prius 2012" if i % 4 else "Corolla 2012")
        doors, azimuth = "" if i == 4 else 5, "" if i == 6 else row["azimuth_deg"]
        lines.append(f"{name},{model},Toyota,{kind},{doors},5,{azimuth}")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photo")
    lines.append("absent.jpg,,,,,,")
    write_table(folder / "labels.csv", *lines)
    write_table(folder / "half.csv", "file,fold", "00.png,a", "01.jpg,b", "02.png,b")
    return folder


@pytest.fixture(scope="module")
def evaluated(photos, shipped, tmp_path_factory):
    """The command's folder, its lines on standard error, and the content of metrics.json."""
    out = tmp_path_factory.mktemp("evaluate") / "out"
    known = dataclasses.replace(
        shipped,
        training_hashes=frozenset(
            hashlib.sha256((photos / name).read_bytes()).hexdigest()
            for name in ("00.png", "01.jpg")
        ),
        card={**shipped.card, "models": ["Corolla 2012"]},
    )
    patch = pytest.MonkeyPatch()
    patch.setattr(models, "load", lambda *a, **k: known)
    patch.setattr("carjax.runtime.set_up_jax", lambda: None)
    patch.setattr(run, "evaluate", functools.partial(run.evaluate, samples=50))
    said = []
    patch.setattr(evaluate_command, "_say", said.append)
    table, split = f"--labels={photos / 'labels.csv'}", f"--split={photos / 'half.csv'}"
    words = ["evaluate", table, split, f"--images={photos}", f"--out={out}"]
    try:
        assert command_line(words) == 0
    finally:
        patch.undo()
    return out, said, json.loads((out / page.METRICS_FILE).read_text())


def test_the_folder_and_its_schema(evaluated):
    out, _, content = evaluated
    assert {p.name for p in out.iterdir()} == {
        page.METRICS_FILE,
        page.PREDICTIONS_FILE,
        page.PAGE_FILE,
    }
    jsonschema.Draft202012Validator.check_schema(run.schema())
    jsonschema.validate(content, run.schema())
    assert (content["n"], content["seen"], content["unreadable"]) == (13, 2, 2)
    assert content["unknown_classes"] == {"type": {"hovercraft": 1}}
    assert content["localise"] is True
    assert content["model"]["bundle"] == "car_heads"


def test_every_photo_counts_where_it_belongs(evaluated):
    _, _, content = evaluated
    counts = {name: figures["n"] for name, figures in content["attributes"].items()}
    assert counts == {"type": 10, "brand": 11, "doors": 10, "seats": 11}
    assert content["orientation"]["n"] == 10
    assert tuple(content["orientation"]["bins"]) == VIEWS
    assert sum(b["n"] for b in content["orientation"]["bins"].values()) == 10
    # Two were trained on; one of the others has no model; the table of parts names three photos.
    parts = {name: part["n"] for name, part in content["parts"].items()}
    assert parts == {
        "seen_images": 2,
        "known_models": 3,
        "unknown_models": 7,
        "half:a": 1,
        "half:b": 2,
    }
    assert content["parts"]["seen_images"]["orientation"]["n"] == 2
    assert content["parts"]["half:b"]["attributes"]["type"]["n"] == 2  # no hovercraft


def test_the_rendered_car_s_azimuth_is_found(evaluated):
    _, _, content = evaluated
    assert content["orientation"]["mederr_deg"] < 7
    assert content["orientation"]["flip_rate"] == 0


def test_predictions_agree_with_the_metrics(evaluated):
    out, _, content = evaluated
    with (out / page.PREDICTIONS_FILE).open(newline="") as f:
        rows = [r for r in csv.DictReader(f) if r["seen"] == "0"]
    assert len(rows) == 11
    known = [r for r in rows if r["type_true"]]
    accuracy = np.mean([r["type"] == r["type_true"] for r in known])
    assert accuracy == pytest.approx(content["attributes"]["type"]["accuracy"])
    directed = [r for r in rows if r["file"] != "06.png"]
    error = [float(r["azimuth_error_deg"]) for r in directed]
    assert np.mean(error) == pytest.approx(content["orientation"]["maad_deg"], rel=1e-5)
    for row in directed:
        apart = float(row["azimuth_deg"]) - float(row["azimuth_deg_true"])
        assert abs((apart + 180) % 360 - 180) == pytest.approx(
            float(row["azimuth_error_deg"]), abs=1e-3
        )
    assert all(0 <= float(row["brand_certainty"]) <= 1 for row in rows)
    [blank] = [r for r in rows if r["file"] == "06.png"]
    assert blank["azimuth_deg_true"] == blank["azimuth_error_deg"] == ""
    counts = np.array(content["attributes"]["type"]["confusion"]["counts"])
    assert counts[TYPES.index("hatchback")].sum() == counts.sum() == 10


def test_what_was_left_out_is_said(evaluated):
    _, said, _ = evaluated
    assert any("hovercraft (1)" in line for line in said)
    assert any("broken.jpg" in line and "skipped" in line for line in said)
    assert any("absent.jpg" in line and "skipped" in line for line in said)
    assert any(line.startswith("2 of 13 photos were trained on") for line in said)


def test_the_screen_begins_with_the_photos_that_are_new(evaluated, capsys):
    out, _, content = evaluated
    evaluate_command.show(content, out)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    shown = {(words[0], words[1]): words[2] for words in lines if len(words) > 2}
    assert shown["new", "type"] == "10"
    assert shown["seen_images", "type"] == "2"
    assert next(iter(shown))[0] == "photos"
    assert list(shown)[1] == ("new", "type")


def test_no_figures_of_an_earlier_run_stay_beside_other_predictions(
    photos, shipped, tmp_path, monkeypatch
):
    labelled = labels.read(photos / "labels.csv", photos, CAR)
    bare = dataclasses.replace(labelled.photos, labels={})
    count = len(bare)
    scored = run.Scored(bare, np.arange(count), np.zeros(count, bool), None, ())

    def stops(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "score_photos", lambda *args: scored)
    monkeypatch.setattr(run, "_write_predictions", stops)
    (tmp_path / page.METRICS_FILE).write_text("{}")
    with pytest.raises(KeyboardInterrupt):
        run.evaluate(shipped, dataclasses.replace(labelled, photos=bare), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_page_needs_no_network(evaluated):
    out, _, _ = evaluated
    text = (out / page.PAGE_FILE).read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", text)
    for title in ("Confusion", "Reliability", "Risk and coverage", "Azimuth error", "Error per"):
        assert title in text
    assert text.count("plotly-graph-div") == 4 * 3 + 5


def test_a_class_may_be_called_orientation_beside_an_angle_of_another_name():
    upright = Categorical("orientation", ("upright", "lying"))
    rows = {
        "orientation": metrics.classified([[0.9, 0.1], [0.2, 0.8]], [0, 1]),
        "heading": metrics.directed(circular.from_single(jnp.zeros(2), 50.0), [3.0, 4.0]),
    }
    content = {
        "model": {"bundle": "b", "backbone": "x"},
        **dict(n=2, seen=0, unreadable=0, localise=False),
        "attributes": {"orientation": run.report(upright, rows["orientation"], samples=10)},
        "orientation": {
            "name": "heading",
            **run.report(Angular("heading"), rows["heading"], samples=10),
        },
    }
    told = page.render(content, rows)
    assert told.index("<h2>orientation") < told.index("balanced_accuracy")
    assert told.index("balanced_accuracy") < told.index("<h2>heading") < told.index("mederr_deg")


def test_without_plotly_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(CarjaxError, match=r"pip install 'carjax\[evaluate\]'"):
        page.require_plotly()


def test_a_table_of_photos_that_were_all_trained_on_has_no_new_figures(shipped):
    probs, label = random_predictions(n=6, k=4)
    rows = metrics.classified(probs, label)
    doors = next(a for a in shipped.spec.schema if a.name == "doors")
    assert isinstance(doors, Categorical)
    empty = run.report(doors, metrics.take(rows, np.zeros(6, bool)))
    assert empty["n"] == 0
    assert np.sum(empty["confusion"]["counts"]) == 0


def test_wrong_calls_are_one_line(photos, shipped, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(models, "load", lambda *a, **k: shipped)
    monkeypatch.setattr("carjax.runtime.set_up_jax", lambda: None)
    table, images = f"--labels={photos / 'labels.csv'}", f"--images={photos}"
    out = f"--out={tmp_path / 'out'}"
    others = tmp_path / "others"
    others.mkdir()
    (others / "thesis.txt").write_text("mine")
    none = write_table(tmp_path / "none.csv", "file,type", "x.jpg,sedan", "y.jpg,SUV")
    halves = ",".join([str(photos / "half.csv")] * 2)
    own = write_table(tmp_path / "predictions.csv", "file,type", "x.jpg,sedan")
    for words, status, message in (
        ([], 2, "--labels"),
        ([table, images], 2, "--out"),
        ([table, images, out, "more"], 2, "more"),
        ([f"--labels={tmp_path / 'no.csv'}", images, out], 1, "no.csv: no such file"),
        ([table, f"--images={tmp_path / 'no'}", out], 1, "no such folder of images"),
        ([f"--labels={none}", images, out], 1, "none of the 2 photos can be read"),
        ([table, images, f"--out={others}"], 1, "did not write"),
        ([table, images, f"--out={none}"], 1, "is a file"),
        ([table, images, out, f"--split={none}"], 1, "no column split or fold"),
        ([table, images, out, f"--split={halves}"], 2, "two tables named half"),
        ([f"--labels={own}", images, f"--out={tmp_path}", "--overwrite"], 2, "be overwritten"),
        ([table, f"--split={own}", images, f"--out={tmp_path}"], 2, "be overwritten"),
    ):
        assert command_line(["evaluate", *words]) == status
        error = capsys.readouterr().err.strip().splitlines()
        assert message in error[-1]
        assert error[-1].startswith("carjax: ")
    with pytest.raises(SystemExit, match=r"^0$"):
        command_line(["evaluate", "--help"])
    assert len(capsys.readouterr().out.splitlines()) < 24
