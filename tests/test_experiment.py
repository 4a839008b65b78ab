"""The experiment: its statistics against SciPy and scikit-learn, and the command on small runs."""

import csv
import dataclasses
import itertools
import json
import pathlib
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from carjax import model as models
from carjax.attributes import CAR, Categorical, find
from carjax.cli import experiment as command
from carjax.cli.main import main as command_line
from carjax.errors import CarjaxError, UsageError
from carjax.experiment import (
    candidates,
    figures,
    hypothesis,
    hypothesis_page,
    pairs,
    predictions,
    statistics,
)
from carjax.experiment import held as held_out
from carjax.experiment.page import check_page, fill


@pytest.fixture(autouse=True)
def jax_as_it_is(monkeypatch):
    """The command may not change the settings of the process that other tests run in."""
    monkeypatch.setattr("carjax.runtime.set_up_jax", lambda: None)


DOORS = find(CAR, "doors")
DOCS = pathlib.Path(__file__).parents[1] / "docs"
MODELS = ("Acme Sedan 2010", "Acme Coupe 2011", "Zeta Estate 2009", "Zeta Cab 2012")


# ------------------------------------------------------------------------------ statistics


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (3, 7), (7, 7), (65, 100), (1, 1)])
def test_wilson_against_scipy(hits, n):
    want = scipy.stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert statistics.wilson(hits, n) == pytest.approx((want.low, want.high), abs=1e-12)


