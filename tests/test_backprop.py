"""zerohero.backprop: every hand-written backward against autograd."""

import pytest
import torch
import torch.nn.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from zerohero import backprop
from zerohero.backprop import MLP
from zerohero.gradients import gradcheck
from zerohero.optim import SGD

sizes = st.integers(1, 5)
seeds = st.integers(0, 1000)
leads = st.lists(st.integers(1, 3), max_size=3).map(tuple)
relaxed = settings(max_examples=40, deadline=None)


def randn(*shape, seed=0, grad=True):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    return (x * 1.5 + 0.3).requires_grad_(grad)


def grads(out, *inputs, seed=7):
    """A random dout and autograd's gradients of sum(out * dout)."""
    dout = randn(*out.shape, seed=seed, grad=False)
    return dout, torch.autograd.grad((out * dout).sum(), inputs)


def same(ours, theirs):
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert_close(a, b, rtol=1e-9, atol=1e-11, msg=lambda m, i=i:
                     f"gradient {i}: {m}")


# ------------------------------------------------------------- single layers
@given(lead=leads, n_in=sizes, n_out=sizes, seed=seeds)
@relaxed
def test_linear(lead, n_in, n_out, seed):
    x, w = randn(*lead, n_in, seed=seed), randn(n_out, n_in, seed=seed + 1)
    b = randn(n_out, seed=seed + 2)
    dout, want = grads(TF.linear(x, w, b), x, w, b)
    same(backprop.linear_backward(dout, x.detach(), w.detach()), want)


@given(lead=leads, seed=seeds)
@relaxed
def test_tanh(lead, seed):
    x = randn(*lead, seed=seed)
    out = x.tanh()
    dout, want = grads(out, x)
    same([backprop.tanh_backward(dout, out.detach())], want)


@given(lead=leads, V=sizes, C=sizes, seed=seeds)
@relaxed
def test_embedding(lead, V, C, seed):
    w = randn(V, C, seed=seed)
    g = torch.Generator().manual_seed(seed)
    idx = torch.randint(V, lead, generator=g)
    dout, want = grads(w[idx], w)
    same([backprop.embedding_backward(dout, idx, V)], want)


@given(lead=leads, V=sizes, seed=seeds, dim=st.integers(-1, 0))
@relaxed
def test_softmax(lead, V, seed, dim):
    x = randn(*lead, V, seed=seed)
    probs = x.softmax(dim)
    dout, want = grads(probs, x)
    got = backprop.softmax_backward(dout, probs.detach(), dim)
    same([got], want)
    same([got.sum(dim)], [torch.zeros_like(got.sum(dim))])


@given(lead=leads, V=sizes, seed=seeds)
@relaxed
def test_cross_entropy(lead, V, seed):
    logits = randn(*lead, V, seed=seed)
    g = torch.Generator().manual_seed(seed)
    targets = torch.randint(V, lead, generator=g)
    loss = TF.cross_entropy(logits.view(-1, V), targets.view(-1))
    want = torch.autograd.grad(loss, logits)
    same([backprop.cross_entropy_backward(logits.detach(), targets)], want)


def batch_norm(x, weight, bias, eps, unbiased):
    dims = [d for d in range(x.dim()) if d != 1]
    mean = x.mean(dims, keepdim=True)
    var = x.var(dims, keepdim=True, unbiased=unbiased)
    shape = (-1, *[1] * (x.dim() - 2))
    out = (x - mean) / (var + eps) ** 0.5
    return out * weight.view(shape) + bias.view(shape)


@given(N=st.integers(2, 5), C=sizes, tail=st.lists(sizes, max_size=1),
       seed=seeds, unbiased=st.booleans(), eps=st.sampled_from([1e-5, 0.5]))
@relaxed
def test_batch_norm(N, C, tail, seed, unbiased, eps):
    x, w = randn(N, C, *tail, seed=seed), randn(C, seed=seed + 1)
    b = randn(C, seed=seed + 2)
    out = batch_norm(x, w, b, eps, unbiased)
    dout, want = grads(out, x, w, b)
    args = (dout, x.detach(), w.detach(), eps, unbiased)
    same(backprop.batch_norm_backward(*args), want)


