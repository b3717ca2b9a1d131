"""What is measured of the test at once: the share of edges that are found, and errors."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.relational_inference.model import Approach, make_approach
from experiments.relational_inference.presets import Config
from structdl.datasets.simulate_particles import Trajectories
from structdl.graphs.nri import (
    between_objects,
    edge_accuracy,
    edge_confusion,
    teacher_forced,
)
from structdl.training.loop import Fit
from structdl.training.task import Task

BATCH = 1000  # systems
MOST_FOR_THRESHOLD = 10_000  # systems of training


class Threshold(NamedTuple):
    """Says of correlations where there is an edge."""

    value: float
    above: bool  # whether there is one above the value, or up to it


def score(config: Config, task: Task, result: Fit) -> dict[str, np.ndarray]:
    """The accuracy of edges on the test, [num_seeds]; where none are known, see `simple_errors`.

    Of edge types that were learned without labels the naming counts that fits best, one for the
    whole test. Where correlations are found, a threshold is chosen on systems of training, and on
    which side of it there are edges.
    """
    if not edges_are_known(config):
        states = jnp.asarray(task.data.states[len(task.data.states) - config.num_test :])
        errors = simple_errors(states, config.model.prediction_steps)
        return {name: np.full(len(result.seeds), error) for name, error in errors.items()}
    find = jax.jit(approach_of(config).find)
    shares = []
    for place in range(len(result.seeds)):
        params, model_state = jax.tree.map(lambda leaf, at=place: leaf[at], result.selected)
        shares.append(share_found(partial(find, params, model_state), config, task.data))
    return {"test_edge_accuracy": np.array(shares)}


def edges_are_known(config: Config) -> bool:
    return config.dataset != "walking"


def approach_of(config: Config) -> Approach:
    """The approach of a config, on its set."""
    return make_approach(config.model, edges_are_known=edges_are_known(config))


def simple_errors(
    states: Float[Array, "num time joints features"], prediction_steps: int
) -> dict[str, float]:
    """Mean squared errors of two predictions that know of no edges and learn nothing.

    Unchanged states stay what the last true one was; going on, rotations change as they did then.

    Args:
      states: rotations, and their changes, which are the second half of the features.
      prediction_steps: how many states are predicted from a true one.
    """
    half = states.shape[-1] // 2
    rotations = states[..., :half]
    pace = jnp.diff(rotations, axis=1, prepend=rotations[:, :1])
    steps = jnp.arange(1.0, prediction_steps + 1).reshape(1, 1, -1, 1, 1)

    def predict(starts, speed: float):
        starts = jnp.repeat(starts[:, :, None], prediction_steps, axis=2)
        moved = starts[..., :half] + speed * steps * starts[..., 2 * half :]
        return jnp.concatenate([moved, starts[..., half:]], axis=-1)

    errors = {}
    for name, speed in (("unchanged", 0.0), ("going_on", 1.0)):
        predictions = teacher_forced(
            partial(predict, speed=speed),
            jnp.concatenate([states, pace], axis=-1),
            prediction_steps=prediction_steps,
        )
        squares = (predictions[..., : 2 * half] - states[:, 1:]) ** 2
        errors[f"test_squared_error_{name}"] = float(jnp.mean(squares))
    return errors


def share_found(find: Callable, config: Config, data: Trajectories) -> float:
    """The share of the test's edges that `find` finds, see `score`."""
    training = slice(min(config.num_train, MOST_FOR_THRESHOLD))
    test = slice(len(data.edges) - config.num_test, None)
    found, edges = find_edges(find, data.states[test]), np.asarray(data.edges)
    if found.ndim == 4:  # logits of types
        confusion = edge_confusion(jnp.asarray(found), jnp.asarray(edges[test]))
        right, number = edge_accuracy(confusion)
        return int(right) / int(number)
    known = between(find_edges(find, data.states[training]))
    rule = best_threshold(known, between(edges[training]))
    return float(np.mean(apply_threshold(rule, between(found)) == between(edges[test])))


def find_edges(find: Callable, states: np.ndarray) -> np.ndarray:
    """What `find` gives for all systems, a part of them at a time."""
    parts = [states[start : start + BATCH] for start in range(0, len(states), BATCH)]
    return np.concatenate([np.asarray(find(part)) for part in parts])


def between(pairs: np.ndarray) -> np.ndarray:
    """The values of pairs of different objects, [number], of [num, objects, objects]."""
    return pairs[:, np.asarray(between_objects(pairs.shape[1]))].ravel()


def best_threshold(correlations: np.ndarray, edges: np.ndarray) -> Threshold:
    """The threshold that says most edges right, and the side on which they are.

    Args:
      correlations: of pairs, [number].
      edges: 1 where there is one, 0 where not, [number].

    >>> best_threshold(np.array([0.1, 0.2, 0.8, 0.9]), np.array([1, 1, 1, 0]))
    Threshold(value=0.8, above=False)
    """
    order = np.argsort(correlations)
    signs = 2 * edges[order] - 1
    # how many more are right than wrong if those up to a place are the edges, and the others not
    gains = np.concatenate([[0], np.cumsum(signs)]) * 2 - signs.sum()
    place = int(np.argmax(np.abs(gains)))
    values = np.concatenate([[-np.inf], correlations[order]])
    return Threshold(float(values[place]), bool(gains[place] < 0))


def apply_threshold(rule: Threshold, correlations: np.ndarray) -> np.ndarray:
    """1 where there is an edge, else 0."""
    return ((correlations > rule.value) == rule.above).astype(np.int32)
