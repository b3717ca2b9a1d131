"""Machine translation on generated numbers, and the scores of translations."""

import collections
import dataclasses
import json
import math
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.translation import figures
from experiments.translation.data import as_batch, extents_of, short_pairs, symbols_of
from experiments.translation.model import EncoderDecoderConfig, ReencoderConfig
from experiments.translation.presets import PRESETS, Config
from experiments.translation.scores import accuracy, bleu, score
from experiments.translation.train import EXPERIMENT, main, make_task, size_of
from experiments.translation.translate import (
    describe,
    main as translate_main,
    make_model,
    translate,
)
from structdl.datasets import number_words
from structdl.datasets.sentence_pairs import END, PAD, START, Pair, SentencePairs
from structdl.datasets.tatoeba import words_of_english
from structdl.errors import InputError
from structdl.training.run import DataConfig, Run

TINY = ["--model.hidden", "4", "--model.depth", "4", "--parameters", "0", "--batch-size", "8"]
MODELS = {
    "reencoder": ReencoderConfig(4, 4),
    "seq2seq": EncoderDecoderConfig(4, 1),
    "attention": EncoderDecoderConfig(4, 1, attention=True),
}


@pytest.fixture(scope="module")
def config(data_dir):
    run, data = Run(num_steps=6, eval_every=0, steps_per_call=2), DataConfig(dir=data_dir)
    return Config(model=MODELS["reencoder"], parameters=0, batch_size=8, data=data, run=run)


@pytest.fixture(scope="module")
def tasks(config):
    return {
        name: make_task(dataclasses.replace(config, model=model)) for name, model in MODELS.items()
    }


@pytest.fixture(scope="module")
def corpus(config):
    return number_words.load(data_dir=config.data.dir)


@pytest.mark.parametrize("name", MODELS)
def test_losses_are_those_of_each_word_given_the_words_before(
    name, config, corpus, tasks, initial, metrics_of, loss_of
):
    """Word by word, by the step that searches use, without padding."""
    task, params = tasks[name], initial(tasks[name])
    batch = jax.tree.map(lambda leaf: leaf[:2], task.eval_batches("validation")[0])
    found = metrics_of(task, params, batch)
    model = make_model(dataclasses.replace(config, model=MODELS[name]), corpus)
    total, right, number = 0.0, 0, 0
    start, step = (
        jax.jit(lambda *args, method=method: model.apply({"params": params}, *args, method=method))
        for method in ("start", "step")
    )
    for pair in corpus.validation[:2]:
        source = [corpus.source_vocabulary.index(symbol) for symbol in pair.source]
        target = [corpus.target_vocabulary.index(symbol) for symbol in pair.target]
        state = start(jnp.array([source]), jnp.array([len(source)]))
        for last, word in zip([START, *target], [*target, END], strict=True):
            state, logits = step(state, jnp.array([last]))
            logits = np.asarray(logits[0], np.float64)
            total -= logits[word] - np.log(np.exp(logits).sum())
            right += int(np.argmax(logits) == word)
            number += 1
    assert [int(count) for _, count in found.values()] == [number] * 2
    assert float(found["loss"][0]) == pytest.approx(total, rel=1e-5)
    assert int(found["accuracy"][0]) == right
    chex.assert_trees_all_close(loss_of(task, params, batch), found["loss"], rtol=1e-5)


def test_pairs_as_arrays():
    pairs = [Pair(("a", "b"), ("x",)), Pair(("c",), ("x", "z"))]
    vocabulary = ("<pad>", "<start>", "<end>", "<unk>")
    corpus = SentencePairs(pairs, [], [], (*vocabulary, "a", "b", "c"), (*vocabulary, "x"))
    batch = as_batch(pairs, corpus, extents_of(pairs))
    assert batch.source.tolist() == [[4, 5], [6, PAD], [PAD, PAD]]
    assert batch.lengths.tolist() == [2, 1, 0]
    assert batch.previous.tolist() == [[START, 4, PAD], [START, 4, 3], [PAD] * 3]
    assert batch.target.tolist() == [[4, END, PAD], [4, 3, END], [PAD] * 3]


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_no_pairs_counts_nothing(name, tasks, initial, metrics_of):
    task = tasks[name]
    batch = jax.tree.map(lambda leaf: np.zeros_like(leaf[:8]), task.eval_batches("test")[0])
    totals = metrics_of(task, initial(task), batch)
    assert all((float(total), int(count)) == (0, 0) for total, count in totals.values())


