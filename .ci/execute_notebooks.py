"""Executes the notebooks and renews the outputs in them: python .ci/execute_notebooks.py.

Versions and times of execution are left out, so that a difference is one of content.
"""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def execute(path: Path) -> None:
    """Runs a notebook in its own folder, as the tests do."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, record_timing=False, coalesce_streams=True)
    client.execute(cwd=path.parent)
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata = {}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        execute(path)
