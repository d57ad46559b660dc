"""The functions without parameters against their twins in torch."""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from zerohero import functional as Z

INF, NAN = math.inf, math.nan
ERRORS = (ValueError, IndexError, RuntimeError)
SIGNED = """embedding softmax log_softmax nll_loss cross_entropy relu sigmoid
tanh silu layer_norm rms_norm batch_norm mse_loss""".split()


def rand(*shape, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=g, dtype=dtype)


def ids(high, *shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(high, shape, generator=g)


def parity(name, *args, theirs=None, **kwargs):
    """Same value and dtype, same gradients for every float argument."""
    results = []
    for f in (getattr(Z, name), theirs or getattr(F, name)):
        leaves = [
            a.clone().requires_grad_()
            if isinstance(a, torch.Tensor) and a.is_floating_point()
            else a
            for a in args
        ]
        out = f(*leaves, **kwargs)
        weights = torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype)
        grads = []
        if out.requires_grad:
            (out * weights.view(out.shape)).sum().backward()
            grads = [
                a.grad
                for a in leaves
                if isinstance(a, torch.Tensor) and a.is_floating_point()
            ]
        results.append((out.detach(), grads))
    (ours, our_grads), (theirs, their_grads) = results
    assert_close(ours, theirs, equal_nan=True)
    assert len(our_grads) == len(their_grads)
    for mine, other in zip(our_grads, their_grads, strict=True):
        if other is None:
            assert mine is None or not mine.any()
        else:
            assert_close(mine, other, equal_nan=True)
    return ours


def both_raise(name, *args, theirs=None, **kwargs):
    """Torch refuses this input, and so do we, with a message."""
    with pytest.raises(ERRORS):
        (theirs or getattr(F, name))(*args, **kwargs)
    with pytest.raises((ValueError, IndexError)) as error:
        getattr(Z, name)(*args, **kwargs)
    assert len(str(error.value)) > 15
    return str(error.value)


@pytest.mark.parametrize("name", SIGNED)
def test_signature_is_that_of_torch(name):
    ours = inspect.signature(getattr(Z, name)).parameters.values()
    theirs = inspect.signature(getattr(F, name)).parameters.values()
    assert [(p.name, p.default) for p in ours] == [
        (p.name, p.default) for p in theirs
    ]


def test_never_calls_the_twin():
    source = inspect.getsource(Z)
    for call in ("F.", "nn.functional as", "torch.softmax", ".softmax("):
        assert call not in source


# ------------------------------------------------------------ the table

W = rand(4, 3, seed=1)
B = rand(4, seed=2)
X = rand(6, 5, seed=3)
T6 = ids(5, 6)
P = F.softmax(rand(6, 5, seed=4), -1)
CW = rand(5, seed=5).abs()
LP = F.log_softmax(X, 1)
V3 = rand(2, 3, 4, seed=6)
W4, B4 = rand(4, seed=7), rand(4, seed=8)
B5 = rand(5, seed=9)
W34, B34 = rand(3, 4, seed=7), rand(3, 4, seed=8)
Q, K, V = (rand(2, 3, n, 8, seed=n) for n in (4, 6, 6))
MASK = ids(2, 4, 6).bool() | torch.eye(4, 6).bool()
BLIND = MASK & torch.tensor([[True], [False], [True], [True]])

