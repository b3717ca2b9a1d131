"""Optimizers by optax's own names, with hyperparameters that are arrays of the training state."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from annotated_types import Gt, Lt

from structdl.errors import InputError, require_known
from structdl.training.ranges import (
    AnyFloat,
    AnyInt,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_ranges,
    in_range,
)

KeywordValue = bool | AnyInt | AnyFloat | str


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Which optax optimizer, and what is put around it."""

    name: str = "adam"
    """Any optax optimizer: sgd, adagrad, rmsprop, adam...; momentum is sgd with momentum 0.9."""
    learning_rate: NonNegativeFloat | None = None
    """None takes optax's own default, where the optimizer has one; a schedule scales that too."""
    kwargs: dict[str, KeywordValue] = dataclasses.field(default_factory=dict)
    """Further arguments of the optax function, say: momentum 0.9 nesterov True."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """The learning rate's way to zero over schedule-steps, after the warm-up."""
    schedule_steps: NonNegativeInt = 0
    """The schedule's horizon in steps, warm-up included; raising --num-steps does not move it."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises linearly from zero."""
    clip_norm: PositiveFloat | None = None
    """Gradients of a larger global norm are scaled down to it."""
    accumulate: PositiveInt = 1
    """Steps whose gradients are averaged into one update."""
    ema: in_range(float, Gt(0), Lt(1)) | None = None
    """Decay of an exponential moving average of the parameters, which is then evaluated."""


class Optimizer(NamedTuple):
    """How to build an optax transformation from traced hyperparameters, and what to evaluate.

    Fields:
      hyperparams: the start values of what is traced: the learning rate and every float keyword.
      make: `(hyperparams, step) -> optax.GradientTransformation`, called inside the trace.
      eval_params: `(opt_state, params) -> params` to validate and test.
    """

    hyperparams: dict[str, float]
    make: Callable[[dict[str, jax.Array], jax.Array], optax.GradientTransformation]
    eval_params: Callable[[Any, Any], Any]


def make_optimizer(config: OptimizerConfig) -> Optimizer:
    """Resolves a config against optax.

    Raises:
      InputError: an unknown name, a keyword or value that optax refuses, a missing learning rate,
        a schedule without a horizon or without a learning rate to scale.
    """
    check_ranges(config, prefix="--optimizer.")
    factory, arguments = _bound_arguments(config)
    traced = {name: value for name, value in arguments.items() if type(value) is float}
    static = {name: value for name, value in arguments.items() if name not in traced}
    rates = (_rate_name(factory), "adam_learning_rate")  # muon has one for what is no matrix
    shape = _schedule(config)

    def make(hyperparams, step):
        factor = shape(step)
        scheduled = {
            name: value * factor if name in rates else value for name, value in hyperparams.items()
        }
        transform = factory(**static, **scheduled)
        if config.clip_norm is not None:
            transform = optax.chain(optax.clip_by_global_norm(config.clip_norm), transform)
        if config.ema is not None:
            transform = average_params(transform, config.ema)
        if config.accumulate > 1:
            transform = optax.MultiSteps(transform, config.accumulate).gradient_transformation()
        return transform

    try:
        jax.eval_shape(lambda: make(traced, 0).init(jnp.zeros(2)))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"optax.{config.name} refuses its arguments {arguments}: {error}"
        ) from None
    return Optimizer(traced, make, _eval_params)


@functools.cache
def available_optimizers() -> dict[str, Callable]:
    """Every optimizer of optax and optax.contrib by name, and the alias momentum.

    muon orthogonalises the updates of `kernel_matrices`, where optax alone would take every
    parameter of rank 2.

    Left out: building blocks (scale_by_...), schedule_free (which takes another optimizer; the
    ready-made schedule_free_sgd and schedule_free_adamw are in) and dpsgd (which takes per-example
    gradients).
    """
    found = {"momentum": functools.partial(optax.sgd, momentum=0.9)}
    for module in (optax.contrib, optax):
        for name, function in vars(module).items():
            if name.startswith(("_", "scale_by_")) or name in ("schedule_free", "dpsgd"):
                continue
            is_factory = inspect.isfunction(function) or isinstance(function, functools.partial)
            if is_factory and _rate_name(function):
                found[name] = function
    found["muon"] = functools.partial(
        optax.contrib.muon, muon_weight_dimension_numbers=kernel_matrices
    )
    return found


def kernel_matrices(params):
    """Which axes of each parameter are a matrix from inputs to outputs: the last two of kernels.

    Axes before them are of many such matrices, say one for each type of edge. None marks what is
    no matrix: biases, also those of many types, and tables of embeddings.

    Reference: Jordan et al. (2024), "Muon: an optimizer for hidden layers in neural networks",
    https://kellerjordan.github.io/posts/muon/.
    """

    def axes(path, leaf):
        name = jax.tree_util.keystr(path)
        if leaf.ndim < 2 or "bias" in name or "embedding" in name:
            return None
        return optax.contrib.MuonDimensionNumbers(-2, -1)

    return jax.tree_util.tree_map_with_path(axes, params)


