"""Pairs of sentences: vocabularies, the split, generated numbers and Tatoeba."""

import hashlib
import io
import itertools
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from structdl.datasets import number_words, tatoeba
from structdl.datasets.archives import RawMembers
from structdl.datasets.number_words import draw_numbers, pair_of
from structdl.datasets.sentence_pairs import (
    END,
    SPECIAL,
    START,
    UNKNOWN,
    Pair,
    decode_sentence,
    encode_sentence,
    split_by_sentences,
    vocabulary_of_sentences,
)
from structdl.datasets.tatoeba import characters_of, pairs_of, words_of_english
from structdl.errors import InputError

LINES = ["Hi.\t嗨。", "Hi.\t你好。", "Hello!\t你好。", "I see.\t我明白。", "Run!\t跑。"]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes lines as the raw file, or as the zip that holds it, and registers them."""
    monkeypatch.delenv("STRUCTDL_RAW_DIR", raising=False)
    monkeypatch.setenv("STRUCTDL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(tatoeba, "NUM_VALIDATION", 1)
    monkeypatch.setattr(tatoeba, "NUM_TEST", 1)

    def write(lines, zipped=False):
        content = "\n".join(lines).encode()
        facts = len(content), hashlib.sha256(content).hexdigest()
        url = "http://127.0.0.1:9/cmn-eng.zip"
        monkeypatch.setattr(tatoeba, "RAW_FILE", tatoeba.RawFile("cmn.txt", url, *facts))
        archive = tatoeba.RAW_ARCHIVE._replace(url=url, members=(RawMembers("cmn.txt", 1, *facts),))
        monkeypatch.setattr(tatoeba, "RAW_ARCHIVE", archive)
        folder = "data/downloads" if zipped else "raw"
        folder = tmp_path / folder / "tatoeba_cmn_eng"
        folder.mkdir(parents=True, exist_ok=True)
        if zipped:
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w") as packed:
                packed.writestr("_about.txt", "about")
                packed.writestr("cmn.txt", content)
            (folder / "cmn-eng.zip").write_bytes(file.getvalue())
        else:
            (folder / "cmn.txt").write_bytes(content)
        return folder.parent

    return write


@pytest.fixture(scope="module")
def raw_dir():
    """The public file, where this machine has it."""
    given = os.environ.get("STRUCTDL_RAW_DIR")
    folder = Path(given) if given else Path(__file__).parents[3] / "shared" / "data"
    if not (folder / "tatoeba_cmn_eng" / "cmn.txt").exists():
        pytest.skip("no raw pairs: set STRUCTDL_RAW_DIR")
    return folder


def sentences_of(part, side):
    return {pair[side] for pair in part}


def test_vocabularies_are_ordered_by_frequency_and_rare_symbols_are_left_out():
    sentences = [tuple("abcab"), tuple("ba"), ("d", "<unk>")]
    assert vocabulary_of_sentences(sentences) == (*SPECIAL, "a", "b", "c", "d")
    assert vocabulary_of_sentences(sentences, 2) == (*SPECIAL, "a", "b")
    with pytest.raises(InputError, match="min_count is 0"):
        vocabulary_of_sentences(sentences, 0)


def test_decode_undoes_encode_but_for_unknown_symbols():
    vocabulary = (*SPECIAL, "a", "b")
    assert encode_sentence("abza", vocabulary).tolist() == [4, 5, UNKNOWN, 4]
    assert decode_sentence([START, 4, 5, UNKNOWN, END, 4, 0], vocabulary) == ("a", "b", "<unk>")
    with pytest.raises(InputError, match="sentence 0 of 1 is empty"):
        encode_sentence("", vocabulary)


def test_linked_pairs_stay_together():
    letters = [("a", "1"), ("b", "1"), ("b", "2"), ("c", "2"), ("d", "3"), ("e", "4"), ("1", "5")]
    pairs = [Pair((source,), (target,)) for source, target in letters]
    for seed in range(10):
        parts = split_by_sentences(pairs, 1, 1, seed)
        assert sorted(itertools.chain(*parts)) == sorted(pairs)
        assert all(parts)
        together = {pair: name for name, part in parts._asdict().items() for pair in part}
        assert len({together[pair] for pair in pairs[:4]}) == 1
    assert parts == split_by_sentences(pairs, 1, 1, 9)
    assert any(parts != split_by_sentences(pairs, 1, 1, seed) for seed in range(9))


def test_too_few_pairs_are_an_error():
    pairs = [Pair(("a",), ("1",)), Pair(("b",), ("1",))]
    with pytest.raises(InputError, match="2 pairs in 1 groups that share no sentence are too few"):
        split_by_sentences(pairs, 1, 1, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's Tom's.", ["it's", "tom's", "."]),
        ("Don\N{RIGHT SINGLE QUOTATION MARK}t!", ["don't", "!"]),
        ('"Yes," she said...', ['"', "yes", ",", '"', "she", "said", ".", ".", "."]),
        ("$1,000.50 at 7:30", ["$", "1,000.50", "at", "7:30"]),
        ("self-made café_", ["self", "-", "made", "café", "_"]),
        (" ", []),
    ],
)
def test_english_words(text, words):
    assert words_of_english(text) == tuple(words)


def test_chinese_characters():
    assert characters_of("Tom在 2001年\u3000买了CD。") == (
        "Tom",
        *"在",
        "2001",
        *"年买了",
        "CD",
        "。",
    )
    assert characters_of(" \u3000") == ()


def test_tatoeba_by_hand(write):
    raw_dir = write(LINES)
    tatoeba.load(raw_dir=raw_dir)
    found = tatoeba.load()  # prepared: read again, with the raw file out of reach
    pairs = [*found.train, *found.validation, *found.test]
    expected = [
        Pair(characters_of(line.split("\t")[1]), words_of_english(line.split("\t")[0]))
        for line in LINES
    ]
    assert sorted(pairs) == sorted(expected)
    for one, other in itertools.combinations(found[:3], 2):
        for side in range(2):
            assert not sentences_of(one, side) & sentences_of(other, side)
    assert found.target_vocabulary == vocabulary_of_sentences((it.target for it in found.train), 2)


def test_the_zip_is_read_where_it_has_been_downloaded(write):
    write(LINES, zipped=True)
    found = tatoeba.load()
    assert sum(map(len, found[:3])) == len(LINES)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Hello.", "cmn.txt: line 2 has 0 tabs: it must be English, one tab, Chinese"),
        ("Hello.\t你好。\tCC-BY", "cmn.txt: line 2 has 2 tabs"),
        ("\t你好。", "cmn.txt: line 2 has an empty sentence"),
        ("Hello.\t ", "cmn.txt: line 2 has an empty sentence"),
        ("", "cmn.txt: line 2 has 0 tabs"),
    ],
)
def test_wrong_lines_are_named(line, message):
    with pytest.raises(InputError, match=message):
        pairs_of("\n".join([LINES[0], line, LINES[1]]).encode(), Path("cmn.txt"))


def test_bytes_that_are_no_text_are_named():
    with pytest.raises(InputError, match=r"cmn.txt: not a readable text"):
        pairs_of(b"Hi.\t\xff", Path("cmn.txt"))


@pytest.mark.parametrize("zipped", [False, True])
def test_another_release_is_refused_and_the_accepted_one_named(write, zipped):
    folder = write(LINES, zipped)
    path = folder / "tatoeba_cmn_eng" / ("cmn-eng.zip" if zipped else "cmn.txt")
    path.write_bytes(b"PK" if zipped else path.read_bytes() + b"\nMore.\t\xe5")
    message = r"(?s)cmn-eng.zip.*The one accepted is the cmn.txt of about 2019, with 21116 lines"
    with pytest.raises(InputError, match=message):
        tatoeba.load(raw_dir=None if zipped else folder)


def test_public_tatoeba(raw_dir, tmp_path):
    found = tatoeba.load(raw_dir=raw_dir, data_dir=tmp_path)
    assert [len(part) for part in found[:3]] == [19_116, 1000, 1000]
    for one, other in itertools.combinations(found[:3], 2):
        for side in range(2):
            assert not sentences_of(one, side) & sentences_of(other, side)
    assert Pair(characters_of("嗨。"), words_of_english("Hi.")) in [*itertools.chain(*found[:3])]
    known = {*found.target_vocabulary}
    words = [word for pair in found.test for word in pair.target]
    assert 0.95 < np.mean([word in known for word in words]) < 1


@pytest.mark.parametrize(
    ("number", "chinese", "english"),
    [
        (0, "零", "zero"),
        (7, "七", "seven"),
        (10, "十", "ten"),
        (14, "十四", "fourteen"),
        (20, "二十", "twenty"),
        (105, "一百零五", "one hundred five"),
        (110, "一百一十", "one hundred ten"),
        (2000, "二千", "two thousand"),
        (3040, "三千零四十", "three thousand forty"),
        (10_000, "一万", "ten thousand"),
        (100_000, "十万", "one hundred thousand"),
        (100_010, "十万零一十", "one hundred thousand ten"),
        (254_612, "二十五万四千六百一十二", "two hundred fifty four thousand six hundred twelve"),
        (900_009, "九十万零九", "nine hundred thousand nine"),
    ],
)
def test_numbers_in_words(number, chinese, english):
    pair = pair_of(number)
    assert ("".join(pair.source), " ".join(pair.target)) == (chinese, english)


def value_of(chinese):
    """The number that numerals stand for."""
    digits, places = "零一二三四五六七八九", {"十": 10, "百": 100, "千": 1000}
    total = part = digit = 0
    for symbol in chinese:
        if symbol in digits:
            digit = digits.index(symbol)
        elif symbol == "万":
            total, part, digit = (part + digit) * 10_000, 0, 0
        else:
            part, digit = part + max(digit, 1) * places[symbol], 0
    return total + part + digit


def test_numerals_can_be_read_back():
    numbers = draw_numbers(1, 2000)
    assert len({*numbers}) == 2000
    for number in numbers:
        pair = pair_of(number)
        assert value_of(pair.source) == number
        assert not re.search("零零|零万|零$", "".join(pair.source)[1:])
    assert len({pair_of(number).target for number in numbers}) == 2000


def test_the_parts_of_the_numbers_share_none(tmp_path):
    found = number_words.load(data_dir=tmp_path)
    assert [len(part) for part in found[:3]] == [4000, 300, 300]
    pairs = [*itertools.chain(*found[:3])]
    assert pairs == [pair_of(number) for number in draw_numbers(0, 4600)]
    assert all(word in found.target_vocabulary for pair in pairs for word in pair.target)


@pytest.mark.parametrize("number", [-1, 1_000_000])
def test_other_numbers_are_errors(number):
    with pytest.raises(InputError, match=f"number is {number}: it must be 0 to 999999"):
        pair_of(number)
