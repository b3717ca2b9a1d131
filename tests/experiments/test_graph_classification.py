"""Graph classification: batches lose nothing, metrics by hand, and the contract of the loop."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.graph_classification.data import (
    GraphSet,
    Room,
    draw_batch,
    fold_split,
    for_model,
    make_room,
    pack,
)
from experiments.graph_classification.model import make_model
from experiments.graph_classification.presets import (
    PRESETS,
    Config,
    GCNConfig,
    GGNNConfig,
    GINConfig,
)
from experiments.graph_classification.train import (
    EXPERIMENT,
    graph_totals,
    label_totals,
    main,
    make_task,
    task_areas,
    task_of,
)
from structdl.errors import InputError
from structdl.graphs.graph import batch, graph_from_edges, symmetrize, unbatch
from structdl.training.cli import restore_run
from structdl.training.loop import fit
from structdl.training.optimizers import OptimizerConfig, make_optimizer
from structdl.training.profiling import Profile
from structdl.training.run import Run
from structdl.training.state import init_train_state
from structdl.training.step import make_train_step
from structdl.training.task import Inputs

TINY = ["--batch-size", "4", "--model.hidden", "4", "--model.num-layers", "1"]
SHORT = ["--num-steps", "4", "--eval-every", "2", "--steps-per-call", "2", "--log-every", "2"]
GIN, GCN, GGNN = GINConfig(4, 1), GCNConfig((4,)), GGNNConfig(4, 2)
READOUTS = ["sum", "mean", "max", "gated", "virtual"]


def small_set(num_labels: int = 1) -> GraphSet:
    """An ordinary graph, one without edges, one without nodes, and others; edges have types."""
    rng = np.random.default_rng(0)
    graphs = []
    for num_nodes, num_edges in [(4, 3), (2, 0), (0, 0), (5, 6), (1, 0), (3, 2)]:
        nodes = np.concatenate([np.ones((num_nodes, 1)), rng.normal(size=(num_nodes, 2))], axis=1)
        ends = rng.integers(0, max(num_nodes, 1), (2, num_edges))
        types, labels = rng.integers(0, 3, num_edges), rng.integers(0, 2, num_labels)
        nodes = nodes.astype(np.float32)
        graph = graph_from_edges(*ends, num_nodes, nodes=nodes, edges=types, globals=labels)
        graphs.append(symmetrize(graph))
    names = tuple(f"task {number}" for number in range(num_labels)) if num_labels > 1 else ()

    def split(seed):
        return np.array([0, 1, 2]), np.array([3, 4]), np.array([5])

    return GraphSet(batch(graphs), 3, 0 if names else 2, names, split)


def logits_and_gradients(model, params, state, graph):
    def loss(params):
        logits = model.apply({"params": params, **state}, graph, train=False)
        return jnp.sum(jnp.sin(logits[:-1])), logits

    (_, logits), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return logits, gradients


@pytest.mark.parametrize(
    ("model", "readout"),
    [*((GCN, readout) for readout in READOUTS), (GIN, "virtual"), (GGNN, "sum"), (GGNN, "virtual")],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_padding_and_company_do_not_change_a_graphs_logits(model, readout):
    """Also for graphs without edges and without nodes; gradients are finite."""
    config = Config(model=model, readout=readout)
    data = for_model(small_set(), config)
    network, whole = make_model(config, data), np.arange(6)
    packed = pack(data.graph, whole, Room(40, 90, 9))
    init = jax.jit(lambda graph: network.init(jax.random.key(0), graph, train=False))
    variables = dict(init(packed))
    params = variables.pop("params")
    compiled = jax.jit(lambda graph: logits_and_gradients(network, params, variables, graph))
    together, gradients = compiled(packed)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((together, gradients)))
    for number in (0, 1, 2, 3):  # each alone among much padding, by the same program
        alone, gradients = compiled(pack(data.graph, whole[number : number + 1], Room(40, 90, 9)))
        np.testing.assert_allclose(alone[0], together[number], rtol=1e-4, atol=1e-5)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_virtual_nodes_stand_for_the_nodes_that_count():
    data = small_set()
    data.graph.nodes[[0, 4], 0] = 0  # a node of the first graph and one of the second
    config = Config(model=GGNNConfig(), readout="virtual")
    found = for_model(data, config)
    first = unbatch(found.graph)[0]
    np.testing.assert_array_equal(first.nodes[:, 0], [0, 0, 0, 0, 1])
    into = first.senders[first.receivers == 4]
    np.testing.assert_array_equal(into, [1, 2, 3])
    assert set(first.edges[first.receivers == 4]) == {3}
    assert set(first.edges[first.senders == 4]) == {4}
    assert found.num_edge_types == 5
    np.testing.assert_array_equal(found.graph.n_node, data.graph.n_node + 1)


def test_batches_of_training_hold_whole_graphs_of_the_training_part_only():
    data = small_set()
    room = make_room(data.graph, 2, 4.0)
    originals = unbatch(data.graph)
    seen = set()
    for step in range(30):
        drawn = draw_batch(data.graph, data.split(0)[0], room, np.random.default_rng([0, step]))
        assert (drawn.num_nodes, drawn.num_edges, drawn.num_graphs) == room
        one, other, padding = unbatch(drawn)
        assert not padding.nodes.any()
        for graph in (one, other):
            same = [
                number
                for number, original in enumerate(originals)
                if all(np.array_equal(a, b) for a, b in zip(graph, original, strict=True))
            ]
            assert len(same) == 1
            seen |= set(same)
    assert seen == {0, 1, 2}


def test_a_graph_larger_than_the_room_is_refused_and_never_cut():
    data = small_set()
    with pytest.raises(InputError, match="5 nodes, and num_nodes leaves room for 4"):
        pack(data.graph, np.array([3]), Room(5, 90, 2))
    with pytest.raises(InputError, match="edges, and num_edges leaves room for 3"):
        pack(data.graph, np.array([3]), Room(9, 3, 2))
    with pytest.raises(InputError, match="100 batches of 1 graphs"):
        draw_batch(data.graph, np.array([3]), Room(5, 90, 2), np.random.default_rng(0))
    # the largest one always fits into what is made for the set
    room = make_room(data.graph, 1, 0.0)
    assert draw_batch(data.graph, np.array([3]), room, np.random.default_rng(0)).num_nodes == 6


def test_folds_take_turns():
    folds = [np.array([0, 3]), np.array([1]), np.array([2, 4])]
    split = fold_split(folds)
    for seed in range(3):
        train, validation, test = split(seed)
        np.testing.assert_array_equal(test, folds[seed])
        np.testing.assert_array_equal(validation, folds[(seed + 1) % 3])
        assert sorted(np.concatenate([train, validation, test])) == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="0 to 2"):
        split(3)


def test_metrics_by_hand():
    graphs = [
        graph_from_edges([], [], 1, nodes=np.ones((1, 2), np.float32), globals=labels)
        for labels in ([1, -1], [0, 1], [0, 0], [1, 0])
    ]
    graph = pack(batch(graphs), np.arange(4), Room(6, 1, 6))
    logits = jnp.array([[2.0, 9.0], [0.0, 1.0], [3.0, 1.0], [1.0, 0.0], [5.0, -5.0], [5.0, -5.0]])
    graph = jax.tree.map(jnp.asarray, graph)

    totals = graph_totals(logits, graph)
    assert totals["accuracy"] == (2, 4)  # the first and the third
    expected = sum(
        np.log(np.exp(row).sum()) - row[label]
        for row, label in zip(np.array(logits), [1, 0, 0, 1], strict=False)
    )
    np.testing.assert_allclose(totals["loss"][0], expected, rtol=1e-5)

    pairs = [(2, 1), (0, 0), (3, 0), (1, 1), (1, 1), (1, 0), (0, 0)]  # logit, label; one missing
    expected = sum(np.log1p(np.exp(-logit if label else logit)) for logit, label in pairs)
    total, count = label_totals(logits, graph)["loss"]
    assert count == 7
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    areas = task_areas(logits, graph, ("a", "b"))
    # a: 2 and 1 against 0 and 3; b: 1 against 1 and 0
    np.testing.assert_allclose(areas["roc_auc_a"][0], 2 / 4)
    np.testing.assert_allclose(areas["roc_auc_b"][0], 1.5 / 2)
    np.testing.assert_allclose(areas["roc_auc"][0], (0.5 + 0.75) / 2)


def test_binary_tasks_with_missing_labels_train():
    data = small_set(num_labels=2)
    data.graph.globals[:3, 0] = -1
    run = Run(num_steps=4, steps_per_call=2, eval_every=2, stopping="patience")
    config = Config(batch_size=2, model=GGNN, readout="gated", run=run)
    task = task_of(data, config)
    result = fit(task, make_optimizer(config.optimizer), config.run)
    assert not result.state.diverged.any()
    assert result.state.train.step == 4


@pytest.fixture(scope="module")
def task():
    model = GINConfig(hidden=4, num_layers=1, mlp_layers=1, dropout=0.0)
    return make_task(Config(batch_size=8, model=model))


CARD = ["sgd", "momentum", "adagrad", "rmsprop", "adam", "lbfgs", "schedule_free_adamw"]


@pytest.mark.parametrize("name", CARD)
def test_each_optimizer_of_the_card_lowers_the_loss(name, task):
    optimizer = make_optimizer(OptimizerConfig(name, 1.0 if name == "lbfgs" else 0.01))
    inputs = Inputs(task.data, task.seed_data(0), task.batch(0, 0))
    params, model_state = jax.jit(task.init)(jax.random.key(1), inputs)
    step = jax.jit(make_train_step(task, optimizer))
    state = init_train_state(params, model_state, optimizer, jax.random.key(2))
    losses = []
    for _ in range(5):
        state, diagnostics = step(state, inputs)
        losses.append(float(diagnostics["loss"]))
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]


def test_two_seeds_train_together_with_one_program(task):
    run = Run(num_steps=40, num_seeds=2, eval_every=5, steps_per_call=10, stopping="patience")
    profile = Profile()
    result = fit(task, make_optimizer(OptimizerConfig("adam", 0.01)), run, profile=profile)
    assert profile.recompilations == []
    np.testing.assert_array_equal(result.state.train.step, [40, 40])
    kernels = jax.tree.leaves(result.state.train.params)[0]
    assert (kernels[0] != kernels[1]).any()


def test_a_run_resumes_bit_for_bit_and_draws_its_pictures(tmp_path):
    first = next(iter(PRESETS))
    for path, steps in [("parts", "2"), ("parts", "4"), ("whole", "4")]:
        options = [*SHORT, "--num-steps", steps, "--workdir", str(tmp_path / path)]
        main([first, *TINY, *options])
    summary = json.loads((tmp_path / "parts" / "summary.json").read_text())
    assert summary["resumed"] == 1
    states = [restore_run(tmp_path / path, EXPERIMENT)[2].state for path in ("parts", "whole")]
    chex.assert_trees_all_equal(*states)
    for name in ("learning_curves.png", "scores.png", "graphs.png"):
        assert (tmp_path / "whole" / "figures" / name).read_bytes()[:4] == b"\x89PNG"


def test_bad_options_are_refused():
    with pytest.raises(InputError, match="did you mean 'MUTAG'"):
        make_task(Config(dataset="MUTAGG"))
    with pytest.raises(InputError, match="MUTAG marks no nodes"):
        make_task(Config(dataset="MUTAG", nodes="marked"))
