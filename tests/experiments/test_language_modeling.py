"""The language models on generated sentences."""

import dataclasses
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.language_modeling import train
from experiments.language_modeling.data import (
    in_unit,
    join,
    load,
    ordered_batches,
    prompt_ids,
    train_batches,
    whole,
    written,
)
from experiments.language_modeling.figures import COLUMNS, arranged, with_unit
from experiments.language_modeling.model import make_model
from experiments.language_modeling.presets import PRESETS, Config
from experiments.language_modeling.sample import sample
from experiments.language_modeling.train import EXPERIMENT, main, make_task
from experiments.sequence_model import (
    GridLSTMConfig,
    GRUConfig,
    LSTMConfig,
    RNNConfig,
    TCNConfig,
)
from structdl.datasets import simple_sentences
from structdl.datasets.sequences import Splits
from structdl.datasets.vocabulary import Text
from structdl.errors import InputError
from structdl.training.run import DataConfig, Run
from structdl.training.task import Inputs

TINY = ["--model.hidden", "4", "--parameters", "0", "--batch-size", "8", "--stretch", "20"]
MODELS = (
    RNNConfig(5, num_layers=2),
    GRUConfig(5),
    LSTMConfig(5, num_layers=2),
    TCNConfig(5, num_levels=2, kernel_size=2),
    GridLSTMConfig(5, num_layers=2),
)


@pytest.fixture(scope="module")
def config(data_dir):
    return Config(
        model=RNNConfig(4),
        parameters=0,
        batch_size=8,
        stretch=20,
        context=10,
        data=DataConfig(dir=data_dir),
        run=Run(num_steps=6, eval_every=0, steps_per_call=2),
    )


@pytest.fixture(scope="module")
def task(config):
    return make_task(config)


def logits_of(model, params, ids):
    return jax.jit(partial(model.apply, train=False))({"params": params}, jnp.asarray(ids))


def loss_of_one(logits, symbol):
    return np.log(np.exp(logits).sum()) - logits[symbol]


@pytest.mark.parametrize(("stretch", "context"), [(5, 0), (4, 3), (7, 9), (1, 2), (10, 2)])
def test_every_symbol_but_the_first_counts_once_with_enough_before_it(stretch, context):
    low, high = 100, 131
    rows = whole((low, high), stretch, context)
    seen = []
    for start, begin, first in zip(*rows, strict=True):
        assert low <= start
        assert max(start + context, begin) + stretch < high
        for place in range(max(begin, first), begin + stretch):
            assert place - start >= context or start == low
            seen.append(place + 1)
    assert seen == list(range(low + 1, high))


def losses_by_loop(config, params, rows, end):
    """Of each symbol that counts in rows, of a part of the text up to `end`."""
    ids, _, vocabulary = load(config)
    model = make_model(config, len(vocabulary))
    losses = []
    for start, first in zip(rows.starts, rows.firsts, strict=True):
        last = min(first + config.stretch, end - 1)
        read = ids[start : start + config.context + config.stretch]
        logits = np.asarray(logits_of(model, params, read[None]), np.float64)[0]
        losses += [loss_of_one(logits[p - start], ids[p + 1]) for p in range(first, last)]
    return losses


def test_the_loss_is_that_of_a_loop_over_rows_and_symbols(config, task, initial, metrics_of):
    params = initial(task)
    (batch,) = task.eval_batches("validation")
    some = jax.tree.map(lambda leaf: np.concatenate([leaf[:3], leaf[-3:]]), batch)
    found = metrics_of(task, params, some)
    losses = losses_by_loop(config, params, some, load(config).bounds.validation[1])
    total, count = found["loss"]
    assert int(count) == len(losses)
    np.testing.assert_allclose(total, np.sum(losses), rtol=1e-4)
    bits, one = found["bits_per_character"]
    assert float(bits / one) == pytest.approx(np.mean(losses) / np.log(2), rel=1e-4)


def test_training_sees_the_stretches_of_its_batch(config, task, initial, loss_of):
    params, batch = initial(task), task.batch(0, 0)
    total, count = loss_of(task, params, batch)
    losses = losses_by_loop(config, params, batch, load(config).bounds.train[1])
    assert int(count) == len(losses) == 8 * config.stretch
    np.testing.assert_allclose(total, np.sum(losses), rtol=1e-4)


