"""The seam of graph computation against loops over edges, in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax.test_util import check_grads

from structdl.core import segment
from structdl.core.segment import edge_layout, edge_list, gather_sum
from structdl.errors import InputError

METHODS = ["tables", "scatter"]
REDUCTIONS = {
    "sum": (segment.segment_sum, lambda rows: rows.sum(axis=0)),
    "mean": (segment.segment_mean, lambda rows: rows.mean(axis=0)),
    "max": (segment.segment_max, lambda rows: rows.max(axis=0)),
    "min": (segment.segment_min, lambda rows: rows.min(axis=0)),
}


@st.composite
def edge_sets(draw):
    """Bipartite: isolated nodes, loops, repeats, no edge at all, and hubs of several tables."""
    num_senders, num_receivers = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    pair = st.tuples(st.integers(0, num_senders - 1), st.integers(0, num_receivers - 1))
    edges = draw(st.lists(pair, max_size=20))
    hub_edges = draw(st.sampled_from([0, 40, 1200]))
    edges += [(edge % num_senders, num_receivers - 1) for edge in range(hub_edges)]
    edges += [(num_senders - 1, edge % num_receivers) for edge in range(hub_edges // 2)]
    senders, receivers = np.array(edges, np.int32).reshape(-1, 2).T
    return senders, receivers, num_senders, num_receivers


def hub_graph(num_nodes=40, num_edges=3000, seed=0):
    """Fixed: a hub on either side, so that pieces and the rest of the pieces are both used."""
    rng = np.random.default_rng(seed)
    senders, receivers = rng.integers(0, num_nodes - 2, (2, num_edges))
    senders[:1400], receivers[1000:2500] = 1, 2
    return senders, receivers, num_nodes, num_nodes


def normal(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def loop_gather_sum(nodes, senders, receivers, num_receivers, weights):
    """The slow oracle, and the sum of magnitudes that its rounding is measured by."""
    total = np.zeros((num_receivers, *nodes.shape[1:]))
    magnitude = np.zeros_like(total)
    for sender, receiver, weight in zip(senders, receivers, weights, strict=True):
        weight = np.reshape(weight, weight.shape + (1,) * (nodes.ndim - 1 - weight.ndim))
        total[receiver] += weight * nodes[sender].astype(np.float64)
        magnitude[receiver] += abs(weight * nodes[sender])
    return total, magnitude


def loop_edge_dot(cotangent, nodes, senders, receivers, num_head_axes):
    products = cotangent[receivers].astype(np.float64) * nodes[senders]
    axes = tuple(range(1 + num_head_axes, products.ndim))
    return products.sum(axis=axes), abs(products).sum(axis=axes)


def assert_sums_close(actual, expected_and_magnitude):
    """To 1e-5 of the sum of magnitudes in float32, 1e-12 in float64."""
    expected, magnitude = expected_and_magnitude
    tolerance = 1e-12 if actual.dtype == jnp.float64 else 1e-5
    assert np.all(abs(np.asarray(actual, np.float64) - expected) <= tolerance * magnitude + 1e-30)


def assert_gather_sum_and_gradients(graph, nodes, weights, method):
    senders, receivers, num_senders, num_receivers = graph
    layout = edge_layout(senders, receivers, num_senders, num_receivers)
    cotangent = normal(2, num_receivers, *nodes.shape[1:], dtype=nodes.dtype)

    @jax.jit
    def value_and_gradients(nodes, weights, cotangent):
        out, pull_back = jax.vjp(
            lambda nodes, weights: gather_sum(nodes, layout, weights, method=method),
            nodes,
            weights,
        )
        return out, *pull_back(cotangent)

    out, nodes_bar, weights_bar = value_and_gradients(
        *map(jnp.asarray, (nodes, weights, cotangent))
    )
    assert out.dtype == nodes_bar.dtype == weights_bar.dtype == nodes.dtype
    assert_sums_close(out, loop_gather_sum(nodes, senders, receivers, num_receivers, weights))
    expected = loop_gather_sum(cotangent, receivers, senders, num_senders, weights)
    assert_sums_close(nodes_bar, expected)
    expected = loop_edge_dot(cotangent, nodes, senders, receivers, weights.ndim - 1)
    assert_sums_close(weights_bar, expected)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=8)  # every new shape compiles
@given(edge_sets())
def test_gather_sum_and_its_gradients_equal_a_loop(method, graph):
    nodes, weights = normal(0, graph[2], 3), normal(1, len(graph[0]))
    assert_gather_sum_and_gradients(graph, nodes, weights, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(), (4, 37), (4, 2, 3)])
def test_gather_sum_of_any_features_and_heads(method, shape):
    graph = hub_graph()
    assert_gather_sum_and_gradients(graph, normal(0, 40, *shape), normal(1, 3000), method)
    for num_head_axes in range(1, len(shape)):
        weights = normal(1, 3000, *shape[:num_head_axes])
        assert_gather_sum_and_gradients(graph, normal(0, 40, *shape), weights, method)


@pytest.mark.parametrize("method", METHODS)
def test_gather_sum_in_float64(method):
    with jax.enable_x64(True):
        nodes, weights = normal(0, 40, 5, dtype=np.float64), normal(1, 3000, dtype=np.float64)
        assert_gather_sum_and_gradients(hub_graph(), nodes, weights, method)


@pytest.mark.parametrize("method", METHODS)
def test_large_tables_equal_small_ones(method):
    """More rows than the threshold at which columns are unrolled further, of every width."""
    rng = np.random.default_rng(0)
    degrees = rng.integers(0, 36, 2**15)
    receivers = np.repeat(np.arange(2**15), degrees)
    senders = rng.integers(0, 2**15, len(receivers))
    nodes, weights = normal(1, 2**15, 2), normal(2, len(receivers))
    layout = edge_layout(senders, receivers, 2**15)
    out = gather_sum(jnp.asarray(nodes), layout, jnp.asarray(weights), method=method)
    messages = weights[:, None] * nodes[senders].astype(np.float64)
    expected, magnitude = np.zeros((2, 2**15, 2))
    np.add.at(expected, receivers, messages)
    np.add.at(magnitude, receivers, abs(messages))
    assert_sums_close(out, (expected, magnitude))


@pytest.mark.parametrize("method", METHODS)
def test_no_weights_are_weights_of_one(method):
    layout = edge_layout(*hub_graph())
    nodes = jnp.asarray(normal(0, 40, 3))
    expected = gather_sum(nodes, layout, jnp.ones(3000), method=method)
    np.testing.assert_array_equal(gather_sum(nodes, layout, method=method), expected)


@pytest.mark.parametrize("method", METHODS)
def test_bfloat16_is_summed_in_float32(method):
    senders, receivers = np.arange(1001), np.zeros(1001, int)
    layout = edge_layout(senders, receivers, 1001, 1)
    nodes = jnp.ones((1001, 2), jnp.bfloat16)
    total = gather_sum(nodes, layout, method=method)
    assert total.dtype == jnp.bfloat16
    np.testing.assert_array_equal(total, jnp.full((1, 2), 1000.0, jnp.bfloat16))  # 256 otherwise
    values = segment.segment_sum(nodes, layout.receivers, 1, layout, method=method)
    np.testing.assert_array_equal(values, total)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout_of", ["directed", "transpose"])
def test_second_derivatives(method, layout_of):
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        senders, receivers = rng.integers(0, 5, (2, 60))
        receivers[:45] = 1
        layout = edge_layout(senders, receivers, 5, 6)
        layout = layout if layout_of == "directed" else layout.transpose
        nodes = jnp.asarray(normal(0, layout.num_senders, 2, 3, dtype=np.float64))
        weights = jnp.asarray(normal(1, 60, 2, dtype=np.float64))
        check_grads(
            jax.jit(lambda nodes, weights: gather_sum(nodes, layout, weights, method=method)),
            (nodes, weights),
            order=2,
            modes=["rev"],
        )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, 0), (None, None)])
def test_vmap_equals_a_loop_and_so_does_its_gradient(method, axes):
    layout = edge_layout(*hub_graph())
    axis_size = 3
    nodes = normal(0, axis_size, 40, 2) if axes[0] is not None else normal(0, 40, 2)
    nodes = np.moveaxis(nodes, 0, axes[0] or 0)
    weights = normal(1, axis_size, 3000) if axes[1] is not None else normal(1, 3000)
    scale = jnp.arange(1.0, 1 + axis_size)

    def value_and_gradients(scale, nodes, weights, layout):
        def loss(nodes, weights):
            return scale * jnp.sum(jnp.sin(gather_sum(nodes, layout, weights, method=method)))

        return jax.value_and_grad(loss, argnums=(0, 1))(nodes, weights)

    one_seed = jax.jit(value_and_gradients)
    mapped = jax.jit(jax.vmap(value_and_gradients, in_axes=(0, *axes, None)))(
        scale, jnp.asarray(nodes), jnp.asarray(weights), layout
    )
    for index in range(axis_size):
        one = one_seed(
            scale[index],
            jnp.asarray(nodes if axes[0] is None else nodes.take(index, axes[0])),
            jnp.asarray(weights if axes[1] is None else weights[index]),
            layout,
        )
        for actual, expected in zip(jax.tree.leaves(mapped), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(actual[index], expected, rtol=2e-4, atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_poisoned_node_reaches_its_own_receivers_and_no_other(method, poison):
    senders, receivers, num_nodes, _ = hub_graph()
    layout = edge_layout(senders, receivers, num_nodes)
    total = jax.jit(lambda nodes: gather_sum(nodes, layout, method=method))
    clean = total(jnp.asarray(normal(0, 40, 2)))
    for node in range(num_nodes):
        nodes = normal(0, 40, 2)
        nodes[node] = poison
        out = total(jnp.asarray(nodes))
        touched = np.isin(np.arange(num_nodes), receivers[senders == node])
        assert not np.isfinite(out[touched]).any()
        np.testing.assert_array_equal(out[~touched], clean[~touched])


def test_layout_under_jit_is_an_argument_and_equal_shapes_do_not_recompile():
    traces = []

    @jax.jit
    def total(nodes, layout):
        traces.append(1)
        return gather_sum(nodes, layout)

    nodes = jnp.asarray(normal(0, 3, 2))
    first = total(nodes, edge_layout([0, 1, 2], [1, 2, 0], 3))
    second = total(nodes, edge_layout([2, 0, 1], [1, 2, 0], 3))
    assert len(traces) == 1
    np.testing.assert_array_equal(first, nodes[jnp.array([2, 0, 1])])
    np.testing.assert_array_equal(second, nodes[jnp.array([1, 2, 0])])


def test_edge_list_may_be_made_inside_jit():
    senders, receivers, num_nodes, _ = hub_graph()

    @jax.jit
    def total(nodes, senders, receivers):
        return gather_sum(nodes, edge_list(senders, receivers, num_nodes))

    nodes = normal(0, 40, 3)
    actual = total(jnp.asarray(nodes), jnp.asarray(senders), jnp.asarray(receivers))
    expected = loop_gather_sum(nodes, senders, receivers, num_nodes, np.ones(3000))
    assert_sums_close(actual, expected)


def test_no_array_of_edges_by_features_in_the_compiled_step():
    """7001 edges of 48 features: the step with all its gradients keeps less than one such array."""
    senders, receivers, num_nodes, _ = hub_graph(num_nodes=200, num_edges=7001)
    layout = edge_layout(senders, receivers, num_nodes)
    nodes, weights = jnp.asarray(normal(0, 200, 48)), jnp.asarray(normal(1, 7001))

    def temporary_bytes(method):
        def loss(nodes, weights):
            return jnp.sum(gather_sum(nodes, layout, weights, method=method) ** 2)

        step = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(nodes, weights).compile()
        return step.memory_analysis().temp_size_in_bytes

    assert temporary_bytes("tables") < 7001 * 48 * 4 / 2
    assert temporary_bytes("scatter") > 7001 * 48 * 4  # the measure can tell


def test_unused_gradient_of_the_weights_is_not_computed():
    layout = edge_layout(*hub_graph())
    nodes, weights = jnp.asarray(normal(0, 40, 16)), jnp.asarray(normal(1, 3000))

    def program(argnums):
        def loss(nodes, weights):
            return jnp.sum(gather_sum(nodes, layout, weights) ** 2)

        return jax.jit(jax.grad(loss, argnums)).lower(nodes, weights).compile().as_text()

    assert "edge_dot" in program((0, 1))
    assert "edge_dot" not in program(0)


@pytest.mark.parametrize("name", REDUCTIONS)
@settings(max_examples=8)  # every new shape compiles
@given(edge_sets())
def test_segment_reductions_equal_a_loop(name, graph):
    reduction, oracle = REDUCTIONS[name]
    _, receivers, _, num_segments = graph
    values = normal(0, len(receivers), 2)
    expected = np.zeros((num_segments, 2), np.float32)
    for number in set(receivers.tolist()):
        expected[number] = oracle(values[receivers == number])
    layout = edge_layout(*graph)
    for given_layout, method in [(None, None), (layout, None), (layout, "tables")]:
        reduce = jax.jit(functools.partial(reduction, num_segments=num_segments, method=method))
        actual = reduce(jnp.asarray(values), layout.receivers, layout=given_layout)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=8)  # every new shape compiles
@given(edge_sets())
def test_segment_softmax_equals_a_loop(method, graph):
    _, receivers, _, num_segments = graph
    logits = 30 * normal(0, len(receivers), 2)
    logits[::3] += 1000
    logits[1::4] = -np.inf
    expected = np.zeros(logits.shape)
    for column in range(2):
        for number in set(receivers.tolist()):
            inside = receivers == number
            largest = logits[inside, column].max()
            if np.isfinite(largest):
                scaled = np.exp(logits[inside, column].astype(np.float64) - largest)
                expected[inside, column] = scaled / scaled.sum()
    layout = edge_layout(*graph)
    softmax = jax.jit(
        functools.partial(segment.segment_softmax, num_segments=num_segments, method=method)
    )
    given_layout = layout if method == "tables" else None
    actual = softmax(jnp.asarray(logits), layout.receivers, layout=given_layout)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [*REDUCTIONS, "softmax"])
def test_second_derivatives_of_segments(name, method):
    """Segment 1 is a hub, 3 and 5 are empty."""
    with jax.enable_x64(True):
        receivers = np.array([0, 2, 4] + [1] * 40)
        layout = edge_layout(np.zeros(43, int), receivers, 1, 6)
        values = jnp.asarray(np.random.default_rng(0).permutation(43) / 4.0)[:, None]
        reduction = getattr(segment, f"segment_{name}")
        for given_layout in (None, layout):
            chosen = None if given_layout is None else method
            check_grads(
                jax.jit(
                    lambda values, layout=given_layout, chosen=chosen: reduction(
                        values, jnp.asarray(receivers), 6, layout, method=chosen
                    )
                ),
                (values,),
                order=2,
                modes=["rev"],
            )


@pytest.mark.parametrize("method", METHODS)
def test_equal_maxima_share_the_gradient(method):
    layout = edge_layout([0, 0, 0, 0], [1, 1, 1, 0], 1, 3)
    gradient = jax.grad(
        lambda values: segment.segment_max(values, layout.receivers, 3, layout, method=method)[1]
    )(jnp.array([7.0, 2.0, 7.0, 9.0]))
    np.testing.assert_array_equal(gradient, [0.5, 0.0, 0.5, 0.0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [*REDUCTIONS, "softmax"])
def test_empty_segments_and_masked_logits_have_finite_gradients(name, method):
    layout = edge_layout([0, 0, 0], [0, 0, 2], 1, 4)
    values = jnp.array([1.0, -jnp.inf, -jnp.inf]) if name == "softmax" else jnp.arange(3.0)
    reduction = getattr(segment, f"segment_{name}")

    def loss(values):
        out = reduction(values, layout.receivers, 4, layout, method=method)
        return jnp.sum(jnp.arange(1.0, 1 + len(out)) * jnp.sqrt(1 + out**2))

    total, gradient = jax.value_and_grad(loss)(values)
    assert np.isfinite(total)
    assert np.isfinite(gradient).all()


def test_ids_beyond_the_segments_are_dropped_with_zero_gradient():
    ids = jnp.array([0, 2, 1])
    total, pull_back = jax.vjp(lambda values: segment.segment_sum(values, ids, 2), jnp.ones(3))
    np.testing.assert_array_equal(total, [1.0, 1.0])
    np.testing.assert_array_equal(pull_back(jnp.array([3.0, 4.0]))[0], [3.0, 0.0, 4.0])


@pytest.mark.parametrize("method", METHODS)
def test_gather_ends_of_edges_and_their_gradients(method):
    senders, receivers, num_nodes, _ = hub_graph()
    layout = edge_layout(senders, receivers, num_nodes)
    nodes, cotangent = normal(0, num_nodes, 2), normal(1, 3000, 2)
    for gather, ids in [(segment.gather_senders, senders), (segment.gather_receivers, receivers)]:
        out, pull_back = jax.vjp(
            lambda nodes, gather=gather: gather(nodes, layout, method=method), jnp.asarray(nodes)
        )
        np.testing.assert_array_equal(out, nodes[ids])
        expected = loop_gather_sum(cotangent, np.arange(3000), ids, num_nodes, np.ones(3000))
        assert_sums_close(pull_back(jnp.asarray(cotangent))[0], expected)


@pytest.mark.parametrize("method", METHODS)
def test_graph_attention_written_on_the_seam(method):
    """GAT: softmax over in-edges of a leaky ReLU, then the weighted sum, against a loop."""
    senders, receivers, num_nodes, _ = hub_graph()
    layout = edge_layout(senders, receivers, num_nodes)
    to_sender, to_receiver, nodes = normal(0, 40, 2), normal(1, 40, 2), normal(2, 40, 2, 3)

    @jax.jit
    def attend(to_sender, to_receiver, nodes):
        logits = segment.gather_senders(to_sender, layout, method=method)
        logits += segment.gather_receivers(to_receiver, layout, method=method)
        attention = segment.segment_softmax(
            jax.nn.leaky_relu(logits, 0.2), layout.receivers, num_nodes, layout, method=method
        )
        return gather_sum(nodes, layout, attention, method=method)

    expected = np.zeros((40, 2, 3))
    for node in set(receivers.tolist()):
        sources = senders[receivers == node]
        logits = (to_sender[sources] + to_receiver[node]).astype(np.float64)
        attention = np.exp(np.where(logits > 0, logits, 0.2 * logits))
        attention /= attention.sum(axis=0)
        expected[node] = np.einsum("eh,ehf->hf", attention, nodes[sources])
    inputs = tuple(map(jnp.asarray, (to_sender, to_receiver, nodes)))
    np.testing.assert_allclose(attend(*inputs), expected, rtol=1e-4, atol=1e-5)
    gradients = jax.grad(lambda *inputs: jnp.sum(attend(*inputs) ** 2), (0, 1, 2))(*inputs)
    assert all(np.isfinite(gradient).all() and gradient.any() for gradient in gradients)


@pytest.mark.parametrize("method", METHODS)
def test_graph_sage_maximum_written_on_the_seam(method):
    senders, receivers, num_nodes, _ = hub_graph()
    layout = edge_layout(senders, receivers, num_nodes)
    nodes = normal(0, 40, 3)

    @jax.jit
    def pool(nodes):
        on_edges = segment.gather_senders(nodes, layout, method=method)
        return segment.segment_max(on_edges, layout.receivers, num_nodes, layout, method=method)

    expected, gradient = np.zeros((40, 3), np.float32), np.zeros((40, 3), np.float32)
    for node in set(receivers.tolist()):
        sources = senders[receivers == node]
        expected[node] = nodes[sources].max(axis=0)
        for feature, largest in enumerate(expected[node]):
            gradient[np.flatnonzero(nodes[:, feature] == largest), feature] += 1
    np.testing.assert_array_equal(pool(jnp.asarray(nodes)), expected)
    actual = jax.grad(lambda nodes: jnp.sum(pool(nodes)))(jnp.asarray(nodes))
    np.testing.assert_allclose(actual, gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("senders", "receivers", "message"),
    [
        ([0, 3], [0, 0], r"senders\[1\] is 3, outside 0\.\.2"),
        ([0, 1, 2], [0, 4, -1], r"receivers\[1\] is 4, outside 0\.\.3 \(2 of 3"),
        ([-1], [0], r"senders\[0\] is -1"),
        ([0, 1], [0], "2 senders and 1 receivers"),
    ],
)
def test_bad_edges_are_named(senders, receivers, message):
    with pytest.raises(InputError, match=message):
        edge_layout(np.array(senders), np.array(receivers), 3, 4)


def test_edges_that_are_not_integers_are_refused():
    with pytest.raises(InputError, match="float64"):
        edge_layout(np.array([0.0]), np.array([0]), 1)


def test_misfits_are_refused():
    layout = edge_layout([0, 1], [1, 1], 3)
    with pytest.raises(ValueError, match="3 senders"):
        gather_sum(jnp.ones((2, 1)), layout)
    with pytest.raises(ValueError, match="2 edges"):
        gather_sum(jnp.ones((3, 1)), layout, jnp.ones(3))
    with pytest.raises(ValueError, match="needs a layout"):
        gather_sum(
            jnp.ones((3, 1)), edge_list(layout.senders, layout.receivers, 3), method="tables"
        )
    with pytest.raises(ValueError, match="2 edges into 3"):
        segment.segment_sum(jnp.ones(2), layout.receivers, 4, layout)