CASES = [
    ("linear", (rand(2, 3), W, B), {}),
    ("linear", (rand(2, 5, 3), W), {}),
    ("linear", (rand(3), W, B), {}),
    ("linear", (rand(0, 3), W, B), {}),
    ("linear", (rand(2, 3), W[0]), {}),
    ("embedding", (ids(4, 2, 5), W), {}),
    ("embedding", (ids(4, 7), W), dict(padding_idx=2)),
    ("embedding", (ids(4, 7), W), dict(padding_idx=-1)),
    ("embedding", (ids(4, 7), W), dict(padding_idx=-4)),
    ("embedding", (ids(4, 7).int(), W), {}),
    ("embedding", (torch.tensor(1), W), {}),
    ("embedding", (ids(4, 0, 2), W), {}),
    *[
        (name, (x,), dict(dim=dim))
        for name in ("softmax", "log_softmax")
        for x, dim in [(X, 0), (X, 1), (X, -1), (V3, 1), (X[0], 0)]
    ],
    ("softmax", (X.float(), 1), dict(dtype=torch.float64)),
    ("log_softmax", (torch.arange(4), 0), dict(dtype=torch.float32)),
    ("softmax", (rand(0, 3), 0), {}),
    ("log_softmax", (rand(0, 3), 1), {}),
    ("softmax", (torch.tensor(2.0), 0), {}),
    *[
        (name, args, dict(reduction=r, **kw))
        for r in ("mean", "sum", "none")
        for name, args, kw in [
            ("nll_loss", (LP, T6), {}),
            ("nll_loss", (LP[0], T6[0]), {}),
            ("nll_loss", (LP, T6), dict(weight=CW, ignore_index=1)),
            ("nll_loss", (LP[0], T6[0]), dict(weight=CW)),
            ("cross_entropy", (X[1], T6[1]), dict(weight=CW)),
            ("cross_entropy", (X[1], P[1]), dict(weight=CW)),
            ("cross_entropy", (X, T6), {}),
            ("cross_entropy", (X[0], T6[0]), {}),
            ("cross_entropy", (rand(2, 5, 3), ids(5, 2, 3)), {}),
            ("cross_entropy", (rand(2, 5, 3, 2), ids(5, 2, 3, 2)), {}),
            ("cross_entropy", (X, T6.to(torch.uint8)), {}),
            ("cross_entropy", (X, T6), dict(ignore_index=1)),
            ("cross_entropy", (X, T6), dict(weight=CW)),
            (
                "cross_entropy",
                (rand(2, 5, 3), ids(5, 2, 3)),
                dict(weight=CW, ignore_index=3, label_smoothing=0.2),
            ),
            ("cross_entropy", (X, T6), dict(label_smoothing=0.1)),
            ("cross_entropy", (X[0], T6[0]), dict(label_smoothing=1.0)),
            ("cross_entropy", (X, P), {}),
            ("cross_entropy", (X[0], P[0]), {}),
            ("cross_entropy", (X, P), dict(ignore_index=-1)),
            (
                "cross_entropy",
                (rand(2, 5, 3), F.softmax(rand(2, 5, 3), 1)),
                dict(weight=CW, label_smoothing=0.3),
            ),
            # nothing left to count: 0/0
            ("cross_entropy", (X, torch.full((6,), -100)), {}),
            ("cross_entropy", (rand(0, 5), ids(5, 0)), {}),
            ("mse_loss", (X, P), {}),
            ("mse_loss", (X, P, None, None), dict(weight=X.abs())),
            ("mse_loss", (rand(0), rand(0)), {}),
            ("mse_loss", (X > 0, P), {}),
            ("mse_loss", (T6, rand(6)), {}),
        ]
    ],
    *[
        (name, (rand(5, 7) * 3,), {})
        for name in ("relu", "gelu", "silu", "sigmoid", "tanh")
    ],
    ("gelu", (rand(5, 7) * 3,), dict(approximate="tanh")),
    ("sigmoid", (torch.arange(-3, 3),), {}),
    ("tanh", (torch.arange(-3, 3),), {}),
    ("relu", (torch.arange(-3, 3),), {}),
    ("layer_norm", (V3, (4,)), {}),
    ("layer_norm", (V3, [4], W4, B4), dict(eps=0.1)),
    ("layer_norm", (V3, (3, 4), W34, B34), {}),
    ("layer_norm", (V3[:0], (4,), W4, B4), {}),
    ("rms_norm", (V3, (4,)), {}),
    ("rms_norm", (V3, (4,), W4), dict(eps=0.1)),
    ("rms_norm", (V3, (3, 4), W34), {}),
    ("rms_norm", (torch.zeros(2, 4, dtype=torch.float64), (4,)), {}),
    ("scaled_dot_product_attention", (Q, K, V), {}),
    ("scaled_dot_product_attention", (Q, K, V), dict(scale=0.3)),
    ("scaled_dot_product_attention", (Q, K, V), dict(is_causal=True)),
    ("scaled_dot_product_attention", (K, K, V), dict(is_causal=True)),
    ("scaled_dot_product_attention", (Q, K, V, MASK), {}),
    ("scaled_dot_product_attention", (Q, K, V, BLIND), {}),
    ("scaled_dot_product_attention", (Q, K, V[..., :5], rand(4, 6)), {}),
    (
        "scaled_dot_product_attention",
        (rand(2, 6, 4, 8), K, V),
        dict(enable_gqa=True),
    ),
]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    CASES,
    ids=[f"{i}-{name}" for i, (name, _, _) in enumerate(CASES)],
)
def test_parity(name, args, kwargs, dtype):
    def cast(a):
        floats = isinstance(a, torch.Tensor) and a.is_floating_point()
        return a.to(dtype) if floats else a

    args = tuple(cast(a) for a in args)
    kwargs = {k: cast(v) for k, v in kwargs.items()}
    parity(name, *args, **kwargs)


