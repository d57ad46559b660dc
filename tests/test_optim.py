"""Optimizers and schedules against torch's, by hand, and by law."""

import copy
import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from zerohero import nn, optim, parity

SCHEDULERS = torch.optim.lr_scheduler


def label(case):
    name, options = case
    return f"{name}({', '.join(f'{k}={v}' for k, v in options.items())})"


def agree(pairs, rtol=1e-9, atol=1e-10):
    for what, ours, theirs in pairs:
        assert_close(ours, theirs, rtol=rtol, atol=atol,
                     msg=lambda text, what=what: f"{what}: {text}")


def leaf(*values, grad=None, dtype=torch.float64):
    p = torch.tensor(values, dtype=dtype, requires_grad=True)
    if grad is not None:
        p.grad = torch.tensor(grad, dtype=dtype)
    return p


# -- parity ----------------------------------------------------------------
@pytest.mark.parametrize("case", parity.OPTIMIZERS, ids=label)
def test_fifty_steps_are_torchs(case):
    name, options = case
    if name == "Muon":  # torch works in bfloat16: rounding adds up
        pairs = parity.optimizer_pairs(name, options, dtype=torch.float32)
        agree(pairs[:12], rtol=1e-3, atol=1e-4)
        agree(pairs, rtol=3e-2, atol=2e-2)
    else:
        agree(parity.optimizer_pairs(name, options))


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_options_give_torchs_steps(name, data):
    unit = st.floats(0, 0.99)
    if name == "SGD":
        options = {
            "lr": data.draw(st.floats(0, 0.1)),
            "momentum": data.draw(st.sampled_from([0, 0.5, 0.9])),
            "weight_decay": data.draw(st.floats(0, 0.5)),
            "maximize": data.draw(st.booleans()),
        }
        if options["momentum"]:
            options["nesterov"] = data.draw(st.booleans())
            if not options["nesterov"]:
                options["dampening"] = data.draw(unit)
    else:
        options = {
            "lr": data.draw(st.floats(0, 0.1)),
            "betas": (data.draw(unit), data.draw(unit)),
            "eps": data.draw(st.floats(1e-6, 1)),
            "weight_decay": data.draw(st.floats(0, 0.5)),
            "amsgrad": data.draw(st.booleans()),
            "maximize": data.draw(st.booleans()),
        }
    agree(parity.optimizer_pairs(name, options, steps=6,
                                 seed=data.draw(st.integers(0, 9))),
          rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Muon"])
def test_arguments_and_defaults_are_torchs(name):
    ours = inspect.signature(getattr(optim, name)).parameters
    theirs = inspect.signature(getattr(torch.optim, name)).parameters
    for k, p in ours.items():
        if k not in ("ns_dtype", "fused", "left_out"):
            assert k in theirs and p.default == theirs[k].default, k
    order = [k for k in theirs if k in ours and k != "fused"]
    assert [k for k in ours if k in order] == order


@pytest.mark.parametrize("case", parity.SCHEDULES, ids=label)
def test_schedules_step_like_torchs(case):
    name, options = case
    ours = inspect.signature(getattr(optim, name)).parameters
    theirs = inspect.signature(getattr(SCHEDULERS, name)).parameters
    assert {k: p.default for k, p in ours.items()} == {
        k: p.default for k, p in theirs.items()}
    agree(parity.optimizer_pairs("SGD", {"lr": 0.05}, schedules=[case]))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("StepLR"), st.fixed_dictionaries(
                {"step_size": st.integers(1, 6),
                 "gamma": st.floats(0.1, 1.5)})),
            st.tuples(st.just("LinearLR"), st.fixed_dictionaries(
                {"start_factor": st.floats(0.01, 1),
                 "end_factor": st.floats(0, 1),
                 "total_iters": st.integers(1, 15)})),
            st.tuples(st.just("CosineAnnealingLR"), st.fixed_dictionaries(
                {"T_max": st.integers(1, 15),
                 "eta_min": st.floats(0, 0.01)})),
            st.just(("MultiplicativeLR", {"lr_lambda": lambda t: 0.98})),
        ),
        min_size=1, max_size=3,
    )
)
def test_chained_schedules_step_like_torchs(schedules):
    runs = []
    for library, tools in [(optim, optim), (torch.optim, SCHEDULERS)]:
        opt = library.SGD([{"params": [leaf(1.0, grad=[1.0])]},
                           {"params": [leaf(1.0, grad=[1.0])], "lr": 0.3}],
                          lr=0.1)
        chain = [getattr(tools, k)(opt, **v) for k, v in schedules]
        rates = []
        for _ in range(20):
            opt.step()
            for schedule in chain:
                schedule.step()
            rates.append([s.get_last_lr() for s in chain])
        runs.append(torch.tensor(rates, dtype=torch.float64))
    assert_close(runs[0], runs[1], rtol=1e-7, atol=1e-12)


