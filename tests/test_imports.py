"""The floors of the house, held by parsing the imports of every file."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOPICS = {
    "graphs",
    "recurrent",
    "temporal",
    "attention",
    "generative",
    "detection",
    "dense",
    "inverse",
    "points",
    "metric",
    "memory",
}
TOPIC_EDGES = {
    ("graphs", "recurrent"),
    ("generative", "attention"),
    ("generative", "recurrent"),
    ("memory", "recurrent"),
    ("detection", "dense"),
    ("attention", "recurrent"),
}
PEERS = {"tensorflow", "torch", "torch_geometric", "sklearn", "networkx"}
FILES = sorted([*ROOT.glob("structdl/**/*.py"), *ROOT.glob("experiments/**/*.py")])


def imported(path: Path) -> set[str]:
    """Every module that a file imports, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def floors_below(floor: str) -> set[str]:
    """The floors that a file on this floor may import from; errors and files lie below all."""
    below_all = {"errors", "files", floor}
    if floor in TOPICS:
        return below_all | {"core"} | {low for high, low in TOPIC_EDGES if high == floor}
    if floor in ("training", "datasets"):
        return below_all | {"core"}
    return below_all


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_imports_only_from_the_floors_below(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    for name in imported(path):
        top, *rest = name.split(".")
        is_peer = parts[:2] == ("experiments", "benchmarks") and parts[-1].endswith("_peers")
        assert is_peer or top not in PEERS, f"{name} belongs behind an extra"
        if top == "flax" and rest[:1] == ["linen"]:
            half = parts[1] in TOPICS or parts[-1].endswith("model")
            assert half or is_peer, f"{name} outside a module half"
        if parts[0] == "structdl":
            assert top != "experiments", "structdl never imports experiments"
            if top == "structdl" and len(parts) > 2:
                assert rest[0] in floors_below(parts[1]), f"{name} is not on a floor below"
        elif top == "experiments" and rest and len(parts) > 2:
            free = parts[1] in ("optimizer_comparison", "benchmarks")
            shared = (ROOT / "experiments" / rest[0]).with_suffix(".py").exists()
            assert free or shared or rest[0] == parts[1], f"{name}: an experiment imports another"


def test_topic_edges_are_acyclic():
    remaining = set(TOPIC_EDGES)
    while remaining:
        sources = {high for high, _ in remaining} - {low for _, low in remaining}
        assert sources, f"a cycle among {remaining}"
        remaining = {edge for edge in remaining if edge[0] not in sources}


def test_the_check_sees_a_forbidden_import(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("from structdl.training import loop\nimport torch.nn\n")
    assert imported(path) == {"structdl.training.loop", "torch.nn"}
    assert "training" not in floors_below("core")


def test_importing_structdl_imports_nothing_heavy():
    command = "import sys, structdl; print({'jax', 'numpy', 'flax'} & sys.modules.keys())"
    shown = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert shown.stdout.strip() == "set()", shown.stderr