BAD = [
    ("one_hot", (torch.tensor([0, 3]), 3), {}, "0..3"),
    ("one_hot", (torch.tensor([-1, 1]), 3), {}, "-1..1"),
    ("one_hot", (torch.tensor([1.0]), 3), {}, "int64"),
    ("one_hot", (torch.empty(0).long(),), {}, "num_classes"),
    ("one_hot", (torch.empty(0).long(), 0), {}, "num_classes"),
    ("one_hot", (torch.tensor([0]), 0), {}, "positive, got 0"),
    ("one_hot", (torch.tensor([0]), -2), {}, "positive, got -2"),
    ("linear", (rand(2, 4), W, B), {}, "(2, 4) and weight (4, 3)"),
    ("linear", (rand(2, 3), W, B[:3]), {}, "(3,)"),
    ("linear", (rand(2, 3), W[:1], B), {}, "(4,)"),
    ("linear", (rand(2, 3), W, B.float()), {}, "float32"),
    ("linear", (torch.tensor(1.0), W, B), {}, "()"),
    ("embedding", (torch.tensor([0, 4]), W), {}, "0..3"),
    ("embedding", (torch.tensor([-1]), W), {}, "-1"),
    ("embedding", (torch.tensor([1.0]), W), {}, "float32"),
    ("embedding", (torch.tensor([1]).to(torch.uint8), W), {}, "uint8"),
    ("embedding", (torch.tensor([1]), W[0]), {}, "(3,)"),
    ("softmax", (X, 2), {}, "[-2, 1]"),
    ("softmax", (torch.arange(3), 0), {}, "int64"),
    ("log_softmax", (torch.arange(3), 0), {}, "int64"),
    ("nll_loss", (LP, T6[:5]), {}, "(5,)"),
    ("nll_loss", (LP.long(), T6), {}, "int64"),
    ("cross_entropy", (X, T6[:5]), {}, "(5,)"),
    ("cross_entropy", (X, T6 + 3), {}, "out of bounds"),
    ("cross_entropy", (X, T6 - 3), {}, "out of bounds"),
    ("cross_entropy", (X, torch.full((6,), 5)), {}, "out of bounds"),
    ("cross_entropy", (X, T6.int()), {}, "int32"),
    ("cross_entropy", (X, T6.double()), {}, "float64"),
    ("cross_entropy", (X, T6), dict(reduction="avg"), "avg"),
    ("cross_entropy", (X, T6), dict(label_smoothing=1.5), "1.5"),
    ("cross_entropy", (X, T6), dict(weight=CW[:4]), "(4,)"),
    ("cross_entropy", (X, T6), dict(weight=CW.float()), "float32"),
    ("cross_entropy", (X, torch.zeros(6, 5).long()), {}, "probabilities"),
    ("cross_entropy", (X, P), dict(ignore_index=0), "ignore_index"),
    ("cross_entropy", (X[0, 0], T6[0]), {}, "classes"),
    ("mse_loss", (X, P), dict(reduction="avg"), "avg"),
    ("relu", (torch.tensor([True]),), {}, "bool"),
    ("gelu", (X,), dict(approximate="erf"), "erf"),
    ("gelu", (torch.arange(3),), {}, "int64"),
    ("silu", (torch.arange(3),), {}, "int64"),
    ("layer_norm", (V3, (3,)), {}, "(3,)"),
    ("layer_norm", (V3, ()), {}, "()"),
    ("layer_norm", (V3, (4,), W34), {}, "(3, 4)"),
    ("layer_norm", (V3, (4,), W4, B34), {}, "bias (3, 4)"),
    ("layer_norm", (V3.long(), (4,)), {}, "int64"),
    ("rms_norm", (V3, (3,)), {}, "(3,)"),
    ("rms_norm", (V3, (4,), W34), {}, "(3, 4)"),
    ("layer_norm", (V3, (4,), W4.float()), {}, "weight is torch.float32"),
    ("layer_norm", (V3.float(), (4,), None, B4), {}, "bias is torch.float64"),
    ("dropout", (X,), dict(p=-0.1), "-0.1"),
    ("dropout", (X,), dict(p=1.1), "1.1"),
    ("batch_norm", (X[:1], None, None), dict(training=True), "(1, 5)"),
    ("batch_norm", (X, None, None), {}, "running_mean"),
    ("batch_norm", (X, CW[:4], CW), {}, "running_mean (4,)"),
    ("batch_norm", (X, CW, CW, CW[:4]), {}, "weight (4,)"),
    ("batch_norm", (X, CW.float(), CW.float()), {}, "running_mean is"),
    ("batch_norm", (X, CW, CW, CW, CW.float()), {}, "bias is"),
    ("batch_norm", (X, CW, None), dict(training=True), "or none"),
    ("batch_norm", (X, None, CW), dict(training=True), "or none"),
    ("batch_norm", (X, None, None), dict(training=True, eps=0.0), "eps"),
    ("batch_norm", (X, CW, CW), dict(eps=-1e-5), "eps"),
    ("batch_norm", (X.half(), CW.half(), CW.float()), {}, "running_var is"),
    ("layer_norm", (V3.half(), (4,), W4.half(), B4.float()), {}, "bias is"),
    ("batch_norm", (X[:1, :0], None, None), dict(training=True), "(1, 0)"),
    ("scaled_dot_product_attention", (Q[0, 0, 0],) * 3, {}, "(8,)"),
    ("scaled_dot_product_attention", (Q, K[..., :7], V), {}, "7)"),
    ("scaled_dot_product_attention", (Q[0], K[0], V[0, :, :5]), {}, "5, 8)"),
    ("scaled_dot_product_attention", (Q.float(), K, V), {}, "float32"),
    (
        "scaled_dot_product_attention",
        (Q[0], K[0], V[0], MASK),
        dict(is_causal=True),
        "not both",
    ),
    ("scaled_dot_product_attention", (Q, K, V, MASK.long()), {}, "int64"),
    ("scaled_dot_product_attention", (Q, K, V, MASK.T), {}, "mask (6, 4)"),
    # a mask of more rows or batches than there are queries
    (
        "scaled_dot_product_attention",
        (Q[..., :1, :], K, V, MASK),
        {},
        "(4, 6)",
    ),
    (
        "scaled_dot_product_attention",
        (Q[0, 0], K[0, 0], V[0, 0], MASK.expand(2, 4, 6)),
        {},
        "(2, 4, 6)",
    ),
    ("scaled_dot_product_attention", (Q, K[:, :2], V), {}, "key (2, 2)"),
    (
        "scaled_dot_product_attention",
        (rand(2, 4, 4, 8), K, V),
        dict(enable_gqa=True),
        "heads",
    ),
    (
        "scaled_dot_product_attention",
        (Q[0, 0], K[0, 0], V[0, 0]),
        dict(enable_gqa=True),
        "heads",
    ),
]


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "says"),
    BAD,
    ids=[f"{i}-{case[0]}" for i, case in enumerate(BAD)],
)
def test_errors(name, args, kwargs, says):
    assert says in both_raise(name, *args, **kwargs)