def test_wilson_refuses_what_is_no_proportion():
    for hits, n in ((1, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="trials"):
            statistics.wilson(hits, n)


def correlated(n=300, seed=0):
    """x and y that hang together through z alone, with ties, and groups that shift all three."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 6, n)
    z = rng.normal(size=n) + group
    x = np.round(z + 0.7 * rng.normal(size=n), 1)
    y = np.round(z + 0.7 * rng.normal(size=n), 1)
    return x, y, z, rng.normal(size=n), group


def test_partial_rank_correlation_without_controls_is_spearmans():
    x, y, *_ = correlated()
    want = scipy.stats.spearmanr(x, y).statistic
    assert statistics.partial_rank_correlation(x, y) == pytest.approx(want, abs=1e-12)


def test_partial_rank_correlation_against_the_inverse_of_scipys_matrix():
    x, y, z, other, _ = correlated()
    precision = np.linalg.inv(scipy.stats.spearmanr(np.stack([x, y, z, other], 1)).statistic)
    want = -precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1])
    got = statistics.partial_rank_correlation(x, y, [z, other])
    assert got == pytest.approx(want, abs=1e-10)
    assert abs(got) < 0.15 < 0.8 < statistics.partial_rank_correlation(x, y)


def test_partial_rank_correlation_inside_groups_against_dummies():
    x, y, z, _, group = correlated()
    design = np.column_stack([scipy.stats.rankdata(z), np.eye(6)[group]])
    residuals = [
        r - design @ np.linalg.lstsq(design, r, rcond=None)[0]
        for r in (scipy.stats.rankdata(x), scipy.stats.rankdata(y))
    ]
    want = scipy.stats.pearsonr(*residuals).statistic
    got = statistics.partial_rank_correlation(x, y, [z], groups=group)
    assert got == pytest.approx(want, abs=1e-10)


def test_weights_are_repeated_rows():
    x, y, z, _, group = correlated(60)
    times = np.random.default_rng(1).integers(0, 3, 60)
    ranked = [scipy.stats.rankdata(v) for v in (x, y, z)]
    repeated = [np.repeat(v, times) for v in (*ranked, group)]
    design = np.column_stack([repeated[2], np.eye(6)[repeated[3]]])
    left = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in repeated[:2]]
    want = scipy.stats.pearsonr(*left).statistic
    got = statistics.partial_rank_correlation(x, y, [z], groups=group, weights=times)
    assert got == pytest.approx(want, abs=1e-10)


def test_a_constant_has_no_correlation():
    x = np.arange(12.0)
    assert np.isnan(statistics.partial_rank_correlation(x, np.ones(12)))
    assert np.isnan(statistics.partial_rank_correlation(x, 2 * x + 1, [x]))


def test_mean_interval_draws_whole_groups():
    # Ten copies of each row say no more than one: the interval must not shrink.
    values = np.random.default_rng(0).normal(size=40)
    want = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    mean, got = statistics.mean_interval(np.repeat(values, 10), np.repeat(np.arange(40), 10), 4000)
    assert mean == pytest.approx(values.mean())
    assert got == pytest.approx((want.low, want.high), abs=0.03)


def test_angular_mean_wraps_and_weighs():
    rng = np.random.default_rng(0)
    azimuth, values = rng.uniform(0, 360, 50), rng.normal(size=50)
    at, kappa = np.array([0.0, 90.0, 359.0]), 20.0
    density = scipy.stats.vonmises(kappa).pdf(np.radians(at[None] - azimuth[:, None]))
    want = (density * values[:, None]).sum(0) / density.sum(0)
    got = statistics.angular_mean(azimuth, values, at, kappa=kappa)
    np.testing.assert_allclose(got, want, rtol=1e-10)
    times = np.stack([np.ones(50), rng.integers(0, 3, 50)])
    spread = statistics.angular_mean(azimuth, values, at, kappa=kappa, times=times)
    np.testing.assert_allclose(spread[0], want, rtol=1e-10)
    index = np.repeat(np.arange(50), times[1].astype(int))
    np.testing.assert_allclose(
        spread[1], statistics.angular_mean(azimuth[index], values[index], at, kappa=kappa)
    )


def test_cohen_kappa_against_scikit_learn():
    rng = np.random.default_rng(0)
    first = rng.choice(["A", "B", "tie"], 80).tolist()
    second = [a if rng.random() < 0.6 else "A" for a in first]
    want = sklearn.metrics.cohen_kappa_score(first, second)
    assert statistics.cohen_kappa(first, second) == pytest.approx(want, abs=1e-12)
    assert np.isnan(statistics.cohen_kappa(["A", "A"], ["A", "A"]))
    with pytest.raises(ValueError, match="as many"):
        statistics.cohen_kappa(["A"], [])


# ------------------------------------------------------------------------------ a small data set


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Photos of four models, and runs whose head is certain, and right, where a side is seen."""
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    images = root / "data" / "stanford_cars" / "images"
    images.mkdir(parents=True)
    rows = []
    for i in range(96):
        azimuth = float(rng.uniform(0, 360))
        rows.append({"file": f"{i:03d}.jpg", "class_name": MODELS[i % 4], "azimuth_deg": azimuth})
        image = rng.integers(0, 256, (24 + i % 5, 36, 3), np.uint8)
        assert cv2.imwrite(str(images / rows[-1]["file"]), image)
    rows[0]["azimuth_deg"] = ""
    with (root / "data" / "stanford_cars" / "labels.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    for name, fold_of in (("known", lambda i: i // 48), ("unseen", lambda i: (i % 4) // 2)):
        for fold in range(2):
            held = [i for i in range(96) if fold_of(i) == fold]
            write_run(root / name / f"doors-{fold}", [rows[i] for i in held])
    return root


def write_run(folder, rows):
    """A run's held_out.npz: doors 2 for the first and third model, 4 for the others."""
    folder.mkdir(parents=True)
    label = np.array([0 if MODELS.index(row["class_name"]) % 2 == 0 else 2 for row in rows])
    side = [abs(np.sin(np.radians(float(row["azimuth_deg"] or 0)))) for row in rows]
    probs = np.full((len(rows), 4), 0.05)
    for i, shown in enumerate(side):
        # Below a third of the side the guess is wrong; the surer, the more is seen.
        top = label[i] if shown > 1 / 3 else 1
        probs[i] = (1 - (0.4 + 0.55 * shown)) / 3
        probs[i, top] = 0.4 + 0.55 * shown
    np.savez(
        folder / "held_out.npz",
        names=np.array([f"stanford_cars/{row['file']}" for row in rows]),
        targets=np.stack([label, label], 1).astype(np.int32),
        log_probs=np.log(probs).astype(np.float32),
    )


@pytest.fixture(scope="module")
def held(world):
    """Everything held out in that world, without videos."""
    return held_out.read([world / "known", world / "unseen"], data_dir=world / "data", videos=False)


def test_protocols_are_told_apart_and_read_whole(held):
    assert set(held.protocols) == {predictions.KNOWN, predictions.UNSEEN}
    own = held.protocols[predictions.KNOWN]["doors"]
    assert len(own) == 96
    want = scipy.stats.entropy(own.probs, axis=1)
    np.testing.assert_allclose(own.entropy, want, atol=1e-6)
    np.testing.assert_allclose(own.certainty, 1 - want / np.log(4), atol=1e-6)


def test_a_class_of_one_fold_only_is_left_out():
    own = predictions.Predictions(
        DOORS,
        names=np.array(list("abcd")),
        fold=np.array([0, 1, 0, 0]),
        label=np.array([0, 0, 2, 2]),
        probs=np.full((4, 4), 0.25),
        entropy=np.zeros(4),
    )
    assert predictions.learnable(own).tolist() == [True, True, False, False]


def test_albums_are_of_one_model_and_one_head(held):
    facts = held.facts
    for protocol, albums in held.albums.items():
        own = held.protocols[protocol]["doors"]
        fold = dict(zip(own.names.tolist(), own.fold.tolist(), strict=True))
        names = [name for album in albums for name in album.files]
        assert len(names) == len(set(names)) == 96
        for album in albums:
            assert candidates.MIN_ALBUM <= len(album.files) <= 12
            assert {facts.model[name] for name in album.files} == {album.source}
            assert len({fold[name] for name in album.files}) == 1


def test_picks_are_what_they_say(held):
    album = held.albums[predictions.KNOWN][0]
    picked = candidates.picks(album)
    assert picked["entropy"] == int(np.argmin(album.table.entropy["doors"]))
    assert picked["sharpest"] == int(np.argmax(album.table.sharpness))
    assert picked["middle"] in (len(album.files) // 2, (len(album.files) - 1) // 2)
    # Without a car, carjax chooses nothing; the others do.
    blind = dataclasses.replace(
        album, table=dataclasses.replace(album.table, car_probability=np.zeros(len(album.files)))
    )
    assert candidates.picks(blind)["consensus"] is None
    right, _, same = candidates.outcomes([blind, album])
    assert same[1, 0] == 1
    assert same[1, -1] == 1 / len(album.files)
    assert np.isnan(right[0, :2]).all()
    assert np.isfinite(right[0, 2:]).all()


def test_measures_find_what_the_world_was_made_of(held):
    content = hypothesis.measure(held, samples=50)
    for run in content["photos"].values():
        own = run["doors"]
        gain = own["choice"]["gains"]["entropy"]["random"]
        assert own["choice"]["pickers"]["entropy"]["accuracy"] == 1.0
        assert gain["ci95"][0] > 0.1
        rows = own["entropy"]["bins"]
        assert sum(row["n"] for row in rows) == 96
        assert [rows[i]["accuracy"] for i in (0, -1)] == [1, 0]
        curve = own["entropy"]["risk_coverage"]
        assert curve["aurc_best"] == pytest.approx(curve["aurc"]) != curve["aurc_random"]
        assert curve["risk"][-1] == pytest.approx(1 - own["accuracy"])
        # One photo has no azimuth: it is scored, and not placed.
        assert own["photos"] == 96
        assert own["views"]["photos"] == own["proxy"]["photos"] == 95
        assert min(abs(own["views"]["best_deg"] - side) for side in (90, 270)) <= 25
        seen = own["views"]["views"]
        assert seen["left"]["within"]["ci95"][0] > 0 > seen["rear"]["within"]["ci95"][1]
        assert own["proxy"]["within_models"]["rho"] > 0.9
    json.dumps(content, allow_nan=False)


def test_charts_are_files_of_their_own(held):
    content = hypothesis.measure(held, samples=20)
    drawn = figures.all_figures(content)
    assert {"choice.svg", "views_known.svg", "views_unseen.svg"} <= drawn.keys()
    for svg in drawn.values():
        assert ET.fromstring(svg).tag.endswith("svg")
        assert "nan" not in svg
    # A dot per picker and protocol.
    assert drawn["choice.svg"].count("<circle") == 2 * len(candidates.PICKERS)


# ------------------------------------------------------------------------------ blind pairs


@pytest.fixture(scope="module")
def drawn(held):
    """Twelve pairs of that world's albums."""
    return pairs.draw([e for e in held_out.all_candidates(held) if e[0] == predictions.KNOWN], 4, 3)


def test_pairs_are_of_one_album_and_two_frames(held, drawn):
    key, pictures, _ = drawn
    assert [pair.pair for pair in key] == list(range(1, len(key) + 1))
    assert len({pair.source for pair in key}) == len(key)
    for pair, (left, right) in zip(key, pictures, strict=True):
        assert pair.a_file != pair.b_file
        assert {held.facts.model[f] for f in (pair.a_file, pair.b_file)} == {pair.source}
        assert left.shape == right.shape == (pairs.HEIGHT, pairs.WIDTH, 3)
        album = next(
            a for _, a in held_out.all_candidates(held) if {pair.a_file, pair.b_file} <= {*a.files}
        )
        chosen = pair.a_file if pair.chosen == "A" else pair.b_file
        assert album.files[candidates.picks(album)["consensus"]] == chosen
        shown = pairs.letterbox(album.read(album.files.index(pair.a_file)))
        np.testing.assert_array_equal(left, shown)


def test_drawing_repeats_and_both_sides_occur(held):
    entries = held_out.all_candidates(held)
    first, again, other = (pairs.draw(entries, 8, seed)[0] for seed in (0, 0, 1))
    assert first == again != other
    assert {pair.chosen for pair in (*first, *other)} == {"A", "B"}
    assert {pair.protocol for pair in first} == {predictions.KNOWN, predictions.UNSEEN}
    with pytest.raises(CarjaxError, match="too few albums"):
        pairs.draw(entries, 1000)


def test_sheets_and_key_survive_the_disk(tmp_path, drawn):
    key, pictures, _ = drawn
    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets" / "sheet_02.png").write_bytes(b"of an earlier draw")
    sheets = pairs.write_sheets(tmp_path / "sheets", key, pictures)
    assert [p.name for p in sheets] == ["sheet_01.png"]
    assert [*(tmp_path / "sheets").iterdir()] == sheets
    image = cv2.imread(str(sheets[0]))[..., ::-1]
    assert image.shape == (4 * (pairs.HEIGHT + pairs.TEXT), 2 * pairs.WIDTH + pairs.GAP, 3)
    np.testing.assert_array_equal(
        image[pairs.TEXT : pairs.TEXT + pairs.HEIGHT, : pairs.WIDTH], pictures[0][0]
    )
    pairs.write_key(tmp_path / "key.csv", key)
    assert pairs.read_key(tmp_path / "key.csv") == key


def a_key(count=8):
    """Pairs that a test can judge."""
    return [
        pairs.Pair(
            pair=i,
            attribute=("doors", "brand")[i % 2],
            rival=("random", "middle")[i // 2 % 2],
            kind="album",
            protocol=predictions.KNOWN,
            source=f"car {i}",
            a_file="a",
            a_frame=0,
            b_file="b",
            b_frame=1,
            chosen="AB"[i % 2],
            chosen_certainty=0.5 + i / 100,
            rival_certainty=0.5,
        )
        for i in range(1, count + 1)
    ]


def test_win_rate_is_the_mean_over_viewers():
    key = a_key()
    all_won = {pair.pair: pair.chosen for pair in key}
    all_lost = {number: "B" if side == "A" else "A" for number, side in all_won.items()}
    tied = dict.fromkeys(all_won, "tie")
    for judged, want in (
        ({"x": all_won}, 1.0),
        ({"x": all_lost}, 0.0),
        ({"x": all_won, "y": all_lost}, 0.5),
        ({"x": all_won, "y": tied}, 0.75),
    ):
        found = hypothesis.of_pairs(key, judged)
        assert found["win_rate"]["all"]["all"]["wins"] == want
        assert found["win_rate"]["doors"]["all"]["n"] == 4
        assert found["win_rate"]["all"]["random"]["n"] == 4
    both = hypothesis.of_pairs(key, {"x": all_won, "y": all_lost})["agreement"]
    assert both == [{"viewers": ["x", "y"], "n": 8, "raw": 0.0, "kappa": -1.0}]
    large = hypothesis.of_pairs(key, {"x": all_won})["win_rate"]["large_gap"]["all"]["n"]
    assert large == 4


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("pair,viewer\n1,x\n", "no column choice"),
        ("pair,viewer,choice\n99,x,A\n", "no pair '99'"),
        ("pair,viewer,choice\n1,x,left\n", "'left' is none of"),
        ("pair,viewer,choice\n1,x,A\n1,x,B\n", "second judgement of pair 1"),
    ],
)
def test_wrong_judgements_are_refused(tmp_path, text, complaint):
    (tmp_path / "j.csv").write_text(text)
    with pytest.raises(CarjaxError, match=complaint):
        pairs.read_judgements(tmp_path / "j.csv", a_key())


# ------------------------------------------------------------------------------ the command


def test_command_end_to_end(tmp_path, world, capsys):
    runs = f"--runs={world / 'known'},{world / 'unseen'}"
    common = [runs, f"--data_dir={world / 'data'}", "--novideos"]
    key = tmp_path / "key.csv"
    sheets = [f"--out={tmp_path / 'sheets'}", f"--key={key}", "--pairs=6"]
    assert command_line(["experiment", "pairs", *sheets, *common]) == 0
    assert "6 pairs on 2 sheets" in capsys.readouterr().out
    told = key.read_bytes()
    again = [f"--out={tmp_path / 'more'}", f"--key={key}", "--pairs=4", "--seed=1"]
    assert command_line(["experiment", "pairs", *again, *common]) == 1
    assert "judgements may need this key" in capsys.readouterr().err
    assert key.read_bytes() == told
    judged = tmp_path / "judged.csv"
    rows = [f"{p.pair},{v},{p.chosen}" for p, v in itertools.product(pairs.read_key(key), "xy")]
    judged.write_text("\n".join(["pair,viewer,choice", *rows]) + "\n")
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- table pairs -->\n<!-- end pairs -->\nAfter.\n")
    out = tmp_path / "out"
    judgements = [f"--judgements={judged}", f"--key={key}", f"--page={page}", f"--out={out}"]
    assert command_line(["experiment", "hypothesis", *judgements, *common]) == 0
    content = json.loads((out / hypothesis_page.RESULT_FILE).read_text())
    assert content["pairs"]["win_rate"]["all"]["all"]["wins"] == 1
    assert (out / "pairs.svg").is_file()
    text = page.read_text()
    assert (text[:8], text[-7:]) == ("Before.\n", "After.\n")
    assert "| doors | 1.00 (" in text
    # Again over its own folder; never over another's.
    assert command_line(["experiment", "hypothesis", *judgements, *common]) == 0
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    assert command_line(["experiment", "pairs", *common, f"--key={key}", f"--out={other}"]) == 1


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ([], "runs one of"),
        (["guess"], "runs one of"),
        (["hypothesis", "--out=x"], "needs --runs"),
        (["pairs", "--runs=x"], "needs --out"),
        (["pairs", "--runs=x", "--out=x"], "needs --key"),
        (["pairs", "--runs=x", "--out=x", "--key=x/key.csv"], "lies beside the sheets"),
        (["hypothesis", "--runs=x", "--out=x", "--judgements=y"], "needs the --key"),
        (["pairs", "--runs=x", "--out=x", "--pairs=0"], "pairs"),
        (["hypothesis", "--runs=x", "--out=x", "--heads=y"], "--heads is for .* temporal"),
        (["temporal", "--runs=x", "--out=x", "--key=y"], "--key is for .* hypothesis or pairs"),
    ],
)
def test_wrong_use_is_one_line(argv, complaint):
    with pytest.raises(UsageError, match=complaint):
        command.main(argv)