def test_batches_are_of_their_splits(config, task, batches_are_of_their_splits):
    *parts, _ = simple_sentences.load(data_dir=config.data.dir)
    expected = {name: part[1:].tolist() for name, part in zip(Splits._fields, parts, strict=True)}

    def told(batch):
        """The places of the symbols that count in a batch."""
        places = batch.begins[:, None] + np.arange(config.stretch)
        return places[places >= batch.firsts[:, None]] + 1

    rows = (len(parts[0]) - config.context - config.stretch) // config.stretch
    trained = batches_are_of_their_splits(
        task, expected, told, lambda places: task.data[places].tolist(), steps=rows // 8
    )
    assert trained == rows // 8 * 8 * config.stretch


@pytest.mark.parametrize(("of_embedding", "of_outputs"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5)])
def test_only_dropout_draws(config, of_embedding, of_outputs, only_noise_draws):
    model = dataclasses.replace(config.model, dropout=of_outputs)
    task = make_task(dataclasses.replace(config, model=model, embedding_dropout=of_embedding))
    only_noise_draws(task, draws=bool(of_embedding or of_outputs))


def test_a_convolution_that_sees_no_further_than_the_context_loses_nothing(
    config, initial, metrics_of
):
    its = TCNConfig(4, num_levels=2, kernel_size=2)  # sees 7 symbols
    task = make_task(dataclasses.replace(config, model=its))
    params = initial(task)
    (batch,) = task.eval_batches("test")
    total, count = metrics_of(task, params, batch)["loss"]
    corpus = load(config)
    low, high = corpus.bounds.test
    ids = corpus.ids[low:high]
    model = make_model(dataclasses.replace(config, model=its), len(corpus.vocabulary))
    logits = np.asarray(logits_of(model, params, ids[None, :-1]), np.float64)[0]
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(ids) - 1), ids[1:]]
    assert int(count) == len(ids) - 1
    assert float(total / count) == pytest.approx(losses.mean(), rel=1e-5)


def test_evaluation_in_parts_gives_the_same(config, task, monkeypatch, initial, metrics_of):
    params = initial(task)
    (batch,) = task.eval_batches("test")
    some = jax.tree.map(lambda leaf: leaf[:7], batch)
    whole_ones = metrics_of(task, params, some)
    monkeypatch.setattr(train, "EVAL_SYMBOLS", 2 * (config.context + config.stretch))
    monkeypatch.setattr(train, "EVAL_LOGITS", 1)
    chex.assert_trees_all_close(metrics_of(task, params, some), whole_ones, rtol=1e-5)


def test_a_row_that_has_nothing_to_say_counts_nothing(task, initial, metrics_of):
    params = initial(task)
    (batch,) = task.eval_batches("test")
    some = jax.tree.map(lambda leaf: leaf[:2], batch)
    more = jax.tree.map(lambda leaf: np.concatenate([leaf[:2], leaf[:1]]), batch)
    more.firsts[-1] = len(task.data)
    found, same = (metrics_of(task, params, each) for each in (more, some))
    chex.assert_trees_all_close(found, same, rtol=1e-6)


def test_perplexity_is_the_exponential_of_the_mean_loss(config, monkeypatch, initial, metrics_of):
    words = dataclasses.replace(config, dataset="ptb_words", stretch=3, context=2, tied=True)
    rng = np.random.default_rng(0)
    text = Text(*(rng.integers(0, 5, num, np.int32) for num in (300, 50, 50)), ("a", *"bcde"))
    monkeypatch.setattr(train, "load", lambda config: join(text))
    task = make_task(words)
    (batch,) = task.eval_batches("test")
    found = metrics_of(task, initial(task), batch)
    total, count = found["loss"]
    assert int(count) == 49
    assert float(found["perplexity"][0]) == pytest.approx(np.exp(float(total / count)), rel=1e-5)
    rows = [{"train_loss": 1.0, "step": 2}]
    assert with_unit(rows, "ptb_words")[0]["train_perplexity"] == pytest.approx(np.e)
    assert with_unit(rows, "ptb_characters")[0]["train_bits_per_character"] == pytest.approx(
        float(in_unit(1.0, "ptb_characters"))
    )


