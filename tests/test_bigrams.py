"""Count models: values by hand, laws, and a slow twin in plain Python."""

import math
from collections import Counter, defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zerohero.bigrams import KneserNey, NGram

close = torch.testing.assert_close


def ids_of(text: str, symbols: str) -> torch.Tensor:
    return torch.tensor([symbols.index(c) for c in text])


NAMES = ids_of(".ab.abb.b.", ".ab")  # three names, boundary 0
TEXT = ids_of("abracadabra abracadabra bar cab a", " abcdr")
V_TEXT = 6


# ---- the slow twin: dictionaries, strings of ids, nothing clever ----------


def history(ids, t, boundary):
    """The symbols before position t that may be looked at."""
    past = list(ids[:t])
    if boundary is not None and boundary in past:
        past = past[len(past) - 1 - past[::-1].index(boundary) :]
    return past


def slow_kneser_ney(ids, order, vocab_size, boundary):
    """The function (history, symbol) -> probability, by the book."""
    raw, before = Counter(), defaultdict(set)
    for t in range(0 if boundary is None else 1, len(ids)):
        past = history(ids, t, boundary)
        for k in range(1, order + 1):
            if k - 1 <= len(past):
                gram = tuple(past[len(past) - k + 1 :]) + (ids[t],)
                raw[gram] += 1
                if k > 1:
                    before[gram[1:]].add(gram[0])
    longest = max(len(gram) for gram in raw)
    adjusted = {
        gram: n
        if len(gram) == longest or not before[gram]
        else len(before[gram])
        for gram, n in raw.items()
    }
    discount = {}
    for k in range(1, longest + 1):
        n = Counter(a for gram, a in adjusted.items() if len(gram) == k)
        discount[k] = [0, 0.5, 1, 1.5]
        if all(n[j] for j in (1, 2, 3, 4)):
            y = n[1] / (n[1] + 2 * n[2])
            d = [j - (j + 1) * y * n[j + 1] / n[j] for j in (1, 2, 3)]
            if min(d) > 0:
                discount[k] = [0, *d]

    def prob(past, symbol):
        p = 1 / vocab_size
        for k in range(1, min(longest, len(past) + 1) + 1):
            context = tuple(past[len(past) - k + 1 :])
            row = {
                gram[-1]: a
                for gram, a in adjusted.items()
                if len(gram) == k and gram[:-1] == context
            }
            if not row:
                continue
            total = sum(row.values())
            cut = {s: discount[k][min(a, 3)] for s, a in row.items()}
            own = row.get(symbol, 0) - cut.get(symbol, 0)
            p = own / total + sum(cut.values()) / total * p
        return p

    return prob


def slow_losses(prob, ids, boundary):
    return torch.tensor(
        [
            -math.log(prob(history(ids, t, boundary), ids[t]))
            for t in range(1, len(ids))
        ]
    )


# ---- NGram -----------------------------------------------------------------


def test_bigram_by_hand():
    # pairs: .a .a .b  ab ab  bb  b. b. b.
    model = NGram(2, 3, alpha=0).fit(NAMES, boundary=0)
    close(model.probs([0]), torch.tensor([0, 2 / 3, 1 / 3]))
    close(model.probs([1]), torch.tensor([0.0, 0, 1]))
    close(model.probs([2]), torch.tensor([3 / 4, 0, 1 / 4]))
    plus = NGram(2, 3, alpha=0.5).fit(NAMES, boundary=0)
    close(plus.probs([0]), torch.tensor([0.5, 2.5, 1.5]) / 4.5)
    p = [2 / 3, 1, 3 / 4, 2 / 3, 1, 1 / 4, 3 / 4, 1 / 3, 3 / 4]
    close(model.losses(NAMES), -torch.tensor(p).log())
    close(model.nll(NAMES), -sum(map(math.log, p)) / 9)
    assert model.n_params == 5


def test_default_is_plus_one():
    model = NGram(2, 3).fit(NAMES, boundary=0)
    close(model.probs([2]), torch.tensor([4.0, 1, 2]) / 7)


