"""The notebooks are committed as they ran: whole, without warnings, without a machine's traces.

That they still run is nbmake's part: it executes them as tests of their own.
"""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.:/])(/(home|root|tmp|work|var|usr|Users|private)/|[A-Z]:\\)")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
LARGEST = 400_000  # bytes
RENEW = "run: python .ci/execute_notebooks.py"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def faults(notebook: dict) -> set[str]:
    """What is wrong with a committed notebook, in words."""
    cells = notebook["cells"]
    executed = [cell for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in executed for output in cell["outputs"]]
    texts = ["".join(cell["source"]) for cell in cells]
    pictures = 0
    for output in outputs:
        data = output.get("data", {})
        pictures += "image/png" in data
        shown = [output.get("text", ""), *(data[kind] for kind in data if kind[:5] == "text/")]
        texts += ["".join(text) for text in shown]
    counts = [cell["execution_count"] for cell in executed]
    checks = {
        "not executed from top to bottom": counts != list(range(1, len(executed) + 1)),
        "an error": any(output["output_type"] == "error" for output in outputs),
        "a warning": any(output.get("name") == "stderr" for output in outputs),
        "a path of a machine": any(MACHINE_PATH.search(text) for text in texts),
        "no picture": pictures == 0,
        "a bar or widget": any(
            "application/" in kind for o in outputs for kind in o.get("data", ())
        ),
        "metadata of an execution": any(cell["metadata"] for cell in cells),
        "metadata of a machine": notebook["metadata"] != METADATA,
    }
    return {fault for fault, found in checks.items() if found}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_it_ran(path):
    assert faults(read(path)) == set(), RENEW
    assert path.stat().st_size < LARGEST


def test_every_notebook_is_executed_as_a_test(pytestconfig):
    assert NOTEBOOKS
    assert pytestconfig.option.nbmake
    assert "notebooks" in pytestconfig.getini("testpaths")


def stream(name: str, text: str) -> dict:
    return {"output_type": "stream", "name": name, "text": [text]}


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        ("not executed from top to bottom", {"execution_count": None}),
        ("an error", {"outputs": [{"output_type": "error", "ename": "ValueError"}]}),
        ("a warning", {"outputs": [stream("stderr", "DeprecationWarning")]}),
        ("a path of a machine", {"outputs": [stream("stdout", "saved to /tmp/run\n")]}),
        ("a path of a machine", {"source": ["open('/home/me/club.txt')"]}),
        ("metadata of an execution", {"metadata": {"execution": {"iopub.status.busy": "2026"}}}),
        (
            "a bar or widget",
            {"outputs": [{"output_type": "display_data", "data": {"application/x": {}}}]},
        ),
    ],
)
def test_the_check_sees_each_fault(fault, change):
    notebook = read(NOTEBOOKS[0])
    first = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    first |= change
    assert faults(notebook) == {fault}


def test_the_check_sees_outputs_that_were_cleared():
    notebook = read(NOTEBOOKS[0])
    for cell in notebook["cells"]:
        cell |= {"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {}
    assert faults(notebook) == {"not executed from top to bottom", "no picture"}


def test_the_check_sees_the_metadata_of_a_machine():
    notebook = read(NOTEBOOKS[0])
    notebook["metadata"]["language_info"]["version"] = "3.11.9"
    assert faults(notebook) == {"metadata of a machine"}