@pytest.mark.parametrize("experiment", ["hypothesis", "temporal"])
def test_the_weights_of_a_backbone_that_is_not_shipped_are_taken(
    tmp_path, world, monkeypatch, experiment
):
    def load(model, *, backbone_weights=None):
        raise CarjaxError(f"{model} on {backbone_weights}")

    monkeypatch.setattr(models, "load", load)
    words = [f"--runs={world / 'known'}", f"--data_dir={world / 'data'}", f"--out={tmp_path / 'o'}"]
    with pytest.raises(CarjaxError, match=r"^mine on weights\.npz$"):
        command.main([experiment, *words, "--model=mine", "--backbone_weights=weights.npz"])


@pytest.mark.parametrize("azimuth", ["front", "inf"])
def test_an_azimuth_that_is_no_number_is_told_with_its_line(tmp_path, azimuth):
    (tmp_path / "stanford_cars").mkdir()
    labels = tmp_path / "stanford_cars" / "labels.csv"
    labels.write_text(f"file,class_name,azimuth_deg\n1.jpg,A,\n2.jpg,A,{azimuth}\n")
    says = rf"labels\.csv: line 3: azimuth_deg is '{azimuth}', not a number$"
    with pytest.raises(CarjaxError, match=says):
        predictions.read_facts(tmp_path, ["stanford_cars/1.jpg"])


