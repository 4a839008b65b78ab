"""Runs docs/walkaround.ipynb from its first cell to its last.

    python docs/run_notebook.py [--write]

`--write` keeps the outputs in the notebook. Needs `pip install '.[notebook]'`.
"""

from __future__ import annotations

import argparse
import pathlib

import nbclient
import nbformat

NOTEBOOK = pathlib.Path(__file__).parent / "walkaround.ipynb"


def execute(path: pathlib.Path = NOTEBOOK) -> nbformat.NotebookNode:
    """Runs a notebook in a fresh kernel, in its own folder; raises where a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}
    )
    client.execute()
    for cell in notebook.cells:  # when it ran says nothing
        cell.metadata.pop("execution", None)
    return notebook


def main() -> None:
    """Runs it, and says how many cells there were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep the outputs")
    arguments = parser.parse_args()
    notebook = execute()
    if arguments.write:
        nbformat.write(notebook, NOTEBOOK)
    print(f"{sum(cell.cell_type == 'code' for cell in notebook.cells)} cells ran")


if __name__ == "__main__":
    main()
