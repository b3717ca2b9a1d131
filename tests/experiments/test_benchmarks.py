"""The benchmarks' machinery, on a case whose ratio is known, and that the sides agree."""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import graphs, measure
from experiments.benchmarks.alternate import measure as alternate, rows
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
        alternate("known_benchmarks", known[2], threads=1, rounds=1)


def test_a_side_may_say_its_seconds_itself(known):
    case = known[1]
    assert alternate("known_benchmarks", case, threads=1, rounds=2) == {
        "structdl": [200.0, 200.0],
        "slower": [3000.0, 3000.0],
    }


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


def test_memory_of_partitioned_graphs_is_recorded_and_falls_five_fold():
    directory = measure.DIRECTORY / "partition_memory"
    rows = json.loads((directory / "results.json").read_text())
    for row in rows:
        assert not row["commit"].endswith("+changes")
        if row["features_at_once"] == "8" and row["parts"] == 8:
            assert row["fall"] >= 5


def test_memory_is_kept_where_there_is_glibc():
    assert keep_freed_memory() == (sys.platform == "linux")


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("power_law", [False, True])
def test_the_aggregations_agree(power_law):
    pytest.importorskip("torch")
    from experiments.benchmarks import csr_peers

    edges = functools.partial(graphs.edges_and_nodes, power_law, 50, 400)
    expected = [np.asarray(each) for each in graphs.aggregation(edges, True)()]
    for prepare in (
        csr_peers.csr_product,
        csr_peers.csr_product_with_transpose,
        csr_peers.index_add,
    ):
        for ours, theirs in zip(expected, prepare(edges, True)(), strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(
            expected[0], prepare(edges, False)().numpy(), rtol=1e-4, atol=1e-3
        )


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("layer", ["gcn", "chebyshev", "sage", "gat"])
def test_the_peers_networks_are_one(layer):
    """PyTorch Geometric's layers and those in plain torch give the same, with the same kernels."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch_geometric")
    from experiments.benchmarks import cora_peers

    rng = np.random.default_rng(0)
    dense = rng.uniform(size=(9, 5)) * (rng.uniform(size=(9, 5)) < 0.4)
    places = map(torch.tensor, np.nonzero(dense))
    ends = torch.tensor(np.stack([np.arange(9), np.roll(np.arange(9), 1)]))
    edges = torch.cat([ends, ends.flip(0)], dim=1)
    values = torch.tensor(dense[dense > 0], dtype=torch.float32)
    cora = cora_peers.Cora(*places, values, dense.shape, edges, None, None, None)
    theirs, inputs = cora_peers.make_network(layer, "pyg", cora)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        expected = theirs.eval()(*inputs).numpy()
        for peer in ("torch", "torch-transposed"):
            network, inputs = cora_peers.make_network(layer, peer, cora)
            for place, convolution in enumerate((theirs.first, theirs.second)):
                copy_layer(layer, convolution, network, place)
            output = network.eval()(*inputs).numpy()
            np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


def copy_layer(layer: str, convolution, network, place: int) -> None:
    """Puts the kernels of a layer of PyTorch Geometric into that of plain torch."""
    import torch

    match layer:
        case "chebyshev":
            parts = convolution.lins
        case "sage":
            parts = (convolution.lin_r, convolution.lin_l)
        case _:
            parts = (convolution.lin,)
    network.kernels[place].copy_(torch.cat([part.weight.T for part in parts], dim=1))
    if layer == "gat":
        vectors = torch.cat([convolution.att_src[0], convolution.att_dst[0]])
        network.layer.vectors[place].copy_(vectors)
