"""zerohero.diagnostics: numbers about a run, and that they change nothing."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from zerohero import diagnostics as d
from zerohero import nn as znn
from zerohero.optim import SGD, LambdaLR


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def stack(kind=nn):
    torch.manual_seed(0)
    return kind.Sequential(
        kind.Embedding(5, 3),
        kind.Flatten(),
        kind.Linear(6, 4),
        kind.Tanh(),
        kind.Linear(4, 5),
    )


IDX = torch.tensor([[0, 1], [2, 3], [4, 4], [1, 0]])


# ----------------------------------------------------------------- record
@pytest.mark.parametrize("kind", [nn, znn])
def test_record_keeps_every_layer_and_changes_nothing(kind):
    model = stack(kind)
    plain = model(IDX)
    out, outputs = d.record(model, IDX)
    assert_close(out, plain, rtol=0, atol=0)
    assert list(outputs) == ["0", "1", "2", "3", "4"]
    assert outputs["4"] is out
    assert_close(torch.tanh(outputs["2"]), outputs["3"])
    assert all("forward" not in vars(m) for m in model.modules())
    assert_close(model(IDX), plain, rtol=0, atol=0)
    assert len(outputs) == 5  # the listening has ended


@pytest.mark.parametrize("kind", [nn, znn])
def test_record_by_kind_and_gradients(kind):
    model = stack(kind)
    out, outputs = d.record(model, IDX, kinds=(kind.Tanh, kind.Linear))
    assert list(outputs) == ["2", "3", "4"]
    (out * torch.arange(20.0).view(4, 5)).sum().backward()
    assert_close(outputs["4"].grad, torch.arange(20.0).view(4, 5))
    back = outputs["4"].grad @ model[4].weight.detach()
    assert_close(outputs["3"].grad, back)
    slope = 1 - outputs["3"].detach() ** 2
    assert_close(outputs["2"].grad, back * slope)


def test_record_puts_everything_back_after_an_error():
    model = stack()
    with pytest.raises(IndexError):
        d.record(model, IDX + 3)
    assert all("forward" not in vars(m) for m in model.modules())
    with pytest.raises(ValueError, match="no layer of kinds"):
        d.record(model, IDX, kinds=(nn.Conv1d,))


def test_record_without_gradients_and_of_a_layer_used_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Tanh()

        def forward(self, x):
            return self.a(self.b(self.a(x)))

    model = Twice()
    with torch.no_grad():
        out, outputs = d.record(model, torch.ones(3, 2))
    assert outputs["a"] is out and not out.requires_grad
    assert list(outputs) == ["b", "a"]


# ---------------------------------------------------- activation numbers
def test_saturated_by_hand():
    h = torch.tensor([[0.97, -0.98, 0.5], [1.0, 0.0, -0.96]])
    assert d.saturated(h) == pytest.approx(2 / 6)
    assert d.saturated(h, limit=0.9) == pytest.approx(4 / 6)
    assert d.saturated(h, limit=0.975) == pytest.approx(2 / 6)
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        d.saturated(torch.zeros(0, 3))


@pytest.mark.parametrize("kind", ["tanh", "sigmoid", "relu"])
def test_slopes_equal_autograd(kind):
    x = torch.randn(50, generator=gen()).requires_grad_()
    h = getattr(torch, kind)(x)
    (want,) = torch.autograd.grad(h.sum(), x)
    assert_close(d.slopes(h.detach(), kind), want)


def test_slopes_refuse_an_unknown_kind():
    with pytest.raises(ValueError, match="'gelu'.*relu.*sigmoid.*tanh"):
        d.slopes(torch.zeros(2), "gelu")


def test_dead_units_need_every_example():
    h = torch.tensor([[0.999, 1.0, 0.0], [-0.999, 0.2, 1.0]])
    assert d.dead_units(h).tolist() == [True, False, False]
    assert d.dead_units(h[:1]).tolist() == [True, True, False]
    r = torch.tensor([[0.0, 0.0, 2.0], [0.0, 3.0, 1.0]])
    assert d.dead_units(r, "relu").tolist() == [True, False, False]
    three = torch.stack((h, h))  # (2, 2, 3): all but the last axis count
    assert d.dead_units(three).tolist() == [True, False, False]


def test_dead_units_threshold_is_the_slope():
    h = torch.tensor([[0.995], [0.98]])  # slopes 0.01 and 0.0396
    assert d.dead_units(h).tolist() == [False]
    assert d.dead_units(h, least=0.04).tolist() == [True]
    # "below": a slope of exactly `least` is none
    assert d.dead_units(torch.ones(1, 1), "relu", 1.0).tolist() == [False]
    assert d.dead_units(torch.tensor([1.0, 0.1])).tolist() == [True, False]
    for h in (torch.zeros(0, 2), torch.tensor(0.5)):
        for measure in (d.dead_units, d.saturated):
            with pytest.raises(ValueError, match="at least one example"):
                measure(h)
    assert d.saturated(torch.tensor([0.5, 1.0])) == 0.5


def test_dead_units_pass_no_gradient():
    layer, act = nn.Linear(3, 2), nn.Tanh()
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([30.0, 0.0]))
    h = act(layer(torch.randn(20, 3, generator=gen())))
    h.sum().backward()
    assert d.dead_units(h.detach()).tolist() == [True, False]
    assert layer.weight.grad[0].abs().max() < 1e-8
    assert layer.weight.grad[1].abs().max() > 1e-3


def test_activation_stats():
    model = stack()
    out, outputs = d.record(model, IDX, kinds=(nn.Tanh, nn.Linear))
    rows = d.activation_stats(outputs, limit=0.5)
    assert [r["name"] for r in rows] == ["2", "3", "4"]
    assert all(r["grad_std"] is None for r in rows)
    h = outputs["3"].detach()
    assert rows[1]["mean"] == pytest.approx(h.mean().item())
    want = ((h - h.mean()) ** 2).mean().sqrt().item()
    assert rows[1]["std"] == pytest.approx(want, rel=1e-5)
    share = (h.abs() > 0.5).float().mean().item()
    assert rows[1]["saturated"] == pytest.approx(share)
    out.square().sum().backward()
    rows = d.activation_stats(outputs)
    grad = outputs["4"].grad
    want = ((grad - grad.mean()) ** 2).mean().sqrt().item()
    assert rows[2]["grad_std"] == pytest.approx(want, rel=1e-5)


def test_activation_stats_by_hand():
    h = torch.tensor([[0.96, -0.98], [-1.0, 0.0]])
    (row,) = d.activation_stats({"h": h})
    assert row["saturated"] == 0.5 and row["grad_std"] is None
    assert row["mean"] == pytest.approx(-0.255)
    (row,) = d.activation_stats({"h": h}, limit=0.99)
    assert row["saturated"] == 0.25


def test_activation_stats_without_gradients():
    with torch.no_grad():
        _, outputs = d.record(stack(), IDX)
    assert all(r["grad_std"] is None for r in d.activation_stats(outputs))


# --------------------------------------------------------------- gradients
def test_gradient_stats():
    model = stack()
    with pytest.raises(ValueError, match="backward"):
        d.gradient_stats(model)
    model(IDX).square().sum().backward()
    rows = d.gradient_stats(model)
    assert [r["name"] for r in rows] == ["0.weight", "2.weight", "4.weight"]
    w = model[2].weight
    assert rows[1]["shape"] == (4, 6)
    assert rows[1]["std"] == pytest.approx(w.std().item())
    assert rows[1]["grad_std"] == pytest.approx(w.grad.std().item())
    want = (w.grad.std() / w.std()).item()
    assert rows[1]["ratio"] == pytest.approx(want, rel=1e-5)
    with torch.no_grad():
        w.fill_(1.0)
    assert d.gradient_stats(model)[1]["ratio"] == math.inf


# ------------------------------------------------------------------- Watch
def one_step(model, optimizer):
    optimizer.zero_grad()
    model(IDX).square().mean().backward()
    optimizer.step()


def test_watch_measures_the_update_and_lets_it_happen():
    watched, plain = stack(), stack()
    watch = d.Watch(SGD(watched.parameters(), lr=0.1), watched)
    bare = SGD(plain.parameters(), lr=0.1)
    before = watched[2].weight.detach().clone()
    one_step(watched, watch)
    one_step(plain, bare)
    for a, b in zip(watched.parameters(), plain.parameters(), strict=True):
        assert_close(a, b, rtol=0, atol=0)
    assert list(watch.ratios) == ["0.weight", "2.weight", "4.weight"]
    update = 0.1 * watched[2].weight.grad
    want = (update.std() / before.std()).item()
    assert watch.ratios["2.weight"] == [pytest.approx(want, rel=1e-4)]
    assert want > 1e-6


def test_watch_divides_by_the_weight_before_the_step():
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0]]))
    layer.weight.grad = torch.tensor([[-9.0, 9.0]])
    watch = d.Watch(SGD(layer.parameters(), lr=1.0), layer)
    watch.step()
    assert watch.ratios["weight"] == [pytest.approx(9.0)]


def test_watch_every_few_steps_and_the_true_rate():
    model = stack()
    optimizer = SGD(model.parameters(), lr=1.0)
    watch = d.Watch(optimizer, model, every=3)
    schedule = LambdaLR(optimizer, lambda step: 0.5**step)
    for _ in range(8):
        one_step(model, watch)
        schedule.step()
    assert watch.steps == [0, 3, 6]
    assert watch.rates == [1.0, 0.125, 0.015625]
    assert all(len(r) == 3 for r in watch.ratios.values())
    with pytest.raises(ValueError, match="every=0"):
        d.Watch(optimizer, model, every=0)


def test_watch_stands_in_for_the_optimizer():
    model = stack()
    optimizer = SGD(model.parameters(), lr=0.1)
    watch = d.Watch(optimizer, model)
    assert watch.param_groups is optimizer.param_groups
    one_step(model, watch)
    watch.zero_grad(set_to_none=True)
    assert all(p.grad is None for p in model.parameters())


def test_update_ratio_by_hand_and_its_errors():
    data = torch.tensor([2.0, -2.0, 2.0, -2.0])
    update = torch.tensor([0.1, -0.1, -0.1, 0.1])
    assert d.update_ratio(update, data) == pytest.approx(0.05)
    assert d.update_ratio(update, torch.ones(4)) == math.inf
    with pytest.raises(ValueError, match=r"\(4,\).*\(3,\)"):
        d.update_ratio(update, data[:3])
    with pytest.raises(ValueError, match="two numbers"):
        d.update_ratio(update[:1], data[:1])


# -------------------------------------------------------------------- gain
@settings(deadline=None, max_examples=25)
@given(st.floats(0, 3), st.floats(0, 4))
def test_layer_rms_equals_a_wide_random_layer(rms, gain):
    x = rms * torch.randn(2000, 100, generator=gen(1))
    W = torch.randn(100, 100, generator=gen(2)) * gain / 10
    measured = torch.tanh(x @ W).square().mean().sqrt().item()
    assert d.layer_rms(rms, gain) == pytest.approx(measured, abs=0.03)


def test_layer_rms_of_functions_with_known_answers():
    assert d.layer_rms(0.7, 2.0, lambda v: v) == pytest.approx(1.4)
    assert d.layer_rms(0.7, 2**0.5, torch.relu) == pytest.approx(0.7)
    assert d.layer_rms(3.0, 1.0, torch.sign) == pytest.approx(1, abs=1e-3)
    assert d.layer_rms(1.0, 0.0) == 0
    for bad in ((-1.0, 1.0), (1.0, -1.0)):
        with pytest.raises(ValueError, match="negative"):
            d.layer_rms(*bad)


@pytest.mark.parametrize("gain", [1.05, 1.2, 5 / 3, 3.0, 10.0])
def test_fixed_point_stays_where_it_is_and_attracts(gain):
    point = d.fixed_point(gain)
    assert d.layer_rms(point, gain) == pytest.approx(point, abs=1e-6)
    assert d.layer_rms(point * 0.9, gain) > point * 0.9
    assert d.layer_rms(point * 1.05, gain) < point * 1.05


def test_fixed_point_values():
    assert d.fixed_point(0.5) == 0 and d.fixed_point(1.0) == 0
    points = [d.fixed_point(g) for g in (1.01, 1.2, 5 / 3, 3, 100)]
    assert points == sorted(points) and 0 < points[0] and points[-1] < 1
    assert d.fixed_point(5 / 3) == pytest.approx(0.66, abs=0.02)
    with pytest.raises(ValueError, match="gain=-1"):
        d.fixed_point(-1)
