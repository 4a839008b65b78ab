"""The splits of the nested cross-validation: nothing that is measured was trained on."""

import json
import pathlib
import sys

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks"))
import card_tables
import crossval
import machine
import nested

MAKES = {"Audi": 6, "BMW": 2, "Kia": 1, "Saab": 1, "Volvo": 3}


@pytest.fixture(scope="module")
def cars():
    rows = [
        (nested.DATA_SET, f"{make}-{m}-{i}.jpg", make, f"{make} {m}", i * 24.0, "")
        for make, models in MAKES.items()
        for m in range(models)
        for i in range(15)
    ]
    rows += [
        (nested.LENT, f"{make}-{m}-{same}.jpg", make, f"{make} family {m}", np.nan, same)
        for make in (*MAKES, "Skoda")
        for m, both in enumerate([[""], [""], [""], [f"{make} 0", ""], ["Audi 1;Audi 2"]])
        for same in both
    ]
    return nested.Cars(*(np.array(column) for column in zip(*rows, strict=True)))


@pytest.mark.parametrize("attribute", ["brand", "type"])
@pytest.mark.parametrize("outer", range(nested.FOLDS))
@pytest.mark.parametrize(("step", "folds"), [(None, 5), (1, 5), (3, 5), (1, 10)])
def test_what_is_measured_was_not_trained_on(cars, attribute, outer, step, folds):
    inner = None if step is None else (outer + step) % nested.FOLDS
    kind = nested.split(cars, attribute, outer, inner, folds)
    lent = cars.data_set == nested.LENT
    trained = (kind == nested.TRAIN) & ~lent
    assert set(cars.model[kind == nested.KNOWN]) <= set(cars.model[trained])
    assert not set(cars.model[kind == nested.UNSEEN]) & set(cars.model[trained])
    assert not set(cars.make[kind == nested.UNKNOWN]) & set(cars.make[trained])
    if attribute == "brand":
        assert set(cars.make[kind == nested.UNSEEN]) <= set(cars.make[trained])
        if inner is None:
            assert set(cars.make[kind == nested.UNKNOWN]) <= {"Kia", "Saab"}
    else:
        assert not (kind == nested.UNKNOWN).any()
    # An inner run never touches what the outer fold is measured on.
    if inner is not None:
        whole = nested.split(cars, attribute, outer, None)
        assert (kind[whole != nested.TRAIN] == nested.LEFT_OUT).all()
    # Of the lent photos none shows what is held out.
    held_out = set(cars.model[~lent]) - set(cars.model[trained])
    for i in np.flatnonzero(lent & (kind == nested.TRAIN)):
        assert not set(cars.same_as[i].split(";")) & held_out
        if attribute == "brand":
            assert cars.make[i] in {*cars.make[trained], "Skoda"}
    elsewhere = kind == nested.ELSEWHERE
    assert elsewhere.any() == (inner is None)
    assert lent[elsewhere].all()
    of_both = {*cars.model[cars.same_as != ""]}
    assert not {*cars.model[elsewhere]} & of_both


def test_every_photo_is_unseen_or_unknown_once(cars):
    kinds = np.stack([nested.split(cars, "brand", o, None) for o in range(nested.FOLDS)])
    apart = (kinds == nested.UNSEEN) | (kinds == nested.UNKNOWN)
    own = cars.data_set == nested.DATA_SET
    np.testing.assert_array_equal(apart.sum(0), own)
    assert ((kinds == nested.KNOWN).sum(0) <= 1).all()


def test_auroc_is_scikit_learn_s():
    rng = np.random.default_rng(0)
    known, other = rng.normal(0, 1, 80).round(1), rng.normal(0.7, 1, 50).round(1)
    want = roc_auc_score(np.r_[np.zeros(80), np.ones(50)], np.r_[known, other])
    assert nested.auroc(known, other) == pytest.approx(want)


def test_an_album_is_a_walk_around_one_car(cars):
    names = zip(cars.data_set.tolist(), cars.file.tolist(), strict=True)
    names = np.array(["/".join(name) for name in names])
    kind = nested.split(cars, "brand", 0, None)
    parts = nested.parts_of(cars, {"names": names}, kind)
    for part, columns in parts.items():
        model = np.array([name.split("/")[1].rsplit("-", 1)[0] for name in columns["names"]])
        for album in np.unique(columns["album"]):
            assert len(set(model[columns["album"] == album])) == 1, part
            assert (columns["album"] == album).sum() <= nested.ALBUM
    # Three fronts of novelty 0 count as much as one rear of novelty 1.
    album = {"album": np.zeros(4, int), "weight": nested.view_weights(np.array([0.0, 3, 9, 180]))}
    assert nested.album_means(album, np.array([0.0, 0, 0, 1])) == pytest.approx([0.5])


def test_intervals_are_about_their_means_and_wider_over_models():
    rng = np.random.default_rng(0)
    model = np.repeat(np.arange(12), 25)
    right = rng.random(12)[model] > rng.random(300)  # a model is mostly right or mostly wrong
    log_probs = np.log(np.where(right, [[0.8], [0.2]], [[0.3], [0.7]])).T
    columns = {"log_probs": log_probs, "targets": np.zeros((300, 1), int)}
    folds = [{k: v[i::2] for k, v in columns.items()} for i in range(2)]
    by_image = crossval.summarise(folds)
    by_model = crossval.summarise([f | {"model": model[i::2]} for i, f in enumerate(folds)])
    assert by_image["resampled"] == "images"
    assert by_model["resampled"] == "car models"
    width = {}
    for name in ("accuracy", "ece", "nll"):
        assert by_image[name]["mean"] == by_model[name]["mean"]
        for label, summary in (("images", by_image), ("models", by_model)):
            low, high = summary[name]["ci95"]
            assert low < summary[name]["mean"] < high
            width[name, label] = high - low
    assert by_image["accuracy"]["mean"] == pytest.approx(right.mean(), abs=0.02)
    assert width["accuracy", "models"] > 1.5 * width["accuracy", "images"]


@pytest.mark.parametrize("page", card_tables.PAGES)
def test_the_tables_shown_are_those_of_the_figures(page):
    text = (card_tables.ROOT / page).read_text()
    results = json.loads((machine.RESULTS / "nested.json").read_text())
    shown = [name for name in card_tables.TABLES if f"<!-- table {name} -->" in text]
    assert shown
    assert text.count("<!-- table ") == text.count("<!-- end ") == len(shown)
    for name in shown:
        lines = "\n".join(card_tables.TABLES[name](results))
        assert f"<!-- table {name} -->\n{lines}\n<!-- end {name} -->" in text
