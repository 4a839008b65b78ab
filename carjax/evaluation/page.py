"""The page of an evaluation: every chart in one HTML file that needs no network (Plotly)."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from carjax import certainty
from carjax.attributes import VIEWS
from carjax.errors import needing
from carjax.evaluation import metrics
from carjax.evaluation.metrics import Classified, Directed

METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.csv"
PAGE_FILE = "evaluation.html"
FILES = (METRICS_FILE, PREDICTIONS_FILE, PAGE_FILE)
_BINS = 15
_HEIGHT = 420
_CONFIG = {"responsive": True, "displayModeBar": False}
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .2rem .7rem; text-align: left }
td + td, th + th { text-align: right } tr + tr { border-top: 1px solid #ddd }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(30rem, 1fr)) }
"""


def require_plotly() -> None:
    """Raises a CarjaxError that says what to install where Plotly is missing."""
    with needing("evaluate", "evaluation"):
        import plotly  # noqa: F401


def render(content: Mapping[str, Any], rows: Mapping[str, Classified | Directed]) -> str:
    """Returns the HTML page.

    Args:
        content: of `METRICS_FILE`.
        rows: attribute → the predictions that the charts show.

    Raises:
        CarjaxError: Plotly is not installed.
    """
    require_plotly()
    from plotly import offline

    model = content["model"]
    body = [
        f"<h1>Evaluation of {html.escape(str(model['bundle']))}</h1>",
        f"<p>{content['n']} photos, {content['seen']} of them in the model's training list and "
        f"reported apart; {content['unreadable']} could not be read. Backbone "
        f"{html.escape(str(model['backbone']))}; car box {'on' if content['localise'] else 'off'}. "
        "Intervals: 95%, bootstrap over whole car models, or over photos whose model is not named "
        "(column class_name).</p>",
    ]
    if content["seen"] == content["n"]:
        body.append("<p><strong>Every photo was trained on: the charts show those.</strong></p>")
    for name, own in rows.items():
        # metrics.json calls the direction `orientation`, whatever the schema's own name for it; a
        # class of that name is among the attributes.
        directed = isinstance(own, Directed)
        own_figures = content["orientation"] if directed else content["attributes"][name]
        body.append(f"<h2>{html.escape(name)}</h2>")
        body.append(_table(own_figures))
        if not len(own[0]):
            body.append("<p>No photo has this label.</p>")
            continue
        if isinstance(own, Directed):
            charts = _direction_charts(own)
        else:
            charts = _class_charts(own, own_figures["confusion"]["classes"])
        body.append('<div class="charts">')
        body += [
            f"<div>{figure.to_html(_CONFIG, full_html=False, include_plotlyjs=False)}</div>"
            for figure in charts
        ]
        body.append("</div>")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>carjax evaluate'
        f"</title><style>{_STYLE}</style><script>{offline.get_plotlyjs()}</script></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _table(figures: Mapping[str, Any]) -> str:
    """The metrics of one attribute with their intervals."""
    lines = [f"<tr><th>metric</th><th>{figures['n']} photos</th><th>95% interval</th></tr>"]
    for name, interval in figures["ci95"].items():
        if figures[name] is not None:
            ends = "none" if interval is None else "{:.4f} to {:.4f}".format(*interval)
            lines.append(f"<tr><td>{name}</td><td>{figures[name]:.4f}</td><td>{ends}</td></tr>")
    return f"<table>{''.join(lines)}</table>"


def _figure(trace: Any, title: str, x: str, y: str, **layout: Any) -> Any:
    from plotly import graph_objects

    figure = graph_objects.Figure(trace)
    figure.update_layout(
        title=title,
        xaxis_title=x,
        yaxis_title=y,
        height=_HEIGHT,
        template="plotly_white",
        showlegend=False,
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        **layout,
    )
    return figure


def _diagonal(low: float, high: float) -> Any:
    from plotly import graph_objects

    grey = {"color": "#999", "dash": "dot"}
    return graph_objects.Scatter(x=[low, high], y=[low, high], mode="lines", line=grey)


def _class_charts(rows: Classified, classes: Sequence[str]) -> list[Any]:
    """Confusion matrix, reliability diagram and risk-coverage curve."""
    from plotly import graph_objects

    counts = metrics.confusion(rows, len(classes))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    heat = graph_objects.Heatmap(
        z=shares,
        x=classes,
        y=classes,
        customdata=counts,
        colorscale="Blues",
        zmin=0,
        zmax=1,
        hovertemplate="true %{y}<br>predicted %{x}<br>%{customdata} photos<extra></extra>",
    )
    # Classes such as '2' are names, not numbers.
    names = {"xaxis_type": "category", "yaxis_type": "category", "yaxis_autorange": "reversed"}
    correct = rows.predicted == rows.label
    index = certainty.confidence_bins(rows.confidence, _BINS)
    size = np.bincount(index, minlength=_BINS)
    held = size > 0
    accuracy = np.bincount(index, weights=correct, minlength=_BINS)[held] / size[held]
    stated = np.bincount(index, weights=rows.confidence, minlength=_BINS)[held] / size[held]
    points = graph_objects.Scatter(
        x=stated,
        y=accuracy,
        mode="lines+markers",
        customdata=size[held],
        hovertemplate="stated %{x:.2f}<br>true %{y:.2f}<br>%{customdata} photos<extra></extra>",
    )
    return [
        _figure(heat, "Confusion, share of the true class", "predicted", "true", **names),
        _figure([_diagonal(0, 1), points], "Reliability", "stated probability", "accuracy"),
        _risk_coverage(rows.certainty, (~correct).astype(float), "share of wrong classes"),
    ]


def _risk_coverage(sure: np.ndarray, loss: np.ndarray, what: str) -> Any:
    from plotly import graph_objects

    coverage, risk = certainty.risk_coverage_curve(sure, loss)
    line = graph_objects.Scatter(x=coverage, y=risk, mode="lines")
    return _figure(line, "Risk and coverage", "share of photos, surest first", what)


def _direction_charts(rows: Directed) -> list[Any]:
    """Error histogram, predicted against true azimuth, error per view, calibration, risk."""
    from plotly import graph_objects

    histogram = graph_objects.Histogram(
        x=rows.error_deg, xbins={"start": 0, "end": 180, "size": 2}, autobinx=False
    )
    points = graph_objects.Scattergl(
        x=rows.azimuth_deg % 360, y=rows.predicted_deg, mode="markers", marker={"size": 4}
    )
    bins = metrics.view_bin(rows.azimuth_deg)
    boxes = [
        graph_objects.Box(y=rows.error_deg[bins == i], name=f"{view} ({(bins == i).sum()})")
        for i, view in enumerate(VIEWS)
    ]
    mass = np.sort(rows.hdr_mass)
    share = np.arange(1, len(mass) + 1) / len(mass)
    curve = graph_objects.Scatter(x=mass, y=share, mode="lines")
    return [
        _figure(histogram, "Azimuth error", "error, degrees", "photos", yaxis_type="log"),
        _figure(
            [_diagonal(0, 360), points],
            "Predicted and true azimuth",
            "true, degrees",
            "predicted, degrees",
            xaxis_dtick=45,
            yaxis_dtick=45,
        ),
        _figure(boxes, "Error per view", "", "error, degrees"),
        _figure(
            [_diagonal(0, 1), curve],
            "Coverage of highest-density regions",
            "mass of the region",
            "share of truths inside",
        ),
        _risk_coverage(-rows.entropy, rows.error_deg, "mean error, degrees"),
    ]