def test_batch_norm_defaults_are_torchs():
    x, w, b = randn(6, 3), randn(3, seed=1), randn(3, seed=2)
    with torch.no_grad():
        x[:, 1] *= 1e-3                         # here eps matters
    out = TF.batch_norm(x, None, None, w, b, training=True)
    dout, want = grads(out, x, w, b)
    same(backprop.batch_norm_backward(dout, x.detach(), w.detach()), want)


@given(lead=leads, C=st.integers(1, 6), seed=seeds,
       eps=st.sampled_from([1e-5, 0.5]))
@relaxed
def test_layer_norm(lead, C, seed, eps):
    x, w = randn(*lead, C, seed=seed), randn(C, seed=seed + 1)
    b = randn(C, seed=seed + 2)
    out = TF.layer_norm(x, (C,), w, b, eps)
    dout, want = grads(out, x, w, b)
    same(backprop.layer_norm_backward(dout, x.detach(), w.detach(), eps),
         want)


def test_layer_norm_default_eps_is_torchs():
    x, w, b = randn(4, 3), randn(3, seed=1), randn(3, seed=2)
    with torch.no_grad():
        x *= 1e-3
    dout, want = grads(TF.layer_norm(x, (3,), w, b), x, w, b)
    same(backprop.layer_norm_backward(dout, x.detach(), w.detach()), want)


@given(data=st.data(), shape=leads, seed=seeds)
@relaxed
def test_sum_to_undoes_any_broadcast(data, shape, seed):
    small = tuple(data.draw(st.sampled_from([1, n])) for n in shape)
    small = small[data.draw(st.integers(0, len(small))):]
    x = randn(*small, seed=seed)
    out = x.expand(shape)
    dout, want = grads(out, x)
    same([backprop.sum_to(dout, small)], want)


