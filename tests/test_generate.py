"""zerohero.generate: laws of the filters, of sampling and of the loop."""

import math
from types import SimpleNamespace

import pytest
import torch
from helpers import generator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from zerohero import generate as gen

rows = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=12).map(
    lambda r: torch.tensor([r]))


# ---------------------------------------------------------------- filters
@settings(deadline=None)
@given(rows, st.integers(1, 15))
def test_top_k_keeps_k_and_they_are_the_largest(logits, k):
    out = gen.top_k_filter(logits, k)
    kept = out > -math.inf
    assert kept.sum() == min(k, logits.shape[-1])
    assert_close(out[kept], logits[kept])
    if not kept.all():
        assert logits[kept].min() >= logits[~kept].max()


@settings(deadline=None)
@given(rows, st.floats(0.01, 1))
def test_top_p_keeps_the_fewest_that_reach_p(logits, p):
    out = gen.top_p_filter(logits, p)
    kept = out > -math.inf
    assert_close(out[kept], logits[kept])
    probs = logits.softmax(-1)
    held = probs[kept].sum().item()
    assert held >= p - 1e-5
    assert held - probs[kept].min().item() < p + 1e-5  # one less is too few
    if not kept.all():
        assert logits[kept].min() >= logits[~kept].max()


def test_filters_by_hand():
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    off = -math.inf
    assert_close(gen.top_k_filter(logits, 2).exp(),
                 torch.tensor([0, 0.4, 0, 0.3]))
    assert_close(gen.top_p_filter(logits, 0.5).exp(),
                 torch.tensor([0, 0.4, 0, 0.3]))
    assert_close(gen.top_p_filter(logits, 0.39).exp(),
                 torch.tensor([0, 0.4, 0, 0]))
    assert_close(gen.top_p_filter(logits, 0.75).exp(),
                 torch.tensor([0, 0.4, 0.2, 0.3]))
    assert_close(gen.top_p_filter(logits, 1.0), logits)
    assert (gen.top_k_filter(logits, 1) == off).sum() == 3


def test_filters_work_row_by_row():
    logits = torch.randn(3, 5, 7, generator=generator())
    for f, a in ((gen.top_k_filter, 3), (gen.top_p_filter, 0.6)):
        out = f(logits, a)
        for i in range(3):
            for j in range(5):
                assert_close(out[i, j], f(logits[i, j], a))


@pytest.mark.parametrize("wrong", [
    {"temperature": -1}, {"temperature": math.nan},
    {"temperature": math.inf}, {"top_k": 0}, {"top_p": 0},
    {"top_p": 1.1}])
