"""What the code and its tests import is what pyproject.toml asks for."""

import ast
import importlib.metadata
import pathlib
import re
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(folder):
    """Top-level modules that the files of a folder import, each with one of the files."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            else:
                continue
            found |= dict.fromkeys((name.partition(".")[0] for name in names), path.name)
    return found


@pytest.mark.parametrize("folder", ["carjax", "configs", "data", "tests"])
def test_every_import_is_a_declared_requirement(folder):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        lines += extra
    declared = {canonical(re.match(r"[\w.-]+", line)[0]) for line in lines}
    installed = importlib.metadata.packages_distributions()
    undeclared = {
        module: file
        for module, file in imported(folder).items()
        if module not in sys.stdlib_module_names
        and declared.isdisjoint(map(canonical, installed.get(module, [])))
        and module in installed
    }
    # Parts of their bearers' interfaces: jinja2's Markup, fastapi's models and its requests.
    assert undeclared.keys() <= {"markupsafe", "pydantic", "starlette"}, undeclared
