"""Four networks that say which action a skeleton does."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments.sequence_presets import TOLERANCE
from experiments.skeleton_action.data import ACTIONS, BONES, JOINTS, PARTS
from experiments.skeleton_action.presets import (
    AGCLSTMConfig,
    Config,
    GCNConfig,
    LSTMConfig,
    ModelConfig,
    SRTSLConfig,
)
from structdl.errors import InputError
from structdl.graphs.agc_lstm import AGCLSTM, differences, gather_joints, spatial_partitions
from structdl.graphs.sr_tsl import SRTSL
from structdl.recurrent.stacked import LSTM

# the torso is the centre of the parts
PART_BONES = [(0, part) for part in range(1, len(PARTS))]


class ActionReader(nn.Module):
    """Logits after each clip, of which all but SR-TSL have one, and attention where there is any.

    Attributes:
      config: which network.
      num_classes: how many actions there are.
    """

    config: ModelConfig
    num_classes: int

    @nn.compact
    def __call__(
        self, positions: Float[Array, "batch time joints 3"], *, train: bool
    ) -> tuple[Float[Array, "batch clips classes"], list[Float[Array, "batch _ joints"]]]:
        match self.config:
            case AGCLSTMConfig():
                return self._attentive(positions, train)
            case SRTSLConfig(features, hidden, num_steps, clip, rate):
                model = SRTSL(self.num_classes, features, hidden, num_steps, clip, rate)
                return model(as_parts(positions), train=train), []
            case LSTMConfig():
                read = self._recurrent(positions, train)
            case GCNConfig():
                read = self._convolutional(positions, train)
        drop = nn.Dropout(self.config.dropout, deterministic=not train)
        return nn.Dense(self.num_classes, name="readout")(drop(read))[:, None], []

    def _attentive(self, positions, train):
        its, logits, attention = self.config, 0.0, []
        if its.streams != "parts":
            graph = spatial_partitions(BONES, len(JOINTS))
            found, attention = self._stream("joints")(positions, graph, train=train)
            logits += found
        if its.streams != "joints":
            parts = jnp.stack(as_parts(positions), axis=2)
            graph = spatial_partitions(PART_BONES, len(PARTS))
            logits += self._stream("parts")(parts, graph, train=train)[0]
        return logits[:, None], attention

    def _stream(self, name: str) -> AGCLSTM:
        its = self.config
        return AGCLSTM(self.num_classes, its.hidden, its.num_layers, its.dropout, name=name)

    def _recurrent(self, positions, train) -> Float[Array, "batch hidden"]:
        its = self.config
        flat = with_differences(positions).reshape(*positions.shape[:2], -1)
        layers = LSTM(its.hidden, its.num_layers, dropout_rate=its.dropout, name="lstm")
        return jnp.mean(layers(flat, train=train)[0], axis=1)

    def _convolutional(self, positions, train) -> Float[Array, "batch hidden"]:
        its, graph = self.config, spatial_partitions(BONES, len(JOINTS))
        drop = nn.Dropout(its.dropout, deterministic=not train)
        xs = with_differences(positions)
        for number in range(its.num_layers):
            xs = drop(xs) if number else xs
            heard = gather_joints(xs, graph)
            xs = nn.relu(nn.Dense(its.hidden, name=f"convolution_{number}")(heard))
        return jnp.mean(xs, axis=(1, 2))


def as_parts(
    positions: Float[Array, "batch time joints 3"],
) -> list[Float[Array, "batch time _"]]:
    """The positions of each body part's joints side by side."""
    return [
        positions[:, :, np.array(joints)].reshape(*positions.shape[:2], -1)
        for joints in PARTS.values()
    ]


def with_differences(
    positions: Float[Array, "batch time joints 3"],
) -> Float[Array, "batch time joints 6"]:
    """Positions, and how they have changed since the frame before."""
    return jnp.concatenate([positions, differences(positions)], axis=-1)


def make_model(config: Config) -> ActionReader:
    """The network of a config; its size is printed.

    Raises:
      InputError: another size than --parameters wants.
    """
    its = config.model
    model = ActionReader(its, len(ACTIONS[config.dataset]))
    require_size(size_of(model, config.frames), config.parameters)
    return model


def size_of(model: ActionReader, frames: int) -> int:
    """How many parameters a model has.

    Raises:
      InputError: too few frames.
    """
    blank = jax.ShapeDtypeStruct((1, frames, len(JOINTS), 3), jnp.float32)

    def init(positions):
        return model.init(jax.random.key(0), positions, train=False)

    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init, blank)))


def require_size(found: int, wanted: int) -> None:
    """Prints a size; raises InputError where it is further than TOLERANCE from what is wanted."""
    print(f"{found} parameters" + (f", {found / wanted - 1:+.1%} of {wanted}" if wanted else ""))
    if wanted and abs(found - wanted) > TOLERANCE * wanted:
        raise InputError(
            f"the model has {found} parameters, and --parameters asks for {wanted} within "
            f"{TOLERANCE:.0%}: change --model.hidden, or give --parameters 0 for any number."
        )