def test_batches_are_of_their_splits(corpus, tasks):
    task = tasks["reencoder"]
    shown = {
        name: [*map(tuple, np.concatenate([it.target for it in task.eval_batches(name)]).tolist())]
        for name in ("train", "validation", "test")
    }
    for name, rows in shown.items():
        rows = [row for row in rows if row[0] != PAD]
        expected = as_batch(getattr(corpus, name), corpus, (11, 10)).target[:-1]
        assert rows == [*map(tuple, expected.tolist())]
    trained = np.concatenate([task.batch(step, 0).target for step in range(500)])
    assert sorted(map(tuple, trained.tolist())) == sorted(shown["train"][:4000])


def test_long_pairs_are_left_out_of_training_alone(config, corpus, capsys):
    short = dataclasses.replace(config, longest_source=7, longest_target=5)
    kept = short_pairs(corpus.train, short)
    assert kept == [it for it in corpus.train if len(it.source) <= 7 and len(it.target) <= 5]
    assert f"{4000 - len(kept)} of 4000 pairs of training are too long" in capsys.readouterr().out
    task = make_task(short)
    assert task.batch(0, 0).source.shape[1] <= 7
    assert sum(int((it.lengths > 0).sum()) for it in task.eval_batches("test")) == 300


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("name", ["reencoder", "attention"])
def test_only_dropout_draws(name, config, dropout, only_noise_draws):
    model = dataclasses.replace(MODELS[name], dropout=dropout)
    only_noise_draws(make_task(dataclasses.replace(config, model=model)), draws=bool(dropout))


@pytest.mark.parametrize("name", PRESETS)
def test_the_models_that_are_compared_have_one_size(name):
    config = PRESETS[name].config
    sizes = (18, 33) if config.dataset == "numbers" else (2715, 3623)
    vocabularies = [("",) * size for size in sizes]
    found = size_of(make_model(config, SentencePairs([], [], [], *vocabularies)))
    assert abs(found - config.parameters) <= 0.05 * config.parameters


def test_a_few_steps_lower_the_loss_and_compile_once(config, tasks, few_steps_lower_the_loss):
    task = tasks["reencoder"]
    few_steps_lower_the_loss(task, config.run, task.batch(0, 0))


def test_every_optimizer_takes_steps(config, tasks, optimizer_takes_steps):
    optimizer_takes_steps(tasks["reencoder"], config.run)


@pytest.mark.slow
def test_a_run_that_goes_on_equals_one_that_was_not_interrupted(resumed_equals_whole):
    pictures = resumed_equals_whole(EXPERIMENT, TINY)
    names = {path.name for path in pictures.iterdir()}
    assert names == {"learning_curves.png", "models.png", "lengths.png", "translations.txt"}
    summary = json.loads((pictures.parent / "summary.json").read_text())
    assert {"test_greedy_accuracy", "test_beam_accuracy"} <= summary["metrics"].keys()


@pytest.mark.slow
def test_a_run_translates_a_sentence(tmp_path, capsys):
    options = ["--num-steps", "2", "--steps-per-call", "1", "--eval-every", "0"]
    options += ["--stopping", "none"]
    main([*TINY, *options, "--workdir", str(tmp_path)])
    capsys.readouterr()
    translate_main([str(tmp_path), "--sentence", "三x十"])
    shown = capsys.readouterr().out
    assert "not in the vocabulary, read as <unk>: x" in shown
    assert "greedy: " in shown
    assert "5 beams: " in shown
    with pytest.raises(SystemExit):
        translate_main([str(tmp_path), "--sentence", " "])
    assert "sentence 0 of 1 is empty" in capsys.readouterr().err


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("beams", [1, 3])
def test_sentences_are_translated_as_they_are_alone(name, beams, config, corpus, tasks, initial):
    config = dataclasses.replace(config, model=MODELS[name])
    params = initial(tasks[name])
    sources = [pair.source for pair in corpus.test[:4]]
    found = translate(config, corpus, params, sources, beams=beams)
    alone = [translate(config, corpus, params, [source], beams=beams)[0] for source in sources]
    assert found == alone
    assert all(word in corpus.target_vocabulary[3:] for words in found for word in words)