def test_trigram_contexts_are_filled_with_the_boundary():
    model = NGram(3, 3, alpha=0).fit(NAMES, boundary=0)
    start = torch.tensor([0, 2 / 3, 1 / 3])
    close(model.probs([0, 0]), start)
    close(model.probs([]), start)
    close(model.probs([0]), start)
    close(model.probs([0, 2]), torch.tensor([1.0, 0, 0]))
    close(model.probs([2]), torch.tensor([1.0, 0, 0]))  # the name "b"
    close(model.probs([1, 2]), torch.tensor([0.5, 0, 0.5]))


@pytest.mark.parametrize("make", [NGram, KneserNey])
@pytest.mark.parametrize("order", [3, 4, 6])
def test_nothing_is_seen_behind_a_boundary(make, order):
    model = make(order, 3).fit(NAMES, boundary=0)
    close(model.probs([1, 2, 2, 0, 1]), model.probs([0, 1]))
    close(model.probs([2]), model.probs([0, 2]))  # the name "b"
    other = ids_of(".bb.ab.abb.b.", ".ab")  # one more name in front
    close(model.losses(other)[3:], model.losses(NAMES))
    close(model.log_probs(other)[3:], model.log_probs(NAMES))


def test_running_text_has_no_resets():
    model = NGram(3, 3, alpha=0).fit(NAMES)
    close(model.probs([2, 0]), torch.tensor([0.0, 0.5, 0.5]))
    assert len(model.losses(NAMES)) == len(NAMES) - 2
    assert len(KneserNey(3, 3).fit(NAMES).losses(NAMES)) == len(NAMES) - 1


@pytest.mark.parametrize("order", [1, 3])
def test_kneser_ney_guesses_every_symbol_but_the_first(order):
    for ids, V, boundary in [(NAMES, 3, 0), (TEXT, V_TEXT, None)]:
        model = KneserNey(order, V).fit(ids, boundary)
        rows, lost = model.log_probs(ids), model.losses(ids)
        assert rows.shape == (len(ids) - 1, V)
        close(lost, -rows.gather(1, ids[1:, None])[:, 0])
        for i in range(len(ids) - 1):
            close(rows[i].exp(), model.probs(ids[: i + 1]))


@pytest.mark.parametrize("make", [NGram, KneserNey])
def test_running_text_begins_with_a_context_of_the_text(make):
    model = make(3, V_TEXT).fit(TEXT)
    pairs = list(zip(TEXT[:-2].tolist(), TEXT[1:-1].tolist(), strict=True))
    seen = [tuple(model._any_context((i + 0.5) / 200)) for i in range(200)]
    for pair in set(pairs):
        share = seen.count(pair) / 200
        assert abs(share - pairs.count(pair) / len(pairs)) < 0.01
    assert set(seen) == set(pairs)


def test_order_one_is_the_unigram():
    share = torch.bincount(TEXT, minlength=V_TEXT) / len(TEXT)
    model = NGram(1, V_TEXT, alpha=0).fit(TEXT)
    close(model.probs([]), share)
    close(model.probs([3, 1]), share)
    close(model.losses(TEXT), -share.log()[TEXT])
    named = NGram(1, 3, alpha=0).fit(NAMES, boundary=0)
    close(named.probs([]), torch.tensor([3.0, 2, 4]) / 9)


def test_large_alpha_is_uniform():
    model = NGram(3, V_TEXT, alpha=1e9).fit(TEXT)
    close(model.nll(TEXT), math.log(V_TEXT))


@pytest.mark.parametrize("alpha", [0, 0.1])
def test_unseen_context_is_uniform(alpha):
    model = NGram(3, V_TEXT, alpha=alpha).fit(TEXT)
    close(model.probs([4, 4]), torch.full((V_TEXT,), 1 / V_TEXT))
    lost = model.losses(ids_of("dda", " abcdr"))
    close(lost, torch.tensor([math.log(V_TEXT)]))


