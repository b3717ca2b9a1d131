"""The graph convolutional LSTM against loops over joints, torch's LSTM, and under permutations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from structdl.errors import InputError
from structdl.graphs.agc_lstm import (
    AGCLSTM,
    AGCLSTMLayer,
    AGCLSTMParams,
    AttentionParams,
    agc_lstm_layer,
    differences,
    gather_joints,
    joint_attention,
    pool_time,
    spatial_partitions,
)

BATCH, TIME, JOINTS, FEATURES, HIDDEN = 2, 5, 4, 3, 6
BONES = [(1, 0), (1, 2), (2, 3)]


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def layer_params(seed=0, partitions=3):
    square = (HIDDEN, HIDDEN)
    attention = AttentionParams(
        *(normal(seed + n, *square) for n in range(3)), normal(seed + 3, HIDDEN), normal(4, HIDDEN)
    )
    return AGCLSTMParams(
        normal(seed + 5, partitions * FEATURES, 4 * HIDDEN),
        normal(seed + 6, partitions * HIDDEN, 4 * HIDDEN),
        normal(seed + 7, 4 * HIDDEN),
        attention,
    )


def loop_gathered(nodes, adjacency):
    """Joint after joint, for one frame."""
    rows = []
    for i in range(JOINTS):
        parts = [sum(a[i, j] * nodes[j] for j in range(JOINTS)) for a in adjacency]
        rows.append(np.concatenate(parts))
    return np.array(rows)


def loop_attention(params, nodes):
    query = np.maximum(sum(node @ params.query_kernel for node in nodes), 0)
    scores = [
        params.score_kernel
        @ np.tanh(node @ params.joint_kernel + query @ params.context_kernel + params.bias)
        for node in nodes
    ]
    return sigmoid(np.array(scores))


def loop_layer(params, adjacency, xs):
    cell = hidden = np.zeros((JOINTS, HIDDEN))
    for x in xs:
        gates = loop_gathered(x, adjacency) @ params.input_kernel
        gates += loop_gathered(hidden, adjacency) @ params.recurrent_kernel + params.bias
        write, keep, candidate, show = np.split(gates, 4, axis=1)
        cell = sigmoid(keep) * cell + sigmoid(write) * np.tanh(candidate)
        plain = sigmoid(show) * np.tanh(cell)
        weights = loop_attention(params.attention, plain)
        hidden = (1 + weights[:, None]) * plain
        yield hidden, weights, plain


def test_layer_equals_a_loop_over_joints():
    params, adjacency = layer_params(), spatial_partitions(BONES, JOINTS)
    xs = normal(9, BATCH, TIME, JOINTS, FEATURES)
    found = agc_lstm_layer(params, adjacency, xs)
    host = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, adjacency, xs))
    for number in range(BATCH):
        for time, expected in enumerate(loop_layer(*host[:2], host[2][number])):
            for leaf, value in zip(found, expected, strict=True):
                np.testing.assert_allclose(leaf[number, time], value, rtol=1e-3, atol=1e-4)
    assert found.weights.shape == (BATCH, TIME, JOINTS)


@pytest.mark.peers
def test_one_joint_without_attention_is_torchs_lstm():
    torch = pytest.importorskip("torch")
    params = layer_params(partitions=1)
    silent = params.attention._replace(  # alpha = 1/2 everywhere: the hidden states are 3/2 as long
        score_kernel=jnp.zeros(HIDDEN)
    )
    # ... which the recurrent kernel takes back
    ours = params._replace(attention=silent, recurrent_kernel=params.recurrent_kernel / 1.5)
    xs = normal(9, BATCH, TIME, 1, FEATURES)
    found = agc_lstm_layer(ours, jnp.ones((1, 1, 1)), xs)
    peer = torch.nn.LSTM(FEATURES, HIDDEN, batch_first=True)
    with torch.no_grad():
        peer.weight_ih_l0.copy_(torch.from_numpy(np.array(params.input_kernel).T))
        peer.weight_hh_l0.copy_(torch.from_numpy(np.array(params.recurrent_kernel).T))
        peer.bias_ih_l0.copy_(torch.from_numpy(np.array(params.bias)))
        peer.bias_hh_l0.zero_()
        expected, _ = peer(torch.from_numpy(np.array(xs[:, :, 0])))
    np.testing.assert_allclose(found.plain[:, :, 0], expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.weights, 0.5)


def test_joints_can_be_renamed():
    order = np.array([2, 0, 3, 1])
    place = np.argsort(order).tolist()
    renamed = [(place[parent], place[child]) for parent, child in BONES]
    adjacency, other = (spatial_partitions(bones, JOINTS) for bones in (BONES, renamed))
    np.testing.assert_array_equal(adjacency[:, order][:, :, order], other)
    xs = normal(9, BATCH, 8, JOINTS, FEATURES)
    model = AGCLSTM(5, HIDDEN)
    params = model.init(jax.random.key(0), xs, adjacency, train=False)
    logits, attention = model.apply(params, xs, adjacency, train=False)
    moved, moved_attention = model.apply(params, xs[:, :, order], other, train=False)
    np.testing.assert_allclose(moved, logits, rtol=1e-4, atol=1e-5)
    assert [weights.shape[1] for weights in attention] == [8, 4, 2]
    for one, two in zip(attention, moved_attention, strict=True):
        np.testing.assert_allclose(two, one[:, :, order], rtol=1e-4, atol=1e-5)


def test_padding_changes_nothing_and_gives_zeros():
    params, adjacency = layer_params(), spatial_partitions(BONES, JOINTS)
    xs = normal(9, BATCH, TIME, JOINTS, FEATURES)
    lengths = jnp.array([3, 5])
    padded = xs.at[0, 3:].set(jnp.nan)
    found = agc_lstm_layer(params, adjacency, padded, lengths=lengths)
    short = agc_lstm_layer(params, adjacency, xs[:, :3])
    for leaf, expected in zip(found, short, strict=True):
        np.testing.assert_allclose(leaf[0, :3], expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(leaf[0, 3:], 0)


def test_what_comes_later_is_not_seen():
    params, adjacency = layer_params(), spatial_partitions(BONES, JOINTS)
    xs = normal(9, 1, TIME, JOINTS, FEATURES)
    jacobian = jax.jacobian(lambda xs: agc_lstm_layer(params, adjacency, xs).hidden[0])(xs)
    influence = np.abs(np.asarray(jacobian)).sum(axis=(1, 2, 3, 5, 6))  # [time out, time in]
    np.testing.assert_array_equal(influence > 0, np.tril(np.ones((TIME, TIME), bool)))


def test_joints_hear_of_themselves_parents_and_children():
    adjacency = np.asarray(spatial_partitions(BONES, JOINTS))
    np.testing.assert_array_equal(adjacency[0], np.eye(JOINTS))
    parents = {0: [1], 1: [], 2: [1], 3: [2]}
    children = {0: [], 1: [0, 2], 2: [3], 3: []}
    for partition, heard in ((1, parents), (2, children)):
        for joint, others in heard.items():
            expected = np.zeros(JOINTS)
            expected[others] = 1 / max(len(others), 1)
            np.testing.assert_array_equal(adjacency[partition, joint], expected)
    nodes = normal(1, BATCH, JOINTS, FEATURES)
    expected = loop_gathered(np.asarray(nodes[1]), adjacency)
    np.testing.assert_allclose(
        gather_joints(nodes, jnp.asarray(adjacency))[1], expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "bones", [[(0, 1), (1, 2)], [(0, 1), (1, 2), (1, 2)], [(0, 1), (1, 2), (2, 4)], [(0, 1)] * 3]
)
def test_bones_that_are_no_tree(bones):
    with pytest.raises(InputError, match="expected a tree over joints 0 to 3"):
        spatial_partitions(bones, JOINTS)


def test_attention_tells_joints_apart():
    params, nodes = layer_params().attention, normal(3, BATCH, JOINTS, HIDDEN)
    found = np.asarray(joint_attention(params, nodes))
    for row, joints in zip(found, np.asarray(nodes, np.float64), strict=True):
        expected = loop_attention(jax.tree.map(np.asarray, params), joints)
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)
    assert (found > 0).all()
    assert (found < 1).all()
    assert found.std(axis=1).min() > 0.01


def test_differences_and_pooling_by_hand():
    xs = jnp.array([[[1.0], [4.0], [9.0]]])
    assert differences(xs).ravel().tolist() == [0, 3, 5]
    assert pool_time(xs).ravel().tolist() == [2.5]


def test_gradients_reach_every_parameter():
    adjacency, xs = spatial_partitions(BONES, JOINTS), normal(9, BATCH, 8, JOINTS, FEATURES)
    model = AGCLSTM(5, HIDDEN, dropout=0.5)
    variables = model.init(jax.random.key(0), xs, adjacency, train=False)

    def loss(variables):
        logits, _ = model.apply(
            variables, xs, adjacency, train=True, rngs={"dropout": jax.random.key(1)}
        )
        return jnp.sum(logits**2)

    for path, gradient in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(variables)):
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path


def test_layer_module_is_the_function():
    adjacency, xs = spatial_partitions(BONES, JOINTS), normal(9, BATCH, TIME, JOINTS, FEATURES)
    found, variables = AGCLSTMLayer(HIDDEN).init_with_output(jax.random.key(0), xs, adjacency)
    its = variables["params"]
    attention = AttentionParams(
        its["query_kernel"],
        its["joint_kernel"],
        its["context_kernel"],
        its["attention_bias"],
        its["score_kernel"][:, 0],
    )
    params = AGCLSTMParams(its["input_kernel"], its["recurrent_kernel"], its["bias"], attention)
    for leaf, expected in zip(found, agc_lstm_layer(params, adjacency, xs), strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(its["bias"][HIDDEN : 2 * HIDDEN], 1)
