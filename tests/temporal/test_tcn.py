"""TCN against loops and torch; causality, receptive field, streaming, padding, normalisation."""

import os
import subprocess
import sys
import warnings
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from structdl.core.scan import unroll
from structdl.errors import InputError
from structdl.temporal.causal_convolution import causal_convolution
from structdl.temporal.receptive_field import levels_to_cover, receptive_field, require_reach
from structdl.temporal.tcn import (
    TCN,
    BlockParams,
    ConvolutionParams,
    effective_kernel,
    fold_weight_norm,
    init_state,
    tcn,
    tcn_params,
    tcn_step,
    temporal_block,
)

BATCH, TIME, WIDTHS, IN_FEATURES, TAPS = 3, 12, (4, 4, 2), 2, 3


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def make_model(**options):
    options = {"residual_init": nn.initializers.normal(1.0)} | options
    model = TCN(WIDTHS, TAPS, warn_beyond=False, **options)
    x = random(BATCH, TIME, IN_FEATURES)
    return model, jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))(x), x


def by_hand(x, kernel, dilation):
    """The equation: F(s) = sum_i f(i) x_{s - d i}, with f(i) = kernel[k - 1 - i]; float64."""
    x, kernel = np.asarray(x, float), np.asarray(kernel, float)
    out = np.zeros((*x.shape[:2], kernel.shape[2]))
    for s in range(x.shape[1]):
        for i in range(len(kernel)):
            if s - dilation * i >= 0:
                out[:, s] += x[:, s - dilation * i] @ kernel[len(kernel) - 1 - i]
    return out


@pytest.mark.parametrize("dilation", [1, 3, 20])
@pytest.mark.parametrize("method", ["plain", "loop"])
def test_equals_the_equation(dilation, method):
    x, kernel = random(BATCH, TIME, 2), random(TAPS, 2, 5, seed=1)
    out = causal_convolution(x, kernel, dilation=dilation, method=method)
    np.testing.assert_allclose(out, by_hand(x, kernel, dilation), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dilation", [1, 3, 20])
def test_gradients_in_float64(dilation):
    with jax.enable_x64(True):
        x, kernel = (
            jnp.asarray(np.asarray(each, float)) for each in (random(2, 7, 2), random(3, 2, 4))
        )

        @jax.jit
        def output(x, kernel):
            return causal_convolution(x, kernel, dilation=dilation, method="loop")

        check_grads(output, (x, kernel), order=1, modes="rev")
        cotangent = output(x, kernel) ** 2
        gradients = [
            jax.vjp(
                lambda *args, method=method: causal_convolution(
                    *args, dilation=dilation, method=method
                ),
                x,
                kernel,
            )[1](cotangent)
            for method in ("loop", "plain")
        ]
        for loop, plain in zip(*gradients, strict=True):
            np.testing.assert_allclose(loop, plain, rtol=1e-12, atol=1e-12)


def test_no_sequences_and_no_time():
    kernel = random(TAPS, 2, 5)
    for shape in ((0, 4, 2), (2, 0, 2)):
        out, pull_back = jax.vjp(lambda k, x: causal_convolution(x, k), kernel, jnp.zeros(shape))
        assert out.shape == (*shape[:2], 5)
        np.testing.assert_array_equal(pull_back(out)[0], 0)


def positive_network(dilations, taps):
    """Parameters with which nothing is cut off by relu: every path has a positive derivative."""
    convolution = ConvolutionParams(jnp.full((taps, 1, 1), 0.3), jnp.zeros(1))
    return (BlockParams(convolution, convolution),) * len(dilations)


@pytest.mark.parametrize(
    ("dilations", "taps"), [((1, 2), 3), ((1, 2), 2), ((2,), 1), ((1, 2, 4), 2)]
)
def test_the_jacobian_is_causal_and_as_wide_as_the_receptive_field(dilations, taps):
    field, params = receptive_field(taps, dilations), positive_network(dilations, taps)
    time = field + 3

    def output(x):
        return tcn(params, x[None, :, None], dilations=dilations)[0, :, 0]

    jacobian = np.asarray(jax.jit(jax.jacrev(output))(jnp.ones(time)))
    lag = np.arange(time)[:, None] - np.arange(time)[None]
    np.testing.assert_array_equal(jacobian[(lag < 0) | (lag >= field)], 0)
    assert (jacobian[(lag >= 0) & (lag < field)] > 0).all()


def test_the_whole_network_is_causal():
    model, variables, x = make_model()
    output = jax.jit(lambda x: model.apply(variables, x, train=False)[0])
    jacobian = jax.jit(jax.jacrev(output))(x)[:, :, 0]
    for time in range(TIME):
        np.testing.assert_array_equal(jacobian[time, :, time + 1 :], 0)
    assert np.count_nonzero(jacobian) > TIME


def test_levels_that_cover_a_sequence():
    for taps, time in [(7, 784), (2, 3), (3, 1), (3, 29), (3, 30)]:
        levels = levels_to_cover(taps, time)
        assert receptive_field(taps, levels) >= time
        assert levels == 1 or receptive_field(taps, levels - 1) < time
    with pytest.raises(InputError, match="kernel_size = 1"):
        levels_to_cover(1, 2)


def test_a_field_beyond_the_sequence_warns_once_with_the_numbers():
    x = random(1, 10, 1)
    with pytest.warns(UserWarning, match=r"field of 29 steps .*sequence of 10\. 2 levels") as found:
        TCN((2, 2, 2), 3).init(jax.random.key(0), x, train=False)
    assert len(found) == 1
    with pytest.warns(UserWarning, match=r"dilations \[8\] meet nothing but zeros"):
        TCN((2,), 3, dilations=(8,)).init(jax.random.key(0), x, train=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TCN((2, 2), 3, dilations=(1, 1)).init(jax.random.key(0), x, train=False)
        TCN((2,) * 9, 3, warn_beyond=False).init(jax.random.key(0), x, train=False)
        TCN((2, 2), 3).init(jax.random.key(0), x, train=False)  # 13 steps; one level sees 5


def test_too_short_a_reach_is_refused_with_the_levels_that_would_do():
    require_reach(3, 2, steps=13)
    with pytest.raises(InputError, match=r"field of 13 steps does not hold the 14 .* 3 levels"):
        require_reach(3, 2, steps=14)


def test_lengths_that_no_sequence_has_are_refused():
    model, variables, x = make_model()
    with pytest.raises(InputError, match=r"lengths\[1\] = 13"):
        model.apply(variables, x, train=False, lengths=jnp.array([1, TIME + 1, 2]))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"kernel_size": 0}, "kernel_size = 0"),
        ({"dilations": (1, 0)}, r"dilations\[1\] = 0"),
        ({"dilations": (1,)}, "1 dilations for 2 levels"),
        ({"widths": (4, 0)}, r"widths\[1\] = 0"),
        ({"dropout_rate": -0.5}, "dropout rate = -0.5"),
    ],
)
def test_sizes_that_are_none_are_refused(options, name):
    model = TCN(**{"widths": (4, 4), "kernel_size": 3, "warn_beyond": False} | options)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    with pytest.raises(InputError, match=name):
        model.init(keys, random(BATCH, TIME, IN_FEATURES), train=True)


