"""Trains every config of a sweep, measures what each backbone costs, and draws both.

    python benchmarks/sweep.py --config=configs/sweeps/backbones.py --workdir=out/sweep

Finished runs are reused. Writes benchmarks/results/NAME.json and docs/images/NAME.svg, NAME being
the config's. Cost is of one image: GFLOP as XLA counts them, and images a second on this machine.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import backbone_cost
import crossval
import jax
import jax.numpy as jnp
import machine
import numpy as np
from absl import flags

from carjax import runtime
from carjax.cli import common
from carjax.errors import UsageError

SYNOPSIS = "usage: python benchmarks/sweep.py --config=FILE --workdir=DIR"
BATCH, TURNS = 8, 5
DOCS = pathlib.Path(__file__).parents[1] / "docs" / "images"
# Cost alone, with random weights: their published ones are the user's to fetch.
COST_ONLY = (("inception_resnet_v2", 299),)
COLOURS = ("#1f6fb4", "#c2452d", "#3c8d40", "#7a5ba6")


def main(argv: list[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "file with get_configs()", flag_values=values)
    flags.DEFINE_string("workdir", None, "one folder per run is made here", flag_values=values)
    flags.DEFINE_string("data_dir", None, "default: $CARJAX_DATA", flag_values=values)
    flags.DEFINE_string("cache_dir", None, "where features are kept", flag_values=values)
    common.parse(values, argv, SYNOPSIS)
    if not values.config or not values.workdir:
        raise UsageError("give --config=FILE and --workdir=DIR (see --help)")
    runtime.set_up_jax()
    from carjax.training import loop

    path = pathlib.Path(values.config)
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for config in crossval.read_config_file(path)["get_configs"]():
        name = f"{config.attribute}-{config.backbone}-{config.input_size}"
        run = pathlib.Path(values.workdir) / name
        result = loop.train_and_evaluate(config, run, values.data_dir, cache_dir=values.cache_dir)
        print(name, result["held_out"], flush=True)
        row = rows.setdefault((config.backbone, config.input_size), {})
        row[config.attribute] = result["held_out"]
    table = [
        {
            "backbone": backbone,
            "input_size": size,
            **cost(backbone, size),
            **rows.get((backbone, size), {}),
        }
        for backbone, size in [*rows, *COST_ONLY]
    ]
    machine.save(
        f"{path.stem}.json",
        {"command": f"python benchmarks/sweep.py --config={values.config}", "rows": table},
    )
    (DOCS / f"{path.stem}.svg").write_text(pareto_svg([r for r in table if "type" in r]))
    return 0


def cost(backbone: str, size: int) -> dict[str, float]:
    """Parameters, GFLOP and images a second of a backbone's features at an input size."""
    params, images = backbone_cost.random_params(backbone), jnp.zeros((BATCH, size, size, 3))
    program = backbone_cost.forward(backbone, params, images)
    seconds = machine.turns(lambda: program(params, images), TURNS)
    flops = program.cost_analysis()["flops"]
    return {
        "million_parameters": round(sum(x.size for x in jax.tree.leaves(params)) / 1e6, 2),
        "gflop": round(flops / BATCH / 1e9, 3),
        "images_per_s": round(BATCH / min(seconds), 1),
    }


def pareto_svg(rows: Sequence[dict[str, Any]]) -> str:
    """Draws type accuracy and azimuth error over GFLOP, one line per backbone."""
    panels = (
        ("type accuracy", lambda r: 100 * r["type"]["accuracy"], "%"),
        ("median azimuth error", lambda r: r["orientation"]["mederr_deg"], "°"),
    )
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 330" font-family="sans-serif" '
        'font-size="12"><rect width="900" height="330" fill="#fff"/>'
    ]
    names = sorted({r["backbone"] for r in rows})
    xs = np.log([r["gflop"] for r in rows])
    for panel, (title, figure, unit) in enumerate(panels):
        left = 60 + 450 * panel
        ys = [figure(r) for r in rows]
        low, high = min(ys), max(ys)

        def at(row: dict[str, Any], left=left, figure=figure, low=low, high=high):
            x = left + 350 * (np.log(row["gflop"]) - xs.min()) / (np.ptp(xs) or 1)
            return x, 270 - 210 * (figure(row) - low) / ((high - low) or 1)

        parts.append(f'<text x="{left}" y="24" font-size="14">{title} ({unit}) over GFLOP</text>')
        for value in np.linspace(low, high, 4):
            y = 270 - 210 * (value - low) / ((high - low) or 1)
            parts.append(
                f'<path d="M{left - 8} {y:.1f}h366" stroke="#ddd"/>'
                f'<text x="{left - 12}" y="{y + 4:.1f}" text-anchor="end">{value:.1f}</text>'
            )
        for name, colour in zip(names, COLOURS, strict=False):
            line = sorted((r for r in rows if r["backbone"] == name), key=lambda r: r["gflop"])
            points = [at(r) for r in line]
            path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
            parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            for row, (x, y) in zip(line, points, strict=True):
                parts.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{name} at '
                    f"{row['input_size']}: {figure(row):.2f}{unit}, {row['gflop']} GFLOP, "
                    f"{row['images_per_s']} images/s</title></circle>"
                )
        for value in (0.4, 0.8, 1.6, 3.2):
            if xs.min() <= np.log(value) <= xs.max():
                x = left + 350 * (np.log(value) - xs.min()) / (np.ptp(xs) or 1)
                parts.append(f'<text x="{x:.1f}" y="292" text-anchor="middle">{value}</text>')
    for i, (name, colour) in enumerate(zip(names, COLOURS, strict=False)):
        parts.append(
            f'<rect x="{60 + 200 * i}" y="306" width="12" height="12" fill="{colour}"/>'
            f'<text x="{78 + 200 * i}" y="316">{name}</text>'
        )
    return "".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    common.script("sweep", main)