def test_broken_input_is_one_line(tmp_path, world, capsys):
    broken = tmp_path / "runs" / "doors-0"
    broken.mkdir(parents=True)
    (broken / "held_out.npz").write_bytes(b"no archive")
    end = ["--novideos", f"--out={tmp_path / 'out'}", f"--data_dir={world / 'data'}"]
    nested = tmp_path / "nested" / "doors-0-outer"
    nested.mkdir(parents=True)
    (nested / "held_out.npz").write_bytes(b"no archive")
    for runs, complaint in (
        (tmp_path, "no ATTRIBUTE-FOLD/held_out.npz"),
        (tmp_path / "nested", "no ATTRIBUTE-FOLD/held_out.npz"),
        (tmp_path / "runs", "not the predictions of a class head"),
        (f"{world / 'known'},{world / 'known'}", "a second folder of runs"),
    ):
        assert command_line(["experiment", "hypothesis", f"--runs={runs}", *end]) == 1
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("carjax: ")
        assert complaint in said
    assert not (tmp_path / "out").exists()


def test_the_page_shows_the_committed_figures():
    page = DOCS / "hypothesis.md"
    content = json.loads((DOCS / "hypothesis" / hypothesis_page.RESULT_FILE).read_text())
    check_page(page)
    assert fill(page.read_text(), hypothesis_page.tables(content)) == page.read_text()
    for name, svg in figures.all_figures(content).items():
        assert (DOCS / "hypothesis" / name).read_text() == svg, name
        assert f"(hypothesis/{name})" in page.read_text()


