"""Byte-pair encoding: text to tokens and back.

Ids 0 to 255 are the bytes of UTF-8, id 256 + i is the pair that was merged
i-th, and special tokens come last.
"""

import functools
import heapq
import json
import math
import re
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor


def pair_counts(ids: list[int]) -> Counter:
    """Count the adjacent pairs of ids.

    Source: Sennrich, Haddow and Birch (2016), arXiv:1508.07909.

    >>> pair_counts([1, 2, 3, 1, 2])
    Counter({(1, 2): 2, (2, 3): 1, (3, 1): 1})
    """
    return Counter(zip(ids, ids[1:], strict=False))


def merge(ids: list[int], pair: tuple[int, int], new_id: int) -> list[int]:
    """Replace each occurrence of `pair` by `new_id`, from left to right.

    Occurrences do not overlap: what was merged is used up.

    >>> merge([1, 1, 1, 2], (1, 1), 9)
    [9, 1, 2]
    """
    merged, i = [], 0
    while i < len(ids):
        if i + 1 < len(ids) and (ids[i], ids[i + 1]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


@functools.cache
def _pattern() -> re.Pattern:
    r"""GPT-2's pattern for the module re, which lacks \p{L} and \p{N}.

    \w is letters, numbers and "_"; \d only decimal digits. Numbers that are
    no decimal digits (like the characters 2/3 or VIII) are listed.
    """
    others = "".join(
        c
        for c in map(chr, range(0x110000))
        if c.isnumeric() and not c.isdecimal() and not c.isalpha()
    )
    space = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    letter, number = rf"[^\W\d_{others}]", rf"[\d{others}]"
    return re.compile(
        rf"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+{letter}*"  # quick for most text
        rf"| ?{letter}+| ?{number}+"
        rf"| ?(?:[^\w{space}]|_)+|[{space}]+(?![^{space}])|[{space}]+"
    )


def split_words(text: str) -> list[str]:
    """Cut text into the pieces that no token may cross, as GPT-2 does.

    A piece is a run of letters, of digits or of other signs, with the space
    before it, or white space. "".join(split_words(text)) == text.

    >>> split_words("Speak, 12 citizens!")
    ['Speak', ',', ' 12', ' citizens', '!']
    """
    return _pattern().findall(text)


class Tokenizer:
    """A byte-pair tokenizer; `len(tokenizer)` is the vocabulary size.

    merges: the pairs in the order of training; pair i becomes id 256 + i.
    special: texts of the special tokens, whose ids follow the merges.
    split: whether text is cut with split_words before the merges.
    vocab[i] holds the bytes of token i. Use it like a `data.Vocab`.
    Raises ValueError for a merge of ids that do not exist yet, and for
    special tokens that are empty or given twice.
    """

    def __init__(
        self,
        merges: list[tuple[int, int]] = (),
        special: list[str] = (),
        split: bool = True,
    ):
        self.merges = [(int(a), int(b)) for a, b in merges]
        self.split = split
        self.vocab = [bytes([i]) for i in range(256)]
        for a, b in self.merges:
            if not (0 <= a < len(self.vocab) and 0 <= b < len(self.vocab)):
                raise ValueError(
                    f"merge {len(self.vocab) - 256} is ({a}, {b}), but only "
                    f"ids 0 to {len(self.vocab) - 1} exist by then"
                )
            self.vocab.append(self.vocab[a] + self.vocab[b])
        self.new_id = {pair: 256 + i for i, pair in enumerate(self.merges)}
        if len(self.new_id) != len(self.merges):
            raise ValueError("a pair is merged twice: drop the second one")
        if "" in special or len(set(special)) != len(special):
            raise ValueError(
                f"special tokens must be different and not empty: {special}"
            )
        first = len(self.vocab)
        self.special = {text: first + i for i, text in enumerate(special)}
        self.vocab += [text.encode() for text in special]

    def __len__(self) -> int:
        return len(self.vocab)

    def __repr__(self) -> str:
        return (
            f"Tokenizer({len(self.merges)} merges, "
            f"special={list(self.special)}, split={self.split})"
        )

    def encode(self, text: str, allowed_special: str | set = ()) -> Tensor:
        """Return the ids (N,) of `text`.

        allowed_special: the special tokens that may be made from text, or
        "all". By default none: ``"<|endoftext|>"`` in a text is thirteen
        ordinary characters, so nobody can forge a special token.
        Raises ValueError for an unknown special token, or a character that
        UTF-8 cannot write (half of a surrogate pair).
        """
        if allowed_special == "all":
            allowed_special = self.special
        for name in allowed_special:
            if name not in self.special:
                raise ValueError(
                    f"no special token {name!r}: this tokenizer has "
                    f"{list(self.special)}"
                )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"character {text[error.start]!r} at position {error.start} "
                "is half of a surrogate pair, which UTF-8 cannot write: "
                "leave it out"
            ) from None
        if not allowed_special:
            return torch.tensor(self._encode(text), dtype=torch.int64)
        longest_first = sorted(allowed_special, key=len, reverse=True)
        stop = "|".join(re.escape(name) for name in longest_first)
        ids = []
        for part in re.split(f"({stop})", text):
            if part in allowed_special:
                ids.append(self.special[part])
            else:
                ids += self._encode(part)
        return torch.tensor(ids, dtype=torch.int64)

    def _encode(self, text: str) -> list[int]:
        words = split_words(text) if self.split else [text]
        ids, known = [], {}
        for word in words:
            if word not in known:
                known[word] = self._encode_word(word)
            ids += known[word]
        return ids

    def _encode_word(self, word: str) -> list[int]:
        """Replay the merges, in the order of training, on one word."""
        ids, new_id = list(word.encode()), self.new_id
        while len(ids) > 1:
            pairs = zip(ids, ids[1:], strict=False)
            first = min([new_id.get(pair, math.inf) for pair in pairs])
            if first == math.inf:
                break
            ids = merge(ids, self.merges[first - 256], first)
        return ids

    def decode_bytes(self, ids: Tensor | list[int]) -> bytes:
        """Return the bytes of ids (N,); ValueError for an id out of range."""
        ids = torch.as_tensor(ids).reshape(-1).tolist()
        for i in ids:
            if not (isinstance(i, int) and 0 <= i < len(self)):
                raise ValueError(
                    f"id {i} is out of range: the vocabulary size is "
                    f"{len(self)}, so ids go from 0 to {len(self) - 1}"
                )
        return b"".join([self.vocab[i] for i in ids])

    def decode(self, ids: Tensor | list[int]) -> str:
        """Return the text of ids (N,), with U+FFFD for broken UTF-8."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def pieces(self, text: str, allowed_special: str | set = ()) -> list[str]:
        r"""Return the text of each token; a part of a character as \x.."""
        ids = self.encode(text, allowed_special).tolist()
        return [
            self.vocab[i].decode("utf-8", errors="backslashreplace")
            for i in ids
        ]

    def save(self, path: str | Path) -> None:
        """Write the tokenizer as JSON."""
        state = {
            "format": "zerohero byte-pair tokenizer 1",
            "split": self.split,
            "special": list(self.special),
            "merges": self.merges,
        }
        Path(path).write_text(json.dumps(state) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a tokenizer that `save` wrote; ValueError for other files."""
        try:
            state = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(state["merges"], state["special"], state["split"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is no tokenizer that Tokenizer.save wrote ({error})"
            ) from error


def train(
    text: str, vocab_size: int, special: list[str] = (), split: bool = True
) -> Tokenizer:
    """Learn a tokenizer: merge the most frequent pair, again and again.

    vocab_size = 256 bytes + merges + special tokens. Of pairs that are
    equally frequent the smallest (left id, then right id) is merged.
    Each different word is kept once, with its count, and a merge visits
    only the places of its pair, so the work is that of the changes.
    Raises ValueError if vocab_size is below 256 + special tokens, or more
    than the pairs of this text can fill.

    >>> tokenizer = train("aaabdaaabac", 259)
    >>> tokenizer.merges
    [(97, 97), (97, 98), (256, 257)]
    >>> tokenizer.encode("aaabdaaabac").tolist()
    [258, 100, 258, 97, 99]
    """
    n_merges = vocab_size - 256 - len(special)
    if n_merges < 0:
        raise ValueError(
            f"vocab_size {vocab_size} is too small: 256 bytes and "
            f"{len(special)} special tokens need at least "
            f"{256 + len(special)}"
        )
    words = Counter(split_words(text) if split else [text])
    ids, weight, left, right = [], [], [], []  # one entry for each place
    for word, count in words.items():
        new = list(word.encode())
        start, end = len(ids), len(ids) + len(new)
        ids += new
        weight += [count] * len(new)
        left += [-1, *range(start, end - 1)]
        right += [*range(start + 1, end), -1]
    counts, places = Counter(), {}
    for i, j in enumerate(right):
        if j >= 0:
            pair = ids[i], ids[j]
            counts[pair] += weight[i]
            places.setdefault(pair, []).append(i)
    queue = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(queue)
    merges = []
    while len(merges) < n_merges:
        if not queue:
            raise ValueError(
                f"vocab_size {vocab_size} is too large: after {len(merges)} "
                "merges this text has no pair left; take at most "
                f"{256 + len(special) + len(merges)}, or more text"
            )
        count, pair = heapq.heappop(queue)
        if -count != counts[pair]:  # it became rarer since it was queued
            if counts[pair]:
                heapq.heappush(queue, (-counts[pair], pair))
            continue
        new_id = 256 + len(merges)
        merges.append(pair)
        fresh = set()
        for i in places.pop(pair):
            j = right[i]
            if j < 0 or (ids[i], ids[j]) != pair:
                continue  # another merge used this place up
            before, after = left[i], right[j]
            ids[i], ids[j], right[i] = new_id, -1, after
            for place, old in ((before, pair[0]), (after, pair[1])):
                if place < 0:
                    continue
                if place == before:
                    was, now = (ids[place], old), (ids[place], new_id)
                else:
                    was, now = (old, ids[place]), (new_id, ids[place])
                    left[place] = i
                counts[was] -= weight[i]
                counts[now] += weight[i]
                where = place if place == before else i
                places.setdefault(now, []).append(where)
                fresh.add(now)
        counts[pair] = 0
        for pair in fresh:
            if counts[pair]:  # some vanish within the same merge
                heapq.heappush(queue, (-counts[pair], pair))
    return Tokenizer(merges, special, split)


def bits_per_character(loss: float, n_tokens: int, n_chars: int) -> float:
    """Turn nats per token into bits per character.

    loss * n_tokens / n_chars / ln 2: the only fair way to compare models
    that cut the same text differently.

    >>> bits_per_character(math.log(2), 10, 10)
    1.0
    """
    return loss * n_tokens / n_chars / math.log(2)
