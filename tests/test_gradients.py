"""zerohero.gradients against torch.autograd, values by hand, and laws."""

import math
import operator

import matplotlib
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from zerohero import drawings
from zerohero.gradients import (
    MLP,
    Layer,
    Neuron,
    Value,
    draw,
    gradcheck,
    numerical_gradient,
)

matplotlib.use("Agg")

EXACT = dict(rtol=1e-9, atol=1e-12, equal_nan=True)

# name -> (function of Values, the same on torch tensors), any real arguments
OPS = {
    "add": (operator.add,) * 2,
    "sub": (operator.sub,) * 2,
    "mul": (operator.mul,) * 2,
    "div": (lambda a, b: a / (b * b + 1),) * 2,
    "pow": (lambda a, b: (a * a + 0.5) ** (b.tanh() * 3),) * 2,
    "maximum": (Value.maximum, torch.maximum),
    "rsub": (lambda a, b: 2 - a + b,) * 2,
    "radd": (lambda a, b: 2 + a * b,) * 2,
    "rmul": (lambda a, b: -2 * a - 0.5 * b,) * 2,
    "rdiv": (lambda a, b: 3 / (a * a + b * b + 0.5),) * 2,
    "rpow": (lambda a, b: 2 ** a.tanh() + b,) * 2,
    "pow_2": (lambda a, b: a**2 - b,) * 2,
    "pow_3": (lambda a, b: a.tanh() ** 3 + b,) * 2,
    "pow_half": (lambda a, b: (a * a + 1) ** 0.5 * b,) * 2,
    "pow_minus_1": (lambda a, b: (a * a + 1) ** -1 * b,) * 2,
    "pow_0": (lambda a, b: a**0 + b,) * 2,
    "exp": (lambda a, b: a.tanh().exp() * b,) * 2,
    "log": (lambda a, b: (a * a + 0.1).log() + b,) * 2,
    "tanh": (lambda a, b: a.tanh() * b,) * 2,
    "sigmoid": (lambda a, b: a.sigmoid() + b,) * 2,
    "relu": (lambda a, b: a.relu() * b,) * 2,
    "neg": (lambda a, b: -a * b,) * 2,
}


def tensor(x, grad=True):
    return torch.tensor(x, dtype=torch.float64, requires_grad=grad)


def assert_same(program, *numbers):
    """program(Values) and program(tensors): same value, same gradients."""
    ours = [Value(x) for x in numbers]
    theirs = [tensor(x) for x in numbers]
    ours_out, theirs_out = program(0, ours), program(1, theirs)
    ours_out.backward()
    theirs_out.backward()
    assert_close(tensor(ours_out.data, False), theirs_out.detach(), **EXACT)
    for a, b in zip(ours, theirs, strict=True):
        grad = torch.zeros_like(b) if b.grad is None else b.grad
        assert_close(tensor(a.grad, False), grad, **EXACT)


@given(
    numbers=st.lists(st.floats(-2, 2), min_size=1, max_size=4),
    steps=st.lists(
        st.tuples(
            st.sampled_from(sorted(OPS)),
            st.integers(0, 30),
            st.integers(0, 30),
        ),
        min_size=1,
        max_size=8,
    ),
)
@settings(max_examples=300, deadline=None)
def test_random_graphs_agree_with_torch(numbers, steps):
    def program(side, leaves):
        nodes = list(leaves)
        for name, i, j in steps:                # any earlier value, re-used
            a, b = nodes[i % len(nodes)], nodes[j % len(nodes)]
            nodes.append(OPS[name][side](a, b).tanh())
        return sum(nodes[1:], nodes[0])

    assert_same(program, *numbers)


@pytest.mark.parametrize("name", sorted(OPS))
@pytest.mark.parametrize("a, b", [(1.5, -0.7), (-0.3, 2.0), (0.0, 1.0)])
def test_each_operation_agrees_with_torch(name, a, b):
    assert_same(lambda side, xs: OPS[name][side](*xs), a, b)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "maximum"])
