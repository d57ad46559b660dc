"""Is it any good? Numbers about generated text, beside the loss.

Every measure compares a sample with the text that a model was trained on.
None says what is good by itself: hold each against the same measure of real
text that the model has never seen. A sample can score *above* real text, and
that is a warning: it repeats what it read.
"""

import functools
import re

import numpy as np

WORD = re.compile(r"[a-z]+(?:'[a-z]+)*")
SPEECH = re.compile(r"[A-Z][A-Za-z' -]*:\n\S.*", re.DOTALL)


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation.

    >>> words("First Citizen:\\nWe know't, we know't.")
    ['first', 'citizen', 'we', "know't", 'we', "know't"]
    """
    return WORD.findall(text.lower())


def real_words(sample: str, train: str) -> float:
    """Share of the words of `sample` (0 to 1) that occur in `train`.

    Raises:
        ValueError: the sample has no words.

    >>> real_words("the king sayeth the", "Hail to the king!")
    0.75
    """
    mine = _at_least(1, words(sample), "word")
    known, _ = _known(train)
    return sum(w in known for w in mine) / len(mine)


def word_pairs(sample: str, train: str) -> float:
    """Share of neighboring words (0 to 1) that are neighbors in `train`.

    Raises:
        ValueError: the sample has fewer than two words.

    >>> word_pairs("to the king, the hail", "Hail to the king, the king!")
    0.75
    """
    mine = _at_least(2, words(sample), "word")
    _, known = _known(train)
    pairs = list(zip(mine, mine[1:], strict=False))
    return sum(p in known for p in pairs) / len(pairs)


@functools.lru_cache(maxsize=4)
def _known(train: str) -> tuple[set, set]:
    """The words and the pairs of neighboring words of a training text."""
    theirs = words(train)
    return set(theirs), set(zip(theirs, theirs[1:], strict=False))


def speeches(sample: str) -> float:
    """Share of paragraphs (0 to 1) in the form of a play: `Speaker:`, a
    line end, and a speech.

    Paragraphs lie between empty lines. The first and the last, which a
    sample may have cut, are left out where there are more than two.

    Raises:
        ValueError: the sample is blank.

    >>> speeches("All:\\nSpeak, speak.\\n\\nAnd so on.")
    0.5
    """
    parts = re.split(r"\n{2,}", sample.strip("\n"))
    if not sample.strip():
        raise ValueError("the sample is blank: give at least a paragraph")
    if len(parts) > 2:
        parts = parts[1:-1]
    return sum(bool(SPEECH.fullmatch(p)) for p in parts) / len(parts)


def longest_copy(sample: str, train: str) -> str:
    """The longest stretch of `sample` that stands in `train` as it is.

    If a stretch of length n is copied, so are its parts: the greatest n is
    found by bisection, and for one n all stretches of both texts are
    compared at once, by their hashes. A megabyte takes about a second.

    Returns:
        The stretch (the first of equals), "" if no symbol is shared.

    >>> longest_copy("we hear the kin cry", "Hail to the king!")
    ' the kin'
    """
    a, b = _Hashes(sample), _Hashes(train)
    best = ""
    low, high = 0, min(len(sample), len(train))
    while low < high:
        n = (low + high + 1) // 2
        for i in np.flatnonzero(_shared(a, b, n)).tolist():
            if sample[i : i + n] in train:  # equal hashes could deceive
                best, low = sample[i : i + n], n
                break
        else:
            high = n - 1
    return best


def copied(sample: str, train: str, length: int = 20) -> float:
    """Share of the symbols of `sample` (0 to 1) that lie in a stretch of
    `length` symbols or more which stands in `train` as it is.

    Raises:
        ValueError: length is not between 1 and the length of the sample.

    >>> copied("we hear the king", "Hail to the king!", length=5)
    0.5625
    """
    if not 1 <= length <= len(sample):
        raise ValueError(
            f"length is {length}, must be between 1 and the sample's "
            f"{len(sample)} symbols"
        )
    if length > len(train):
        return 0.0
    hit = _shared(_Hashes(sample), _Hashes(train), length)
    change = np.zeros(len(sample) + 1, dtype=np.int64)
    change[: len(hit)] += hit  # a stretch begins here ...
    change[length : length + len(hit)] -= hit  # ... and has ended here
    return float((np.cumsum(change)[:-1] > 0).mean())


class _Hashes:
    """Hashes of all stretches of a text, of any length, in one subtraction.

    With H[i] = sum over j < i of c[j] B^j (mod 2^64), the stretch at i of
    length n hashes to (H[i + n] - H[i]) B^-i.
    """

    B = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2^64

    def __init__(self, text: str) -> None:
        data = text.encode("utf-32-le", "surrogatepass")
        code = np.frombuffer(data, dtype="<u4").astype(np.uint64) + 1
        up = np.full(len(code), self.B, dtype=np.uint64)
        down = np.full(len(code), pow(self.B, -1, 2**64), dtype=np.uint64)
        up[:1] = down[:1] = 1
        self.down = np.multiply.accumulate(down)
        powers = np.multiply.accumulate(up)
        self.sums = np.append(np.uint64(0), np.cumsum(code * powers))

    def of(self, n: int) -> np.ndarray:
        count = len(self.sums) - n
        return (self.sums[n:] - self.sums[:count]) * self.down[:count]


def _shared(a: _Hashes, b: _Hashes, n: int) -> np.ndarray:
    """For each stretch of length n of a, is there an equal one in b?"""
    mine, theirs = a.of(n), np.sort(b.of(n))
    at = np.searchsorted(theirs, mine)
    return theirs[np.minimum(at, len(theirs) - 1)] == mine


def board(sample: str, train: str) -> dict[str, float]:
    """All measures of running text at once.

    Args:
        sample: generated text; ten thousand symbols steady the shares.
        train: the text that the model was trained on.

    Returns:
        real_words, word_pairs, speeches, copied (stretches of 20 or more):
        shares between 0 and 1; longest_copy: a number of symbols.

    Raises:
        ValueError: a sample of fewer than two words or 20 symbols.
    """
    return {
        "real_words": real_words(sample, train),
        "word_pairs": word_pairs(sample, train),
        "speeches": speeches(sample),
        "copied": copied(sample, train),
        "longest_copy": len(longest_copy(sample, train)),
    }


def name_novelty(names: list[str], train_names: list[str]) -> float:
    """Share of generated names (0 to 1) that the training list lacks.

    Raises:
        ValueError: no names.

    >>> name_novelty(["emma", "emmo", "ava", "emmo"], ["emma", "ava"])
    0.5
    """
    _at_least(1, names, "name")
    known = set(train_names)
    return sum(name not in known for name in names) / len(names)


def name_board(
    names: list[str], train_names: list[str], held_out: list[str]
) -> dict[str, float]:
    """What a sample of names is made of.

    Returns:
        Shares between 0 and 1: novel (not in the training list), real
        (novel, yet a name of the held-out list: invented and true),
        distinct (different names among all).

    Raises:
        ValueError: no names.

    >>> name_board(["emma", "mia", "emmo", "emmo"], ["emma"], ["mia"])
    {'novel': 0.75, 'real': 0.25, 'distinct': 0.75}
    """
    novel = name_novelty(names, train_names)
    true = set(held_out) - set(train_names)
    return {
        "novel": novel,
        "real": sum(name in true for name in names) / len(names),
        "distinct": len(set(names)) / len(names),
    }


def _at_least(n: int, items: list, what: str) -> list:
    if len(items) < n:
        raise ValueError(
            f"the sample has {len(items)} {what}s, at least {n} are needed: "
            "generate a longer one"
        )
    return items