def test_ruled_out_is_infinitely_surprising():
    never = ids_of("bd", " abcdr")
    assert NGram(2, V_TEXT, alpha=0).fit(TEXT).nll(never) == math.inf
    assert NGram(2, V_TEXT, alpha=0.01).fit(TEXT).nll(never) < math.inf
    assert KneserNey(2, V_TEXT).fit(TEXT).nll(never) < math.inf


def test_stats():
    stats = NGram(2, 3).fit(NAMES, boundary=0).stats()
    assert stats == [
        {
            "order": 2,
            "contexts": 3,
            "possible": 3,
            "ngrams": 5,
            "once": 2 / 5,
            "certain": 1 / 3,
        }
    ]
    assert KneserNey(2, 3).fit(NAMES, boundary=0).n_params == 3 + 5
    assert [s["order"] for s in KneserNey(4, 3).fit(NAMES).stats()] == [
        1, 2, 3, 4
    ]  # fmt: skip


# ---- laws of both ----------------------------------------------------------


def all_models(ids, vocab_size, boundary):
    for order in (1, 2, 3, 5, 7):
        yield NGram(order, vocab_size, 0.3).fit(ids, boundary)
        yield KneserNey(order, vocab_size).fit(ids, boundary)


@pytest.mark.parametrize("boundary", [None, 1])
def test_rows_sum_to_one_and_the_three_views_agree(boundary):
    ids = TEXT
    held_out = ids_of("abba dabba cracra ddr", " abcdr")
    for model in all_models(ids, V_TEXT, boundary):
        lost = model.losses(held_out)
        table = model.log_probs(held_out)
        n = len(lost)
        assert table.shape == (n, V_TEXT) and table.dtype == torch.float32
        close(table.exp().sum(1), torch.ones(n))
        target = held_out[-n:, None]
        close(-table.gather(1, target)[:, 0], lost)
        close(model.nll(held_out), lost.mean().item())
        for i in range(n):
            past = held_out[: len(held_out) - n + i].tolist()
            close(model.probs(past), table[i].exp())


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=8, max_size=60),
    st.integers(1, 8),
    st.booleans(),
)
def test_any_ids(body, order, named):
    ids = torch.tensor([0, *body])
    boundary = 0 if named else None
    for model in (NGram(order, 4, 0.1), KneserNey(order, 4)):
        model.fit(ids, boundary)
        table = model.log_probs(ids)
        close(table.exp().sum(1), torch.ones(len(table)))
        assert model.losses(ids).min() >= 0
        assert model.losses(ids).isfinite().all()


def test_codes_near_63_bits():
    ids = torch.randint(
        0, 65, (500,), generator=torch.Generator().manual_seed(1)
    )
    ids[:20] = 64  # the largest codes there are
    model = KneserNey(10, 65).fit(ids)
    p = model.probs([64] * 9)
    close(p.sum(), torch.tensor(1.0))
    assert p.argmax() == 64
    close(p, model.log_probs(ids)[8].exp())


def test_wheels_fold_into_probs():
    model = KneserNey(4, V_TEXT).fit(TEXT)
    for past in ("abr", "dab", "rrr", "bda", "ca", ""):
        context = ids_of(past, " abcdr")
        p = torch.full((V_TEXT,), 1 / V_TEXT)
        orders = []
        for wheel in model.wheels(context):
            p = wheel["share"] + wheel["gamma"] * p
            close(wheel["share"].sum(), torch.tensor(1 - wheel["gamma"]))
            orders.append(wheel["order"])
        close(model.probs(context), p)
        assert orders == list(range(1, len(orders) + 1))
    assert orders == [1]
    assert len(model.wheels(ids_of("abr", " abcdr"))) == 4
    assert [w["order"] for w in model.wheels(ids_of("add", " abcdr"))] == [
        1, 2
    ]  # fmt: skip
    (wheel,) = NGram(2, 3, alpha=1).fit(NAMES, boundary=0).wheels([2])
    close(wheel["gamma"], 3 / 7)