@pytest.mark.parametrize("method", ["plain", "loop"])
def test_a_convolution_names_a_bad_size(method):
    x, kernel = random(2, 5, 3), random(2, 3, 4)
    for dilation in (0, -1):
        with pytest.raises(InputError, match=f"dilation = {dilation}"):
            causal_convolution(x, kernel, dilation=dilation, method=method)
    with pytest.raises(InputError, match="kernel_size = 0"):
        causal_convolution(x, kernel[:0], method=method)


def test_the_functions_name_a_bad_dilation():
    params = tcn_params(make_model()[1]["params"])
    for call in (partial(tcn, params, random(1, 2, IN_FEATURES)), partial(init_state, params, 1)):
        with pytest.raises(InputError, match=r"dilations\[1\] = 0"):
            call(dilations=(1, 0, 2))


def test_a_batch_divided_over_devices_is_not_gathered():
    program = """
import re, jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from structdl.recurrent.stacked import GRU
from structdl.temporal.tcn import TCN
mesh = jax.make_mesh((2,), ("devices",), axis_types=(AxisType.Auto,))
x = jax.device_put(jnp.ones((4, 6, 3)), NamedSharding(mesh, PartitionSpec("devices")))
for model in (TCN((3, 3), 2), GRU(3)):
    variables = model.init(jax.random.key(0), x, train=False)
    variables = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    loss = lambda *args: sum(map(jnp.sum, jax.tree.leaves(model.apply(*args, train=False))))
    text = jax.jit(jax.grad(loss)).lower(variables, x).compile().as_text()
    print(len(re.findall("all-gather", text)), "all-reduce" in text)
"""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0", "True", "0", "True"]


@pytest.mark.parametrize("sizes", [(0, 2), (3, (1, 0)), (3, (1, -2))])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(InputError, match="must be at least 1"):
        receptive_field(*sizes)


