"""Trees, dilated stacks and recurrent cells against torch and by hand."""

import pytest
import torch
from helpers import generator, reached
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from zerohero.train import evaluate
from zerohero.wavenet import (
    CausalConv1d,
    DilatedStack,
    FlattenConsecutive,
    GRUCell,
    PairWithPast,
    Recurrent,
    RNNCell,
    SharedTree,
    Tree,
    at_every_position,
    delay,
    influence,
)


def ids(*shape, V=27, seed=0):
    return torch.randint(0, V, shape, generator=generator(seed))


def size(model):
    return sum(p.numel() for p in model.parameters())


def awake(model, seed=9):
    """Move every parameter, so that no zero or one hides a fault."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator(seed)))
    return model


# -- fusing -----------------------------------------------------------------
def test_flatten_consecutive_is_even_beside_odd_and_only_a_view():
    x = torch.randn(2, 6, 3, generator=generator())
    y = FlattenConsecutive(2)(x)
    assert_close(y, torch.cat((x[:, 0::2], x[:, 1::2]), dim=2))
    assert y.data_ptr() == x.data_ptr()
    y = FlattenConsecutive(3)(x)
    assert y.shape == (2, 2, 9)
    assert_close(y[1, 1], x[1, 3:].flatten())


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 4), (1, 2, 3, 4)])
def test_flatten_consecutive_refuses(shape):
    with pytest.raises(ValueError, match="multiple of 2"):
        FlattenConsecutive(2)(torch.zeros(shape))


def test_pair_with_past():
    x = torch.randn(2, 5, 3, generator=generator())
    y = PairWithPast(2)(x)
    assert_close(y[:, 2:, :3], x[:, :3])
    assert_close(y[:, :, 3:], x)
    assert (y[:, :2, :3] == 0).all()
    assert (delay(x, 9) == 0).all() and delay(x, 9).shape == x.shape
    assert_close(delay(x, 0), x)


# -- the tree ---------------------------------------------------------------
def as_torch(tree):
    """The tree from torch.nn's own layers, written out."""
    levels = []
    for linear, norm in zip(tree.linears, tree.norms, strict=True):
        lin = nn.Linear(*linear.weight.T.shape, bias=linear.bias is not None)
        lin.load_state_dict(linear.state_dict())
        kind = type(norm).__name__
        if kind == "Identity":
            n = nn.Identity()
        else:
            n = getattr(nn, kind)(len(linear.weight))
            n.load_state_dict(norm.state_dict())
        levels.append((lin, n))

    def run(idx, train):
        x = tree.embedding.weight[idx]
        for lin, n in levels:
            n.train(train)
            x = lin(torch.cat((x[:, 0::2], x[:, 1::2]), dim=-1))
            if isinstance(n, nn.BatchNorm1d):
                x = n(x.transpose(1, 2)).transpose(1, 2)  # (B, C, T)
            else:
                x = n(x)
            x = torch.tanh(x)
        return F.linear(x[:, 0], tree.output.weight, tree.output.bias), levels

    return run


@pytest.mark.parametrize("norm", [None, "batch", "layer"])
@pytest.mark.parametrize("train", [True, False])
def test_tree_is_torchs(norm, train):
    tree = awake(Tree(27, 8, 5, [6, 7, 4], norm=norm, generator=generator()))
    reference = as_torch(tree)
    tree.train(train)
    idx = ids(9, 8)
    want, levels = reference(idx, train)
    assert_close(tree(idx), want)
    if norm == "batch":
        for ours, (_, theirs) in zip(tree.norms, levels, strict=True):
            assert ours.running_mean.shape == theirs.running_mean.shape
            assert_close(ours.running_mean, theirs.running_mean)
            assert_close(ours.running_var, theirs.running_var)


def test_sizes_of_the_lectures():
    assert size(Tree(27, 8, 24, 128, norm="batch")) == 76_579
    assert size(Tree(27, 8, 24, 128)) == 76_195
    assert size(Tree(27, 8, 10, 68, norm="batch")) == 22_397
    assert len(Tree(27, 16, 4, 5).linears) == 4