def test_bad_settings(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        gen.next_probs(torch.zeros(3), **wrong)


# ------------------------------------------------------------ next_probs
@settings(deadline=None)
@given(rows, st.floats(0, 5), st.none() | st.integers(1, 15),
       st.none() | st.floats(0.01, 1))
def test_probabilities_sum_to_one(logits, t, k, p):
    probs = gen.next_probs(logits, t, k, p)
    assert_close(probs.sum(-1), torch.ones(1))
    assert probs[0, logits.argmax()] > 0 or k is not None


def test_top_k_1_and_temperature_0_are_argmax():
    logits = torch.randn(20, 9, generator=generator())
    wanted = torch.nn.functional.one_hot(logits.argmax(-1), 9).float()
    assert_close(gen.next_probs(logits, top_k=1), wanted)
    assert_close(gen.next_probs(logits, temperature=0), wanted)
    assert_close(gen.next_probs(logits, temperature=1e-30), wanted)
    assert_close(gen.next_probs(logits, top_p=1e-6), wanted)


def test_temperature():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    tops = [gen.next_probs(logits, t)[0].item() for t in (0.5, 1, 2)]
    assert_close(tops, [0.8650, 0.6439, 0.4551], atol=1e-3, rtol=0)
    assert_close(gen.next_probs(logits, 1.0), logits.softmax(-1))
    assert_close(gen.next_probs(logits), logits.softmax(-1))
    assert_close(gen.next_probs(logits, 1e9), torch.full((4,), 0.25))


# --------------------------------------------------------------- generate
class Counter(torch.nn.Module):
    """Always followed by its successor, among V symbols; notes its input."""

    def __init__(self, size=10, window=False, sure=50.0):
        super().__init__()
        self.weight = torch.nn.Parameter(
            sure * torch.eye(size).roll(1, dims=1))
        self.dropout = torch.nn.Dropout(0.9)
        self.window, self.seen = window, []

    def forward(self, idx):
        assert not torch.is_grad_enabled()
        self.seen.append(idx.clone())
        logits = self.dropout(self.weight[idx])
        return logits[:, -1] if self.window else logits


@pytest.mark.parametrize("window", [False, True])
def test_generate_appends_and_crops(window):
    model = Counter(window=window)
    out = gen.generate(model, torch.tensor([[3], [7]]), 6, 4)
    assert out.tolist() == [[3, 4, 5, 6, 7, 8, 9], [7, 8, 9, 0, 1, 2, 3]]
    assert [s.shape[1] for s in model.seen] == [1, 2, 3, 4, 4, 4]
    assert model.seen[-1][0].tolist() == [5, 6, 7, 8]
    assert gen.generate(model, out, 0, 4).tolist() == out.tolist()
    assert gen.generate(model, out, 1, 1).tolist()[0][-2:] == [9, 0]
    assert torch.is_grad_enabled()


def test_hop_forgets_in_leaps():
    model = Counter()
    gen.generate(model, torch.tensor([[0]]), 8, 4, hop=2)
    assert [s.shape[1] for s in model.seen] == [1, 2, 3, 4, 3, 4, 3, 4]
    assert [s[0, -1].item() for s in model.seen] == list(range(8))


class Summer(Counter):
    """Answers with the sum of all symbols so far, kept in a cache."""

    def new_cache(self):
        return {"sum": 0}

    def forward(self, idx, cache=None):
        total = idx.cumsum(1)
        if cache is not None:
            total = total + cache["sum"]
            cache["sum"] = total[:, -1:]
        return super().forward(total % 10)


@pytest.mark.parametrize("hop", [1, 3])
def test_a_cache_changes_the_work_and_not_the_symbols(hop):
    runs = {}
    for cache in (False, True):
        model = Summer(sure=3.0)
        runs[cache] = gen.generate(
            model, torch.tensor([[1, 2], [4, 0]]), 12, 5, cache=cache,
            hop=hop, generator=generator(3))
        read = [s.shape[1] for s in model.seen]
        text = gen.sample_text(
            model.eval(), PROSE, 12, "bc", block_size=5, cache=cache,
            hop=hop, top_k=2, generator=generator(3))
        runs[cache] = runs[cache], text
    assert torch.equal(runs[False][0], runs[True][0])
    assert runs[False][1] == runs[True][1]
    assert read == ([2, 1, 1, 1, 5, 5, 5, 5, 5, 5, 5, 5] if hop == 1 else
                    [2, 1, 1, 1, 3, 1, 1, 3, 1, 1, 3, 1])


def test_every_setting_reaches_the_loop(monkeypatch):
    got = []

    def spy(model, idx, n, block_size, **settings):
        got.append(settings)
        return torch.cat((idx, torch.zeros(len(idx), n).long()), dim=1)

    monkeypatch.setattr(gen, "generate", spy)
    one = {"temperature": 0.5, "top_k": 3, "top_p": 0.7,
           "generator": generator()}
    more = {"cache": True, "hop": 2}
    gen.sample_names(Counter(), NAMES, 2, 4, **one)
    gen.sample_text(Counter(), PROSE, 2, "a", block_size=4, **one, **more)
    assert got == [one, one | more]
    got.clear()
    gen.sample_names(Counter(), NAMES, 2, 4)
    gen.sample_text(Counter(), PROSE, 2, "a", block_size=4)
    one = {"temperature": 1.0, "top_k": None, "top_p": None,
           "generator": None}
    assert got == [one, one | {"cache": False, "hop": 1}]


def test_generate_is_quiet():
    model = Counter()
    model.train()
    out = gen.generate(model, torch.tensor([[0]]), 5, 4)  # no dropout
    assert out.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert model.training and not out.requires_grad
    model.eval()
    gen.generate(model, torch.tensor([[0]]), 1, 4)
    assert not model.training


def test_same_seed_same_symbols_and_the_right_shares():
    model = Counter(size=3, sure=1.0)
    idx = torch.zeros(4000, 1, dtype=torch.long)
    a = gen.generate(model, idx, 2, 4, generator=generator(1))
    b = gen.generate(model, idx, 2, 4, generator=generator(1))
    assert torch.equal(a, b)
    shares = torch.bincount(a[:, 1], minlength=3) / 4000
    assert_close(shares, model.weight[0].softmax(0).detach(), atol=0.03,
                 rtol=0)
    greedy = gen.generate(model, idx[:1], 4, 4, top_k=1)
    assert greedy.tolist() == [[0, 1, 2, 0, 1]]


def test_the_mode_comes_back_after_an_error():
    model = Counter().train()
    with pytest.raises(IndexError):
        gen.generate(model, torch.tensor([[10]]), 1, 4)
    assert model.training and torch.is_grad_enabled()


def test_a_model_need_not_be_a_module():
    table = 50.0 * torch.eye(5).roll(1, dims=1)
    out = gen.generate(lambda idx: table[idx], torch.tensor([[3]]), 3, 2)
    assert out.tolist() == [[3, 4, 0, 1]]


@pytest.mark.parametrize("idx, n, block, extra", [
    ((1, 0), 1, 4, {}), ((3,), 1, 4, {}), ((1, 1), -1, 4, {}),
    ((1, 1), 1, 0, {}), ((1, 1), 1, 4, {"hop": 5}),
    ((1, 1), 1, 4, {"hop": 0}), ((1, 1), 1, 4, {"cache": True})])
def test_generate_refuses(idx, n, block, extra):
    with pytest.raises(ValueError):
        gen.generate(Counter(), torch.zeros(idx).long(), n, block, **extra)


# --------------------------------------------------------- names and text
class Vocab:
    symbols = list(".abcdefghi")

    def encode(self, text):
        return torch.tensor([self.symbols.index(c) for c in text])

    def decode(self, ids):
        return "".join(self.symbols[i] for i in ids)


NAMES = SimpleNamespace(name="n", vocab=Vocab(), boundary=0)
PROSE = SimpleNamespace(name="p", vocab=Vocab(), boundary=None)


@pytest.mark.parametrize("window", [False, True])
def test_sample_names_stops_at_the_boundary(window):
    model = Counter(window=window)
    names = gen.sample_names(model, NAMES, 3, 4, generator())
    assert names == ["abcdefghi"] * 3
    first = model.seen[1][0].tolist()
    assert first == ([0, 0, 0, 0] if window else [0])
    assert gen.sample_names(model, NAMES, 2, 4, max_length=5) == ["abcde"] * 2
    assert gen.sample_names(model, NAMES, 1, 4) == ["abcdefghi"]


def test_sample_names_end_one_by_one():
    model = Counter(sure=0.0)  # any symbol next, each with probability 1/10
    names = gen.sample_names(model, NAMES, 3000, 4, generator(2))
    assert len(names) == 3000 and not any("." in n for n in names)
    assert "" in names
    mean = sum(map(len, names)) / len(names)
    assert 8 < mean < 10  # 9 if they could be of any length, less by 50
    with pytest.raises(ValueError, match="sample_text"):
        gen.sample_names(model, PROSE, 3, 4)
    with pytest.raises(ValueError, match="n=0"):
        gen.sample_names(model, NAMES, 0, 4)


def test_a_name_without_end_is_cut():
    model = Counter(size=9)
    with torch.no_grad():
        model.weight[8] = torch.zeros(9).index_fill(0, torch.tensor(1), 50.0)
    names = gen.sample_names(model, NAMES, 2, 4)  # ...fgh, then a again
    assert names == [("abcdefgh" * 7)[:50]] * 2


def test_a_text_begins_with_a_new_line():
    class Lines(Vocab):
        symbols = ["a", "\n"]
    prose = SimpleNamespace(name="p", vocab=Lines(), boundary=None)
    text = gen.sample_text(Counter(size=2), prose, 3, block_size=4)
    assert text == "\na\na"


@pytest.mark.parametrize("window", [False, True])
def test_sample_text(window):
    model = Counter(window=window)
    text = gen.sample_text(model, PROSE, 5, "cd", block_size=4)
    assert text == "cdefghi"
    last = model.seen[-1].shape
    assert last == (1, 4)
    if window:
        assert model.seen[1].tolist() == [[3, 3, 3, 4]]
    text = gen.sample_text(model, PROSE, 2, "abcdef", block_size=4)
    assert text == "abcdefgh"
    with pytest.raises(ValueError, match="prompt"):
        gen.sample_text(model, PROSE, 5, "", block_size=4)