class AverageState(NamedTuple):
    """The wrapped optimizer's state, the decaying sum of the parameters and its weight."""

    inner: Any
    total: Any
    weight: jax.Array  # (), 1 - decay^updates


def average_params(
    transform: optax.GradientTransformation, decay: float
) -> optax.GradientTransformationExtraArgs:
    """Keeps an exponential moving average of the parameters beside an optimizer.

    total <- decay total + (1 - decay) params after each update; the average is total / weight,
    free of a bias towards the start.
    """
    transform = optax.with_extra_args_support(transform)

    def init(params):
        return AverageState(
            transform.init(params), optax.tree.zeros_like(params), jnp.zeros((), jnp.float32)
        )

    def update(updates, state, params=None, **extra_args):
        updates, inner = transform.update(updates, state.inner, params, **extra_args)
        new_params = optax.apply_updates(params, updates)
        total = jax.tree.map(
            lambda total, new: decay * total + (1 - decay) * new, state.total, new_params
        )
        return updates, AverageState(inner, total, decay * state.weight + (1 - decay))

    return optax.GradientTransformationExtraArgs(init, update)


def _eval_params(opt_state, params):
    """The parameters that an averaging optimizer means to be judged by, else those given."""
    if averages := _states(opt_state, AverageState):
        return _average(averages[0], params)
    if schedule_free := _states(opt_state, optax.contrib.ScheduleFreeState):
        return optax.contrib.schedule_free_eval_params(schedule_free[0], params)
    return params


def _average(state: AverageState, params):
    """The average, or the parameters themselves before their first update."""
    fresh = state.weight == 0
    weight = jnp.where(fresh, 1, state.weight)
    return jax.tree.map(
        lambda total, new: jnp.where(fresh, new, (total / weight).astype(new.dtype)),
        state.total,
        params,
    )


def _states(opt_state, kind: type) -> list:
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, kind))
    return [leaf for leaf in leaves if isinstance(leaf, kind)]


def _bound_arguments(config: OptimizerConfig) -> tuple[Callable, dict[str, Any]]:
    known = available_optimizers()
    require_known("optimizer", config.name, known)
    factory = known[config.name]
    arguments = dict(config.kwargs)
    if config.learning_rate is not None:
        arguments[_rate_name(factory)] = float(config.learning_rate)
    parameters = inspect.signature(factory).parameters
    if config.schedule != "constant" or config.warmup_steps:
        arguments = _default_rate(config, factory) | arguments
    try:
        inspect.signature(factory).bind(**arguments)
        for name, value in config.kwargs.items():
            default = parameters[name].default
            if isinstance(value, str) and isinstance(default, bool | int | float):
                raise TypeError(f"{name} is {value!r}, a word where {default!r} is usual")
    except TypeError as error:
        raise InputError(
            f"optimizer {config.name!r}: {error}; its arguments are {_describe(factory)}. Set them "
            "with --optimizer.learning-rate X and --optimizer.kwargs NAME VALUE."
        ) from None
    return factory, arguments


def _default_rate(config: OptimizerConfig, factory: Callable) -> dict[str, float]:
    """optax's own learning rate as an argument, where there is one: what a schedule scales.

    Raises:
      InputError: the optimizer has no default learning rate, and none is given.
    """
    name = _rate_name(factory)
    rate = inspect.signature(factory).parameters[name].default
    if rate is None and config.learning_rate is None and name not in config.kwargs:
        raise InputError(
            f"optimizer {config.name!r} has no learning rate of its own, which "
            f"--optimizer.schedule {config.schedule} and --optimizer.warmup-steps "
            f"{config.warmup_steps} would scale: give an --optimizer.learning-rate."
        )
    return {name: float(rate)} if isinstance(rate, int | float) else {}


def _rate_name(factory: Callable) -> str | None:
    names = inspect.signature(factory).parameters
    return next((name for name in ("learning_rate", "max_learning_rate") if name in names), None)


def _describe(factory: Callable) -> str:
    """An optax function's arguments with their defaults, without its long type annotations."""
    parameters = inspect.signature(factory).parameters.values()
    return ", ".join(
        name.name if name.default is name.empty else f"{name.name}={name.default!r}"
        for name in parameters
    )


def _schedule(config: OptimizerConfig) -> Callable:
    """The factor on the learning rate as a function of the step."""
    decay_steps = config.schedule_steps - config.warmup_steps  # schedule_steps counts both
    if config.schedule != "constant" and decay_steps <= 0:
        raise InputError(
            f"--optimizer.schedule {config.schedule} needs --optimizer.schedule-steps above the "
            f"{config.warmup_steps} warm-up steps; it is {config.schedule_steps}."
        )
    match config.schedule:
        case "constant":
            shape = optax.constant_schedule(1.0)
        case "linear":
            shape = optax.linear_schedule(1.0, 0.0, decay_steps)
        case "cosine":
            shape = optax.cosine_decay_schedule(1.0, decay_steps)
    if config.warmup_steps == 0:
        return shape
    warmup = optax.linear_schedule(0.0, 1.0, config.warmup_steps)
    return optax.join_schedules([warmup, shape], [config.warmup_steps])