@pytest.mark.parametrize(
    "kwargs",
    [dict(max_norm=1.0), dict(scale_grad_by_freq=True), dict(sparse=True)],
)
def test_embedding_says_what_it_leaves_out(kwargs):
    with pytest.raises(ValueError, match="not rebuilt"):
        Z.embedding(torch.tensor([1]), W, **kwargs)
    for i in (4, -5):
        with pytest.raises(ValueError, match=f"padding_idx {i}"):
            Z.embedding(torch.tensor([1]), W, padding_idx=i)


def test_what_torch_lets_through_is_refused():
    with pytest.raises(ValueError, match="label_smoothing .* -0.1"):
        Z.cross_entropy(X, T6, label_smoothing=-0.1)
    with pytest.raises(ValueError, match=r"bias \(1, 4\)"):
        Z.linear(rand(2, 3), W, B[None])


def test_integers_become_the_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        for name in ("sigmoid", "tanh"):
            assert parity(name, torch.arange(-3, 3)).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32,
                                   torch.float64], ids=str)
def test_rms_norm_default_eps_is_that_of_torch(dtype):
    size = {torch.float64: 1e-9}.get(dtype, 1e-3)  # of the root of eps
    x = (size * X).to(dtype)
    assert_close(Z.rms_norm(x, (5,)), F.rms_norm(x, (5,)))


