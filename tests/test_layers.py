"""The layout in the README: a part of carjax imports only parts that lie below it."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "carjax"

# Each line may use those before it, and its own. A part is a module or folder right in carjax.
LAYERS = (
    ("errors", "wording", "stopwatch", "progress", "plugins", "channel", "closing", "interrupts"),
    ("certainty", "circular", "crops", "grids", "pictures"),
    ("files", "attributes", "features", "pooling", "prefetch", "calibration", "precision"),
    ("download", "programs", "runtime", "table"),
    ("backbones", "video", "feature_columns"),
    ("heads", "localise", "parquet", "weights_file"),
    ("content", "model", "sources"),
    ("datasets", "bundle"),
    ("temporal",),
    ("scoring", "selection", "listing"),
    ("result_folder",),
    ("scan", "annotate", "report"),
    ("pipeline", "engine", "training", "evaluation"),
    ("experiment", "web"),
    ("cli", "__main__"),
)
# Upwards, on purpose and inside of functions alone: how a result shows itself in a notebook.
NOTEBOOK = {("table", "report"), ("scoring", "report"), ("selection", "report")}


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """The parts of carjax that a file imports, each with the line, type checking left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom) or id(node) in typing:
            continue
        names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names = [f"carjax.{n}" for n in names] if node.module == "carjax" else [node.module]
        for name in names:
            top, _, rest = name.partition(".")
            if top == "carjax" and rest:
                yield rest.partition(".")[0], node


@pytest.mark.parametrize("part", [name for layer in LAYERS for name in layer])
def test_a_part_imports_only_what_lies_below_it(part):
    height = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    for path in sorted(PACKAGE.rglob("*.py")):
        if (path.parent == PACKAGE and path.stem == "__init__") or part_of(path) != part:
            continue
        for other, node in imports(path):
            if (part, other) in NOTEBOOK:
                assert node.col_offset > 0, f"{path}:{node.lineno}"
            else:
                assert height[other] <= height[part], f"{path}:{node.lineno}: {part} → {other}"


def test_every_part_has_its_layer():
    parts = {part_of(path) for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"} - {
        "assets"
    }
    assert parts == {name for layer in LAYERS for name in layer}