def test_an_operation_with_the_same_value_twice(name):
    assert_same(lambda side, xs: OPS[name][side](xs[0], xs[0]), 1.5)


@pytest.mark.parametrize(
    "base, exponent",
    [(0.0, 2.0), (0.0, 1.0), (0.0, 0.5), (0.0, 0.0), (-2.0, 3.0), (-2.0, 2.0),
     (3.0, -1.5), (2.0, 0.0), (1e200, 2.0), (-1e200, 3.0), (1e-200, -1.5),
     (1e-200, -3.0)],
)
def test_powers_at_the_edges(base, exponent):
    assert_same(lambda side, xs: xs[0] ** exponent, base)
    assert_same(lambda side, xs: xs[0] ** xs[1], base, exponent)


@pytest.mark.parametrize("x", [-800.0, -40.0, 0.0, 40.0, 800.0])
def test_functions_are_safe_for_large_numbers(x):
    for name in ("tanh", "sigmoid", "exp", "relu"):
        assert_same(lambda side, xs: getattr(xs[0], name)(), x)  # noqa: B023


def test_a_value_by_hand():
    w, x, b = Value(3), Value(2), Value(-4)
    p = w * x + b                               # 2
    e = p - 5                                   # -3
    loss = e * e
    loss.backward()
    assert (loss.data, loss.grad) == (9, 1)
    assert (e.grad, p.grad, w.grad, x.grad, b.grad) == (-6, -6, -12, -18, -6)
    assert repr(w) == "Value(data=3, grad=-12)"
    assert (loss.op, e.op, p.op) == ("*", "-", "+")
    assert p.parents[1] is b and p.slopes == (1.0, 1.0)


def test_slopes_by_hand():
    a, b = Value(4.0), Value(2.0)
    assert (a / b).slopes == (0.5, -1.0)
    assert (a - b).slopes == (1.0, -1.0)
    assert (a**2).slopes == (8.0,) and (a**2).op == "**2"
    assert (b**a).slopes == (32.0, 16 * math.log(2))
    assert a.log().slopes == (0.25,)
    assert b.exp().slopes == (math.exp(2),)
    assert Value(0.0).sigmoid().slopes == (0.25,)
    assert Value(0.0).relu().slopes == (0.0,)
    assert a.maximum(b).slopes == (1.0, 0.0)
    assert b.maximum(a).slopes == (0.0, 1.0)
    assert a.maximum(4).slopes == (0.5, 0.5)


def test_order_puts_parents_first_and_everything_once():
    a = Value(1.0)
    b, c = a * 2, a + 3
    d = b * c + b
    order = d.order()
    assert len(order) == len(set(order)) == 7   # a, 2, b, 3, c, b*c, d
    for node in order:
        for parent in node.parents:
            assert order.index(parent) < order.index(node)
    assert order[-1] is d


def test_long_graphs_need_no_recursion():
    x = total = Value(1.0)
    for _ in range(20_000):
        total = total + x
    total.backward()
    assert (total.data, x.grad) == (20_001, 20_001)


def test_many_paths_cost_one_visit_each():
    y = x = Value(1.0)
    for _ in range(200):                        # 2 ** 200 paths
        y = y + y
    y.backward()
    assert x.grad == 2.0**200
    assert len(y.order()) == 201


def test_leaves_accumulate_and_the_middle_starts_afresh():
    a, b = Value(2.0), Value(3.0)
    c = a * b
    first, second = c * 2, c * 5
    first.backward()
    assert (a.grad, b.grad, c.grad) == (6, 4, 2)
    second.backward()                           # shares c with the first
    assert (a.grad, b.grad, c.grad) == (21, 14, 5)
    second.backward()                           # again: once more the same
    assert (a.grad, b.grad, c.grad) == (36, 24, 5)
    a.grad = 0.0
    second.backward()
    assert a.grad == 15
    a.grad = 0.0
    a.backward()
    a.backward()
    assert a.grad == 2                          # a leaf is its own output