def test_deprecated_reductions_are_refused():
    for kwargs in (dict(size_average=True), dict(reduce=False)):
        with pytest.raises(ValueError, match="reduction='mean'"):
            Z.cross_entropy(X, T6, **kwargs)


# ------------------------------------------------------- extreme inputs

EXTREME = torch.tensor(
    [-INF, -1e30, -1e3, -90, -30, -1, -1e-6, 0, 1e-6, 1, 15, 30, 90, 1e3, NAN],
    dtype=torch.float64,
)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("name", ["relu", "silu", "sigmoid", "tanh", "gelu"])
def test_extreme_activations(name, dtype):
    parity(name, EXTREME.to(dtype))
    if name == "gelu":
        parity(name, EXTREME.to(dtype), approximate="tanh")


@pytest.mark.parametrize("name", ["relu", "silu", "sigmoid", "tanh", "gelu"])
def test_second_derivatives_of_activations(name):
    x = EXTREME[1:-1].clone().requires_grad_()
    curves = []
    for f in (getattr(Z, name), getattr(F, name, getattr(torch, name, None))):
        slope, = torch.autograd.grad(f(x).sum(), x, create_graph=True)
        curves.append(torch.autograd.grad(slope.sum(), x)[0]
                      if slope.requires_grad else torch.zeros_like(x))
    assert_close(*curves)


def test_activations_at_plus_infinity():
    big = torch.tensor([INF])
    assert_close(Z.sigmoid(big), torch.ones(1))
    assert_close(Z.tanh(big), torch.ones(1))
    assert Z.relu(big).item() == Z.silu(big).item() == INF
    for name in ("relu", "sigmoid", "tanh", "silu"):
        parity(name, big, theirs=getattr(torch, name, None))


def test_activations_by_hand():
    tiny = torch.tensor(1e-12).double()
    assert_close(Z.tanh(tiny), tiny, rtol=1e-9, atol=0)
    assert_close(Z.sigmoid(torch.tensor(math.log(3.0))), torch.tensor(0.75))
    assert_close(Z.gelu(torch.tensor(1.0)), torch.tensor(0.8413447))
    assert_close(Z.silu(torch.tensor(0.0)), torch.tensor(0.0))


ROWS = torch.tensor(
    [
        [1e4, 0, -1e4],
        [-INF, 1, 2],
        [-INF, -INF, -INF],
        [INF, 0, 1],
        [NAN, 0, 1],
        [3e38, -3e38, 3],
    ]
)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_extreme_rows(dtype):
    rows = ROWS.to(dtype)
    for dim in (0, 1):
        for f, g in [
            (Z.softmax, F.softmax),
            (Z.log_softmax, F.log_softmax),
            (Z.logsumexp, torch.logsumexp),
        ]:
            assert_close(f(rows, dim), g(rows, dim), equal_nan=True)
    finite = rows[[0, 1]]
    target = torch.tensor([2, 1])
    parity("cross_entropy", finite, target)
    parity("cross_entropy", finite, target, reduction="none")
    # an impossible class as target: infinitely surprised
    assert Z.cross_entropy(finite[1], torch.tensor(0)) == INF
    assert Z.cross_entropy(rows[2], torch.tensor(0)).isnan()


