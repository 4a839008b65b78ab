"""Scores and selections as notebooks show them, and the notebook of the docs."""

from __future__ import annotations

import pathlib
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import pytest
import walk

from carjax import circular, scoring, selection
from carjax.attributes import CAR, VIEWS
from carjax.errors import CarjaxError
from carjax.report import notebook

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def table():
    return walk.table(20)


@pytest.fixture(scope="module")
def scores(table):
    """The table as scores of 22 frames, two of them padding."""

    def padded(x):
        return np.concatenate([x, np.zeros((2, *x.shape[1:]), x.dtype)])

    return scoring.FrameScores(
        mask=np.arange(22) < 20,
        probs={n: padded(p) for n, p in table.probs.items()},
        entropy={n: padded(h) for n, h in table.entropy.items()},
        disagreement={n: np.zeros(22, np.float32) for n in table.probs},
        novelty={n: np.zeros(22, np.float32) for n in table.probs},
        azimuth=circular.from_single(
            np.radians(padded(table.azimuth_deg)), padded(table.kappa), padded(table.azimuth_floor)
        ),
        azimuth_entropy=np.zeros(22, np.float32),
        view_probs=padded(table.view_probs),
        car_probability=padded(table.car_probability),
        box=padded(table.box),
        sharpness=padded(table.sharpness),
        car_colour=padded(table.car_colour),
        content_probs=None,
    )


@pytest.fixture(scope="module")
def chosen(table):
    return selection.select_photos(table)


def test_pandas_rows_are_the_frames_that_are_no_padding(scores, table):
    pytest.importorskip("pandas")
    frame = scores.to_pandas(SimpleNamespace(schema=CAR))
    assert len(frame) == 20
    classes = next(a.classes for a in CAR if a.name == "brand")
    assert frame["brand"].tolist() == [classes[i] for i in table.probs["brand"].argmax(1)]
    np.testing.assert_allclose(frame["brand_probability"], table.probs["brand"].max(1))
    np.testing.assert_allclose(frame["azimuth_deg"], table.azimuth_deg, atol=1e-3)
    assert frame["view"].tolist() == [VIEWS[i] for i in table.view_probs.argmax(1)]
    assert scores.to_pandas()["brand"].tolist() == table.probs["brand"].argmax(1).tolist()


def test_pandas_of_a_table_are_its_rows_with_their_times(scores, table):
    pytest.importorskip("pandas")
    frame = table.take(np.array([2, 5])).to_pandas()
    assert frame.index.tolist() == table.frame[[2, 5]].tolist()
    assert frame["time_s"].tolist() == table.time_s[[2, 5]].tolist()
    same = scores.to_pandas(SimpleNamespace(schema=CAR)).iloc[[2, 5]]
    assert list(frame.columns) == ["time_s", *same.columns]
    assert frame["brand"].tolist() == same["brand"].tolist()
    np.testing.assert_allclose(frame["kappa"], same["kappa"], rtol=1e-5)


def test_pandas_of_a_selection_has_a_row_per_photo(chosen):
    pytest.importorskip("pandas")
    frame = chosen.to_pandas()
    assert list(frame.index) == [*chosen.attributes, *(f"view_{name}" for name in VIEWS)]
    assert frame.loc["type", "frame"] == chosen.attributes["type"].frame
    missing = {f"view_{name}" for name in chosen.orientation.missing}
    assert set(frame.index[frame["frame"].isna()]) == missing


def test_without_pandas_it_says_what_to_install(chosen, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(CarjaxError, match="pip install pandas"):
        chosen.to_pandas()


def test_tables_show_every_photo_and_the_first_frames(scores, chosen):
    html = chosen._repr_html_()
    assert html.count("<tr>") == 1 + len(chosen.attributes) + 8
    assert str(chosen.attributes["brand"].frame) in html
    assert scores._repr_html_().count("<tr>") == 1 + 8
    assert "20 frames, the first 8" in scores._repr_html_()


def test_names_are_escaped(chosen):
    bad = chosen.attributes["type"].__class__(None, reason="<b>no</b>")
    html = selection.Selection({"type": bad}, None)._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html


def test_figures_are_whole_svg_files(scores, chosen, tmp_path):
    for figure in (scores.plot(np.arange(20) / 10), scores.plot(), chosen.plot()):
        figure.save(tmp_path / "chart.svg")
        root = ET.parse(tmp_path / "chart.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        width, height = (float(v) for v in root.get("viewBox").split()[2:])
        for inner in root.findall("{http://www.w3.org/2000/svg}svg"):
            assert float(inner.get("x")) + float(inner.get("width")) <= width
            assert float(inner.get("y")) + float(inner.get("height")) <= height
        assert ".density {" in figure.svg  # the report's colours
        used = set(re.findall(r"var\((--\w+)\)", figure.svg))
        assert used <= set(re.findall(r"(--\w+):", figure.svg))
        assert figure._repr_svg_() == figure.svg


def test_what_has_no_chart_is_refused(chosen):
    with pytest.raises(ValueError, match="coverage"):
        selection.Selection(chosen.attributes, None).plot()
    assert isinstance(chosen.plot(), notebook.Figure)


@pytest.mark.slow
def test_the_notebook_of_the_docs_runs():
    pytest.importorskip("nbclient")
    from conftest import load_module

    ran = load_module(ROOT / "docs" / "run_notebook.py").execute()
    kinds = {
        kind for cell in ran.cells for o in cell.get("outputs", ()) for kind in o.get("data", ())
    }
    assert {"text/html", "image/svg+xml", "image/jpeg"} <= kinds