# -- by hand ---------------------------------------------------------------
def test_sgd_by_hand():
    p = leaf(1.0, grad=[2.0])
    opt = optim.SGD([p], lr=0.1, momentum=0.5)
    opt.step()
    assert_close(p.item(), 0.8)
    opt.step()  # velocity 0.5 * 2 + 2 = 3
    assert_close(p.item(), 0.5)


def test_heavy_ball_reaches_one_over_one_minus_momentum():
    p = leaf(0.0, grad=[1.0])
    opt = optim.SGD([p], lr=1.0, momentum=0.9)
    for _ in range(200):
        before = p.item()
        opt.step()
    assert_close(before - p.item(), 10.0)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e6])
def test_adam_first_step_is_lr_whatever_the_gradient(size):
    p = leaf(1.0, -1.0, grad=[size, -3 * size])
    optim.Adam([p], lr=0.01, eps=1e-12).step()
    assert_close(p.detach(), torch.tensor([0.99, -0.99]).double(),
                 rtol=1e-6, atol=0)


def test_adam_and_adamw_differ_only_in_the_decay():
    adam, adamw = leaf(2.0, grad=[1.0]), leaf(2.0, grad=[1.0])
    optim.Adam([adam], lr=0.1, weight_decay=0.5).step()
    optim.AdamW([adamw], lr=0.1, weight_decay=0.5).step()
    assert_close(adam.item(), 2 - 0.1)
    assert_close(adamw.item(), 2 * (1 - 0.05) - 0.1)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("flag", ["amsgrad", "maximize", "fused"])
def test_fused_is_the_same(name, dtype, flag):
    runs = []
    for fused in (False, True):
        g = torch.Generator().manual_seed(0)
        params = [torch.randn(s, generator=g, dtype=dtype).requires_grad_()
                  for s in [(3, 4), (5,)]]
        opt = getattr(optim, name)(params, lr=0.1, betas=(0.7, 0.9),
                                   eps=0.01, weight_decay=0.3,
                                   **{flag: True} | {"fused": fused})
        for step in range(6):
            for p in params:
                p.grad = torch.randn(p.shape, generator=g, dtype=dtype)
            if step < 2:
                params[1].grad = None
            opt.step()
        runs.append([p.detach() for p in params]
                    + [s["step"] for s in opt.state.values()])
    assert_close(runs[0], runs[1])


# -- Muon ------------------------------------------------------------------
def polynomial(s, steps=5, a=3.4445, b=-4.775, c=2.0315):
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return s


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5), (3, 6, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orthogonalize_acts_on_the_singular_values(shape, dtype):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1),
                    dtype=torch.float64)
    U, S, Vh = torch.linalg.svd(x, full_matrices=False)
    S = S / x.norm(dim=(-2, -1), keepdim=True)[..., 0]
    out = optim.orthogonalize(x, dtype=dtype)
    assert out.dtype == dtype and out.shape == x.shape
    expected = (U * polynomial(S)[..., None, :]) @ Vh
    assert_close(out.double(), expected, rtol=1e-4, atol=1e-4)
    assert_close(optim.orthogonalize(x, 2, (2.0, -1.5, 0.5), dtype=dtype)
                 .double(),
                 (U * polynomial(S, 2, 2.0, -1.5, 0.5)[..., None, :]) @ Vh,
                 rtol=1e-4, atol=1e-4)


