"""Lengths that are not those of the sequences are named by every function that takes them."""

import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from structdl.attention.encoder_decoder import EncoderDecoder
from structdl.core.scan import check_lengths, reverse_within, unroll
from structdl.errors import InputError
from structdl.graphs.prototypes import best_frames_mean
from structdl.recurrent.cells import RNNParams
from structdl.recurrent.layers import rnn_layer
from structdl.recurrent.reencoder import Reencoder
from structdl.recurrent.stacked import GRU
from structdl.recurrent.two_lstm import TwoLSTM
from structdl.temporal.tcn import TCN

XS = jnp.ones((2, 4, 3))
# all that takes the lengths of XS, given too many of them
TAKES_LENGTHS = {
    "unroll": lambda lengths: unroll(
        lambda _, carry, x: (carry, x), (), jnp.ones(2), XS, lengths=lengths
    ),
    "reverse_within": partial(reverse_within, XS),
    "rnn_layer": lambda lengths: rnn_layer(*make_small_case(), lengths=lengths),
    "GRU": lambda lengths: init_with(GRU(2), lengths=lengths, train=False),
    "TCN": lambda lengths: init_with(TCN((2,), 2), lengths=lengths, train=False),
    "TwoLSTM": lambda lengths: init_with(TwoLSTM(2), lengths=lengths),
    "Reencoder": lambda lengths: init_with(Reencoder(2, 2), lengths, XS),
    "best_frames_mean": lambda lengths: best_frames_mean(XS, lengths, share=0.5),
    "EncoderDecoder": lambda lengths: init_with(
        EncoderDecoder(2), lengths, train=False, method="read"
    ),
}


def make_small_case():
    return RNNParams(jnp.ones((3, 2)), jnp.ones((2, 2)), jnp.ones(2)), jnp.ones((2, 2)), XS


def init_with(module, *args, **options):
    return module.init(jax.random.key(0), XS, *args, **options)


def test_lengths_are_checked_on_the_host():
    check_lengths(np.array([0, 5]), batch=2, time=5)
    check_lengths([], batch=0, time=5)
    for bad, shown in ([[2, 6], r"lengths\[1\] = 6"], [[-1, 2], r"lengths\[0\] = -1"]):
        with pytest.raises(InputError, match=shown):
            check_lengths(jnp.array(bad), batch=2, time=5)
    for bad in ([1.5], [[1]], 3):
        with pytest.raises(InputError, match="one integer"):
            check_lengths(bad, batch=1, time=5)


@pytest.mark.parametrize("name", TAKES_LENGTHS)
def test_lengths_of_another_batch_are_named(name, monkeypatch):
    """With and without jit; jaxtyping, which would refuse them here before, is turned off."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for lengths in (jnp.array([4, 4, 4]), jnp.array([[4], [4]]), jnp.array([4])):
        shown = re.escape(f"lengths has shape {lengths.shape}")
        for call in (TAKES_LENGTHS[name], partial(jax.eval_shape, TAKES_LENGTHS[name])):
            with pytest.raises(InputError, match=rf"{shown} .* of shape \(2,\)"):
                call(lengths)


def test_under_jit_a_length_beyond_the_array_counts_as_the_whole_of_it():
    reverse = jax.jit(reverse_within)
    expected = reverse(XS * jnp.arange(4.0)[None, :, None], jnp.array([4, 0]))
    actual = reverse(XS * jnp.arange(4.0)[None, :, None], jnp.array([6, -2]))
    chex.assert_trees_all_equal(actual, expected)
