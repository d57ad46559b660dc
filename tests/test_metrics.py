"""The board of text measures: by hand, against slow twins, laws."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerohero import metrics
from zerohero.metrics import (
    board,
    copied,
    longest_copy,
    name_board,
    name_novelty,
    real_words,
    speeches,
    word_pairs,
    words,
)

TRAIN = """First Citizen:
Before we proceed any further, hear me speak.

All:
Speak, speak.
"""


def slow_longest(sample: str, train: str) -> int:
    return max(
        j - i
        for i in range(len(sample) + 1)
        for j in range(i, len(sample) + 1)
        if sample[i:j] in train
    )


def slow_copied(sample: str, train: str, length: int) -> float:
    covered = set()
    for i in range(len(sample) - length + 1):
        if sample[i : i + length] in train:
            covered |= set(range(i, i + length))
    return len(covered) / len(sample)


def test_words():
    assert words("We know't,\n'TIS so--ay; o'er-leap!") == [
        "we", "know't", "tis", "so", "ay", "o'er", "leap"
    ]  # fmt: skip


def test_real_words_by_hand():
    assert real_words("Speak before ALL citizen", TRAIN) == 1
    assert real_words("speak, spoke! furthe", TRAIN) == 1 / 3
    assert real_words("xx", TRAIN) == 0
    assert real_words("a a b", "a") == 2 / 3  # every occurrence counts


def test_word_pairs_by_hand():
    assert word_pairs("hear me. Speak all", TRAIN) == 1
    assert word_pairs("me hear me", TRAIN) == 1 / 2  # order matters
    assert word_pairs("proceed further", TRAIN) == 0  # neighbors only


def test_speeches_by_hand():
    assert speeches(TRAIN) == 1
    assert speeches("All:\nSpeak.\n\nSpeak, all.") == 1 / 2
    assert speeches("all:\nspeak") == 0  # no capital
    assert speeches("All: speak") == 0  # no line of its own
    assert speeches("All:\n") == 0  # says nothing
    assert speeches("All:\n ") == 0
    assert speeches("All speak\nAll:\nspeak") == 0
    # the first and the last may be cut
    assert speeches("ll\nk.\n\nAll:\nSpeak.\n\nFirst Ci") == 1
    assert speeches("A:\nb\n\nc\n\n\nD:\ne\n\nF:\ng") == 1 / 2


def test_longest_copy_by_hand():
    assert longest_copy("I hear me spell", TRAIN) == " hear me spe"
    assert longest_copy(TRAIN, TRAIN) == TRAIN
    assert longest_copy("123", TRAIN) == ""
    assert longest_copy("", TRAIN) == "" == longest_copy(TRAIN, "")
    assert longest_copy("xa yb", "yc a") == "a"  # the first of equals
    assert longest_copy("ö😉x", "a😉x") == "😉x"


@settings(max_examples=150, deadline=None)
@given(st.text("ab", max_size=25), st.text("abc", max_size=40))
def test_longest_copy_and_copied_equal_their_slow_twins(sample, train):
    found = longest_copy(sample, train)
    assert found in sample and found in train
    assert len(found) == slow_longest(sample, train)
    for length in range(1, len(sample) + 1):
        assert copied(sample, train, length) == pytest.approx(
            slow_copied(sample, train, length)
        )


def test_equal_hashes_do_not_deceive(monkeypatch):
    monkeypatch.setattr(metrics._Hashes, "B", 1)  # anagrams now collide
    assert longest_copy("xabcd", "dcba") == "a"
    assert longest_copy("ab ba cab", "ba c") == "ba c"


def test_long_texts():
    train = "".join(chr(97 + i * i % 23) for i in range(30_000)) + "!"
    sample = train[500:900] + "?" + train[-77:]
    assert len(longest_copy(sample, train)) == 400
    assert copied(sample, train) == pytest.approx(477 / 478)
    twenty = "abcdefghijklmnopqrst"  # the default length
    assert copied(twenty, twenty) == 1.0
    assert copied(f"{twenty[1:]}!", twenty) == 0.0


def test_board_holds_the_single_measures():
    sample = "All:\nBefore we proceed any thing, speak.\n\nFist, ay."
    copy = ":\nBefore we proceed any "
    assert board(sample, TRAIN) == {
        "real_words": real_words(sample, TRAIN),
        "word_pairs": word_pairs(sample, TRAIN),
        "speeches": 1 / 2,
        "copied": len(copy) / len(sample),
        "longest_copy": len(copy),
    }
    assert 0 < board(sample, TRAIN)["real_words"] < 1


def test_a_text_against_itself_has_full_marks():
    text = TRAIN * 3
    assert board(text, text) == {
        "real_words": 1,
        "word_pairs": 1,
        "speeches": 1,
        "copied": 1,
        "longest_copy": len(text),
    }


def test_names_by_hand():
    names = ["emma", "mia", "mia", "zog", "ava"]
    train, held_out = ["emma", "ava"], ["mia", "noah", "emma"]
    assert name_novelty(names, train) == 3 / 5
    assert name_novelty(["mia"], train) == 1  # one name is enough
    assert name_board(names, train, held_out) == {
        "novel": 3 / 5,
        "real": 2 / 5,  # emma is known from training: not invented
        "distinct": 4 / 5,
    }


def test_errors_name_the_way_out():
    with pytest.raises(ValueError, match="0 words, at least 1"):
        real_words("...", TRAIN)
    with pytest.raises(ValueError, match="1 words, at least 2"):
        word_pairs("ha", TRAIN)
    with pytest.raises(ValueError, match="blank"):
        speeches(" \n ")
    with pytest.raises(ValueError, match="0 names"):
        name_novelty([], ["emma"])
    with pytest.raises(ValueError, match="0 names"):
        name_board([], ["emma"], [])
    with pytest.raises(ValueError, match="length is 0"):
        copied("abc", TRAIN, 0)
    with pytest.raises(ValueError, match="sample's 3 symbols"):
        copied("abc", TRAIN, 4)
