"""What the experiment about time leaves: `temporal.json`, charts, and the tables of its page."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from carjax.experiment import figures
from carjax.experiment.page import publish, table

RESULT_FILE = "temporal.json"
# What a table shows of a method: key, heading, format.
_COLUMNS = (
    ("mederr_deg", "median error", "{:.2f}°"),
    ("flip_rate", "flips", "{:.2%}"),
    ("loglik", "log-likelihood", "{:.2f}"),
    ("views_right", "views right", "{:.2f}"),
    ("views_wrong", "views wrong", "{:.2f}"),
)


def write(content: Mapping[str, Any], out: pathlib.Path, page: pathlib.Path | None = None) -> None:
    """Writes the charts, renews the tables of a page, and writes `temporal.json` last.

    Raises:
        CarjaxError: the folder or the page cannot be written.
    """
    publish(content, out / RESULT_FILE, page, charts=charts, tables=tables)


def tables(content: Mapping[str, Any]) -> dict[str, str]:
    """Returns the page's tables in Markdown: name → text."""
    found = {"videos": _videos(content["videos"])}
    found["agreement"] = _agreement(content["video_classes"])
    if "walks" in content:
        found |= {
            "walks": _walks(content["walks"], content["cost_ms"]),
            "gains": _gains(content["gains"]),
            "shared": _shared(content["shared_error"]),
            "classes": _classes(content["classes"]),
        }
    return {name: text for name, text in found.items() if text}


def charts(content: Mapping[str, Any]) -> dict[str, str]:
    """Returns the charts: file name → SVG; none where no walks were measured."""
    if "walks" not in content:
        return {}
    keys = {
        "mederr_deg": ("Median error", "{:.1f}°"),
        "flip_rate": ("Flips", "{:.1%}"),
        "loglik": ("Log-likelihood, nats per radian", "{:.1f}"),
    }
    return {"walks.svg": figures.by_share(content["walks"], keys)}


def headline(content: Mapping[str, Any]) -> str:
    """The lines that the command prints."""
    parts = {f"{share} spoilt": methods for share, methods in content.get("walks", {}).items()}
    return "\n".join(
        f"{part}, {name}: "
        + ", ".join(f"{heading} {text.format(own[key])}" for key, heading, text in _COLUMNS[:3])
        for part, methods in (parts | content["videos"]).items()
        for name, own in methods.items()
        if own.get("loglik") is not None
    )


def _gains(gains: Mapping[str, Any]) -> str:
    rows = [
        [
            share,
            name,
            f"{own['mederr_ratio']:.2f}",
            "" if own["flip_ratio"] is None else f"{own['flip_ratio']:.2f}",
            "" if own["loglik_gain"] is None else f"{own['loglik_gain']:+.2f}",
        ]
        for share, methods in gains.items()
        for name, own in methods.items()
    ]
    head = ["spoilt", "method", "median error, ratio", "flips, ratio", "log-likelihood, gain"]
    return table(head, rows)


def _shared(shared: Mapping[str, float]) -> str:
    head = ["median error of a photo", "of its neighbours' median error", "correlation"]
    row = [f"{shared['mederr_deg']:.2f}°", f"{shared['neighbours_mederr_deg']:.2f}°"]
    return table(head, [[*row, f"{shared['correlation']:.2f}"]])


def _walks(walks: Mapping[str, Any], cost_ms: Mapping[str, float]) -> str:
    rows = [
        [
            share,
            name,
            *(_cell(own, key, text) for key, _, text in _COLUMNS),
            f"{cost_ms[name]:.2f} ms",
        ]
        for share, methods in walks.items()
        for name, own in methods.items()
    ]
    head = ["spoilt", "method", *(heading for _, heading, _ in _COLUMNS)]
    return table([*head, "per frame"], rows)


def _cell(own: Mapping[str, Any], key: str, text: str) -> str:
    if own[key] is None:
        return ""
    low, high = own["ci95"][key]
    return f"{text.format(own[key])} ({text.format(low)} to {text.format(high)})"


def _videos(videos: Mapping[str, Any]) -> str:
    rows = [
        [
            video,
            name,
            *("" if own.get(key) is None else text.format(own[key]) for key, _, text in _COLUMNS),
            f"{own['median_step_deg']:.2f}°",
            f"{own['jumps']:.1%}",
        ]
        for video, methods in videos.items()
        for name, own in methods.items()
    ]
    head = ["video", "method", *(heading for _, heading, _ in _COLUMNS)]
    return table([*head, "median step", "jumps"], rows)


def _classes(classes: Mapping[str, Any]) -> str:
    rows = [
        [
            attribute,
            way,
            str(own["n"]),
            *(f"{own[key]:.3f}" for key in ("accuracy", "nll", "ece", "certainty")),
        ]
        for attribute, ways in classes.items()
        for way, own in ways.items()
    ]
    head = ["attribute", "said by", "n", "accuracy", "NLL", "ECE", "certainty"]
    return table(head, rows)


def _agreement(videos: Mapping[str, Any]) -> str:
    rows = [
        [
            video,
            attribute,
            own["truth"] or "unknown",
            f"{own['value']} ({own['probability']:.2f})",
            f"{own['mean_value']} ({own['mean_probability']:.2f})",
            f"{own['agreement']:.2f}",
        ]
        for video, attributes in videos.items()
        for attribute, own in attributes.items()
    ]
    head = ["video", "attribute", "truth", "consensus", "mean of the frames"]
    return table([*head, "frames that agree"], rows)