def test_orthogonalize_brings_singular_values_near_one():
    x = torch.randn(40, 60, generator=torch.Generator().manual_seed(1))
    for scale in (1e-3, 1.0, 1e5):
        for dtype in (torch.float32, torch.bfloat16):
            s = torch.linalg.svdvals(
                optim.orthogonalize(scale * x, dtype=dtype).float())
            assert 0.6 < s.min() and s.max() < 1.3
    faint = optim.orthogonalize(1e-14 * x, dtype=torch.float32)
    # far below eps = 1e-7 only the linear term a**5 acts
    assert_close(faint, 3.4445**5 * 1e-7 * x, rtol=1e-2, atol=1e-6)
    zero = optim.orthogonalize(torch.zeros(3, 4), dtype=torch.float32)
    assert zero.abs().sum() == 0


@pytest.mark.parametrize("fast", [torch.float32, torch.bfloat16])
def test_muon_takes_the_number_format_of_the_machine(monkeypatch, fast):
    monkeypatch.setattr(optim, "number_format", lambda: fast)
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    assert optim.orthogonalize(x).dtype == fast
    p, q = x.clone().requires_grad_(), x.clone().requires_grad_()
    p.grad = q.grad = x.sin()
    optim.Muon([p], lr=0.1).step()
    optim.Muon([q], lr=0.1, ns_dtype=fast).step()
    assert torch.equal(p, q) and p.dtype == torch.float32


def test_muon_handles_several_shapes_and_stacks():
    g = torch.Generator().manual_seed(0)
    shapes = [(4, 6), (3, 3), (4, 6), (2, 4, 6), (6, 4)]
    params = [torch.randn(s, generator=g).requires_grad_() for s in shapes]
    alone = [p.detach().clone().requires_grad_() for p in params]
    for p, q in zip(params, alone, strict=True):
        p.grad = torch.randn(p.shape, generator=g)
        q.grad = p.grad.clone()
    kind = {"lr": 0.1, "ns_dtype": torch.float32}
    optim.Muon(params, **kind).step()
    for p, q in zip(params, alone, strict=True):
        optim.Muon([q], **kind).step()
        assert_close(p, q)
    two = [m.clone().requires_grad_() for m in torch.randn(2, 4, 6)]
    stack = torch.stack([m.detach() for m in two]).requires_grad_()
    stack.grad = torch.randn(2, 4, 6, generator=g)
    for m, grad in zip(two, stack.grad, strict=True):
        m.grad = grad.clone()
    optim.Muon([stack], **kind).step()
    optim.Muon(two, **kind).step()
    assert_close(stack.detach(), torch.stack([m.detach() for m in two]))


@pytest.mark.parametrize("shape", [(8, 2), (2, 8)])
@pytest.mark.parametrize("how", [None, "original", "match_rms_adamw"])
def test_muon_step_size(shape, how):
    p = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    p.grad = torch.randn(shape, dtype=torch.float64)
    optim.Muon([p], lr=1.0, adjust_lr_fn=how, ns_dtype=torch.float64).step()
    update = optim.orthogonalize(p.grad, dtype=torch.float64)
    scale = 0.2 * 8**0.5 if how == "match_rms_adamw" else (
        2.0 if shape == (8, 2) else 1.0)
    assert_close(p.detach(), -scale * update, rtol=1e-4, atol=1e-5)


# -- state -----------------------------------------------------------------
def walk(opt, params, steps, start=0):
    for step in range(start, start + steps):
        for i, p in enumerate(params):
            p.grad = torch.sin(p.detach() * (i + 2) + step)
        opt.step()


