"""Functions of two variables on which optimizers show what they are good and bad at.

The four troubles of gradient descent: local minima (the sum of Gaussians, Branin), saddle points
(the saddle, the monkey saddle), poor conditioning (the quadratics, Rosenbrock, Beale), and noise in
the gradient, with which each of them comes a second time.

Reference: Beale (1955); Rosenbrock (1960), "An automatic method for finding the greatest or least
value of a function"; Branin (1972), "Widely convergent method for finding multiple solutions of
simultaneous nonlinear equations"; the sum of Gaussians and its start are those of
github.com/Jaewan-Yun/optimizer-visualization.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Point = tuple[float, float]

ESCAPED = -1.0  # the height at which a descent has left a saddle whose height is 0


class Landscape(NamedTuple):
    """A function of a point [2], where a descent starts, and what it looks for.

    Fields:
      function: `point -> height`.
      start: the point at which a descent begins.
      lowest: the least height; of a saddle, which has none, ESCAPED.
      targets: where the least height is, or the saddle point that is to be left.
      box: the lowest and the highest point of what a picture shows.
      noise: standard deviation of what each step adds to each of the gradient's two numbers.
    """

    function: Callable[[Float[Array, "2"]], Float[Array, ""]]
    start: Point
    lowest: float
    targets: tuple[Point, ...]
    box: tuple[Point, Point]
    noise: float = 0.0

    @property
    def is_saddle(self) -> bool:
        """Whether the target is to be left and not to be reached."""
        return self.lowest == ESCAPED


def quadratic(point: Float[Array, "2"], condition: float = 1.0) -> Float[Array, ""]:
    """(x^2 / condition + y^2) / 2, of curvatures 1 / condition and 1.

    >>> float(quadratic(jnp.array([10.0, 1.0]), condition=100.0))
    1.0
    """
    return (point[0] ** 2 / condition + point[1] ** 2) / 2


def saddle(point: Float[Array, "2"]) -> Float[Array, ""]:
    """x^2 - y^2: flat at the origin, from where it falls along y alone."""
    return point[0] ** 2 - point[1] ** 2


def monkey_saddle(point: Float[Array, "2"]) -> Float[Array, ""]:
    """x^3 - 3 x y^2: three valleys meet at the origin, where there is no curvature either."""
    return point[0] ** 3 - 3 * point[0] * point[1] ** 2


def beale(point: Float[Array, "2"]) -> Float[Array, ""]:
    """(1.5 - x + x y)^2 + (2.25 - x + x y^2)^2 + (2.625 - x + x y^3)^2, least at (3, 0.5).

    >>> float(beale(jnp.array([3.0, 0.5])))
    0.0
    """
    x, y = point
    offsets = jnp.array([1.5, 2.25, 2.625])
    return jnp.sum(jnp.square(offsets - x + x * jnp.stack([y, y**2, y**3])))


def rosenbrock(point: Float[Array, "2"]) -> Float[Array, ""]:
    """(1 - x)^2 + 100 (y - x^2)^2: a bent valley with its least height at (1, 1)."""
    x, y = point
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def branin(point: Float[Array, "2"]) -> Float[Array, ""]:
    """(y - b x^2 + c x - 6)^2 + 10 (1 - t) cos(x) + 10, with three equal minima.

    b = 5.1 / (4 pi^2), c = 5 / pi, t = 1 / (8 pi).
    """
    x, y = point
    parabola = y - 5.1 / (4 * jnp.pi**2) * x**2 + 5 / jnp.pi * x - 6
    return parabola**2 + 10 * (1 - 1 / (8 * jnp.pi)) * jnp.cos(x) + 10


_CENTRES = ((-0.5, -0.8), (1.0, -0.5), (-1.0, 0.5), (-0.5, -0.8))
_WIDTHS = (0.35, 0.2, 0.2, 0.2)


def gaussians(point: Float[Array, "2"]) -> Float[Array, ""]:
    """Minus the sum of four normal densities, two about one centre: three holes, one deepest."""
    centres, widths = jnp.array(_CENTRES), jnp.array(_WIDTHS)
    distances = jnp.sum(jnp.square(point[None] - centres), axis=1)
    return -jnp.sum(jnp.exp(-distances / (2 * widths**2)) / (2 * jnp.pi * widths**2))


def _quadratic(condition: float) -> Landscape:
    reach = float(np.sqrt(condition))
    return Landscape(
        functools.partial(quadratic, condition=condition),
        start=(-reach, 1.0),
        lowest=0.0,
        targets=((0.0, 0.0),),
        box=((-1.4 * reach, -1.4), (1.4 * reach, 1.4)),
    )


def _saddle(function: Callable) -> Landscape:
    """Begins beside the ridge from which a descent without noise would never leave."""
    return Landscape(function, (1.0, 1e-3), ESCAPED, ((0.0, 0.0),), ((-1.3, -1.3), (1.3, 1.3)))


_QUIET = {
    "quadratic 1": _quadratic(1.0),
    "quadratic 1e2": _quadratic(1e2),
    "quadratic 1e4": _quadratic(1e4),
    "saddle": _saddle(saddle),
    "monkey saddle": _saddle(monkey_saddle),
    "Beale": Landscape(beale, (1.0, 1.5), 0.0, ((3.0, 0.5),), ((-0.5, -1.0), (4.5, 2.0))),
    "Rosenbrock": Landscape(
        rosenbrock, (-1.2, 1.0), 0.0, ((1.0, 1.0),), ((-1.8, -0.8), (1.8, 2.5))
    ),
    "Branin": Landscape(
        branin,
        (2.5, 12.0),
        0.397887,
        ((-np.pi, 12.275), (np.pi, 2.275), (9.42478, 2.475)),
        ((-5.0, 0.0), (10.0, 15.0)),
    ),
    # where the pictures of these Gaussians begin, (0.75, 1), the slope is 4e-8
    "Gaussians": Landscape(
        gaussians, (0.4, -0.1), -5.2781, ((-0.5, -0.8),), ((-1.6, -1.5), (1.6, 1.2))
    ),
}
_NOISE = dict(zip(_QUIET, (0.05, 0.05, 0.05, 0.1, 0.1, 1.0, 5.0, 1.0, 0.5), strict=True))
_NOISY = {f"{name}, noise": its._replace(noise=_NOISE[name]) for name, its in _QUIET.items()}
LANDSCAPES = _QUIET | _NOISY

_FUNCTIONS = [its.function for its in _QUIET.values()]
_GRADIENTS = [jax.grad(function) for function in _FUNCTIONS]


def number_of(name: str) -> int:
    """Which function of `height` a landscape has."""
    return list(_QUIET).index(name.removesuffix(", noise"))


@jax.custom_jvp
def height(number: Int[Array, ""], point: Float[Array, "2"]) -> Float[Array, ""]:
    """The landscape of that number at a point, so that one program can go down all of them."""
    return jax.lax.switch(number, _FUNCTIONS, point)


@height.defjvp
def _height_jvp(primals, tangents):
    """The gradient is chosen, not the derivative of a choice.

    Under vmap a choice computes all functions, and one that overflows would turn the gradient of
    the chosen one into NaN.
    """
    number, point = primals
    slope = jax.lax.switch(number, _GRADIENTS, point)
    return height(number, point), jnp.dot(slope, tangents[1])
