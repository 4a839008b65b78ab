"""What the scripts beside the package name of it exists. Most scripts no test runs."""

import ast
import dataclasses
import importlib
import inspect
import pathlib
import sys
import types

import pytest

from carjax.cli import common
from carjax.errors import CarjaxError

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("benchmarks", "configs", "data", "docs")
SCRIPTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def imported(nodes):
    """What import statements take from carjax, under the name that it has from then on."""
    names = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "carjax":
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
                names[alias.asname or alias.name] = getattr(module, alias.name)
    return names


def meant(tree):
    """What stands for something of carjax, node → object: names, and `module.attribute`."""
    found = {}
    for statement in tree.body:
        nodes = list(ast.walk(statement))
        names = imported(tree.body) | imported(nodes)
        for node in nodes:  # a variable or an argument of the same name is another thing
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.pop(node.id, None)
            elif isinstance(node, ast.arg):
                names.pop(node.arg, None)
        for node in nodes:
            if isinstance(node, ast.Name) and node.id in names:
                found[node] = names[node.id]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                module = names.get(node.value.id)
                if isinstance(module, types.ModuleType):
                    assert hasattr(module, node.attr), f"line {node.lineno}: {ast.unparse(node)}"
                    found[node] = getattr(module, node.attr)
    return found


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_script_names_of_carjax_exists_and_takes_its_arguments(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    objects = meant(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = objects.get(node.func)
        keywords = {keyword.arg: None for keyword in node.keywords}
        unpacked = None in keywords or any(isinstance(arg, ast.Starred) for arg in node.args)
        if unpacked or not (inspect.isfunction(called) or dataclasses.is_dataclass(called)):
            continue
        try:
            inspect.signature(called).bind(*node.args, **keywords)
        except TypeError as error:
            pytest.fail(f"line {node.lineno}: {ast.unparse(node)}: {error}")


def test_a_script_ends_with_its_status_or_with_what_failed(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["script.py", "--a", "--b"])

    def fails(argv):
        raise CarjaxError(f"no {' '.join(argv)}")

    for main, code in ((len, 2), (fails, "script: no --a --b")):
        with pytest.raises(SystemExit) as ended:
            common.script("script", main)
        assert ended.value.code == code