def fresh():
    g = torch.Generator().manual_seed(3)
    return [torch.randn(s, generator=g).requires_grad_()
            for s in [(3, 4), (4, 3), (3, 4)]]


MAKERS = {
    "SGD": lambda lib, ps: lib.SGD(ps, lr=0.1, momentum=0.9),
    "plain SGD": lambda lib, ps: lib.SGD(ps, lr=0.1),
    "Adam": lambda lib, ps: lib.Adam(ps, lr=0.1),
    "AdamW": lambda lib, ps: lib.AdamW(ps, lr=0.1),
    "amsgrad": lambda lib, ps: lib.Adam(ps, lr=0.1, amsgrad=True),
    "climbing": lambda lib, ps: lib.SGD(ps, lr=0.1, maximize=True),
    "Muon": lambda lib, ps: lib.Muon(ps, lr=0.1),
}


@pytest.mark.parametrize("name", MAKERS)
def test_resume_is_exact(name):
    make = MAKERS[name]
    whole, part = fresh(), fresh()
    walk(make(optim, whole), whole, 10)
    first = make(optim, part)
    walk(first, part, 6)
    state = copy.deepcopy(first.state_dict())
    second = make(optim, part)
    second.param_groups[0]["lr"] = 77.0  # comes back with the state
    second.load_state_dict(state)
    walk(second, part, 4, start=6)
    for a, b in zip(part, whole, strict=True):
        assert torch.equal(a, b)
    walk(first, part, 1)  # does not reach into the loaded copy
    assert second.state_dict()["param_groups"][0]["params"] == [0, 1, 2]


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("direction", ["to torch", "from torch"])
def test_state_travels_to_torch_and_back(name, direction):
    make = MAKERS[name]
    libraries = [optim, torch.optim]
    if direction == "from torch":
        libraries.reverse()
    whole, part = fresh(), fresh()
    walk(make(torch.optim, whole), whole, 10)
    first = make(libraries[0], part)
    walk(first, part, 6)
    second = make(libraries[1], part)
    second.load_state_dict(first.state_dict())
    walk(second, part, 4, start=6)
    rough = 5e-2 if name == "Muon" else 1e-5
    for a, b in zip(part, whole, strict=True):
        assert_close(a, b, rtol=rough, atol=rough)


def test_loaded_state_is_a_copy_in_the_parameters_dtype():
    p, q = leaf(1.0, grad=[1.0]), leaf(1.0, grad=[1.0], dtype=torch.float32)
    first, second = optim.Adam([p]), optim.Adam([q])
    first.step()
    second.load_state_dict(first.state_dict())
    assert second.state[q]["exp_avg"].dtype == torch.float32
    first.step()
    assert second.state[q]["step"].item() == 1
    assert_close(second.state[q]["exp_avg"].item(), 0.1)
    second.step()
    assert first.state[p]["step"].item() == 2
    assert set(second.state[q]) == {"step", "exp_avg", "exp_avg_sq"}
    third = optim.Adam([leaf(1.0)])
    third.load_state_dict(first.state_dict())
    before = third.state_dict()["state"][0]["exp_avg"].clone()
    first.step()
    assert third.state_dict()["state"][0]["exp_avg"].equal(before)
    third.load_state_dict(optim.Adam([leaf(1.0)]).state_dict())
    assert not third.state  # what it remembered is gone


def test_state_of_another_shape_is_refused():
    opt = optim.SGD([leaf(1.0), leaf(2.0)], lr=1)
    other = optim.SGD([leaf(1.0)], lr=1)
    with pytest.raises(ValueError, match=r"\[2\].*\[1\]"):
        opt.load_state_dict(other.state_dict())


