"""Writes the figures of results/{nested,calibrations,videos,localise}.json to where they are shown.

    python benchmarks/card_tables.py

A table stands between `<!-- table NAME -->` and `<!-- end NAME -->` in MODEL_CARD.md and
docs/certainty.md. The main figures go into `data/car_heads.card.json`, which goes into the bundle.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import machine

from carjax import files
from carjax.attributes import CAR, Categorical, find
from carjax.experiment.page import fill

ROOT = pathlib.Path(__file__).parents[1]
PAGES = ("MODEL_CARD.md", "docs/certainty.md")
CARD = ROOT / "data" / "car_heads.card.json"
PARTS = {
    "known": "known models",
    "unseen": "unseen models",
    "unknown": "unknown makes",
    "elsewhere": "unseen families elsewhere",
}
# Figures of each head that its bundle tells.
TOLD = (
    "accuracy", "balanced_accuracy", "nll", "ece",
    "mederr_deg", "acc_pi_6", "flip_rate", "loglik_nats_per_rad", "coverage95",
)  # fmt: skip
# Figure → (row, factor, digits, unit).
DIRECTION = {
    "mederr_deg": ("median error", 1, 2, "°"),
    "acc_pi_6": ("within 30°", 1, 4, ""),
    "flip_rate": ("flips, > 150°", 100, 2, "%"),
    "loglik_nats_per_rad": ("log-likelihood, nats per radian", 1, 2, ""),
    "coverage50": ("truths in the 50% region", 100, 1, "%"),
    "coverage80": ("truths in the 80% region", 100, 1, "%"),
    "coverage95": ("truths in the 95% region", 100, 1, "%"),
}


def nested(results: Mapping[str, Any]) -> list[str]:
    """Accuracy and calibration of every head, means over the outer folds."""
    lines = [
        "| attribute | models | photos | accuracy | 95% interval | balanced accuracy | NLL, nats | "
        "ECE | adaptive ECE | AURC |",
        "|---|---|--:|---|---|---|---|---|---|---|",
    ]
    for attribute in (a.name for a in CAR if isinstance(a, Categorical)):
        for part in ("known", "unseen", "elsewhere"):
            row = results[part][attribute]
            low, high = row["accuracy"]["ci95"]
            lines.append(
                f"| {attribute} | {part} | {row['images']:,} | {row['accuracy']['mean']:.3f} "
                f"| {low:.3f} to {high:.3f} | {row['balanced_accuracy']['mean']:.3f} "
                f"| {row['nll']['mean']:.2f} | {row['ece']['mean']:.3f} "
                f"| {row['adaptive_ece']['mean']:.3f} "
                f"| {row['aurc']['mean']:.3f} |"
            )
    sides = [results[part]["orientation"] for part in ("known", "unseen")]
    counts = [f"{side['images']:,} photos" for side in sides]
    lines += [
        "",
        f"| orientation | known models, {counts[0]} | unseen models, {counts[1]} |",
        "|---|---|---|",
    ]
    for name, (label, factor, digits, unit) in DIRECTION.items():
        cells = []
        for side in sides:
            mean, (low, high) = side[name]["mean"], side[name]["ci95"]
            value, *interval = (f"{factor * v:.{digits}f}" for v in (mean, low, high))
            cells.append(f"{value} ({' to '.join(interval)}){unit}")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    brand = results["photos"]["brand"]
    corrected = [
        results[f"{part}, corrected labels"]["orientation"] for part in ("known", "unseen")
    ]
    within = " and ".join(f"{side['acc_pi_6']['mean']:.4f}" for side in corrected)
    flips = " and ".join(f"{100 * side['flip_rate']['mean']:.2f}%" for side in corrected)
    return [
        *lines,
        "",
        "Against labels of which 24 are corrected, known and unseen models: within 30° "
        f"{within}, flips {flips}.",
        "",
        f"Photos of the outer folds, brand: {brand['known']:,} known, {brand['unseen']:,} unseen, "
        f"{brand['unknown']:,} of unknown makes.",
    ]


def recall(results: Mapping[str, Any]) -> list[str]:
    """Which classes are found on known models, on unseen ones, and on those of another source."""
    parts = {"known": "known models", "unseen": "unseen models", "elsewhere": "elsewhere"}
    header = [cell for label in parts.values() for cell in (f"photos, {label}", "found")]
    lines = [f"| attribute | class | {' | '.join(header)} |", "|---|---|" + "--:|---|" * len(parts)]
    for attribute in ("type", "doors", "seats"):
        columns = [results[part][attribute]["recall"] for part in parts]
        for name in find(CAR, attribute).classes:
            found = [column.get(name) for column in columns]
            if not any(found):
                continue
            cells = [f"{row[0]:,} | {row[1]:.2f}" if row else "0 | –" for row in found]
            lines.append(f"| {attribute} | {name} | {' | '.join(cells)} |")
    return lines


def calibrations(_: Mapping[str, Any]) -> list[str]:
    """ECE of every calibration of `calibrations.py`, known / unseen models."""
    found = json.loads((machine.RESULTS / "calibrations.json").read_text())["calibrations"]
    attributes = list(next(iter(found.values())))
    lines = [
        f"| calibration | {' | '.join(attributes)} |",
        "|---" * (1 + len(attributes)) + "|",
    ]
    for name, row in found.items():
        cells = (
            " / ".join(f"{row[a][f'{part}: ece']:.3f}" for part in ("known", "unseen"))
            for a in attributes
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def unknown(results: Mapping[str, Any]) -> list[str]:
    """Which photos and cars keep a brand, and what a conformal set holds."""
    told = results["unknown brands"]
    columns = {
        "cars named": "albums named",
        "above 0.5": "albums named above 0.5",
        "photos named": "named",
        "of them above 0.5": "named above 0.5",
        "conformal set: mean size": "conformal set, mean size",
        "empty": "conformal set, empty",
        "holds the truth": "conformal set, covers",
    }
    lines = ["| of | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for part, label in PARTS.items():
        cells = (f"{told[f'{name}: {part}']:.3f}" for name in columns.values())
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def scores(results: Mapping[str, Any]) -> list[str]:
    """How well each score tells unknown makes, and unseen models, from known models."""
    told = results["unknown brands"]
    names = [k.removeprefix("auroc unknown: ") for k in told if k.startswith("auroc unknown: ")]
    names.sort(key=lambda name: -told[f"auroc unknown: {name}"])
    own = "one minus the largest probability"
    cars = [f"{told[f'auroc of albums {part}']:.3f}" for part in ("unknown", "unseen")]
    return [
        "| score | AUROC, unknown makes | AUROC, unseen models |",
        "|---|---|---|",
        *(
            f"| {n} | {told[f'auroc unknown: {n}']:.3f} | {told[f'auroc unseen: {n}']:.3f} |"
            for n in names
        ),
        f"| {own}, mean over a car's photos | {' | '.join(cars)} |",
    ]


def videos(_: Mapping[str, Any]) -> list[str]:
    """The direction on footage that no head was trained on, of `videos.py`."""
    found = json.loads((machine.RESULTS / "videos.json").read_text())
    rows = {
        "sample, frames that are not spoilt": found["sample"],
        "the same with `--nolocalise`": found["sample_nolocalise"],
        "Honda Civic spin": found["spins"]["civic52_creativeaura"],
        "VW Beetle spin": found["spins"]["egjs_beetle36"],
    }
    return [
        "| video | frames | median error | within 30° | flips |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {row['frames']} | {row['median_deg']:.1f}° "
            f"| {row['within_30']:.0%} | {row['flips']:.1%} |"
            for name, row in rows.items()
        ),
    ]


def boxes(_: Mapping[str, Any]) -> list[str]:
    """How well the car is found, of `localise.py`."""
    found = json.loads((machine.RESULTS / "localise.json").read_text())["boxes"]
    lines = [
        "| photos | method | number | mean IoU | recall at 0.5 | recall at 0.75 |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        photos, method = name.split(", ")
        figures = (f"{row[key]:.3f}" for key in ("mean_iou", "recall_at_0.5", "recall_at_0.75"))
        lines.append(f"| `{photos}` | {method} | {row['photos']} | {' | '.join(figures)} |")
    return lines


def zoom(_: Mapping[str, Any]) -> list[str]:
    """What a small car costs, of `localise.py`."""
    found = json.loads((machine.RESULTS / "localise.json").read_text())["zoom"]
    lines = [
        "| longest side of the photo | type | brand | doors | seats | azimuth, median error |",
        "|---|---|---|---|---|---|",
    ]
    for share in ("100% of the frame", "30% of the frame"):
        row = found[f"longest side {share}"]
        figures = (f"{row[name]:.3f}" for name in ("type", "brand", "doors", "seats"))
        azimuth = f"{row['azimuth_median_deg']:.2f}°"
        lines.append(f"| {share} | {' | '.join(figures)} | {azimuth} |")
    return lines


TABLES = {
    "nested": nested,
    "recall": recall,
    "calibrations": calibrations,
    "unknown": unknown,
    "scores": scores,
    "videos": videos,
    "boxes": boxes,
    "zoom": zoom,
}


def card(results: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """What a bundle's card tells of every head: part → attribute → figure."""
    return {
        part: {
            attribute: {"images": row["images"]}
            | {name: round(row[name]["mean"], 4) for name in TOLD if name in row}
            for attribute, row in results[part].items()
        }
        for part in ("known", "unseen", "elsewhere")
    }


def main() -> None:
    results = json.loads((machine.RESULTS / "nested.json").read_text())
    tables = {name: "\n".join(table(results)) for name, table in TABLES.items()}
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        files.write(ROOT / page, fill(text, tables))
    told = json.loads(CARD.read_text()) | {"nested": card(results)}
    with files.replacing(CARD) as temporary:
        temporary.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