def test_scores_are_of_each_seed(config, corpus, tasks, monkeypatch):
    few = corpus._replace(test=corpus.test[:3])

    def told(config, corpus, params, sources, *, beams):
        """As many are right as a seed's parameter says; with beams one more."""
        assert [*sources] == [pair.source for pair in few.test]
        right = int(params) + (beams == config.beams)
        return [pair.target if place < right else () for place, pair in enumerate(few.test)]

    monkeypatch.setattr("experiments.translation.scores.load", lambda config: few)
    monkeypatch.setattr("experiments.translation.scores.translate", told)
    result = collections.namedtuple("Result", "seeds selected")((0, 1), (jnp.array([0, 2]), ()))
    found = score(config, tasks["reencoder"], result)
    expected = {"test_greedy_accuracy": [0, 2 / 3], "test_beam_accuracy": [1 / 3, 1]}
    assert {name: values.tolist() for name, values in found.items()} == expected


def bleu_by_hand(translations, references):
    """Corpus BLEU: clipped n-grams of up to four words, and the brevity penalty."""
    logs = []
    for size in range(1, 5):
        matches = total = 0
        for words, reference in zip(translations, references, strict=True):
            grams, meant = (
                collections.Counter(zip(*(side[i:] for i in range(size)), strict=False))
                for side in (words, reference)
            )
            matches += sum(min(count, meant[gram]) for gram, count in grams.items())
            total += sum(grams.values())
        logs.append(math.log(matches / total))
    written, meant = sum(map(len, translations)), sum(map(len, references))
    return 100 * math.exp(sum(logs) / 4 + min(0, 1 - meant / written))


@pytest.mark.peers
@pytest.mark.parametrize("cut", [0, 2])
def test_bleu_equals_one_by_hand(cut):
    pytest.importorskip("sacrebleu")
    references = [*map(words_of_english, ("I see the old man.", "Don't go to the station, Tom"))]
    translations = [*map(words_of_english, ("I see an old man.", "Don't go to the old station"))]
    translations = [words[: len(words) - cut] for words in translations]
    expected = bleu_by_hand(translations, references)
    assert bleu(translations, references) == pytest.approx(expected, rel=1e-9)
    assert bleu(references, references) == pytest.approx(100)
    with pytest.raises(InputError, match="no translations"):
        bleu([], [])


def test_without_sacrebleu_the_command_that_installs_it_is_named(monkeypatch, config):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(InputError, match=r"pip install 'structdl\[text\]'"):
        make_task(dataclasses.replace(config, dataset="tatoeba"))


def test_accuracy_is_the_share_of_equal_sentences():
    assert accuracy([("a",), ("b", "c")], [("a", "a"), ("b", "c")]) == 0.5


def test_groups_of_a_length(corpus):
    groups = figures.by_length(corpus.test)
    assert sorted(np.concatenate(groups)) == [*range(300)]
    longest = 0
    for group in groups:
        lengths = [len(corpus.test[i].source) for i in group]
        assert min(lengths) > longest
        longest = max(lengths)


def test_the_list_of_translations(corpus):
    pair = Pair(("一",), ("one",))
    text = figures.listed([pair], {"greedy": [("two",)], "beam": [("one", "one")]})
    assert [line.split() for line in text.splitlines() if line] == [
        ["source", "一"],
        ["reference", "one"],
        ["greedy", "two"],
        ["beam", "one", "one"],
    ]


def test_symbols_of_what_somebody_writes():
    assert symbols_of("我叫Tom。") == ("我", "叫", "Tom", "。")


def test_an_empty_sentence_is_named(config, corpus):
    with pytest.raises(InputError, match="sentence 0 of 1 is empty"):
        describe(config, corpus, {}, "")


def test_a_model_without_finite_logits_translates_nothing(config, corpus, tasks, initial):
    attention = dataclasses.replace(config, model=MODELS["attention"])
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, initial(tasks["attention"]))
    sources = [pair.source for pair in corpus.test[:1]]
    assert translate(attention, corpus, params, sources, beams=1) == [()]
    assert translate(attention, corpus, params, [], beams=1) == []
    with pytest.raises(InputError, match="not finite"):
        describe(attention, corpus, params, "1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch-size", "4001"], "--batch-size is 4001"),
        (["--parameters", "1000"], "give --parameters 0"),
        (["--model.hidden", "0"], "--model.hidden is 0"),
        (["--model.depth", "0"], "--model.depth is 0"),
        (["--beams", "0"], "--beams is 0"),
        (["--length-penalty", "-1"], "--length-penalty is -1.0"),
        (["--longest-target", "0"], "--longest-target is 0"),
        (["--longest-source", "1", "--longest-target", "1", "--batch-size", "64"], "--batch-size"),
    ],
)
def test_bad_options_are_named(words, message, is_refused):
    is_refused(main, [*TINY, *words], message)