@pytest.mark.parametrize("norm", [None, "layer"])
def test_shared_work_gives_the_same_logits_and_gradients(norm):
    tree = awake(Tree(5, 8, 4, [6, 5, 7], norm=norm, generator=generator()))
    twin = SharedTree(5, 8, 4, [6, 5, 7], norm=norm)
    twin.load_state_dict(tree.state_dict())
    idx, y = ids(40, 8, V=5), ids(40, V=5)
    F.cross_entropy(tree(idx), y).backward()
    F.cross_entropy(twin(idx), y).backward()
    assert_close(tree.shared(idx), tree(idx))
    theirs = dict(twin.named_parameters())
    for name, p in tree.named_parameters():
        assert_close(p.grad, theirs[name].grad, msg=name)


def test_shared_work_with_batchnorm_only_in_evaluation():
    tree = awake(Tree(5, 4, 4, 6, norm="batch", generator=generator()))
    idx = ids(10, 4, V=5)
    tree(idx)
    with pytest.raises(ValueError, match="BatchNorm in training"):
        tree.shared(idx)
    tree.eval()
    assert_close(tree.shared(idx), tree(idx))


def test_tree_starts_near_ln_v_and_follows_its_generator():
    a, b, c = (Tree(27, 8, 10, 64, generator=generator(s)) for s in (1, 1, 2))
    x, y = ids(500, 8), ids(500)
    assert abs(evaluate(a, x, y) - 3.2958) < 0.05
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)
    assert not torch.equal(a.linears[0].weight, c.linears[0].weight)
    std = a.linears[1].weight.std().item()
    assert abs(std - (5 / 3) / 128**0.5) < 0.01
    assert abs(a.output.weight.std().item() - 0.1 / 64**0.5) < 0.002
    assert all((linear.bias == 0).all() for linear in a.linears)
    assert Tree(27, 8, 10, 64, norm="layer").linears[0].bias is None