@pytest.mark.parametrize("dim", [0, 1, -1, (0, 1)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_logsumexp(dim, keepdim):
    parity("logsumexp", X, dim, keepdim, theirs=torch.logsumexp)
    x = torch.arange(6).reshape(2, 3)
    assert_close(Z.logsumexp(x, dim), torch.logsumexp(x, dim))
    assert_close(
        Z.logsumexp(rand(0, 3), 0), torch.logsumexp(rand(0, 3), 0)
    )


def test_constant_rows_and_batches():
    five = torch.full((4, 3), 5.0)
    zero = torch.zeros(4, 3)
    assert_close(Z.layer_norm(five, (3,)), zero)
    assert_close(Z.batch_norm(five, None, None, training=True), zero)
    x = five.clone().requires_grad_()
    Z.layer_norm(x, (3,)).sum().backward()
    assert_close(x.grad, zero)
    assert_close(Z.rms_norm(five, (3,)), zero + 1)
    # without eps the next line would be nan
    assert_close(Z.layer_norm(zero, (3,), eps=1.0), zero)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype):
    x = X.to(dtype)
    for name, args in [
        ("softmax", (x, 1)),
        ("log_softmax", (x, 1)),
        ("cross_entropy", (x, T6)),
        ("gelu", (x,)),
        ("tanh", (x,)),
        ("sigmoid", (x,)),
        ("layer_norm", (x, (5,))),
        ("layer_norm", (x, (5,), CW.float(), B5.float())),
        ("batch_norm", (x, B5.float(), CW.float(), None, B5.float())),
        ("rms_norm", (x, (5,))),
    ]:
        ours, theirs = getattr(Z, name)(*args), getattr(F, name)(*args)
        assert_close(ours, theirs)
        assert ours.dtype == dtype


def test_half_precision_of_large_sums():
    # what adds up to more than 65504 on the way must not overflow
    x = torch.tensor([[250.0, -200.0], [30.0, 0.0]]).half()
    parity("mse_loss", x, torch.zeros_like(x))
    parity("mse_loss", 200 * x, torch.zeros_like(x))  # inf, its slope not
    logits = torch.tensor([[-3e4, 0.0]]).half().repeat(3, 1)
    assert_close(Z.cross_entropy(logits, torch.zeros(3).long()),
                 torch.tensor(3e4).half())
    many = torch.zeros(70000)  # targets, more than float16 can count
    assert_close(Z.cross_entropy(many.view(-1, 1).repeat(1, 2).half(),
                                 many.long()), torch.tensor(0.6931).half())


def test_half_precision_attention_of_large_queries():
    q, k, v = (t.half() for t in (1000 + Q, 100 * K, V))
    ours, theirs = (f.scaled_dot_product_attention(q, k, v) for f in (Z, F))
    assert_close(ours, theirs)
    assert theirs.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_attention_takes_a_float32_mask(dtype):
    q, k, v = (t.to(dtype) for t in (Q, K, V))
    ours, theirs = (f.scaled_dot_product_attention(q, k, v, MASK.float())
                    for f in (Z, F))
    assert_close(ours, theirs, rtol=2e-3, atol=1e-3)


def test_implicit_softmax_dim_warns_like_torch():
    for name in ("softmax", "log_softmax"):
        for x in (X[0], X, V3):
            with pytest.warns(UserWarning, match="Implicit dimension"):
                ours = getattr(Z, name)(x)
            with pytest.warns(UserWarning, match="Implicit dimension"):
                assert_close(ours, getattr(F, name)(x))


def test_mse_broadcast_warns_like_torch():
    with pytest.warns(UserWarning):
        theirs = F.mse_loss(X[:, :1], X[:, 0])
    with pytest.warns(UserWarning, match="broadcast"):
        assert_close(Z.mse_loss(X[:, :1], X[:, 0]), theirs)
    with pytest.raises(ValueError, match="(5,)"):
        Z.mse_loss(X, P, weight=CW)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="(4,)"):
        Z.mse_loss(rand(3), rand(4))


# -------------------------------------------------------------- one_hot


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(0, 4), max_size=3))
def test_one_hot(classes, shape):
    x = ids(classes, *shape)
    assert_close(Z.one_hot(x, classes), F.one_hot(x, classes))
    if x.numel():
        assert_close(Z.one_hot(x), F.one_hot(x))


# ----------------------------------------------------------- batch_norm


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4), (2, 3, 2, 2), (1, 3, 4)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0])
def test_batch_norm(shape, training, momentum):
    x, grad = rand(*shape) * 2 + 1, rand(*shape, seed=9)
    outs = []
    for f in (Z.batch_norm, F.batch_norm):
        leaves = [
            t.clone().requires_grad_() for t in (x, rand(3, seed=1), rand(3))
        ]
        mean, var = rand(3, seed=2), rand(3, seed=3).abs()
        y = f(
            leaves[0],
            mean,
            var,
            *leaves[1:],
            training=training,
            momentum=momentum,
            eps=1e-2,
        )
        y.backward(grad)
        outs.append([y.detach(), mean, var, *[t.grad for t in leaves]])
    for ours, theirs in zip(*outs, strict=True):
        assert_close(ours, theirs)
    assert not outs[0][1].requires_grad


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (4, 3, 0)])
def test_batch_norm_of_nothing_keeps_the_statistics(shape):
    mean, var = torch.zeros(3), torch.ones(3)
    out = Z.batch_norm(torch.empty(shape), mean, var, training=True)
    assert out.shape == shape
    assert_close(mean, torch.zeros(3))
    assert_close(var, torch.ones(3))


