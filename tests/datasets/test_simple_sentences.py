import itertools

import numpy as np
import pytest

from structdl.datasets import simple_sentences
from structdl.datasets.simple_sentences import least_loss, simulate_sentences
from structdl.datasets.vocabulary import decode
from structdl.errors import InputError


def test_the_parts_are_those_of_their_seeds(tmp_path):
    text = simple_sentences.load(data_dir=tmp_path)
    parts = ["".join(decode(part, text.vocabulary)) for part in text[:3]]
    assert parts == [
        simulate_sentences([0, place], num) for place, num in enumerate((6000, 600, 600))
    ]
    assert len(set(parts[1].splitlines()) & set(parts[0].splitlines())) < 60


def test_verbs_agree_with_their_subjects():
    for line in simulate_sentences(1, 200).splitlines():
        subject, verb = next(
            (before, word)
            for before, word in itertools.pairwise(line.rstrip(".").split())
            if word.removesuffix("s") in simple_sentences._VERBS
        )
        assert subject.endswith("s") != verb.endswith("s")


def test_the_least_loss_is_the_entropy_of_all_sentences_over_their_mean_length():
    sizes = (2, 2, 6, 8)
    phrases = [simple_sentences._phrase(*choices) for choices in np.ndindex(sizes)]
    sentences = set()
    for subject in np.ndindex(sizes):
        for verb in range(6):
            start = simple_sentences._sentence(*subject, verb, 0, 0, 0, 0).removesuffix("a dog.\n")
            sentences |= {f"{start}{phrase}.\n" for phrase in phrases}
    num = 192 * 6 * 192
    assert len(sentences) == num  # equally likely, and none can be read in two ways
    mean_length = sum(map(len, sentences)) / num
    assert least_loss() == pytest.approx(np.log(num) / mean_length, rel=1e-9)


def test_a_negative_number_is_an_error():
    with pytest.raises(InputError, match="num is -1"):
        simulate_sentences(0, -1)