# ---- Kneser-Ney ------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("boundary", [None, 0, 1])
def test_kneser_ney_equals_its_slow_twin(order, boundary):
    ids = TEXT if boundary != 0 else torch.cat([NAMES[:1], TEXT])
    model = KneserNey(order, V_TEXT).fit(ids, boundary)
    prob = slow_kneser_ney(ids.tolist(), order, V_TEXT, boundary)
    held_out = ids_of("abba dab cracra ddr", " abcdr")
    if boundary is not None:
        held_out[0] = boundary
    for some in (ids, held_out):
        expected = slow_losses(prob, some.tolist(), boundary)
        close(model.losses(some), expected)


def test_kneser_ney_discounts_by_hand():
    text = "acdcbdbcbcacacababababaaaaaaa"
    pairs = Counter(a + b for a, b in zip(text, text[1:], strict=False))
    # pairs seen once, twice, three times, four times, and one of six
    assert Counter(pairs.values()) == {1: 4, 2: 2, 3: 2, 4: 2, 6: 1}
    model = KneserNey(2, 5).fit(ids_of(text, "abcde"))
    y = 4 / (4 + 2 * 2)
    d = [1 - 2 * y * 2 / 4, 2 - 3 * y * 2 / 2, 3 - 4 * y * 2 / 2]
    assert d == [0.5, 0.5, 1.0]
    close(model.discounts[1], torch.tensor(d, dtype=torch.float64))
    # before a: a b c, before b: a c d, before c: a b d, before d: b c;
    # too few sorts of counts for an estimate: 0.5, 1, 1.5
    usual = torch.tensor([0.5, 1, 1.5], dtype=torch.float64)
    close(model.discounts[0], usual)
    low = torch.tensor([1.5, 1.5, 1.5, 1, 0]) / 11 + 5.5 / 11 / 5
    close(model.probs([]), low)
    # after a: a 6 times, b 4, c 3; after d: b, c once; after e: nothing
    after_a = torch.tensor([5.0, 3, 2, 0, 0]) / 13
    close(model.probs([0]), after_a + 3 / 13 * low)
    after_d = torch.tensor([0, 0.25, 0.25, 0, 0])
    close(model.probs([3]), after_d + 0.5 * low)
    close(model.probs([4]), low)


def test_francisco_only_follows_san():
    # "f" is frequent but only ever after "n"; "x" is rarer, after many
    text = "nfnfnfnfnfnfaxbxcxdxexaxbx"
    symbols = "abcdefnx"
    ids = ids_of(text, symbols)
    f, x, e = (symbols.index(c) for c in "fxe")
    often = NGram(1, 8).fit(ids).probs([])
    kn = KneserNey(2, 8).fit(ids)
    assert often[f] > often[e] and abs(often[f] - often[x]) < 0.05
    assert kn.probs([])[x] > 2 * kn.probs([])[f]
    assert kn.probs([x])[x] > kn.probs([x])[f]


# ---- sampling --------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        NGram(2, 3, alpha=0).fit(NAMES, boundary=0),
        NGram(3, V_TEXT, alpha=0.2).fit(TEXT),
        KneserNey(3, V_TEXT).fit(TEXT),
    ],
    ids=["bigram", "smoothed trigram", "kneser-ney"],
)
def test_sampled_symbols_follow_probs(model):
    ids = model.sample(20_000, torch.Generator().manual_seed(3))
    assert ids.dtype == torch.int64 and ids.shape == (20_000,)
    width = model.order - 1
    seen = defaultdict(lambda: torch.zeros(model.vocab_size))
    for t in range(width, len(ids)):
        seen[tuple(ids[t - width : t].tolist())][ids[t]] += 1
    checked = 0
    for context, counts in seen.items():
        n = counts.sum()
        if n >= 1000:
            checked += 1
            p = model.probs(context)
            error = (counts / n - p).abs()
            assert (error <= 4 * (p * (1 - p) / n).sqrt() + 1e-6).all()
    assert checked >= 3


def test_sampling_is_seeded_and_can_be_prompted():
    model = NGram(2, 3, alpha=0).fit(NAMES, boundary=0)
    one = model.sample(50, torch.Generator().manual_seed(1))
    close(one, model.sample(50, torch.Generator().manual_seed(1)))
    assert not one.equal(model.sample(50, torch.Generator().manual_seed(2)))
    # after "a" always comes "b"
    firsts = {int(model.sample(1, prompt=[1])[0]) for _ in range(20)}
    assert firsts == {2}
    assert 0 not in [int(model.sample(1)[0]) for _ in range(20)]


