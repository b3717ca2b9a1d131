"""The benchmarks' machinery, on a case whose ratio is known, and that the sides agree."""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import graphs, graphs_peers, measure
from experiments.benchmarks.alternate import measure as alternate, rows
from experiments.benchmarks.case import OURS
from structdl.errors import InputError
from structdl.training.runtime import keep_freed_memory

HERE = Path(__file__).parent


@pytest.fixture
def known(monkeypatch):
    """The cases of known_benchmarks.py, found by workers too."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.syspath_prepend(str(HERE))
    import known_benchmarks

    yield known_benchmarks.CASES
    del sys.modules["known_benchmarks"]


def test_sides_are_measured_in_turn_and_set_in_ratio(known):
    case = known[0]
    (row,) = rows(case, alternate("known_benchmarks", case, threads=1, rounds=4))
    assert row["case"] == "sleep"
    assert row["peer"] == "sleeper"
    assert row["rounds"] == 4
    # one side sleeps 2 ms a unit in runs of two units, the other 40 ms
    assert 1.5 < row["structdl_ms"] < 10
    assert 35 < row["peer_ms"] < 100
    np.testing.assert_allclose(row["ratio"], row["peer_ms"] / row["structdl_ms"], rtol=1e-3)
    low, high = row["peer_quartiles"]
    assert low <= row["peer_ms"] <= high
    assert f"| {row['ratio']:.2f} | 3 |" in measure.format_table([row])


def test_what_a_side_dies_of_is_said(known):
    with pytest.raises(InputError, match=r"sleeper .*dies.* failed: ValueError: no bed"):
        alternate("known_benchmarks", known[1], threads=1, rounds=1)


def test_an_unknown_case_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        measure.main(["graphs", "--only", "no such case"])
    assert stopped.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_rows_are_kept_by_family_case_peer_device_and_threads(tmp_path):
    for row in json.loads((measure.DIRECTORY / "results.json").read_text()):
        assert set(measure.KEY) <= row.keys()
        assert {"structdl_ms", "peer_ms", "ratio", "commit", "date", "versions"} <= row.keys()
        assert not row["commit"].endswith("+changes")


def test_memory_is_kept_where_there_is_glibc():
    assert keep_freed_memory() == (sys.platform == "linux")


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("power_law", [False, True])
def test_the_aggregations_agree(power_law):
    pytest.importorskip("torch")
    edges = functools.partial(graphs.edges_and_nodes, power_law, 50, 400)
    expected = [np.asarray(each) for each in graphs.aggregation(edges, True)()]
    for prepare in (
        graphs_peers.csr_product,
        graphs_peers.csr_product_with_transpose,
        graphs_peers.index_add,
    ):
        for ours, theirs in zip(expected, prepare(edges, True)(), strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(
            expected[0], prepare(edges, False)().numpy(), rtol=1e-4, atol=1e-3
        )


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_the_peers_models_are_the_papers():
    """The same kernels give the same logits as GCN, whichever way the features are stored."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch_geometric")
    rng = np.random.default_rng(0)
    dense = rng.uniform(size=(9, 5)) * (rng.uniform(size=(9, 5)) < 0.4)
    rows_, columns = map(torch.tensor, np.nonzero(dense))
    ends = torch.tensor([[0, 1, 1, 2, 3, 7], [1, 0, 2, 1, 7, 3]])
    values = torch.tensor(dense[dense > 0], dtype=torch.float32)
    cora = graphs_peers.Cora(rows_, columns, values, dense.shape, ends, None, None, None)
    outputs = []
    kernels = [torch.randn(5, 16), torch.randn(16, 7)]
    for name in graphs_peers.GCN.values():
        model, inputs = graphs_peers.make_model(name, cora)
        model.eval()
        with torch.no_grad():
            parameters = [each for each in model.parameters() if each.ndim == 2]
            for parameter, kernel in zip(parameters, kernels, strict=True):
                parameter.copy_(kernel if parameter.shape == kernel.shape else kernel.T)
            outputs.append(model(*inputs).numpy())
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], rtol=1e-4, atol=1e-5)
    assert OURS in graphs.CASES[0].sides