@pytest.mark.parametrize(
    "bad, message",
    [
        (lambda: Value("two"), "'two'"),
        (lambda: Value([1.0]), "one number"),
        (lambda: Value(Value(1.0)), "one number"),
        (lambda: Value(1.0, (Value(1.0),), ()), "1 parents but 0 slopes"),
        (lambda: Value(0.0).log(), r"log\(0\)"),
        (lambda: Value(-1.0).log(), r"log\(-1\)"),
        (lambda: Value(-8.0) ** (1 / 3), r"\(-8\) \*\* 0.333"),
        (lambda: Neuron(2)([1.0]), "1 inputs for a neuron with 2"),
        (lambda: MLP([3]), r"sizes=\[3\]"),
        (lambda: MLP([3, 0, 1]), r"sizes=\[3, 0, 1\]"),
        (lambda: numerical_gradient(lambda: 1.0), "0 inputs"),
        (lambda: numerical_gradient(abs, 1.0, h=0.0), "h=0"),
        (lambda: numerical_gradient(abs, "x"), "'x'"),
        (lambda: numerical_gradient(abs, torch.arange(3)), "floating"),
        (lambda: numerical_gradient(max, torch.ones(2), 1.0), "floating"),
        (lambda: numerical_gradient(torch.exp, torch.ones(2)), r"\(2,\)"),
        (lambda: gradcheck(max, 1.0, 2.0, grads=(1.0,)), "1 gradients"),
        (
            lambda: gradcheck(torch.sum, torch.ones(3), grads=[torch.ones(1)]),
            r"\(3,\).*\(1,\)",
        ),
    ],
)
def test_bad_input_is_named(bad, message):
    with pytest.raises(ValueError, match=message):
        bad()


def test_division_by_zero_is_pythons_own():
    with pytest.raises(ZeroDivisionError):
        Value(1.0) / 0
    with pytest.raises(ZeroDivisionError):
        Value(0.0) ** -1


def test_numerical_gradient_by_hand():
    def cube(x):
        return x**3                             # nudging: 3 x^2 + step^2

    (slope,) = numerical_gradient(cube, 1.0, h=0.1)
    assert isinstance(slope, float)
    assert math.isclose(slope, 3.01, abs_tol=1e-9)
    (slope,) = numerical_gradient(cube, -10.0, h=0.1)      # step 1
    assert math.isclose(slope, 301.0, abs_tol=1e-9)
    (slope,) = numerical_gradient(cube, 0.5, h=0.1)        # step 0.1
    assert math.isclose(slope, 0.76, abs_tol=1e-9)
    assert numerical_gradient(lambda a, b: Value(a) * 2 - b, 8, 1) == (
        pytest.approx(2), pytest.approx(-1)
    )


def test_numerical_gradient_of_tensors():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, generator=g).T        # not contiguous, float32
    w = torch.randn(3, generator=g).double()
    before = x.clone()

    def f(x, w):
        return (x @ w).tanh().sum() + (x * x).sum() / w.exp().sum()

    dx, dw = numerical_gradient(f, x, w)
    xd, wd = x.double().requires_grad_(), w.clone().requires_grad_()
    f(xd, wd).backward()
    assert_close(dx, xd.grad, rtol=1e-6, atol=1e-8)
    assert_close(dw, wd.grad, rtol=1e-6, atol=1e-8)
    assert_close(x, before, rtol=0, atol=0)     # the input is left alone
    (d,) = numerical_gradient(torch.sum, torch.zeros(0, 3))
    assert d.shape == (0, 3)


def test_gradcheck_passes_what_is_right():
    assert gradcheck(lambda a, b: a / b + (a * b).tanh(), 0.3, 0.5) < 1e-8
    assert gradcheck(lambda a: a.exp(), 2) < 1e-6
    assert gradcheck(lambda x: (x**3).sum(), torch.ones(2, 2)) < 1e-6
    w = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: (w * x).sum(), torch.ones(1)) < 1e-6
    assert gradcheck(math.sin, 1.0, grads=[math.cos(1.0)]) < 1e-8
    w = torch.ones(3)  # an input that f does not look at
    assert gradcheck(lambda x, w: (x * x).sum(), torch.ones(2), w) < 1e-6
    x = torch.linspace(-1, 1, 5)
    assert gradcheck(lambda x: x.tanh().sum(), x, grads=[1 - x.tanh() ** 2])