def test_schedule_resumes():
    def make():
        opt = optim.SGD([leaf(1.0)], lr=1.0)
        return opt, optim.LinearLR(opt, 0.1, total_iters=10)

    opt, schedule = make()
    rates = [schedule.get_last_lr()]
    for _ in range(8):
        schedule.step()
        rates.append(schedule.get_last_lr())
        if schedule.last_epoch == 4:
            saved = (copy.deepcopy(opt.state_dict()), schedule.state_dict())
    assert rates[0] == [0.1] and "optimizer" not in saved[1]
    assert saved[1]["base_lrs"] == [1.0]
    opt, schedule = make()
    opt.load_state_dict(saved[0])
    schedule.load_state_dict(saved[1])
    for expected in rates[5:]:
        schedule.step()
        assert schedule.get_last_lr() == [opt.param_groups[0]["lr"]]
        assert schedule.get_last_lr() == expected


@pytest.mark.parametrize("case", parity.SCHEDULES, ids=label)
def test_last_epoch_like_torchs(case):
    name, options = case
    rates = []
    for library, tools in [(optim, optim), (torch.optim, SCHEDULERS)]:
        opt = library.SGD([{"params": [leaf(1.0, grad=[1.0])],
                            "lr": 0.4, "initial_lr": 1.0}])
        schedule = getattr(tools, name)(opt, **options, last_epoch=4)
        seen = [opt.param_groups[0]["lr"]]
        for _ in range(5):
            opt.step()
            schedule.step()
            seen.append(opt.param_groups[0]["lr"])
        rates.append(seen)
        with pytest.raises((ValueError, KeyError), match="initial_lr"):
            getattr(tools, name)(library.SGD([leaf(1.0)], lr=0.1),
                                 **options, last_epoch=4)
    assert_close(rates[0], rates[1])


@pytest.mark.parametrize("name", ["LambdaLR", "MultiplicativeLR"])
def test_schedules_with_functions_travel_to_torch_and_back(name):
    def run(libraries):
        rates, state = [], None
        for library, tools in libraries:
            opt = library.SGD([leaf(1.0)], lr=1.0)
            schedule = getattr(tools, name)(opt, lambda t: 1 / (1 + t))
            if state is not None:
                opt.load_state_dict(state[0])
                schedule.load_state_dict(state[1])
            for _ in range(3):
                opt.step()
                schedule.step()
                rates += schedule.get_last_lr()
            state = opt.state_dict(), schedule.state_dict()
        return rates

    ours, theirs = (optim, optim), (torch.optim, SCHEDULERS)
    for libraries in ([ours, theirs], [theirs, ours], [ours, ours]):
        assert_close(run(libraries), run([theirs, theirs]))


# -- schedules by hand -----------------------------------------------------
def rates(make, steps):
    opt = optim.SGD([leaf(1.0)], lr=1.0)
    schedule = make(opt)
    seen = [opt.param_groups[0]["lr"]]
    for _ in range(steps):
        schedule.step()
        seen.append(opt.param_groups[0]["lr"])
    return seen


def test_lambda_multiplies_the_first_rate_multiplicative_the_current():
    constant = lambda step: 0.5  # noqa: E731
    assert rates(lambda o: optim.LambdaLR(o, constant), 3) == [0.5] * 4
    assert rates(lambda o: optim.MultiplicativeLR(o, constant), 3) == [
        1, 0.5, 0.25, 0.125]


def test_schedules_by_hand():
    assert_close(rates(lambda o: optim.StepLR(o, 2, 0.5), 5),
                 [1.0, 1.0, 0.5, 0.5, 0.25, 0.25])
    assert_close(rates(lambda o: optim.LinearLR(o, 0.5, 1.0, 2), 4),
                 [0.5, 0.75, 1.0, 1.0, 1.0])
    assert_close(rates(lambda o: optim.CosineAnnealingLR(o, 2), 4),
                 [1.0, 0.5, 0.0, 0.5, 1.0])


def test_one_function_for_each_group():
    opt = optim.SGD([{"params": [leaf(1.0)]}, {"params": [leaf(1.0)]}],
                    lr=1.0)
    schedule = optim.LambdaLR(opt, [lambda t: 1.0, lambda t: t + 2.0])
    assert schedule.get_last_lr() == [1.0, 2.0]
    for n in (1, 3):
        with pytest.raises(ValueError, match=f"{n} functions for 2"):
            optim.LambdaLR(opt, [lambda t: 1.0] * n)


