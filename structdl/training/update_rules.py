"""The five update rules of a first lecture on optimizers, as optax has them.

optax's own defaults differ from the textbook equations in where sums start, on which side of the
root epsilon stands, and whether a step is corrected for its start. The options here are those with
which each rule is its equation to the last digits of float32.

Of weights w, gradient g = dE(w), learning rate a, squares taken element by element:
  sgd        w' = w - a g
  momentum   v' = r v + g;                             w' = w - a v'
  adagrad    s' = s + g^2;                             w' = w - a g / sqrt(s' + eps)
  rmsprop    s' = b s + (1 - b) g^2;                   w' = w - a g / sqrt(s' + eps)
  adam       v' = r v + (1 - r) g, s' as in rmsprop;   w' = w - a v_t / sqrt(s_t + eps)
             with v_t = v' / (1 - r^t) and s_t = s' / (1 - b^t) in step t = 1, 2, ...
v and s start at 0. Lecture slides leave out the power t: their first step is this one, and later
ones would be as long as without any correction, times sqrt(1 - b) / (1 - r).

Reference: Polyak (1964), momentum; Duchi, Hazan, Singer (2011), "Adaptive subgradient methods for
online learning and stochastic optimization", JMLR 12; Hinton (2012), RMSProp, lecture 6e of a
course; Kingma, Ba (2015), "Adam: a method for stochastic optimization", arXiv:1412.6980.
"""

from structdl.training.optimizers import OptimizerConfig

EPSILON = 1e-8
UPDATE_RULES = {
    "sgd": OptimizerConfig("sgd"),
    "momentum": OptimizerConfig("sgd", kwargs={"momentum": 0.9}),
    "adagrad": OptimizerConfig(
        "adagrad", kwargs={"initial_accumulator_value": 0.0, "eps": EPSILON}
    ),
    "rmsprop": OptimizerConfig(
        "rmsprop",
        kwargs={"decay": 0.9, "eps": EPSILON, "eps_in_sqrt": True, "initial_scale": 0.0},
    ),
    "adam": OptimizerConfig(
        "adam", kwargs={"b1": 0.9, "b2": 0.999, "eps": 0.0, "eps_root": EPSILON}
    ),
}
