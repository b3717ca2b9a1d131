"""Trajectories of interacting objects, and who interacts with whom: springs, charges, oscillators.

Every system is drawn and integrated on the device, all systems side by side. System k depends on
the key and on k alone: more systems or more frames leave those that are there as they are.

Reference: Kipf, Fetaya, Wang, Welling, Zemel (2018), "Neural relational inference for interacting
systems", arXiv:1802.04687, appendix B.

Differs from the paper: frame 0 is the initial state, and positions and velocities of a frame belong
to the same moment, where a plain leap-frog leaves velocities half a step behind. The 0.5 of the
normal initial positions is taken for their standard deviation.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from structdl.errors import InputError, require_at_least


class Trajectories(NamedTuple):
    """The states of `num` systems and the types of their pairs."""

    states: jax.Array  # [num, time, objects, features]
    edges: jax.Array  # [num, objects, objects], int32, symmetric; 0 on the diagonal


def simulate_springs(
    key: Key[Array, ""],
    *,
    num: int,
    objects: int = 5,
    num_frames: int = 49,
    steps_per_frame: int = 100,
    step_size: float = 0.001,
    edge_probability: float = 0.5,
    strength: float = 0.1,
    position_std: float = 0.5,
    speed: float = 0.5,
    box: float = 5.0,
) -> Trajectories:
    """Particles in a plane, some pairs of which are joined by springs: F_ij = -k (r_i - r_j).

    Positions start normal, velocities in a random direction at the same speed; masses are 1. Walls
    reflect. States are [x, y, velocity of x, velocity of y]; an edge is 1 where there is a spring.

    Args:
      key: a typed key.
      num: how many systems.
      objects: how many particles each has, at least 2.
      num_frames: how many frames, the initial state included.
      steps_per_frame: how many steps of the leap-frog lie between two frames.
      step_size: the time a step takes.
      edge_probability: of a pair to have a spring.
      strength: k.
      position_std: of the initial positions.
      speed: the norm of the initial velocities.
      box: half the width of the box; inf means no walls.

    Raises:
      InputError: a value out of its range.
    """
    _check(num, objects, num_frames, steps_per_frame, step_size)
    _check_particles(strength, position_std, speed, box)
    _require("edge_probability", edge_probability, 0 <= edge_probability <= 1, "0 to 1")
    world = _World(step_size, strength, position_std, speed, box, np.inf, edge_probability)
    initial = _draw_particles(key, world, _draw_pairs, num, objects)
    return _run_particles(*initial, world, _spring_factors, num_frames, steps_per_frame)


def simulate_charged(
    key: Key[Array, ""],
    *,
    num: int,
    objects: int = 5,
    num_frames: int = 49,
    steps_per_frame: int = 100,
    step_size: float = 0.001,
    strength: float = 1.0,
    position_std: float = 0.5,
    speed: float = 0.5,
    box: float = 5.0,
    max_force: float = 100.0,
) -> Trajectories:
    """Particles with charges of +1 or -1: F_ij = C q_i q_j (r_i - r_j) / |r_i - r_j|^3.

    Charges are +1 or -1 with the same probability, and every pair interacts: an edge is 1 where two
    particles repel each other, 0 where they attract. Else as `simulate_springs`, whose arguments
    these are.

    Args:
      strength: C.
      max_force: both components of the force on a particle are clipped to +-max_force, since
        charges that meet would fly apart with the error of a step.

    Raises:
      InputError: a value out of its range.
    """
    _check(num, objects, num_frames, steps_per_frame, step_size)
    _check_particles(strength, position_std, speed, box)
    _require("max_force", max_force, max_force > 0, "above 0")
    world = _World(step_size, strength, position_std, speed, box, max_force)
    initial = _draw_particles(key, world, _draw_signs, num, objects)
    return _run_particles(*initial, world, _charge_factors, num_frames, steps_per_frame)


def simulate_kuramoto(
    key: Key[Array, ""],
    *,
    num: int,
    objects: int = 5,
    num_frames: int = 49,
    steps_per_frame: int = 10,
    step_size: float = 0.01,
    edge_probability: float = 0.5,
    strength: float = 1.0,
) -> Trajectories:
    """Oscillators with phases phi: dphi_i/dt = omega_i + sum over j of k_ij sin(phi_i - phi_j).

    Frequencies omega are uniform in [1, 10), initial phases in [0, 2 pi); k_ij = k_ji is `strength`
    where there is an edge, else 0. States are [dphi/dt, sin(phi), omega].

    Args:
      key: a typed key.
      num: how many systems.
      objects: how many oscillators each has, at least 2.
      num_frames: how many frames, the initial state included.
      steps_per_frame: how many steps of the fourth-order Runge-Kutta rule lie between two frames.
      step_size: the time a step takes.
      edge_probability: of a pair to be coupled.
      strength: of the coupling.

    Raises:
      InputError: a value out of its range.

    Differs from the paper: the rule has a fixed step.
    """
    _check(num, objects, num_frames, steps_per_frame, step_size)
    _require("strength", strength, 0 <= strength < np.inf, "0 or more")
    _require("edge_probability", edge_probability, 0 <= edge_probability <= 1, "0 to 1")
    initial = _draw_oscillators(key, edge_probability, num, objects)
    return _run_oscillators(*initial, strength, step_size, num_frames, steps_per_frame)


def _require(name: str, value: float, is_good: bool, words: str) -> None:
    if not is_good:
        raise InputError(f"{name} is {value}: it must be {words}")


def _check(num, objects, num_frames, steps_per_frame, step_size) -> None:
    require_at_least("num", num, 1)
    require_at_least("objects", objects, 2)
    require_at_least("num_frames", num_frames, 1)
    require_at_least("steps_per_frame", steps_per_frame, 1)
    _require("step_size", step_size, 0 < step_size < np.inf, "above 0")


def _check_particles(strength, position_std, speed, box) -> None:
    _require("strength", strength, 0 <= strength < np.inf, "0 or more")
    _require("position_std", position_std, 0 <= position_std < np.inf, "0 or more")
    _require("speed", speed, 0 <= speed < np.inf, "0 or more")
    _require("box", box, box > 0, "above 0, or inf for no walls")


# In what follows systems are the last axis, and sums over objects are written out: a step is then
# element by element over long rows, where a reduction took a hundred times as long on a CPU.


class _World(NamedTuple):
    """What a system of particles has beside its sizes."""

    step_size: float
    strength: float
    position_std: float
    speed: float
    box: float
    max_force: float
    edge_probability: float = 0.5


@functools.partial(jax.jit, static_argnames=("draw_edges", "num", "objects"))
def _draw_particles(key, world: _World, draw_edges, num: int, objects: int):
    """Edges [objects, objects, num], and positions and velocities [objects, 2, num]."""
    edges_key, positions_key, velocities_key = jax.random.split(key, 3)
    edges = draw_edges(edges_key, world.edge_probability, num, objects)
    positions = world.position_std * jax.random.normal(positions_key, (num, objects, 2))
    directions = jax.random.normal(velocities_key, (num, objects, 2))
    velocities = world.speed * directions / jnp.linalg.norm(directions, axis=2, keepdims=True)
    return tuple(jnp.moveaxis(array, 0, -1) for array in (edges, positions, velocities))


@functools.partial(jax.jit, static_argnames=("factors_of", "num_frames"))
def _run_particles(
    edges, positions, velocities, world: _World, factors_of, num_frames: int, steps_per_frame
) -> Trajectories:
    """The leap-frog, with its velocities brought to the time of the positions in every frame."""

    def forces(positions):
        total = jnp.zeros_like(positions)
        for other in range(len(edges)):
            offsets = positions - positions[other][None]  # [objects, 2, num]
            squared_distances = offsets[:, 0] ** 2 + offsets[:, 1] ** 2
            factors = factors_of(world.strength, edges[other], squared_distances)
            total += factors[:, None] * offsets
        return jnp.clip(total, -world.max_force, world.max_force)

    def step(_, state):
        positions, velocities = state  # velocities lie half a step before the positions
        velocities += world.step_size * forces(positions)
        return _reflect(positions + world.step_size * velocities, velocities, world.box)

    half_kick = world.step_size / 2
    positions, velocities = _reflect(positions, velocities, world.box)
    initial = (positions, velocities - half_kick * forces(positions))
    positions, velocities = _frames(step, initial, num_frames, steps_per_frame)
    velocities += half_kick * jax.vmap(forces)(positions)
    states = jnp.concatenate([positions, velocities], axis=2)  # [time, objects, 4, num]
    return Trajectories(jnp.moveaxis(states, -1, 0), jnp.moveaxis(edges, -1, 0))


@functools.partial(jax.jit, static_argnames=("num", "objects"))
def _draw_oscillators(key, edge_probability, num: int, objects: int):
    """Edges [objects, objects, num], and phases and frequencies [objects, num]."""
    edges_key, phases_key, frequencies_key = jax.random.split(key, 3)
    edges = _draw_pairs(edges_key, edge_probability, num, objects)
    phases = jax.random.uniform(phases_key, (num, objects), maxval=2 * np.pi)
    frequencies = jax.random.uniform(frequencies_key, (num, objects), minval=1.0, maxval=10.0)
    return tuple(jnp.moveaxis(array, 0, -1) for array in (edges, phases, frequencies))


@functools.partial(jax.jit, static_argnames="num_frames")
def _run_oscillators(
    edges, phases, frequencies, strength, step_size, num_frames: int, steps_per_frame
) -> Trajectories:
    """The classical Runge-Kutta rule."""
    couplings = strength * edges
    objects = len(edges)
    weights = jnp.array([1, 2, 2, 1], phases.dtype) / 6
    reaches = jnp.array([1, 1, 2], phases.dtype) / 2

    def rates(sines, cosines):
        # sin(a - b) = sin(a) cos(b) - cos(a) sin(b): sines of objects, not of pairs
        from_sines = sum(couplings[j] * sines[j][None] for j in range(objects))
        from_cosines = sum(couplings[j] * cosines[j][None] for j in range(objects))
        return frequencies + sines * from_cosines - cosines * from_sines

    def step(_, state):
        phases, sines, cosines = state

        def stage(number, inner):
            # a loop, since the compiler would else take each sine again for every pair
            total, sines, cosines = inner
            slopes = rates(sines, cosines)
            total += weights[number] * slopes
            move = jnp.where(number == 3, total, reaches[number] * slopes)
            reached = phases + step_size * move
            return total, jnp.sin(reached), jnp.cos(reached)

        inner = (jnp.zeros_like(phases), sines, cosines)
        total, sines, cosines = jax.lax.fori_loop(0, 4, stage, inner)
        phases += step_size * total
        phases = jnp.where(phases > 2 * np.pi, phases - 2 * np.pi, phases)  # small: exact
        return phases, sines, cosines

    initial = (phases, jnp.sin(phases), jnp.cos(phases))
    _, sines, cosines = _frames(step, initial, num_frames, steps_per_frame)
    features = [jax.vmap(rates)(sines, cosines), sines]
    features.append(jnp.broadcast_to(frequencies[None], sines.shape))
    states = jnp.stack(features, axis=2)  # [time, objects, 3, num]
    return Trajectories(jnp.moveaxis(states, -1, 0), jnp.moveaxis(edges, -1, 0))


def _frames(step, initial, num_frames: int, steps_per_frame):
    """The state at first and after every `steps_per_frame` steps, stacked along a first axis."""

    def frame(state, _):
        state = jax.lax.fori_loop(0, steps_per_frame, step, state)
        return state, state

    _, later = jax.lax.scan(frame, initial, length=num_frames - 1)
    return jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), initial, later)


def _reflect(positions, velocities, box):
    """Mirrors at the walls who is beyond them; the clip is for who would be beyond both."""
    mirrored = jnp.where(positions > 0, 2 * box - positions, -2 * box - positions)
    is_out = jnp.abs(positions) > box
    inward = -jnp.sign(positions) * jnp.abs(velocities)
    positions = jnp.clip(jnp.where(is_out, mirrored, positions), -box, box)
    return positions, jnp.where(is_out, inward, velocities)


def _draw_pairs(
    key: Key[Array, ""], probability, num: int, objects: int
) -> Int[Array, "num objects objects"]:
    upper = jnp.triu(jax.random.bernoulli(key, probability, (num, objects, objects)), 1)
    return (upper | jnp.swapaxes(upper, 1, 2)).astype(jnp.int32)


def _draw_signs(
    key: Key[Array, ""], probability, num: int, objects: int
) -> Int[Array, "num objects objects"]:
    charges = jax.random.bernoulli(key, probability, (num, objects))
    same = charges[:, :, None] == charges[:, None]
    return (same & ~jnp.eye(objects, dtype=bool)[None]).astype(jnp.int32)


def _spring_factors(
    strength, edges: Int[Array, "objects num"], squared_distances: Float[Array, "objects num"]
) -> Float[Array, "objects num"]:
    return -strength * edges


def _charge_factors(
    strength, edges: Int[Array, "objects num"], squared_distances: Float[Array, "objects num"]
) -> Float[Array, "objects num"]:
    # objects at the same place, as every object is with itself, have no direction to push
    squared_distances = jnp.where(squared_distances == 0, 1, squared_distances)
    return strength * (2 * edges - 1) / (squared_distances * jnp.sqrt(squared_distances))
