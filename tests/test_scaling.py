"""zerohero.scaling: laws found again, contexts counted, mixtures by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from zerohero import scaling, train
from zerohero.data import chunks
from zerohero.gpt import GPT, GPTConfig
from zerohero.scaling import PowerLaw


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# -------------------------------------------------------------- power laws
LAW = PowerLaw(1.2, (400.0, 9000.0), (0.35, 0.28))


def grid(law, noise=0.0):
    g = generator()
    x = torch.cartesian_prod(torch.logspace(3.5, 6, 5),
                             torch.logspace(4.5, 6.5, 5))
    y = torch.tensor([law(*row) for row in x.tolist()])
    return x, y * (noise * torch.randn(len(y), generator=g)).exp()


def test_a_law_by_hand():
    law = PowerLaw(0.5, (8.0, 100.0), (1.0, 0.5))
    assert law.parts(16, 400) == (0.5, 0.5) and law.error == 0
    assert law(16, 400) == 1.5
    assert law(8, 100) == 2.5  # each part is 1 at its scale


def test_the_law_is_found_again():
    x, y = grid(LAW)
    found = scaling.fit_power_law(x, y)
    assert abs(found.floor - 1.2) < 0.01 and found.error < 1e-4
    assert_close(found.exponent, LAW.exponent, rtol=0.02, atol=0)
    assert_close(found.scale, LAW.scale, rtol=0.1, atol=0)
    assert_close(found(1e8, 1e9), LAW(1e8, 1e9), rtol=0.01, atol=0)


def test_the_law_of_one_number():
    n = torch.logspace(2, 6, 6)
    found = scaling.fit_power_law(n, 0.7 + (50 / n) ** 0.4)
    assert_close(found.floor, 0.7, rtol=0, atol=0.005)
    assert_close(found.exponent, (0.4,), rtol=0.02, atol=0)


def test_the_error_is_that_of_the_logarithm():
    x, y = grid(LAW, noise=0.02)
    found = scaling.fit_power_law(x, y)
    fit = torch.tensor([found(*row) for row in x.tolist()])
    want = (fit / y).log().square().mean().sqrt().item()
    assert_close(found.error, want, rtol=1e-4, atol=0)
    assert 0.01 < found.error < 0.025


def test_the_floor_can_be_fenced():
    n = torch.logspace(2, 6, 6)
    found = scaling.fit_power_law(n, 0.7 + (50 / n) ** 0.4, (0.0, 0.2))
    least = 0.7 + (50 / 1e6) ** 0.4
    assert 0 <= found.floor <= 0.2 * least + 1e-6
    found = scaling.fit_power_law(n, 0.7 + (50 / n) ** 0.4, (0.3, 0.4))
    assert 0.3 * least <= found.floor <= 0.4 * least + 1e-6


@settings(deadline=None, max_examples=25)
@given(st.floats(1e10, 1e16))
def test_the_best_split_is_the_best(compute):
    n, d = LAW.best_split(compute)
    assert_close(6 * n * d, compute, rtol=1e-6, atol=0.0)
    best = LAW(n, d)
    for factor in (0.5, 0.95, 1.05, 2.0):
        assert LAW(n * factor, d / factor) > best


@pytest.mark.parametrize("x, y, message", [
    (torch.ones(4, 2), torch.ones(4), "4 runs.*5 numbers"),
    (torch.ones(4), torch.ones(3), "same n"),
    (torch.tensor([1.0, 2, 0]), torch.ones(3), "x .*above 0.* 0 to 2"),
    (torch.tensor([1.0, 2, 3]), torch.tensor([1.0, -1, 1]),
     "loss .*above 0.* -1 to 1"),
    (torch.tensor([1.0, 2, 3]), torch.tensor([1.0, torch.inf, 1]),
     "loss .*finite.* 1 to inf"),
    (torch.tensor([1.0, torch.nan, 3]), torch.ones(3), "x .*nan")])
def test_a_fit_refuses(x, y, message):
    with pytest.raises(ValueError, match=message):
        scaling.fit_power_law(x, y)


def test_as_many_runs_as_numbers_are_enough():
    n = torch.tensor([10.0, 1e3, 1e5])
    found = scaling.fit_power_law(n, 0.5 + (20 / n) ** 0.3)
    assert found.error < 1e-4
    assert_close(found(100.0), 0.5 + 0.2**0.3, rtol=1e-3, atol=0)
    with pytest.raises(ValueError, match="2 runs.*3 numbers"):
        scaling.fit_power_law(n[:2], torch.ones(2))


def test_the_best_of_all_starts_is_kept(monkeypatch):
    """A search that stays where it begins: one of the starts fits."""
    class Lazy:
        def __init__(self, params, **options):
            pass

        def step(self, closure):
            return closure()

        def zero_grad(self):
            pass
    monkeypatch.setattr(torch.optim, "LBFGS", Lazy)
    n = torch.logspace(1, 5, 9)
    part = math.exp(-2) * (1000 / n) ** 0.2  # the middle of n is 1000
    share = 1 / (1 + math.exp(2))  # of the lowest loss
    floor = part.min().item() * share / (1 - share)
    found = scaling.fit_power_law(n, floor + part)
    assert found.error < 1e-5
    assert_close(found.floor, floor, rtol=1e-4, atol=0)
    assert_close(found.exponent, (0.2,), rtol=1e-6, atol=0)


def test_bad_questions_to_a_law():
    with pytest.raises(ValueError, match="1 numbers for a law of 2"):
        LAW(3.0)
    with pytest.raises(ValueError, match="above 0"):
        LAW(1.0, 0.0)
    for compute in (0, torch.inf, torch.nan):
        with pytest.raises(ValueError, match="compute"):
            LAW.best_split(compute)
    with pytest.raises(ValueError, match="best_split"):
        PowerLaw(1.0, (2.0,), (0.5,)).best_split(1e9)
    for floors in ((0.5, 0.5), (-0.1, 0.5), (0.0, 1.1)):
        with pytest.raises(ValueError, match="floors"):
            scaling.fit_power_law(torch.arange(1.0, 5), torch.ones(4), floors)


# ------------------------------------------------------------ long contexts
def small(block_size=8, **options):
    config = GPTConfig(11, block_size, n_layer=1, n_head=2, n_embd=16,
                       dropout=0.5, **options)
    model = GPT(config, generator())
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator(1))
    return model


def by_hand(model, ids, block_size, stride):
    """One window at a time, as the docstring says."""
    model.eval()
    out, done, n = [], 0, len(ids) - 1
    end = min(block_size, n)
    while done < n:
        x = ids[max(0, end - block_size):end]
        with torch.no_grad():
            log = model(x[None])[0].log_softmax(-1)
        y = ids[max(0, end - block_size) + 1:end + 1]
        out.append(-log[torch.arange(len(y)), y][len(y) - (end - done):])
        done, end = end, min(end + stride, n)
    return torch.cat(out)


@pytest.mark.parametrize("stride", [1, 3, 8])
@pytest.mark.parametrize("n", [2, 6, 9, 10, 40])
def test_sliding_losses_are_those_of_single_windows(stride, n):
    model = small()
    ids = torch.randint(11, (n,), generator=generator(2))
    got = scaling.sliding_losses(model, ids, 8, stride, batch_size=24)
    assert model.training  # the mode is put back
    assert got.shape == (n - 1,) and not got.requires_grad
    assert_close(got, by_hand(model, ids, 8, stride))


def test_sliding_by_whole_blocks_is_evaluate():
    model, ids = small(), torch.randint(11, (41,), generator=generator(2))
    got = scaling.sliding_losses(model, ids, 8, 8).mean().item()
    assert_close(got, train.evaluate(model, *chunks(ids, 8)),
                 rtol=1e-6, atol=1e-6)


def test_stride_1_gives_every_symbol_its_whole_context():
    model = small().eval()
    ids = torch.randint(11, (30,), generator=generator(2))
    got = scaling.sliding_losses(model, ids, 8, 1)
    with torch.no_grad():
        log = model(ids[12:20][None])[0, -1].log_softmax(-1)
    assert_close(got[19], -log[ids[20]])


@pytest.mark.parametrize("batch_size, rows", [(1, 1), (23, 2), (24, 3)])
def test_sliding_runs_no_more_at_once_than_asked(batch_size, rows):
    model, seen = small().eval(), []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def forward(self, idx):
            seen.append(len(idx))
            return model(idx)
    ids = torch.randint(11, (40,), generator=generator(2))
    got = scaling.sliding_losses(Spy(), ids, 8, 4, batch_size)
    assert_close(got, by_hand(model, ids, 8, 4))
    assert max(seen) == rows and sum(seen) == 9


def test_sliding_puts_the_mode_back():
    for training in (True, False):
        model = small().train(training)
        scaling.sliding_losses(model, torch.arange(9), 8, 8)
        assert model.training == training
        with pytest.raises(RuntimeError):
            scaling.sliding_losses(model, torch.arange(9) + 3, 8, 8)
        assert model.training == training


def test_sliding_refuses():
    for stride in (0, 9):
        with pytest.raises(ValueError, match="stride"):
            scaling.sliding_losses(small(), torch.arange(9), 8, stride)
    with pytest.raises(ValueError, match="ids"):
        scaling.sliding_losses(small(), torch.arange(1), 8, 1)


# --------------------------------------------------------------- mixtures
def losses(seed, n=50):
    return torch.rand(n, generator=generator(seed)).log().neg()


def test_mixing_mixes_probabilities():
    a, b = losses(1), losses(2)
    for w in (0.0, 0.25, 0.6, 1.0):
        want = ((1 - w) * (-a).exp() + w * (-b).exp()).log().neg()
        assert_close(scaling.mix(a, b, w), want)
    assert torch.equal(scaling.mix(a, b, 0), a)
    assert torch.equal(scaling.mix(a, b, 1), b)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000))
def test_the_best_weight_is_the_best(seed):
    a, b = losses(seed), losses(seed + 1)
    w = scaling.best_weight(a, b)
    least = scaling.mix(a, b, w).mean()
    for other in torch.linspace(0, 1, 21).tolist():
        assert scaling.mix(a, b, other).mean() >= least - 1e-4


def test_the_better_model_takes_all():
    a = losses(1)
    assert scaling.best_weight(a, a + 5) < 0.01
    assert scaling.best_weight(a + 5, a) > 0.99


def test_mix_refuses():
    with pytest.raises(ValueError, match="weight"):
        scaling.mix(losses(1), losses(2), 1.5)
    with pytest.raises(ValueError, match="shapes"):
        scaling.mix(losses(1), losses(2, 49), 0.5)


# ---------------------------------------------------------------- seconds
def test_seconds_is_the_least_without_the_warm_up(monkeypatch):
    clock, naps = [0.0], [1.0, 7.0, 3.0, 5.0]
    monkeypatch.setattr(scaling.time, "perf_counter", lambda: clock[0])

    def work():
        clock[0] += naps.pop(0)

    assert scaling.seconds(work) == 3 and naps == []
    with pytest.raises(ValueError, match="times"):
        scaling.seconds(work, 0)