def test_batch_norm_by_hand():
    """Normalizes with the biased variance, stores the unbiased one."""
    x = torch.tensor([[1.0], [3.0]])  # mean 2, variance 1, unbiased 2
    mean, var = torch.zeros(1), torch.ones(1)
    y = Z.batch_norm(x, mean, var, training=True, momentum=0.5, eps=1e-12)
    assert_close(y, torch.tensor([[-1.0], [1.0]]))
    assert_close(mean, torch.tensor([1.0]))
    assert_close(var, torch.tensor([1.5]))
    y = Z.batch_norm(x, mean, var, eps=0.0)
    assert_close(mean, torch.tensor([1.0]))
    assert_close(y, (x - 1) / math.sqrt(1.5))


def test_batch_norm_default_momentum_and_eps():
    x = rand(8, 3) * 1e-3  # so small that eps counts
    assert_close(
        Z.batch_norm(x, None, None, training=True),
        F.batch_norm(x, None, None, training=True),
    )


# -------------------------------------------------------------- dropout


@pytest.mark.parametrize("p", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("inplace", [False, True])
def test_dropout_draws_what_torch_draws(p, inplace):
    results = []
    for f in (Z.dropout, F.dropout):
        torch.manual_seed(3)
        x = X.clone()
        results.append((f(x, p, True, inplace), x))
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs)


def test_dropout_laws():
    x = torch.ones(100_000)
    g = torch.Generator().manual_seed(1)
    y = Z.dropout(x, 0.25, generator=g)
    assert set(y.unique().tolist()) == {0.0, x.new_tensor(1 / 0.75).item()}
    assert_close(y.mean(), torch.tensor(1.0), rtol=0, atol=0.01)
    again = Z.dropout(x, 0.25, generator=torch.Generator().manual_seed(1))
    assert_close(y, again)
    assert Z.dropout(x, 0.25, training=False) is x
    assert Z.dropout(x, 0.0) is x
    torch.manual_seed(1)
    by_default = Z.dropout(x)  # half of all, in training mode
    torch.manual_seed(1)
    assert_close(by_default, F.dropout(x))
    assert Z.dropout(torch.empty(0), 0.5).shape == (0,)
    with pytest.raises(ValueError, match="floating"):
        Z.dropout(torch.ones(3).long())


def test_inplace_activations():
    for name in ("relu", "silu"):
        ours, theirs = X.clone(), X.clone()
        assert getattr(Z, name)(ours, inplace=True) is ours
        getattr(F, name)(theirs, inplace=True)
        assert_close(ours, theirs)
        grads = []
        for lib in (Z, F):  # the gradient survives the overwriting
            x = X.clone().requires_grad_()
            getattr(lib, name)(x * 1, inplace=True).sum().backward()
            grads.append(x.grad)
        assert_close(*grads)


# ------------------------------------------------------------ attention


def test_attention_is_causal():
    q, k, v = (rand(1, 5, 4, seed=s) for s in range(3))
    before = Z.scaled_dot_product_attention(q, k, v, is_causal=True)
    k[:, 3], v[:, 3] = 9.0, 9.0
    after = Z.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert_close(before[:, :3], after[:, :3])
    assert (before[:, 3:] - after[:, 3:]).abs().amin() > 1e-6


def test_attention_by_hand():
    """Equal scores: the mean of the values; a blind query: zeros."""
    q, k = torch.zeros(3, 2), rand(3, 2, dtype=torch.float32)
    v = torch.tensor([[1.0], [3.0], [8.0]])
    out = Z.scaled_dot_product_attention(q, k, v)
    assert_close(out, torch.full((3, 1), 4.0))
    out = Z.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert_close(out, torch.tensor([[1.0], [2.0], [4.0]]))
    mask = torch.tensor([[True, False, True]]).repeat(3, 1)
    mask[1] = False
    out = Z.scaled_dot_product_attention(q, k, v, mask)
    assert_close(out, torch.tensor([[4.5], [0.0], [4.5]]))


def test_attention_blind_row_has_no_nan_gradient():
    q = rand(4, 8).requires_grad_()
    mask = torch.full((4, 6), -INF).double()
    mask[:2] = 0
    for m in (mask, mask == 0):
        q.grad = None
        out = Z.scaled_dot_product_attention(q, K[0, 0], V[0, 0], m)
        out.sum().backward()
        assert_close(out[2:], torch.zeros(2, 8).double())
        assert q.grad.isfinite().all()


@pytest.mark.parametrize("shapes", [(0, 3), (2, 0)])
def test_attention_of_nothing(shapes):
    q = torch.empty(*shapes, 4)
    assert Z.scaled_dot_product_attention(q, q, q).shape == q.shape