def test_unsmoothed_samples_hold_only_seen_ngrams():
    model = NGram(4, V_TEXT, alpha=0).fit(torch.cat([TEXT, TEXT[:5]]))
    ids = model.sample(300, torch.Generator().manual_seed(5)).tolist()
    text = "".join(" abcdr"[i] for i in ids)
    source = "".join(" abcdr"[i] for i in [*TEXT, *TEXT[:5]])
    for t in range(len(text) - 3):
        assert text[t : t + 4] in source


def test_first_context_of_a_sample_comes_from_the_text():
    ids = ids_of("abcabcabcabc", "abc")
    model = NGram(3, 3, alpha=0).fit(ids)
    out = model.sample(30, torch.Generator().manual_seed(0)).tolist()
    text = "".join("abc"[i] for i in out)
    assert text in "abc" * 12


# ---- errors ----------------------------------------------------------------


@pytest.mark.parametrize("make", [NGram, KneserNey])
def test_errors_name_the_way_out(make):
    with pytest.raises(ValueError, match="at least 1"):
        make(0, 27)
    with pytest.raises(ValueError, match="lower the order"):
        make(11, 65)
    make(10, 65)
    with pytest.raises(ValueError, match="more than 63 bits"):
        make(63, 2)
    make(62, 2)
    with pytest.raises(ValueError, match="at least 1"):
        make(1, 0)
    model = make(2, 3)
    calls = [model.probs, model.losses, model.nll, model.log_probs]
    for call in [*calls, model.wheels]:
        with pytest.raises(ValueError, match="call fit first"):
            call([0, 1])
    with pytest.raises(ValueError, match="call fit first"):
        model.sample(3)
    with pytest.raises(ValueError, match="call fit first"):
        model.stats()
    with pytest.raises(ValueError, match=r"0\.\.2, got 0\.\.3"):
        model.fit([0, 1, 3])
    with pytest.raises(ValueError, match="encode with the vocabulary"):
        model.fit([0, 1, -1])
    with pytest.raises(ValueError, match="begin with the boundary 0, got 1"):
        model.fit([1, 0, 1], boundary=0)
    with pytest.raises(ValueError, match=r"shape \(2, 2\)"):
        model.fit(torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least 2 integers"):
        model.fit([0])
    with pytest.raises(ValueError, match="torch.float32"):
        model.fit(torch.zeros(4))
    model.fit(NAMES, boundary=0)
    with pytest.raises(ValueError, match="vocab.encode"):
        model.probs("a")
    with pytest.raises(ValueError, match="got 3..3"):
        model.probs([3])


def test_ngram_errors():
    with pytest.raises(ValueError, match="alpha must be"):
        NGram(2, 3, alpha=-1)
    with pytest.raises(ValueError, match="alpha must be"):
        NGram(2, 3, alpha=math.inf)
    with pytest.raises(ValueError, match="at least 5 ids, got 4"):
        NGram(5, 3).fit([0, 1, 2, 1])
    with pytest.raises(ValueError, match="2 symbols of context, got 1"):
        NGram(3, 3).fit(NAMES).probs([1])


def test_kneser_ney_on_a_text_shorter_than_its_order():
    model = KneserNey(9, 3).fit([0, 1, 2, 1])
    close(model.probs([1, 2]).sum(), torch.tensor(1.0))
    assert len(model.losses([0, 1])) == 1


def test_a_sample_begins_after_the_boundary_whatever_its_id():
    ids = torch.tensor([2, 0, 1, 2, 0, 1, 2])  # "01" twice, 2 between
    table = NGram(2, 3, alpha=0).fit(ids, boundary=2)
    for seed in range(5):
        g = torch.Generator().manual_seed(seed)
        assert table.sample(3, generator=g).tolist() == [0, 1, 2]