# ------------------------------------------------------ by hand, and by laws
def test_by_hand():
    dx, dw, db = backprop.linear_backward(
        torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0, 5.0]]),
        torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]]))
    assert dx.tolist() == [[1, 2, 4]]
    assert dw.tolist() == [[3, 4, 5], [6, 8, 10]]
    assert db.tolist() == [1, 2]
    out = torch.tensor([0.0, 0.5, -0.5])
    assert backprop.tanh_backward(torch.ones(3) * 4, out).tolist() == [4, 3, 3]
    logits = torch.zeros(2, 2)
    got = backprop.cross_entropy_backward(logits, torch.tensor([0, 1]))
    assert got.tolist() == [[-0.25, 0.25], [0.25, -0.25]]
    probs, dout = torch.tensor([0.5, 0.5]), torch.tensor([3.0, 1.0])
    assert backprop.softmax_backward(dout, probs).tolist() == [0.5, -0.5]
    rows = torch.stack((dout, dout)), torch.stack((probs, probs))
    assert backprop.softmax_backward(*rows).tolist() == [[0.5, -0.5]] * 2
    assert backprop.sum_to(torch.ones(1, 4), (1,)).tolist() == [4]
    none = torch.ones(0, 3), torch.empty(0, dtype=torch.long)
    assert backprop.embedding_backward(*none, 2).tolist() == [[0] * 3] * 2
    # two values -1 and 1: the output is always (-1, 1), nothing gets through
    dx, dw, db = backprop.batch_norm_backward(
        torch.tensor([[1.0], [5.0]]), torch.tensor([[-1.0], [1.0]]),
        torch.tensor([2.0]), eps=0.0)
    assert (dx.tolist(), dw.tolist(), db.tolist()) == ([[0], [0]], [4], [6])
    rows = torch.tensor([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    got = backprop.embedding_backward(rows, torch.tensor([2, 0, 2]), 4)
    assert got.tolist() == [[10, 20], [0, 0], [101, 202], [0, 0]]


def test_norms_let_through_neither_shift_nor_stretch():
    x, dout = randn(8, 5, grad=False), randn(8, 5, seed=1, grad=False)
    w = randn(5, seed=2, grad=False)
    zero = torch.zeros(5, dtype=torch.float64)
    dx, _, _ = backprop.batch_norm_backward(dout, x, w, eps=0.0)
    same([dx.sum(0), (dx * x).sum(0)], [zero, zero])
    zero = torch.zeros(8, dtype=torch.float64)
    dx, _, _ = backprop.layer_norm_backward(dout, x, w, eps=0.0)
    same([dx.sum(1), (dx * x).sum(1)], [zero, zero])


def test_cross_entropy_is_safe_for_large_logits():
    logits = torch.tensor([[1000.0, 0.0], [-1000.0, 0.0]])
    got = backprop.cross_entropy_backward(logits, torch.tensor([1, 0]))
    assert_close(got, torch.tensor([[0.5, -0.5], [-0.5, 0.5]]))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: backprop.sum_to(torch.ones(3), (2,)), r"\(2,\).*\(3,\)"),
        (lambda: backprop.sum_to(torch.ones(1), (3,)), r"\(3,\).*\(1,\)"),
        (lambda: backprop.linear_backward(
            torch.ones(4, 2), torch.ones(4, 3), torch.ones(2, 4)),
         r"\(4, 2\).*\(4, 3\).*\(2, 4\)"),
        (lambda: backprop.linear_backward(
            torch.ones(4, 3), torch.ones(4, 3), torch.ones(2, 3)),
         r"\(4, 3\).*\(2, 3\)"),
        (lambda: backprop.tanh_backward(torch.ones(2), torch.ones(3)),
         r"dout \(2,\) and out \(3,\)"),
        (lambda: backprop.embedding_backward(
            torch.ones(2, 3), torch.tensor([0]), 2), r"\(2, 3\).*\(1,\)"),
        (lambda: backprop.embedding_backward(
            torch.ones(1, 3), torch.tensor([2]), 2), r"ids 2\.\.2 .*0\.\.1"),
        (lambda: backprop.embedding_backward(
            torch.ones(1, 3), torch.tensor([-1]), 2), r"ids -1"),
        (lambda: backprop.softmax_backward(torch.ones(2), torch.ones(3)),
         "probs"),
        (lambda: backprop.cross_entropy_backward(
            torch.ones(2, 3), torch.tensor([0])), r"\(2, 3\).*\(1,\)"),
        (lambda: backprop.cross_entropy_backward(
            torch.ones(1, 3), torch.tensor([3])), r"0\.\.2"),
        (lambda: backprop.batch_norm_backward(
            torch.ones(1, 3), torch.ones(1, 3), torch.ones(3)), "1 value"),
        (lambda: backprop.batch_norm_backward(
            torch.ones(4, 0), torch.ones(4, 0), torch.ones(0)), "0 value"),
        (lambda: backprop.batch_norm_backward(
            torch.ones(2, 3), torch.ones(2, 3), torch.ones(2)),
         r"\(2, 3\).*\(2,\)"),
        (lambda: backprop.batch_norm_backward(
            torch.ones(3), torch.ones(3), torch.ones(3)), r"\(N, C\)"),
        (lambda: backprop.batch_norm_backward(
            torch.ones(2, 3), torch.ones(2, 2), torch.ones(2)), "same shape"),
        (lambda: backprop.layer_norm_backward(
            torch.ones(2, 3), torch.ones(2, 3), torch.ones(2)),
         r"\(2, 3\).*\(2,\)"),
        (lambda: backprop.layer_norm_backward(
            torch.ones(3), torch.ones(2, 3), torch.ones(3)), "same shape"),
        (lambda: MLP(9, 3, 2, 4)(torch.zeros(5, 2, dtype=torch.long)),
         r"\(5, 2\).*\(B, 3\)"),
        (lambda: MLP(9, 3, 2, 4)(torch.zeros(5, 3, 1, dtype=torch.long)),
         r"\(5, 3, 1\).*\(B, 3\)"),
        (lambda: MLP(9, 3, 2, 4).eval().backward(
            torch.zeros(5, 3, dtype=torch.long),
            torch.zeros(5, dtype=torch.long)), r"model\.train\(\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ------------------------------------------------------------ the whole MLP
def model_and_batch(seed=0, B=8, V=9, T=3, C=2, H=5):
    g = torch.Generator().manual_seed(seed)
    model = MLP(V, T, C, H, generator=g).to(torch.float64)
    with torch.no_grad():                       # no zeros for bugs to hide in
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g).double())
    idx = torch.randint(V, (B, T), generator=g)
    return model, idx, torch.randint(V, (B,), generator=g)