# -- clipping --------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 10), st.sampled_from([1.0, 2.0, 3.0, math.inf]),
       st.integers(0, 99))
def test_clip_is_torchs(max_norm, norm_type, seed):
    runs = []
    for clip in (optim.clip_grad_norm_, torch.nn.utils.clip_grad_norm_):
        g = torch.Generator().manual_seed(seed)
        params = [torch.zeros(s, requires_grad=True)
                  for s in [(2, 3), (4,), (1,)]]
        for p in params[:2]:
            p.grad = torch.randn(p.shape, generator=g)
        total = clip(params, max_norm, norm_type)
        runs.append([total] + [p.grad for p in params[:2]])
        assert params[2].grad is None
    assert_close(runs[0], runs[1])


@pytest.mark.parametrize("norm_type", ["inf", 0, 0.5, -1])
@pytest.mark.parametrize("spoil", [None, math.inf, math.nan])
def test_clip_of_odd_norms_and_gradients_is_torchs(norm_type, spoil):
    runs = []
    for clip in (optim.clip_grad_norm_, torch.nn.utils.clip_grad_norm_):
        p, q = leaf(0.0, 0.0, grad=[3.0, 4.0]), leaf(1.0, grad=[-1.0])
        if spoil:
            q.grad[0] = spoil
        runs.append([clip([p, q], 2.0, norm_type), p.grad, q.grad])
    assert_close(runs[0], runs[1], equal_nan=True)


def test_clip_by_hand_and_at_its_edges():
    p = leaf(0.0, 0.0, grad=[3.0, 4.0])
    assert optim.clip_grad_norm_(p, 10.0).item() == 5.0
    assert p.grad.tolist() == [3.0, 4.0]
    assert optim.clip_grad_norm_(iter([p]), 0.5).item() == 5.0
    assert_close(p.grad.norm().item(), 0.5, rtol=1e-5, atol=0)
    assert optim.clip_grad_norm_([leaf(1.0)], 1.0).item() == 0.0
    faint = leaf(0.0, grad=[1e-6])  # torch, too, divides by norm + 1e-6
    optim.clip_grad_norm_([faint], 1e-6)
    assert_close(faint.grad.item(), 0.5e-6, rtol=1e-5, atol=0)
    p.grad[0] = math.inf
    with pytest.raises(ValueError, match="inf"):
        optim.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)


# -- the optimizer as such -------------------------------------------------
def test_parameters_without_gradient_stay():
    moving, resting = leaf(1.0, grad=[1.0]), leaf(1.0)
    for make in (optim.SGD, optim.Adam, optim.AdamW):
        make([moving, resting], lr=0.1, weight_decay=0.1).step()
    assert resting.item() == 1.0 and moving.item() != 1.0


def test_nothing_to_remember_is_an_empty_state():
    for library in (optim, torch.optim):
        opt = library.SGD([leaf(1.0, grad=[1.0])], lr=0.1)
        opt.step()
        assert opt.state_dict()["state"] == {} and not opt.state


def test_zero_grad_and_closure():
    p = leaf(3.0)
    opt = optim.SGD([p], lr=0.1)

    def closure():
        opt.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert opt.step(closure).item() == 9.0
    assert_close(p.item(), 2.4)
    opt.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0.0]
    opt.zero_grad()
    assert p.grad is None
    assert opt.step() is None


def test_groups_take_defaults_and_can_be_changed_on_the_way():
    a, b, c = leaf(1.0, grad=[1.0]), leaf(1.0, grad=[1.0]), leaf(1.0)
    opt = optim.SGD([{"params": a}, {"params": iter([b]), "lr": 0.5}], lr=0.1)
    opt.add_param_group({"params": [c], "weight_decay": 0.2})
    assert [g["lr"] for g in opt.param_groups] == [0.1, 0.5, 0.1]
    assert [g["weight_decay"] for g in opt.param_groups] == [0, 0, 0.2]
    opt.param_groups[0]["lr"] = 0.25
    opt.step()
    assert (a.item(), b.item(), c.item()) == (0.75, 0.5, 1.0)


