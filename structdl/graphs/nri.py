"""Neural relational inference: which objects interact, and how, from nothing but trajectories.

An encoder reads whole trajectories and gives every ordered pair of objects logits of edge types; a
decoder predicts the next states, with a message network for each type. Together they are a
variational autoencoder whose latent variable is the graph. Arrays of edges are [batch, senders,
receivers, ...] with every object both a sender and a receiver; what stands on the diagonal does not
count.

Reference: Kipf, Fetaya, Wang, Welling, Zemel (2018), "Neural relational inference for interacting
systems", arXiv:1802.04687.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Num

from structdl.core.distributions import categorical_kl, gaussian_log_prob
from structdl.errors import InputError, require_at_least


def require_trajectories(
    states: Float[np.ndarray, "num time num_nodes features"], *, largest_change: float = np.inf
) -> None:
    """Raises InputError for a value that is not finite, or one that jumps; the first is named.

    A NaN in one trajectory would end in all parameters, and a jump in what all objects are
    predicted by.

    Args:
      states: on the host.
      largest_change: of a value from one frame to the next.

    >>> require_trajectories(np.array([0.0, 1.0, 9.0]).reshape(1, 3, 1, 1), largest_change=2.0)
    Traceback (most recent call last):
    structdl.errors.InputError: trajectory 0, object 0, feature 0 jumps from 1.0 in frame 1 to 9.0 \