def test_attention_no_keys_gives_zeros():
    q, k = torch.ones(2, 3, 4), torch.empty(2, 0, 4)
    out = Z.scaled_dot_product_attention(q, k, k)
    assert_close(out, F.scaled_dot_product_attention(q, k, k))


def test_attention_dropout():
    torch.manual_seed(0)
    x = torch.ones(1, 500, 4)
    out = Z.scaled_dot_product_attention(x, x, x, dropout_p=0.5)
    assert out.std() > 0.01
    assert_close(out.mean(), torch.tensor(1.0), rtol=0, atol=0.02)
    out = Z.scaled_dot_product_attention(x, x, x, dropout_p=1.0)
    assert not out.any()


# ----------------------------------------------------------- hypothesis

sizes = st.integers(1, 5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
    st.integers(0, 3),
    st.integers(0, 1000),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_any_shape_softmax_and_norms(shape, axis, seed, dtype):
    x = rand(*shape, seed=seed, dtype=dtype) * 10
    dim = axis % len(shape)
    parity("softmax", x, dim)
    parity("log_softmax", x, dim)
    parity("logsumexp", x, dim, theirs=torch.logsumexp)
    tail = shape[dim:]
    if math.prod(tail) > 1:
        parity("layer_norm", x, tail)
        parity("rms_norm", x, tail)
    if x.numel():
        assert_close(
            Z.softmax(x, dim).sum(dim), torch.ones_like(x.sum(dim))
        )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 4),
    sizes,
    st.lists(st.integers(0, 3), max_size=2),
    st.integers(0, 1000),
    st.floats(0, 1),
    st.sampled_from(["mean", "sum", "none"]),
    st.integers(-1, 5),
    st.booleans(),
)
def test_any_shape_cross_entropy(
    N, C, rest, seed, smoothing, reduction, ignore_index, weighted
):
    logits = rand(N, C, *rest, seed=seed) * 5
    kwargs = dict(
        reduction=reduction,
        label_smoothing=smoothing,
        weight=rand(C, seed=seed).abs() + 0.1 if weighted else None,
    )
    target = ids(C, N, *rest, seed=seed)
    parity(
        "cross_entropy", logits, target, ignore_index=ignore_index, **kwargs
    )
    probs = F.softmax(rand(N, C, *rest, seed=seed + 1), 1)
    if C > 1 or not rest:
        parity("cross_entropy", logits, probs, **kwargs)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 3), max_size=2),
    sizes,
    sizes,
    sizes,
    sizes,
    st.integers(0, 1000),
    st.sampled_from(["none", "causal", "bool", "float"]),
)
def test_any_shape_attention(batch, t, s, e, ev, seed, mask):
    q = rand(*batch, t, e, seed=seed)
    k, v = rand(*batch, s, e, seed=seed + 1), rand(*batch, s, ev, seed=seed)
    kwargs = {
        "none": {},
        "causal": dict(is_causal=True),
        "bool": dict(attn_mask=ids(2, t, s, seed=seed).bool()),
        "float": dict(attn_mask=rand(t, s, seed=seed)),
    }[mask]
    parity("scaled_dot_product_attention", q, k, v, **kwargs)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 4), max_size=3), sizes, sizes, st.integers(0, 99)
)
def test_any_shape_linear_and_embedding(shape, n_in, n_out, seed):
    x, w = rand(*shape, n_in, seed=seed), rand(n_out, n_in, seed=seed)
    parity("linear", x, w, rand(n_out, seed=seed))
    parity("embedding", ids(n_out, *shape, seed=seed), w)
    # an embedding is a one-hot row times the table
    idx = ids(n_out, *shape, seed=seed)
    onehot = Z.one_hot(idx, n_out).double()
    assert_close(onehot @ w, Z.embedding(idx, w))


def test_edges_that_torch_allows_or_refuses():
    none = torch.empty(0, dtype=torch.long)
    for module in (F, Z):
        with pytest.raises(ERRORS):
            module.one_hot(none, 0)
    x, w, one = rand(3, 2), rand(4, 2), rand(1)
    assert_close(Z.linear(x, w, one), F.linear(x, w, one))  # shared by all
    whole = torch.tensor([[1, 2, 4]])
    assert_close(Z.softmax(whole, 1, dtype=torch.float64),
                 F.softmax(whole, 1, dtype=torch.float64))