def test_bad_arguments():
    p = leaf(1.0)
    for bad in ([], iter(())):
        with pytest.raises(ValueError, match="ModuleList"):
            optim.SGD(bad)
    with pytest.raises(TypeError, match="list"):
        optim.SGD(p)
    with pytest.raises(TypeError, match="tuple"):
        optim.SGD([("weight", p)])
    with pytest.raises(ValueError, match="leaf"):
        optim.SGD([p * 2])
    with pytest.raises(ValueError, match="twice"):
        optim.SGD([p, p])
    with pytest.raises(ValueError, match="twice"):
        optim.SGD([{"params": [p]}, {"params": [p]}])
    with pytest.raises(TypeError, match="set"):
        optim.SGD([{"params": {p}}])
    for options in ({"lr": -1.0}, {"momentum": -0.1}, {"weight_decay": -1.0},
                    {"lr": math.nan}):
        with pytest.raises(ValueError, match=next(iter(options))):
            optim.SGD([p], **options)
    for momentum, dampening in [(0, 0), (0.9, 0.1)]:
        with pytest.raises(ValueError, match="nesterov"):
            optim.SGD([p], momentum=momentum, dampening=dampening,
                      nesterov=True)
    for options in ({"eps": -1.0}, {"betas": (1.0, 0.9)},
                    {"betas": (0.9, -0.1)}):
        with pytest.raises(ValueError, match=next(iter(options))):
            optim.Adam([p], **options)
    with pytest.raises(ValueError, match=r"\(1,\)"):
        optim.Muon([p])
    for name in ("SGD", "Adam", "AdamW"):
        make = getattr(optim, name)
        make([p], foreach=False, differentiable=None)  # off: all right
        with pytest.raises(NotImplementedError, match=f"torch.optim.{name}"):
            make([p], lr=0.1, foreach=True)
        with pytest.raises(TypeError, match="momentun"):
            make([p], lr=0.1, momentun=0)
        for option in ("capturable", "decoupled_weight_decay"):
            if option not in inspect.signature(
                getattr(torch.optim, name)
            ).parameters:
                with pytest.raises(TypeError, match=option):
                    make([p], **{option: False})
    matrix = torch.zeros(2, 2, requires_grad=True)
    for steps in (100, -1):
        with pytest.raises(ValueError, match=f"ns_steps .* {steps}"):
            optim.Muon([matrix], ns_steps=steps)
    optim.Muon([matrix], ns_steps=0)
    with pytest.raises(ValueError, match=r"\(1, 1, 2, 2\)"):
        optim.Muon([matrix.detach()[None, None]])
    with pytest.raises(ValueError, match="'best'"):
        optim.Muon([matrix], adjust_lr_fn="best")
    opt = optim.SGD([p], lr=1.0)
    for start, end in [(0, 1), (1.1, 1), (1, -0.1), (1, 1.1)]:
        with pytest.raises(ValueError, match="start_factor"):
            optim.LinearLR(opt, start, end)
    with pytest.raises(ValueError, match="step_size"):
        optim.StepLR(opt, 0)
    with pytest.raises(ValueError, match="T_max"):
        optim.CosineAnnealingLR(opt, 0)