in frame 2, by more than 2.0: divide the trajectory there, or mend the value
    """
    bad = np.argwhere(~np.isfinite(states))
    if len(bad):
        number, frame, node, feature = bad[0].tolist()
        raise InputError(
            f"trajectory {number}, object {node}, feature {feature} is "
            f"{states[tuple(bad[0])]} in frame {frame}: leave out the trajectory, or mend the value"
        )
    bad = np.argwhere(np.abs(np.diff(states, axis=1)) > largest_change)
    if len(bad):
        number, frame, node, feature = bad[0].tolist()
        before, after = states[number, frame : frame + 2, node, feature].tolist()
        raise InputError(
            f"trajectory {number}, object {node}, feature {feature} jumps from {before} in frame "
            f"{frame} to {after} in frame {frame + 1}, by more than {largest_change}: divide the "
            "trajectory there, or mend the value"
        )


def between_objects(num_nodes: int) -> Bool[Array, "senders receivers"]:
    """The mask of the edges that there are: all but those of an object with itself."""
    return ~jnp.eye(num_nodes, dtype=bool)


def node_to_edge(
    nodes: Float[Array, "*batch num_nodes features"],
    kernel: Float[Array, "pair_features hidden"],
    bias: Float[Array, " hidden"],
) -> Float[Array, "*batch num_nodes num_nodes hidden"]:
    """A dense layer of every pair: out[i, j] = [h_i, h_j] W + b, of the sender i and receiver j.

    As h_i W_sender + h_j W_receiver + b the products are taken once an object, not once a pair.
    """
    for_senders, for_receivers = jnp.split(kernel, 2)
    return pair_sums(nodes @ for_senders, dense(nodes, for_receivers, bias))


def pair_sums(
    as_senders: Float[Array, "*batch num_nodes hidden"],
    as_receivers: Float[Array, "*batch num_nodes hidden"],
) -> Float[Array, "*batch num_nodes num_nodes hidden"]:
    """out[i, j] = a_i + b_j: what is linear in a pair, from what is linear in its objects."""
    return as_senders[..., :, None, :] + as_receivers[..., None, :, :]


def edge_to_node(
    edges: Float[Array, "*batch num_nodes num_nodes hidden"],
) -> Float[Array, "*batch num_nodes hidden"]:
    """What every object receives on average: out[j] = sum over i != j of h_(i,j) / (N - 1).

    Differs from the paper: section 3.1 sums, and the authors' code divides that sum by N.
    """
    num_nodes = edges.shape[-2]
    return jnp.sum(without_diagonal(edges), axis=-3) / max(num_nodes - 1, 1)


def without_diagonal(
    edges: Num[Array, "*batch num_nodes num_nodes features"],
) -> Num[Array, "*batch num_nodes num_nodes features"]:
    """Edges with 0 in the place of those of an object with itself."""
    mask = between_objects(edges.shape[-2])[..., None]
    return jnp.where(mask.reshape((1,) * (edges.ndim - 3) + mask.shape), edges, 0)


def teacher_forced(
    predict: Callable[[jax.Array], jax.Array],
    states: Float[Array, "batch time num_nodes features"],
    *,
    prediction_steps: int,
) -> Float[Array, "batch time-1 num_nodes features"]:
    """Predictions of states 1 to time - 1, with a true state for every M-th one to start from.

    All stretches of M steps are predicted side by side. Were only one step predicted from each
    true state, the edges would hardly matter (section 3.4).

    Args:
      predict: takes states, [batch, stretches, num_nodes, features], to the M that follow each,
        [batch, stretches, M, num_nodes, features].
      states: the trajectories.
      prediction_steps: M; where it is more than time - 1 there is one stretch, from state 0.

    Raises:
      InputError: prediction_steps is below 1.

    >>> states = jnp.arange(6.0).reshape(1, 6, 1, 1) ** 2
    >>> stay = lambda starts: jnp.repeat(starts[:, :, None], 3, axis=2)
    >>> teacher_forced(stay, states, prediction_steps=3).ravel()
    Array([0., 0., 0., 9., 9.], dtype=float32)
    """
    require_at_least("prediction_steps", prediction_steps, 1)
    batch, time, *rest = states.shape
    predictions = predict(states[:, : time - 1 : prediction_steps])
    return predictions.reshape(batch, -1, *rest)[:, : time - 1]  # [batch, stretches * M, ...]


def drawn_stretches(
    key: Key[Array, ""],
    states: Float[Array, "batch time num_nodes features"],
    *,
    num_stretches: int,
    prediction_steps: int,
) -> tuple[
    Float[Array, "batch {num_stretches}*{prediction_steps}+1 num_nodes features"],
    Float[Array, "batch {num_stretches}*{prediction_steps} num_nodes features"],
]:
    """States that `teacher_forced` takes for whole trajectories, and the targets of what it gives.

    Of each trajectory they are stretches of M steps, one behind the other, as far apart as they
    can be, of which the first starts at a frame that is drawn. Steps side by side say nearly the
    same of the edges; to predict some of them costs less, and teaches nearly as much.

    Args:
      key: draws the first frame, the same for the whole batch.
      states: the trajectories.
      num_stretches: how many.
      prediction_steps: M.

    Raises:
      InputError: the trajectories are too short, or a number is below 1.

    Differs from the paper: there all steps are predicted.

    >>> states = jnp.arange(6.0).reshape(1, 6, 1, 1)
    >>> some = drawn_stretches(jax.random.key(0), states, num_stretches=1, prediction_steps=5)
    >>> [part.ravel().tolist() for part in some]
    [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 2.0, 3.0, 4.0, 5.0]]
    """
    require_at_least("num_stretches", num_stretches, 1)
    require_at_least("prediction_steps", prediction_steps, 1)
    available = states.shape[1] - 1
    if num_stretches * prediction_steps > available:
        raise InputError(
            f"{num_stretches} stretches of {prediction_steps} states, and a trajectory has "
            f"{available} to predict: give at most {available // prediction_steps} stretches"
        )
    apart = available // num_stretches
    all_of_them = (num_stretches - 1) * apart + prediction_steps
    first = jax.random.randint(key, (), 0, available - all_of_them + 1)
    starts = first + apart * jnp.arange(num_stretches)
    frames = jnp.add.outer(starts, jnp.arange(prediction_steps)).ravel()
    # of each stretch the first state is read; one more ends the trajectory that they pass for
    return states[:, jnp.append(frames, frames[-1] + 1)], states[:, frames + 1]


def negative_elbo(
    predictions: Float[Array, "batch steps num_nodes features"],
    targets: Float[Array, "batch steps num_nodes features"],
    logits: Float[Array, "batch num_nodes num_nodes types"],
    *,
    variance: float,
    log_prior: Float[Array, " types"] | None = None,
    log_prob: Callable = gaussian_log_prob,
) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """What is minimised, as two terms: -log p(x | z) and KL(q(z | x) || p(z)).

    Both are sums for every trajectory: over steps, objects and features, and over edges.

    Args:
      predictions: the means of p's distributions, for one sample of z.
      targets: the states that came.
      logits: of q, from the encoder.
      variance: that of the states, fixed.
      log_prior: of edge types; None means that all are as likely.
      log_prob: the log-density of states: `gaussian_log_prob`, or another with its arguments.
    """
    log_probs = jnp.sum(log_prob(targets, predictions, variance), axis=(1, 2, 3))
    divergences = categorical_kl(logits, log_prior)[..., None]
    return -log_probs, jnp.sum(without_diagonal(divergences), axis=(1, 2, 3))


def edge_confusion(
    logits: Float[Array, "batch num_nodes num_nodes types"],
    edges: Int[Array, "batch num_nodes num_nodes"],
) -> Int[Array, "types types"]:
    """How often edges of type i were taken for type j: counts, to be added up over batches."""
    num_types = logits.shape[-1]
    found = jax.nn.one_hot(jnp.argmax(logits, axis=-1), num_types, dtype=jnp.int32)
    true = without_diagonal(jax.nn.one_hot(edges, num_types, dtype=jnp.int32))
    return jnp.sum(true[..., :, None] * found[..., None, :], axis=(0, 1, 2))


def edge_accuracy(
    confusion: Int[Array, "types types"],
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """How many edges got their type, and how many there are; what a type is called is free.

    Learned without labels, types are numbered as it happens: of all one-to-one namings the best
    one counts.

    >>> [int(number) for number in edge_accuracy(jnp.array([[1, 8], [6, 0]]))]
    [14, 15]
    """
    types = range(len(confusion))
    namings = [
        sum(confusion[true, found] for true, found in zip(types, naming, strict=True))
        for naming in itertools.permutations(types)
    ]
    return jnp.max(jnp.stack(namings)), jnp.sum(confusion)


def dense(
    x: Float[Array, "*batch inputs"],
    kernel: Float[Array, "inputs outputs"],
    bias: Float[Array, " outputs"],
) -> Float[Array, "*batch outputs"]:
    """x W + b, for a bias without axes of a batch."""
    return x @ kernel + bias.reshape((1,) * (x.ndim - 1) + bias.shape)