@pytest.mark.parametrize(
    "grads",
    [(2.0, 3.0), (-3.0, 2.0), (3.0, 2.001), (3.0, math.nan), (0.0, 2.0)],
)
def test_gradcheck_catches_what_is_wrong(grads):
    assert gradcheck(operator.mul, 2.0, 3.0, grads=(3.0, 2.0)) < 1e-8
    with pytest.raises(AssertionError, match="nudging says"):
        gradcheck(operator.mul, 2.0, 3.0, grads=grads)


def test_gradcheck_names_the_worst_place():
    x = torch.ones(2, 3)
    wrong = 2 * x
    wrong[1, 0] += 0.5
    wrong[1, 1] -= 0.6
    with pytest.raises(AssertionError, match="input 0, element 4: .* 1.4,"):
        gradcheck(lambda x: (x * x).sum(), x, grads=[wrong])
    with pytest.raises(AssertionError, match="says 0, nudging says 2"):
        gradcheck(lambda x: (x.detach() ** 2).sum(), x)    # cut off

    def half_right(v):                          # a slope that is wrong
        return Value(v.data**2, (v,), (v.data,), "sq")

    with pytest.raises(AssertionError, match="says 3, nudging says 6"):
        gradcheck(half_right, 3.0)


def test_gradcheck_tolerances_are_used():
    f = operator.mul
    assert gradcheck(f, 2.0, 3.0, grads=(3.1, 2.0), atol=0.2) > 0.09
    assert gradcheck(f, 2.0, 3.0, grads=(3.1, 2.0), rtol=0.05) > 0.09
    with pytest.raises(AssertionError):
        gradcheck(f, 2.0, 3.0, grads=(3.1, 2.0), rtol=0.01)
    assert gradcheck(f, 2.0, 3.0, grads=(3.0002, 2.0)) > 1e-4
    assert gradcheck(f, 0.0, 3.0, grads=(3.0, 9e-7)) > 8e-7
    with pytest.raises(AssertionError):
        gradcheck(f, 0.0, 3.0, grads=(3.0, 2e-6))


def test_mlp_is_torchs_linear_and_tanh():
    ours = MLP([3, 4, 4, 2], generator=torch.Generator().manual_seed(1))
    layers = []
    for n_in, n_out, layer in zip([3, 4, 4], [4, 4, 2], ours.layers,
                                  strict=True):
        linear = torch.nn.Linear(n_in, n_out).double()
        with torch.no_grad():
            for i, neuron in enumerate(layer.neurons):
                neuron.bias.data = 0.1 * i
                linear.weight[i] = tensor([w.data for w in neuron.weights])
                linear.bias[i] = neuron.bias.data
        layers += [linear, torch.nn.Tanh()]
    theirs = torch.nn.Sequential(*layers[:-1])
    xs = [0.5, -1.0, 2.0]
    a, b = ours(xs)
    out = theirs(tensor(xs))
    assert_close(tensor([a.data, b.data]), out, **EXACT)
    (a * a - b).backward()
    (out[0] * out[0] - out[1]).backward()
    flat = [
        [*layer.weight.grad[i], layer.bias.grad[i]]
        for layer in theirs[::2] for i in range(len(layer.bias))
    ]
    assert_close(
        tensor([p.grad for p in ours.parameters()], False),
        torch.stack([g for row in flat for g in row]), **EXACT,
    )
    ours.zero_grad()
    assert all(p.grad == 0 for p in ours.parameters())