def test_the_wall_on_the_page():
    table = parity.table()
    names = {name for name, *_ in table.rows}
    for cls in ("nn.Linear", "nn.BatchNorm1d", "optim.Muon",
                "optim.CosineAnnealingLR"):
        assert cls in names
    assert len(table.rows) == sum(
        map(len, (parity.LAYERS, parity.OPTIMIZERS, parity.SCHEDULES)))
    assert table.worst < 0.05
    assert max(gap for name, _, gaps in table.rows if name != "optim.Muon"
               for gap in gaps.values() if gap is not None) < 1e-5
    text = repr(table)
    assert text.count("\n") == len(table.rows) and "=" in text
    html = table._repr_html_()
    assert html.count("<tr>") == len(table.rows) + 1 and "&lt; 1e-" in html
    broken = parity.Table([("nn.X", {"f": len}, {"output": math.nan})])
    assert repr(broken).endswith("nan") and "f=f" in repr(broken)
    for gaps in ([1e-9, math.nan], [math.nan, 1e-9], [1e-9, 0.5]):
        rows = [("nn.X", {}, {"output": gap, "buffers": None})
                for gap in gaps]
        worst = parity.Table(rows).worst
        assert math.isnan(worst) if math.nan in gaps else worst == 0.5
    rows = [("<b>", {}, {"output": 3e-7, "gradients": 0.0})]
    assert repr(parity.Table(rows)).split()[-3:] == ["<", "1e-6", "="]
    assert "&lt;b&gt;" in parity.Table(rows)._repr_html_()
    filled = {name: {k for k, gap in gaps.items() if gap is not None}
              for name, _, gaps in table.rows}
    layer = {"output", "gradients"}
    assert filled["nn.Tanh"] == layer
    assert filled["nn.LayerNorm"] | filled["nn.Linear"] == layer | {
        "state dict"}
    assert filled["optim.SGD"] == filled["optim.StepLR"] == {"50 steps"}
    buffers = [gaps["buffers"] for name, options, gaps in table.rows
               if name == "nn.BatchNorm1d"]
    assert [gap is not None for gap in buffers] == [True] * 4 + [False]


def test_the_wall_sees_a_fault(monkeypatch):
    """Each of ours is broken in turn: its cells say so, and no others."""
    step = optim.SGD.step
    monkeypatch.setattr(parity, "LAYERS", [("Tanh", {}, (4, 6))])
    monkeypatch.setattr(parity, "OPTIMIZERS", [("SGD", {"lr": 0.05})])
    monkeypatch.setattr(parity, "SCHEDULES", [("StepLR", {"step_size": 3})])
    seen = []
    for where, name, fault in (
            (nn.Tanh, "forward", lambda self, x: 1.01 * x.tanh()),
            (nn.Tanh, "forward",
             lambda self, x: (1 if self.training else 1.01) * x.tanh()),
            (optim.SGD, "step", lambda self: (step(self), step(self))),
            (optim.StepLR, "get_lr", lambda self: self._current())):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, fault)
            tanh, sgd, decay = (gaps for *_, gaps in parity.table().rows)
        cells = (tanh["output"], tanh["gradients"], sgd["50 steps"],
                 decay["50 steps"])
        seen.append([gap > 1e-3 for gap in cells])
    yes, no = True, False
    assert seen == [[yes, yes, no, no], [yes, yes, no, no],
                    [no, no, yes, no], [no, no, no, yes]]


def test_what_the_wall_compares():
    options = {"lr": 0.3}
    pairs = parity.optimizer_pairs("SGD", options, steps=4)
    things = ("parameter 0", "parameter 1", "parameter 2", "learning rates")
    assert [what for what, *_ in pairs] == [
        f"step {i}: {thing}" for i in range(4) for thing in things]
    ours = {what: t for what, t, _ in pairs}
    assert_close(ours["step 0: learning rates"], torch.tensor([0.3, 0.1]))
    for i, first in enumerate((0, 3, 0)):  # when each began to move
        moved = [not ours[f"step {s}: parameter {i}"].equal(
            ours[f"step {s - 1}: parameter {i}"]) for s in range(1, 4)]
        assert moved == [s >= first for s in range(1, 4)]
    assert pairs[0][1].dtype == torch.float64
    named = {"a": torch.ones(1), "b": None}
    with pytest.raises(AssertionError, match="ours has"):
        parity._named("", named, {"b": None, "a": torch.ones(1)})
    both = (named["a"],) * 2
    assert parity._named("x", named, named) == [("x a", *both)]
