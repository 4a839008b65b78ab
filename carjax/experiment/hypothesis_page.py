"""What the experiment about certainty leaves: `hypothesis.json`, charts, the tables of its page."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from carjax.attributes import VIEWS
from carjax.experiment import figures
from carjax.experiment.candidates import CONSENSUS, ENTROPY, MIDDLE, PICKERS, RANDOM, SHARPEST
from carjax.experiment.page import publish, table

RESULT_FILE = "hypothesis.json"


def write(content: Mapping[str, Any], out: pathlib.Path, page: pathlib.Path | None = None) -> None:
    """Writes the charts, renews the tables of a page, and writes `hypothesis.json` last.

    Raises:
        CarjaxError: the folder or the page cannot be written.
    """
    publish(content, out / RESULT_FILE, page, charts=figures.all_figures, tables=tables)


def headline(content: Mapping[str, Any]) -> str:
    """The lines that the command prints."""
    lines = []
    for protocol, run in content["photos"].items():
        for name, own in run.items():
            pickers, albums = own["choice"]["pickers"], own["choice"]["albums"]
            if pickers:
                shown = ", ".join(f"{p} {one['accuracy']:.3f}" for p, one in pickers.items())
                lines.append(f"{protocol}, {name}: {shown} ({albums} albums)")
    if "pairs" in content:
        rate = content["pairs"]["win_rate"]["all"]
        lines += [f"blind pairs against {r}: won {_interval(v, 'wins')}" for r, v in rate.items()]
    return "\n".join(lines)


def tables(content: Mapping[str, Any]) -> dict[str, str]:
    """Returns the page's tables in Markdown: name → text."""
    found = {
        "choice": _choice(content["photos"]),
        "gains": _gains(content["photos"]),
        "entropy": _entropy(content["photos"]),
        "views": _views(content["photos"]),
        "proxy": _proxy(content["photos"]),
    }
    if content["videos"]:
        found["videos"] = _videos(content["videos"])
    if "pairs" in content:
        found["pairs"] = _pairs(content["pairs"])
    return found


def _rows(photos: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    return [(protocol, name, own) for protocol, run in photos.items() for name, own in run.items()]


def _choice(photos: Mapping[str, Any]) -> str:
    rows = [
        [
            protocol,
            name,
            f"{own['choice']['albums']} of {own['choice']['models']}",
            *(_interval(own["choice"]["pickers"][p], "accuracy") for p in PICKERS),
        ]
        for protocol, name, own in _rows(photos)
        if own["choice"]["pickers"]
    ]
    return table(["held out", "attribute", "albums of models", *PICKERS], rows)


def _gains(photos: Mapping[str, Any]) -> str:
    rivals = (RANDOM, SHARPEST, MIDDLE)
    rows = [
        [
            protocol,
            name,
            policy,
            *(_points(own["choice"]["gains"][policy][r]) for r in rivals),
            *(f"{own['choice']['pickers'][r]['same']:.0%}" for r in rivals[1:]),
        ]
        for protocol, name, own in _rows(photos)
        for policy in (CONSENSUS, ENTROPY)
        if own["choice"]["gains"]
    ]
    head = ["held out", "attribute", "policy", *(f"over {r}" for r in rivals)]
    return table([*head, *(f"same frame as {r}" for r in rivals[1:])], rows)


def _entropy(photos: Mapping[str, Any]) -> str:
    rows = []
    for protocol, name, own in _rows(photos):
        bins, curve = own["entropy"]["bins"], own["entropy"]["risk_coverage"]
        half = curve["risk"][curve["coverage"].index(0.5)]
        rows.append(
            [
                protocol,
                name,
                str(own["photos"]),
                str(own["left_out"]),
                f"{own['accuracy']:.3f}",
                f"{1 - half:.3f}",
                _interval(bins[0], "accuracy"),
                _interval(bins[-1], "accuracy"),
                f"{curve['aurc']:.4f}",
                f"{curve['aurc_random']:.4f}",
                f"{curve['aurc_best']:.4f}",
            ]
        )
    head = ["held out", "attribute", "photos", "left out", "accuracy", "of the surer half"]
    head += ["surest bin", "least sure bin", "AURC", "of a random order", "of the best order"]
    return table(head, rows)


def _views(photos: Mapping[str, Any]) -> str:
    rows = []
    for protocol, name, own in _rows(photos):
        seen = own["views"].get("views", {})
        cells = [
            f"{seen[v]['within']['mean']:+.3f} ({seen[v]['accuracy']:.2f})" if v in seen else ""
            for v in VIEWS
        ]
        rows.append([protocol, name, f"{own['views'].get('best_deg', 0):.0f}°", *cells])
    return table(["held out", "attribute", "surest at", *VIEWS], rows)


def _proxy(photos: Mapping[str, Any]) -> str:
    kinds = ("plain", "partial", "within_models", "equally_familiar")
    rows = [
        [protocol, name, *(_signed(own["proxy"][k]) for k in kinds)]
        for protocol, name, own in _rows(photos)
        if "plain" in own["proxy"]
    ]
    head = ["held out", "attribute", "plain", "at equal sharpness and size"]
    head += ["also inside each model", "also at equal familiarity"]
    return table(head, rows)


def _videos(videos: Sequence[Mapping[str, Any]]) -> str:
    def cell(picked: Mapping[str, Any] | None) -> str:
        if picked is None:
            return "refused"
        return f"{'right' if picked['correct'] else 'wrong'} ({picked['certainty']:.2f})"

    rows = [
        [
            own["video"],
            own["attribute"],
            own["truth"],
            *(cell(own["pickers"][p]) for p in PICKERS[:-1]),
            f"{own['random_accuracy']:.2f} ({own['random_certainty']:.2f})",
        ]
        for own in videos
    ]
    return table(["video", "attribute", "truth", *PICKERS], rows)


def _pairs(pairs: Mapping[str, Any]) -> str:
    rates = pairs["win_rate"]
    rivals = list(rates["all"])
    rows = [
        [
            part.replace("_", " "),
            *(
                f"{_interval(own[r], 'wins', 2)}, n={own[r]['n']}" if r in own else ""
                for r in rivals
            ),
        ]
        for part, own in rates.items()
    ]
    agreed = "; ".join(
        f"{' and '.join(row['viewers'])}: the same answer to {row['raw']:.0%} of {row['n']}, "
        + ("Cohen's κ undefined" if row["kappa"] is None else f"Cohen's κ {row['kappa']:.2f}")
        for row in pairs["agreement"]
    )
    said = f"{pairs['pairs']} pairs, {pairs['viewers']} viewers; {pairs['ties']:.0%} of the answers"
    lines = [f"{said} are ties. Agreement: {agreed or 'one viewer only'}.", ""]
    return "\n".join(lines) + "\n" + table(["part", *(f"against {r}" for r in rivals)], rows)


def _interval(figures: Mapping[str, Any], name: str, digits: int = 3) -> str:
    low, high = figures["ci95"]
    return f"{figures[name]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _signed(figures: Mapping[str, Any]) -> str:
    low, high = figures["ci95"]
    return f"{figures['rho']:+.3f} ({low:+.3f} to {high:+.3f})"


def _points(figures: Mapping[str, Any]) -> str:
    """A difference of accuracies in percentage points."""
    low, high = figures["ci95"]
    return f"{100 * figures['mean']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