@given(seed=seeds, B=st.integers(2, 9), V=st.integers(2, 9),
       T=st.integers(1, 4), C=st.integers(1, 4), H=st.integers(1, 6))
@relaxed
def test_mlp_against_autograd(seed, B, V, T, C, H):
    model, idx, targets = model_and_batch(seed, B, V, T, C, H)
    loss = TF.cross_entropy(model(idx), targets)
    want = torch.autograd.grad(loss, list(model.parameters()))
    hand = model.backward(idx, targets)
    assert not hand.requires_grad
    same([hand], [loss.detach()])
    same([p.grad for p in model.parameters()], want)
    model.backward(idx, targets)                # set, not added
    same([p.grad for p in model.parameters()], want)


def test_mlp_uses_the_eps_of_its_norm():
    model, idx, targets = model_and_batch()
    model.norm.eps = 0.5
    loss = TF.cross_entropy(model(idx), targets)
    want = torch.autograd.grad(loss, list(model.parameters()))
    model.backward(idx, targets)
    same([p.grad for p in model.parameters()], want)


def test_mlp_against_nudging():
    model, idx, targets = model_and_batch()
    model.backward(idx, targets)

    def loss_of(weight):
        model.hidden.weight.data = weight
        return TF.cross_entropy(model(idx), targets)

    weight = model.hidden.weight.detach().clone()
    gradcheck(loss_of, weight, grads=[model.hidden.weight.grad])


def test_mlp_forward_is_built_from_torch_layers():
    model, idx, _ = model_and_batch(H=4)
    theirs = torch.nn.Sequential(
        torch.nn.Embedding(9, 2), torch.nn.Flatten(),
        torch.nn.Linear(6, 4, bias=False), torch.nn.BatchNorm1d(4),
        torch.nn.Tanh(), torch.nn.Linear(4, 9)).double()
    names = ["0.weight", "2.weight", "3.weight", "3.bias", "5.weight",
             "5.bias"]
    state = dict(zip(names, (p.detach() for p in model.parameters()),
                     strict=True))
    theirs.load_state_dict(state, strict=False)
    for mode in (True, False):
        model.train(mode)
        theirs.train(mode)
        assert_close(model(idx), theirs(idx))
    assert_close(model.norm.running_var, theirs[3].running_var)


def test_mlp_starts_well():
    g, state = torch.Generator().manual_seed(0), torch.get_rng_state()
    model = MLP(27, 3, 10, 200, generator=g)
    again = MLP(27, 3, 10, 200, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), state)  # nothing else is drawn
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    idx = torch.randint(27, (500, 3), generator=g)
    loss = model.backward(idx, torch.randint(27, (500,), generator=g))
    assert abs(loss - 3.2958) < 0.02
    assert abs(model.hidden.weight.std() * 30**0.5 - 5 / 3) < 0.06
    assert abs(model.output.weight.std() * 200**0.5 - 0.1) < 0.005
    assert model.output.bias.eq(0).all()
    assert sum(p.numel() for p in model.parameters()) == 12_097


def test_mlp_learns_one_batch_and_moves_its_running_numbers():
    model, idx, targets = model_and_batch(B=6, H=20)
    optimizer = SGD(model.parameters(), lr=0.3)
    losses = []
    for _ in range(60):
        losses.append(model.backward(idx, targets).item())
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
    assert model.norm.num_batches_tracked == 60