def test_an_epoch_goes_once_through_the_text():
    low, high, stretch, context = 10, 170, 12, 5
    batch = train_batches((low, high), 3, stretch, context)
    num = (high - low - context - stretch) // stretch
    firsts = {}
    for step in range(2 * (num // 3)):
        rows = batch(step, 0)
        np.testing.assert_array_equal(rows.begins, rows.firsts)
        np.testing.assert_array_equal(rows.starts, rows.firsts - context)
        assert rows.starts.min() >= low
        assert rows.firsts.max() + stretch < high
        firsts.setdefault(step // (num // 3), []).extend(rows.firsts.tolist())
    cuts = [{(first - low - context) % stretch for first in epoch} for epoch in firsts.values()]
    assert all(len(cut) == 1 for cut in cuts)
    assert cuts[0] != cuts[1]
    assert all(len(set(epoch)) == len(epoch) for epoch in firsts.values())
    assert not np.array_equal(batch(0, 0).firsts, batch(0, 1).firsts)


def test_sequences_are_read_in_order_and_an_epoch_goes_once_through_the_text():
    low, high, stretch, sequence = 10, 250, 4, 12
    batch = ordered_batches((low, high), 3, stretch, sequence)
    num = (high - low - sequence) // sequence  # sequences of an epoch
    epochs = [[], []]
    for group in range(2 * (num // 3)):
        parts = [batch(3 * group + place, 0) for place in range(3)]
        assert [bool(part.fresh) for part in parts] == [True, False, False]
        begins = parts[0].starts
        for place, part in enumerate(parts):
            np.testing.assert_array_equal(part.starts, begins + place * stretch)
        assert begins.min() >= low
        assert begins.max() + sequence < high  # the last symbol's next one is there
        epochs[group // (num // 3)] += begins.tolist()
    cuts = [{(begin - low) % sequence for begin in epoch} for epoch in epochs]
    assert [len(cut) for cut in cuts] == [1, 1]
    assert cuts[0] != cuts[1]
    assert all(len(set(epoch)) == len(epoch) for epoch in epochs)
    assert not np.array_equal(batch(0, 0).starts, batch(0, 1).starts)


CARRYING = (LSTMConfig(5, num_layers=2), GridLSTMConfig(5, num_layers=3))


@pytest.mark.parametrize("its", CARRYING, ids=lambda its: type(its).__name__)
def test_stretches_read_in_order_give_what_the_whole_sequence_gives(config, its):
    carrying = dataclasses.replace(config, model=its, stretch=6, sequence=12)
    task = make_task(carrying)
    inputs = [Inputs(task.data, (), task.batch(step, 0)) for step in range(3)]
    params, nothing = jax.jit(task.init)(jax.random.key(3), inputs[0])
    assert {leaf.shape[carried_axis(its)] for leaf in jax.tree.leaves(nothing)} == {8}

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def step(params, state, inputs):
        (total, count), (state, _) = task.loss_fn(params, state, inputs, jax.random.key(0))
        return total, (count, state)

    (first, (count, state)), _ = step(params, nothing, inputs[0])
    (second, (_, last)), _ = step(params, state, inputs[1])
    starts = inputs[0].batch.starts
    places = starts[:, None] + np.arange(13)
    logits = logits_of(
        make_model(carrying, len(load(config).vocabulary)), params, task.data[places[:, :-1]]
    )
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, task.data[places[:, 1:]])
    assert int(count) == 8 * 6
    np.testing.assert_allclose(first, losses[:, :6].sum(), rtol=1e-5)
    np.testing.assert_allclose(second, losses[:, 6:].sum(), rtol=1e-5)
    # the third begins another sequence, whatever was read before
    (third, _), gradient = step(params, last, inputs[2])
    (same, _), same_gradient = step(params, nothing, inputs[2])
    chex.assert_trees_all_equal((third, gradient), (same, same_gradient))
    # a lost state would show above: it is worth more than ten times what is tolerated there
    (without, _), _ = step(params, nothing, inputs[1])
    assert abs(float(without - second)) > 1e-4 * float(second)
    # what is evaluated does not look at it
    (batch,) = task.eval_batches("validation")
    some = Inputs(task.data, (), jax.tree.map(lambda leaf: leaf[:3], batch))
    metrics = jax.jit(task.metrics)
    chex.assert_trees_all_equal(
        *(metrics(params, each, some, jax.random.key(0)) for each in (nothing, last))
    )


def carried_axis(its):
    """That of the rows in a model's state."""
    return 0 if isinstance(its, GridLSTMConfig) else 1


@pytest.mark.parametrize(
    ("its", "tied"), [*zip(MODELS, (False,) * 5, strict=True), (MODELS[1], True)]
)
def test_reading_symbol_by_symbol_gives_what_the_whole_text_gives(config, its, tied):
    model = make_model(dataclasses.replace(config, model=its, tied=tied), 7)
    ids = jax.random.randint(jax.random.key(0), (2, 12), 0, 7)
    params = jax.jit(partial(model.init, train=False))(jax.random.key(1), ids)["params"]
    expected = logits_of(model, params, ids)
    assert expected.shape == (2, 12, 7)
    step = jax.jit(partial(model.apply, method="step"))
    state = model.apply({"params": params}, 2, method="initial_state")
    for place in range(12):
        state, logits = step({"params": params}, state, ids[:, place])
        np.testing.assert_allclose(logits, expected[:, place], rtol=1e-4, atol=1e-5)


def test_a_tied_softmax_compares_with_the_embedding(config):
    model = make_model(dataclasses.replace(config, tied=True), 7)
    ids = jnp.array([[1, 2, 3]])
    params = jax.jit(partial(model.init, train=False))(jax.random.key(1), ids)["params"]
    params = params | {"bias": jnp.arange(7.0)}
    outputs = make_model(config, config.embedding)  # whose read-out is as wide
    rows = params["embed"]["embedding"]
    its = {"embed": {"embedding": jnp.pad(rows, ((0, 9), (0, 0)))}, "sequence": params["sequence"]}
    expected = np.asarray(logits_of(outputs, its, ids)) @ np.asarray(rows).T + np.arange(7)
    np.testing.assert_allclose(logits_of(model, params, ids), expected, rtol=1e-5, atol=1e-5)


def test_at_temperature_0_the_likeliest_symbol_follows_and_at_1_all_do(config):
    model = make_model(config, 5)
    ids = jnp.zeros((1, 8), int)
    params = jax.jit(partial(model.init, train=False))(jax.random.key(1), ids)["params"]
    key = jax.random.key(2)
    text = [1, 4]
    while len(text) < 8:
        padded = np.pad(text, (0, 8 - len(text)))[None]
        logits = logits_of(model, params, padded)[0, len(text) - 1]
        text.append(int(jnp.argmax(logits)))
    greedy = sample(model, params, np.array([1, 4]), 6, temperature=0.0, key=jax.random.clone(key))
    assert greedy.tolist() == text[2:]
    # with a bias alone, each symbol is drawn by its softmax
    still = jax.tree.map(jnp.zeros_like, params)
    bias = np.log([0.1, 0.2, 0.3, 0.4, 1e-9])
    still["sequence"]["readout"]["bias"] = jnp.asarray(bias, float)
    drawn = sample(model, still, np.array([0]), 4000, temperature=1.0, key=jax.random.clone(key))
    shares = np.bincount(drawn, minlength=5) / 4000
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.3, 0.4, 0], atol=0.03)
    cold = sample(model, still, np.array([0]), 4000, temperature=0.5, key=key)
    squares = np.array([1, 4, 9, 16, 0]) / 30
    np.testing.assert_allclose(np.bincount(cold, minlength=5) / 4000, squares, atol=0.03)


def test_prompts_and_lines(config):
    corpus = load(config)
    asked = prompt_ids(dataclasses.replace(config, prompt="the dog"), corpus)
    assert [corpus.vocabulary[place] for place in asked] == list("the dog")
    with pytest.raises(InputError, match=r"--prompt: 'X' at position 4"):
        prompt_ids(dataclasses.replace(config, prompt="the X"), corpus)
    assert written("ptb_words", ["to", "be", "<eos>", "or"]) == "to be \nor"
    with pytest.raises(InputError, match="one symbol or more"):
        sample(make_model(config, 3), {}, np.array([]), 2, temperature=1.0, key=None)
    with pytest.raises(InputError, match="--temperature is -1"):
        sample(make_model(config, 3), {}, np.array([1]), 2, temperature=-1, key=None)


def test_drawn_lines_hold_every_symbol_with_its_bits():
    lines = arranged([*"ab\nc"], np.arange(4.0), words=False)
    assert lines == [[("a", 0.0), ("b", 1.0), ("↵", 2.0)], [("c", 3.0)]]
    lines = arranged(["word"] * 40, np.arange(40.0), words=True)
    assert all(len(line) <= COLUMNS for line in lines)
    shown = [cell for line in lines for cell in line if cell[0] != " "]
    assert [value for _, value in shown] == np.repeat(np.arange(40.0), 4).tolist()


@pytest.mark.parametrize("name", PRESETS)
def test_the_models_that_are_compared_have_one_size(name, has_its_stated_size):
    config = PRESETS[name].config
    has_its_stated_size(config, config.context + config.stretch, config.embedding)


def test_a_few_steps_lower_the_loss_and_compile_once(config, task, few_steps_lower_the_loss):
    few_steps_lower_the_loss(task, config.run, task.batch(0, 0))


def test_every_optimizer_takes_steps(config, task, optimizer_takes_steps):
    optimizer_takes_steps(task, config.run)


def test_a_run_that_goes_on_equals_one_that_was_not_interrupted(resumed_equals_whole):
    words = ["--embedding-dropout", "0.1", "--prompt", "the dog"]
    figures = resumed_equals_whole(EXPERIMENT, [*TINY, *words])
    assert (figures / "surprise.png").exists()
    assert (figures / "sample.txt").read_text().startswith("the dog")


def test_a_run_that_stops_within_a_sequence_goes_on_from_its_state(resumed_equals_whole):
    words = ["--sequence", "60", "--context", "10", "--num-seeds", "2"]
    resumed_equals_whole(EXPERIMENT, ["grid-sentences", *TINY, *words])


def test_bytes_are_asked_for_and_written_as_text(config):
    as_bytes = dataclasses.replace(config, dataset="enwik8", prompt="né")
    corpus = join(Text(*(np.zeros(9, np.int32),) * 3, tuple(map(chr, range(256)))))
    asked = prompt_ids(as_bytes, corpus)
    assert bytes(asked.tolist()) == "né".encode()
    assert written("enwik8", [corpus.vocabulary[place] for place in asked]) == "né"


def test_the_least_loss_of_the_readme():
    readme = (EXPERIMENT.directory / "README.md").read_text()
    bits = in_unit(simple_sentences.least_loss(), "simple_sentences")
    assert f"below {bits:.3f} bits" in readme


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "ptb"], "--dataset is 'ptb'"),
        (["--stretch", "0"], "--stretch is 0"),
        (["--context", "300000"], "do not fit"),
        (["--batch-size", "100000"], "--batch-size is 100000"),
        (["--prompt", "Hamlet"], "'H' at position 0"),
        (["--temperature", "-1"], "--temperature is -1"),
        (["--embedding-dropout", "-0.5"], "--embedding-dropout is -0.5"),
        (["--parameters", "1000"], "give --parameters 0"),
        (["--sequence", "-20"], "--sequence is -20"),
        (["--sequence", "50"], "--sequence is 50, and it is read in stretches of 20"),
        (["--sequence", "200000"], "--batch-size is 8, and the text of training has"),
        (["--sequence", "40", "--parallel", "pmap"], "give --parallel jit"),
    ],
)
def test_bad_options_are_named(words, message, is_refused):
    is_refused(main, [*TINY, *words], message)


def test_a_convolution_has_no_state_to_carry(is_refused):
    words = ["tcn-sentences", "--sequence", "50"]
    is_refused(main, words, "a TCN has no state that --sequence could carry")