@pytest.mark.parametrize("dilations", [None, (3, 1, 5)])
def test_streaming_equals_the_whole_sequence(dilations):
    model, variables, x = make_model(dilations=dilations)
    params = tcn_params(variables["params"])
    lengths = jnp.array([TIME, 5, 0])
    expected = model.apply(variables, x, lengths=lengths, train=False)
    np.testing.assert_allclose(
        tcn(params, x, dilations=dilations, lengths=lengths), expected, rtol=1e-6, atol=1e-6
    )
    state = init_state(params, BATCH, dilations=dilations)
    folded = fold_weight_norm(params)
    _, ys = jax.jit(lambda state, x: unroll(tcn_step, folded, state, x, lengths=lengths))(state, x)
    np.testing.assert_allclose(ys, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected[0]).max() > 0.1
    continued, _ = unroll(tcn_step, params, state, x[:, :7])
    _, rest = unroll(tcn_step, params, continued, x[:, 7:])
    np.testing.assert_allclose(rest[0], expected[0, 7:], rtol=1e-5, atol=1e-5)


def test_the_state_holds_the_receptive_field_and_no_more():
    convolution = ConvolutionParams(random(3, 5, 5), jnp.zeros(5))
    state = init_state((BlockParams(convolution, convolution),) * 4, 2)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert size == 4 * 2 * (receptive_field(3, 4) - 1) * 5


def test_padding_changes_no_bit_of_valid_outputs_and_with_lengths_of_gradients():
    model, variables, x = make_model()
    lengths = jnp.array([7, TIME, 0])
    valid = (jnp.arange(TIME)[None] < lengths[:, None])[..., None]
    run = jax.jit(lambda x: model.apply(variables, x, train=False))
    expected = np.asarray(run(x))
    for padding in (1e3, jnp.nan):
        out = np.asarray(run(jnp.where(valid, x, padding)))
        np.testing.assert_array_equal(out[0, :7], expected[0, :7])
        np.testing.assert_array_equal(out[1], expected[1])

    @jax.jit
    def evaluate(variables, x):
        def loss(variables, x):
            out = model.apply(variables, x, lengths=lengths, train=False)
            return jnp.sum(jnp.sin(out)), out

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(variables, x)

    (value, out), gradients = evaluate(variables, x)
    np.testing.assert_array_equal(np.where(valid, out, 0), out)
    for padding in (1e3, jnp.nan):
        actual = evaluate(variables, jnp.where(valid, x, padding))
        jax.tree.map(np.testing.assert_array_equal, actual, ((value, out), gradients))
    np.testing.assert_array_equal(gradients[1][2], 0)
    assert np.abs(gradients[1][0, :7]).max() > 0


def test_weight_normalisation_starts_as_the_initial_kernel_and_takes_effect():
    def constant(key, shape):
        return jnp.arange(1.0, 1 + np.prod(shape)).reshape(shape) / 100

    model, variables, x = make_model(kernel_init=constant, residual_init=constant)
    first = tcn_params(variables["params"])[0].first
    np.testing.assert_allclose(effective_kernel(first), first.direction, rtol=1e-6)
    expected = constant(None, (TAPS, IN_FEATURES, 4))
    np.testing.assert_allclose(effective_kernel(first), expected, rtol=1e-6)
    norms = np.sqrt((np.asarray(expected) ** 2).sum(axis=(0, 1)))
    np.testing.assert_allclose(first.scale, norms, rtol=1e-6)
    doubled = first._replace(scale=2 * first.scale)
    np.testing.assert_allclose(effective_kernel(doubled), 2 * expected, rtol=1e-6)
    longer = first._replace(direction=5 * first.direction)
    np.testing.assert_allclose(effective_kernel(longer), expected, rtol=1e-6)
    # another start is another network: the authors' had no effect
    half, other, _ = make_model(
        kernel_init=lambda key, shape: constant(key, shape) / 2, residual_init=constant
    )
    outs = [m.apply(v, x, train=False) for m, v in ((model, variables), (half, other))]
    assert np.abs(outs[0] - outs[1]).max() > 0.01
    plain, without, _ = make_model(kernel_init=constant, residual_init=constant, weight_norm=False)
    assert "first_scale" not in without["params"]["levels_0"]
    np.testing.assert_allclose(plain.apply(without, x, train=False), outs[0], rtol=1e-5)