def test_sizes_and_draws():
    assert len(MLP([3, 4, 4, 1]).parameters()) == 41
    assert isinstance(MLP([2, 3, 1])([1.0, 2.0]), Value)
    assert len(Layer(2, 5)([1.0, 2.0])) == 5
    one, two = (
        [p.data for p in Neuron(
            50, generator=torch.Generator().manual_seed(3)
        ).parameters()]
        for _ in range(2)
    )
    assert one == two and one[-1] == 0
    assert min(one) < -0.5 and max(one) > 0.5 and max(map(abs, one)) <= 1
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one, two, three = (
        [p.data for p in MLP(
            [3, 4, 2], generator=torch.Generator().manual_seed(seed)
        ).parameters()]
        for seed in (1, 1, 2)
    )
    assert one == two != three
    assert torch.equal(torch.get_rng_state(), state)
    neuron = Neuron(1, act=False)
    neuron.weights[0].data, neuron.bias.data = 2.0, 1.0
    assert neuron([5.0]).data == 11
    neuron.act = True
    assert neuron([5.0]).data == math.tanh(11)


def test_descent_goes_down():
    model = MLP([1, 3, 1], generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(30):
        loss = sum((model([x]) - 0.5 * x) ** 2 for x in (-1.0, 0.0, 1.0))
        model.zero_grad()
        loss.backward()
        for p in model.parameters():
            p.data -= 0.1 * p.grad
        losses.append(loss.data)
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("flags", [{}, {"slopes": False}, {"grads": False}])
def test_draw_puts_every_box_right_of_what_it_is_made_from(flags, monkeypatch):
    a, b, c = (Value(x, label=n) for x, n in ((1, "a"), (2, "b"), (3, "c")))
    mid = a * b
    out = (mid + c) * a + mid  # a and mid are used at two depths
    boxes, colors, arrows = [], [], []

    def box(ax, x, y, w, h, text, color, **_):
        boxes.append((x, y, w, h))
        colors.append(color)

    monkeypatch.setattr(drawings, "box", box)
    monkeypatch.setattr(
        drawings, "arrow",
        lambda ax, start, end, **_: arrows.append((start, end)))
    draw(out, **flags)
    order = out.order()
    place = dict(zip(order, boxes, strict=True))
    for node in order:
        x, y, w, h = place[node]
        for parent in node.parents:
            assert place[parent][0] + w < x
        for other in order:  # and no two boxes overlap
            x1, y1, *_ = place[other]
            assert other is node or abs(x - x1) >= w or abs(y - y1) >= h
    assert max(x for x, *_ in boxes) == place[out][0]
    start, end = drawings.FILLS[:2]
    assert colors == [None if node is mid or node.parents and node is not out
                      else end if node is out else start for node in order]
    wanted = []  # from the right of each parent to the left of the box
    for node in order:
        x, y, w, h = place[node]
        for parent in node.parents:
            x0, y0, *_ = place[parent]
            wanted.append(((x0 + w, y0 + h / 2), (x, y + h / 2)))
    assert arrows == wanted


def test_draw_shows_every_value():
    a = Value(1.5, label="a")
    b = a * a + a.tanh()
    b.label = "b"
    b.backward()
    texts = [t.get_text() for t in draw(b).texts]
    assert f"a\n1.5\ngrad {a.grad:.4g}" in texts
    assert f"b (+)\n{b.data:.4g}\ngrad 1" in texts
    assert len(texts) == 4 + 5                  # boxes and slopes
    texts = [t.get_text() for t in draw(b, grads=False, slopes=False).texts]
    assert texts[0] == "a\n1.5" and len(texts) == 4
    matplotlib.pyplot.close("all")


def test_gradcheck_reads_doubles_and_takes_your_nudge():
    seen = set()

    def cube(x):
        seen.add(x.dtype)
        return (x**3).sum()

    gradcheck(cube, torch.tensor([0.5, 1.0]))  # float32 goes in
    assert seen == {torch.float64}
    with pytest.raises(AssertionError, match="element 0"):
        gradcheck(cube, torch.ones(2), h=0.5)  # too wide for a cube
    wrong = [torch.tensor([3.0, math.nan])]
    with pytest.raises(AssertionError, match="element 1.*nan"):
        gradcheck(cube, torch.ones(2), grads=wrong)
    (slopes,) = numerical_gradient(lambda x: x.mul_(2).sum(), torch.ones(2))
    assert_close(slopes, torch.tensor([2.0, 2.0], dtype=torch.float64))