def test_help_fits_a_screen(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        command.main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100


@pytest.mark.slow
def test_videos_are_scored_by_the_whole_pipeline(
    carjax_data, tiny_model, tmp_path, quick_compilation
):
    spins = tmp_path / "spins"
    spins.mkdir()
    with (carjax_data / "spins" / "labels.csv").open(newline="") as f:
        rows = [r for r in csv.DictReader(f) if r["file"].startswith("egjs_beetle36/")][::9]
    (spins / "egjs_beetle36").mkdir()
    for row in rows:
        (spins / row["file"]).write_bytes((carjax_data / "spins" / row["file"]).read_bytes())
    with (spins / "labels.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    found = candidates.videos(tiny_model, tmp_path)
    names = [a.name for a in CAR if isinstance(a, Categorical)]
    assert [own.attribute.name for own in found] == names
    brand = found[names.index("brand")]
    assert brand.attribute.classes[brand.label] == "Volkswagen"
    assert len(brand.table) == len(rows)
    assert brand.files[1] == f"spins/{rows[1]['file']}"
    image = cv2.imread(str(spins / rows[1]["file"]))[..., ::-1]
    np.testing.assert_array_equal(brand.read(1), image)
    row = hypothesis.of_video(brand)
    assert row["frames"] == len(rows)
    assert 0 <= row["random_accuracy"] <= 1
    assert pathlib.Path(brand.files[0]).suffix == ".jpg"


def surely(azimuth_deg, certainty, model):
    """Predictions of doors that are as sure as told, of photos of these azimuths and models."""
    n = len(azimuth_deg)
    names = [str(i) for i in range(n)]
    rng = np.random.default_rng(9)
    own = predictions.Predictions(
        DOORS, np.array(names), np.zeros(n, int), np.zeros(n, int), np.full((n, 4), 0.25),
        (1 - np.asarray(certainty)) * np.log(4),
    )  # fmt: skip
    columns = (model, azimuth_deg, rng.uniform(size=n), rng.uniform(size=n))
    return own, predictions.Facts(*(dict(zip(names, list(c), strict=True)) for c in columns))


def test_what_is_common_on_either_side_is_familiar():
    """Certainty is how common the view is, mirrored views counted: no more has the side."""
    rng = np.random.default_rng(0)
    azimuth = np.concatenate([rng.normal(60, 25, 150), rng.uniform(180, 360, 60)]) % 360
    common = hypothesis._density(azimuth, azimuth) + hypothesis._density(azimuth, -azimuth)
    sure = 0.2 + 0.6 * common / common.max() + rng.normal(0, 0.01, 210)
    found = hypothesis.side_proxy(*surely(azimuth, sure, ["a"] * 210), samples=20)
    assert abs(found["within_models"]["rho"]) > 0.3
    assert abs(found["equally_familiar"]["rho"]) < 0.15


def test_inside_models_models_do_not_differ():
    """Within each model the side makes surer; the model that shows it more is less sure."""
    rng = np.random.default_rng(0)
    azimuth = np.concatenate([rng.uniform(0, 45, 60), rng.uniform(45, 90, 60)])
    side = np.sin(np.radians(azimuth))
    sure = 0.3 + 0.2 * side + 0.4 * (azimuth < 45)
    found = hypothesis.side_proxy(
        *surely(azimuth, sure, np.repeat(["a", "b"], 60).tolist()), samples=20
    )
    assert found["within_models"]["rho"] > 0.9
    assert found["partial"]["rho"] < 0


def test_gains_are_resampled_by_model(held):
    albums = held.albums[predictions.KNOWN]
    one = [dataclasses.replace(album, source="one model") for album in albums]
    found = hypothesis.choice(one, 50)
    for rivals in found["gains"].values():
        for gain in rivals.values():
            assert gain["ci95"] == pytest.approx([gain["mean"]] * 2)
    assert found["models"] == 1


def test_stored_probabilities_sum_to_one(held):
    for run in held.protocols.values():
        np.testing.assert_allclose(run["doors"].probs.sum(1), 1.0, rtol=0, atol=1e-15)