def test_kernels_start_within_one_over_the_root_of_the_fan_in():
    model, x = TCN((64,), 4, warn_beyond=False), random(1, 8, 16)
    level = jax.jit(lambda: model.init(jax.random.key(0), x, train=False))()["params"]["levels_0"]
    limit = 1 / (4 * 16) ** 0.5
    assert 0.95 * limit < np.abs(level["first_direction"]).max() <= limit
    assert 0.005 < np.std(level["residual_direction"]) < 0.015


def test_a_channel_without_direction_has_no_kernel_and_finite_gradients():
    params = ConvolutionParams(jnp.zeros((2, 1, 1)), jnp.zeros(1), jnp.ones(1))
    np.testing.assert_array_equal(effective_kernel(params), 0)
    gradients = jax.grad(lambda params: jnp.sum(effective_kernel(params)))(params)
    assert all(np.isfinite(leaf).all() for leaf in gradients)


def test_a_residual_convolution_exists_where_the_widths_differ():
    _, variables, _ = make_model()
    residuals = [block.residual is not None for block in tcn_params(variables["params"])]
    assert residuals == [True, False, True]
    shape = tcn_params(variables["params"])[0].residual.direction.shape
    assert shape == (1, IN_FEATURES, 4)


def test_dropout_is_for_training_only():
    model, variables, x = make_model(dropout_rate=0.5)

    @jax.jit
    def run(seed):
        return model.apply(variables, x, train=True, rngs={"dropout": jax.random.key(seed)})

    params = tcn_params(variables["params"])
    dry = jax.jit(lambda params: tcn(params, x))(params)
    evaluated = jax.jit(lambda variables: model.apply(variables, x, train=False))(variables)
    np.testing.assert_array_equal(evaluated, dry)
    np.testing.assert_array_equal(run(0), run(0))
    assert np.abs(run(0) - run(1)).max() > 0.01
    assert np.abs(run(0) - dry).max() > 0.01


def test_dropout_of_values_and_of_whole_channels():
    identity = ConvolutionParams(jnp.eye(40)[None], jnp.zeros(40))
    block = BlockParams(identity, identity)
    x = jnp.ones((2, 50, 40))
    values, channels = (
        np.asarray(
            temporal_block(block, x, dropout_rate=0.5, drop_channels=whole, key=jax.random.key(0))
        )
        - 1
        for whole in (False, True)
    )
    for out in (values, channels):  # twice dropped: a quarter is kept, four times as large
        np.testing.assert_array_equal(np.unique(out), [0, 4])
        assert 0.15 < (out > 0).mean() < 0.35
    assert (channels == channels[:, :1]).all()
    assert not (values == values[:, :1]).all()


@pytest.mark.peers
def test_equals_torch():
    torch = pytest.importorskip("torch")
    from experiments.benchmarks.tcn_cases import Size
    from experiments.benchmarks.tcn_peers import Network

    size = Size("", BATCH, TIME, IN_FEATURES, TAPS, 3, 4, 5, True, 0.0)
    x = random(BATCH, TIME, IN_FEATURES)
    for pad_left in (False, True):
        torch.manual_seed(0)
        network = Network(size, pad_left)
        of_torch = torch.from_numpy(np.array(x)).requires_grad_()
        blocks = network.blocks(of_torch.transpose(1, 2)).transpose(1, 2)
        (blocks.sin() * 3).sum().backward()

        def read(convolution, gradient):
            found = convolution.parametrizations.weight
            tensors = found.original1, convolution.bias, found.original0
            return ConvolutionParams(*_arrays(tensors, gradient))

        def read_plain(convolution, gradient):
            return ConvolutionParams(*_arrays((convolution.weight, convolution.bias), gradient))

        def read_all(gradient, network=network):
            return tuple(
                BlockParams(
                    read(block.layers[0].convolution, gradient),
                    read(block.layers[3].convolution, gradient),
                    None if block.residual is None else read_plain(block.residual, gradient),
                )
                for block in network.blocks
            )

        def loss(params, x):
            out = tcn(params, x)
            return jnp.sum(jnp.sin(out) * 3), out

        (_, out), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(
            read_all(False), x
        )
        np.testing.assert_allclose(out, blocks.detach().numpy(), rtol=1e-5, atol=1e-5)
        expected = (read_all(True), of_torch.grad.numpy())
        jax.tree.map(
            lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5),
            gradients,
            expected,
        )


def _arrays(tensors, gradient):
    """torch's [features, in_features, taps] as [taps, in_features, features], its scale flat."""
    weight, bias, *scale = (
        np.array((each.grad if gradient else each).detach().numpy()) for each in tensors
    )
    return [jnp.asarray(each) for each in (weight.transpose(2, 1, 0), bias, *map(np.ravel, scale))]
