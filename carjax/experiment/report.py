"""What the experiment leaves: `hypothesis.json`, the charts, and the tables of a Markdown page."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from carjax import errors, files
from carjax.attributes import VIEWS
from carjax.errors import CarjaxError
from carjax.experiment import figures
from carjax.experiment.candidates import CONSENSUS, ENTROPY, MIDDLE, PICKERS, RANDOM, SHARPEST

RESULT_FILE = "hypothesis.json"
# A table of the page stands between <!-- table NAME --> and <!-- end NAME -->.
_BLOCK = re.compile(r"(<!-- table (?P<name>\w+) -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL)


def write(
    content: Mapping[str, Any],
    out: pathlib.Path,
    page: pathlib.Path | None = None,
) -> None:
    """Writes the charts, renews the tables of a page, and writes `hypothesis.json` last.

    Raises:
        CarjaxError: the folder or the page cannot be written.
    """
    # Tables and charts show the numbers that are written, not their last bits.
    content = rounded(content)
    publish(content, out / RESULT_FILE, figures.all_figures(content), tables(content), page)


def publish(
    content: Mapping[str, Any],
    result: pathlib.Path,
    charts: Mapping[str, str],
    tables: Mapping[str, str],
    page: pathlib.Path | None,
) -> None:
    """Writes an experiment's charts beside its result, its tables into a page, the result last.

    Args:
        content: of the result, a file of JSON.
        result: that file.
        charts: file name → SVG.
        tables: name → Markdown.
        page: with markers for them; None: there is no page.

    Raises:
        CarjaxError: the folder or the page cannot be written.
    """
    out = result.parent
    with errors.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, svg in charts.items():
            files.write(out / name, svg)
    if page is not None:
        with errors.writing(page, "or give another --page"):
            files.write(page, fill(page.read_text(encoding="utf-8"), tables))
    with errors.writing(out):  # last: whoever sees it has all of it
        files.write(result, json.dumps(content, indent=1, allow_nan=False) + "\n")


def check_page(page: pathlib.Path) -> None:
    """Raises a CarjaxError unless the page exists and has a table to renew."""
    if not page.is_file():
        raise CarjaxError(f"{page}: no such page")
    if not _BLOCK.search(page.read_text(encoding="utf-8")):
        raise CarjaxError(f"{page}: has no '<!-- table NAME -->' … '<!-- end NAME -->'")


def fill(page: str, renewed: Mapping[str, str]) -> str:
    """Puts tables between their markers; a table without figures says so.

    Example:
        >>> fill("<!-- table a -->\\nold\\n<!-- end a -->", {"a": "new"})
        '<!-- table a -->\\nnew\\n<!-- end a -->'
    """

    def put(block: re.Match[str]) -> str:
        text = renewed.get(block["name"], "Not measured.").rstrip("\n")
        return f"{block[1]}{text}\n{block[3]}"

    return _BLOCK.sub(put, page)


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


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rounded(value: Any) -> Any:
    """The same content with numbers of six digits: a diff then shows what changed."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value