def test_tree_overfits_one_batch():
    tree = Tree(6, 4, 8, 32, generator=generator())
    x, y = ids(16, 4, V=6), ids(16, V=6)
    x[:, 0] = torch.arange(16) % 6
    x[:, 1] = torch.arange(16) // 6  # all windows differ
    opt = torch.optim.Adam(tree.parameters(), lr=0.02)
    for _ in range(150):
        loss = F.cross_entropy(tree(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    assert loss.item() < 0.02


def test_tree_refuses():
    for bad in (0, 1, 6):
        with pytest.raises(ValueError, match="block_size"):
            Tree(27, bad, 4, 5)
    with pytest.raises(ValueError, match="2 sizes for 3 levels"):
        Tree(27, 8, 4, [5, 5])
    with pytest.raises(ValueError, match="n_hidden=0"):
        Tree(27, 8, 4, 0)
    with pytest.raises(ValueError, match="norm='instance'"):
        Tree(27, 8, 4, 5, norm="instance")
    tree = Tree(27, 8, 4, 5)
    for method in (tree.forward, tree.shared):
        with pytest.raises(ValueError, match=r"\(2, 4\).*\(B, 8\)"):
            method(ids(2, 4))


# -- convolutions -----------------------------------------------------------
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_causal_conv_is_torchs_behind_padding(k, dilation, bias):
    ours = CausalConv1d(4, 6, k, dilation, bias, generator=generator())
    theirs = nn.Conv1d(4, 6, k, dilation=dilation, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 7, 4, generator=generator(1))
    left = (k - 1) * dilation
    assert_close(ours(x), theirs(F.pad(x.mT, (left, 0))).mT)
    bound = (4 * k) ** -0.5
    assert ours.weight.abs().max() <= bound
    assert ours.weight.abs().max() > 0.6 * bound


def test_causal_conv_by_hand_and_refusals():
    conv = CausalConv1d(1, 1, 2, 2, bias=False)
    conv.load_state_dict({"weight": torch.tensor([[[10.0, 1.0]]])})
    y = conv(torch.tensor([[[1.0], [2.0], [3.0], [4.0]]]))
    assert y.flatten().tolist() == [1, 2, 13, 24]
    assert CausalConv1d(1, 1).delays() == [1, 0]
    assert CausalConv1d(1, 1).bias.shape == (1,)
    assert CausalConv1d(1, 1, 3, 2).delays() == [4, 2, 0]
    with pytest.raises(ValueError, match="channels last"):
        conv(torch.zeros(2, 1, 4))
    with pytest.raises(ValueError, match="dilation=0"):
        CausalConv1d(1, 1, 2, 0)


@pytest.mark.parametrize("norm", [None, "layer"])
def test_stack_is_the_tree_at_every_position(norm):
    tree = awake(Tree(27, 8, 5, [6, 7, 4], norm=norm, generator=generator()))
    stack = at_every_position(tree)
    text = ids(1, 30)
    windows = text[0].unfold(0, 8, 1)
    assert_close(stack(text)[0, 7:], tree(windows))
    assert stack.receptive_field == 8
    before = tree(windows)
    awake(stack)  # a copy: the tree stays as it was
    assert_close(tree(windows), before)
    with pytest.raises(ValueError, match="only trees"):
        at_every_position(Tree(27, 8, 5, 6, norm="batch"))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("norm", [None, "layer"])
def test_stack_spelled_out(gated, residual, norm):
    stack = awake(DilatedStack(
        9, 4, 6, (1, 2, 4), gated=gated, residual=residual, norm=norm,
        generator=generator()))
    idx = ids(2, 12, V=9)
    x = stack.embedding.weight[idx]
    for i, d in enumerate((1, 2, 4)):
        linear, n = stack.linears[i], stack.norms[i]
        conv = CausalConv1d(x.shape[2], len(linear.weight), 2, d,
                            bias=norm is None)
        state = {"weight": linear.weight.detach().unflatten(1, (2, -1)).mT}
        if norm is None:
            state["bias"] = linear.bias.detach()
        conv.load_state_dict(state)
        h = conv(x)
        if norm == "layer":
            h = F.layer_norm(h, h.shape[-1:], n.weight, n.bias)
        if gated:
            h = h[..., :6].tanh() * h[..., 6:].sigmoid()
        else:
            h = h.tanh()
        x = x + h if residual and i else h
    want = F.linear(x, stack.output.weight, stack.output.bias)
    assert_close(stack(idx), want)


def test_stack_never_looks_ahead_and_never_too_far_back():
    stack = awake(DilatedStack(
        9, 4, 6, (1, 2, 4), gated=True, residual=True, generator=generator()))
    want = torch.ones(14, 14, dtype=torch.bool).triu().tril(7)
    assert torch.equal(reached(stack, ids(1, 14, V=8)), want)


def test_stack_refuses():
    with pytest.raises(ValueError, match="must have one size"):
        DilatedStack(9, 4, [5, 6, 7], residual=True)
    with pytest.raises(ValueError, match="norm='batch'"):
        DilatedStack(9, 4, 5, norm="batch")
    with pytest.raises(ValueError, match="at least one level"):
        DilatedStack(9, 4, 5, ())
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        DilatedStack(9, 4, 5)(ids(3, V=9))
    assert DilatedStack(9, 4, 5, (3,)).receptive_field == 4


@pytest.mark.parametrize("make", [
    lambda g: Tree(9, 4, 3, 5, generator=g),
    lambda g: DilatedStack(9, 3, 5, generator=g),
    lambda g: DilatedStack(9, 3, 5, norm="layer", gated=True, generator=g),
    lambda g: Recurrent(9, 3, 5, generator=g),
    lambda g: CausalConv1d(3, 5, generator=g),
    lambda g: GRUCell(3, 5, generator=g)])
def test_all_chance_comes_from_the_generator(make):
    before = torch.get_rng_state()
    a, b, c = (make(generator(seed)).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


# -- who depends on whom ----------------------------------------------------
def test_influence():
    x = torch.randn(1, 6, 3, generator=generator())
    lower = torch.ones(6, 6).tril()
    assert torch.equal(influence(lambda x: x.cumsum(1), x), lower.bool())
    assert influence(lambda x: x[:, 2], x).tolist() == [
        [False, False, True, False, False, False]
    ]
    pairs = influence(FlattenConsecutive(2), x)
    want = torch.eye(3).repeat_interleave(2, dim=1).bool()
    assert torch.equal(pairs, want)
    for bad in (x[0], torch.zeros(2, 6, 3), x.long()):
        with pytest.raises(ValueError, match="one floating example"):
            influence(lambda x: x, bad)


# -- recurrent cells --------------------------------------------------------
@pytest.mark.parametrize("ours, theirs", [
    (RNNCell, nn.RNNCell), (GRUCell, nn.GRUCell)])
def test_cells_are_torchs(ours, theirs):
    a, b = awake(ours(4, 6, generator=generator())), theirs(4, 6)
    b.load_state_dict(a.state_dict())
    x = torch.randn(5, 4, generator=generator(1))
    h = torch.randn(5, 6, generator=generator(2))
    assert_close(a(x, h), b(x, h))
    a(x, h).square().sum().backward()
    b(x, h).square().sum().backward()
    for (name, p), q in zip(
        a.named_parameters(), b.parameters(), strict=True
    ):
        assert_close(p.grad, q.grad, msg=name)
    assert 0.8 * 6**-0.5 < ours(4, 6).weight_hh.abs().max() <= 6**-0.5
    with pytest.raises(ValueError, match=r"\(5, 4\), \(5, 5\)"):
        a(x, torch.zeros(5, 5))


@pytest.mark.parametrize("ours, theirs", [
    (RNNCell, nn.RNNCell), (GRUCell, nn.GRUCell)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(), (1,), (5,), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cells_of_any_kind_are_torchs(ours, theirs, bias, batch, dtype):
    cells = []
    for cls in (ours, theirs):
        torch.manual_seed(3)  # the same numbers to start with
        cells.append(cls(3, 4, bias, dtype=dtype))
    a, b = cells
    assert list(a.state_dict()) == list(b.state_dict()) and repr(a) == repr(b)
    x = torch.randn(*batch, 3, generator=generator(1), dtype=dtype)
    h = torch.randn(*batch, 4, generator=generator(2), dtype=dtype)
    for args in [(x,), (x, h), (1e6 * x, h), (x / 0, h)]:
        assert_close(a(*args), b(*args), equal_nan=True)
    for bad in [(x[..., :2],), (x, h[..., :2]), (torch.zeros(2, 2, 2, 3),),
                (torch.zeros(6, 3, dtype=dtype), h)]:
        for cell in cells:
            with pytest.raises((ValueError, RuntimeError)):
                cell(*bad)


def test_recurrent_model_is_a_loop_over_torchs_gru():
    model = awake(Recurrent(9, 4, 6, generator=generator()))
    gru = nn.GRU(4, 6, batch_first=True)
    gru.load_state_dict(
        {f"{k}_l0": t for k, t in model.cell.state_dict().items()})
    idx = ids(3, 7, V=9)
    start = model.start.expand(1, 3, 6).contiguous()
    out, _ = gru(model.embedding.weight[idx], start)
    want = F.linear(out, model.output.weight, model.output.bias)
    assert_close(model(idx), want)
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        model(idx[0])


def test_recurrent_model_uses_its_state():
    model = awake(Recurrent(9, 4, 6, RNNCell, generator=generator()))
    want = torch.ones(5, 5, dtype=torch.bool).triu()
    assert torch.equal(reached(model, ids(1, 5, V=8)), want)
