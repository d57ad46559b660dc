"""zerohero.attention: by hand, laws, parity with torch."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import generator, reached
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from zerohero.attention import (
    Head,
    MultiHeadAttention,
    attention_weights,
    causal_mask,
)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


# ----------------------------------------------------------------- weights
def test_causal_mask():
    mask = causal_mask(4)
    assert mask.dtype == torch.bool
    for t in range(4):
        for s in range(4):
            assert mask[t, s].item() == (s <= t)
    with pytest.raises(ValueError, match="T=0"):
        causal_mask(0)


def test_weights_by_hand():
    query = torch.tensor([[1.0, 0, 0, 0], [0, 2, 0, 0]])
    key = torch.tensor([[2.0, 0, 0, 0], [0, 3, 0, 0]])
    # scores / sqrt(4): [[1, 0], [0, 3]]
    e = math.e
    wanted = torch.tensor([[e / (e + 1), 1 / (e + 1)],
                           [1 / (1 + e**3), e**3 / (1 + e**3)]])
    assert_close(attention_weights(query, key), wanted)
    wanted[0] = torch.tensor([1.0, 0.0])
    assert_close(attention_weights(query, key, causal_mask(2)), wanted)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6),
       st.integers(1, 9), st.booleans(), st.integers(0, 99))
def test_weights_laws_and_parity(B, T, S, d, causal, seed):
    if causal:
        S = T
    q, k, v = (randn(B, 2, n, d, seed=seed + i)
               for i, n in enumerate((T, S, S)))
    mask = causal_mask(T) if causal else None
    weights = attention_weights(q, k, mask)
    assert weights.shape == (B, 2, T, S)
    assert_close(weights.sum(-1), torch.ones(B, 2, T))
    if causal:
        assert (weights.triu(1) == 0).all()
        assert_close(weights[..., 0, 0], torch.ones(B, 2))
    assert_close(weights @ v, F.scaled_dot_product_attention(
        q, k, v, is_causal=causal))


def test_weights_refuse():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 4\)"):
        attention_weights(randn(2, 3), randn(2, 4))
    with pytest.raises(ValueError, match="torch.bool"):
        attention_weights(randn(2, 3), randn(2, 3), torch.ones(2, 2))


# -------------------------------------------------------------------- head
def heads(**options):
    return [
        Head(6, 4, 8, generator=generator(1), **options),
        MultiHeadAttention(6, 2, 8, generator=generator(1), **options),
        MultiHeadAttention(6, 3, 8, bias=True, generator=generator(1),
                           **options),
        MultiHeadAttention(6, 1, 8, generator=generator(1), **options)]


@pytest.mark.parametrize("layer", heads())
def test_the_future_does_not_leak(layer):
    wanted = torch.ones(8, 8, dtype=torch.bool).triu()
    assert torch.equal(reached(layer, randn(1, 8, 6)), wanted)


@pytest.mark.parametrize("layer", heads())
def test_examples_of_a_batch_do_not_talk(layer):
    x = randn(3, 8, 6)
    other = x.clone()
    other[1] += 1
    assert_close(layer(other)[[0, 2]], layer(x)[[0, 2]])
    assert_close(layer(x)[1:2], layer(x[1:2]))


@pytest.mark.parametrize("layer", heads())
def test_the_order_of_the_past_does_not_matter(layer):
    x = randn(2, 8, 6)
    mixed = x[:, [3, 1, 6, 0, 2, 5, 4, 7]]
    assert_close(layer(mixed)[:, -1], layer(x)[:, -1])


@pytest.mark.parametrize("layer", heads())
def test_shorter_input(layer):
    x = randn(2, 8, 6)
    assert_close(layer(x[:, :5]), layer(x)[:, :5])


@pytest.mark.parametrize("layer", heads(causal=False))
def test_without_mask_everyone_sees_everyone(layer):
    x = randn(1, 8, 6)
    assert reached(layer, x).all()
    order = torch.randperm(8, generator=generator())
    assert_close(layer(x[:, order]), layer(x)[:, order])
    assert "mask" in layer.state_dict()


def test_head_is_sdpa():
    layer, x = heads()[0], randn(2, 7, 6)
    wanted = F.scaled_dot_product_attention(
        layer.query(x), layer.key(x), layer.value(x), is_causal=True)
    assert_close(layer(x), wanted)
    assert_close(layer.weights(x) @ layer.value(x), layer(x))


@pytest.mark.parametrize("layer", heads())
def test_bad_input(layer):
    with pytest.raises(ValueError, match="block_size=8"):
        layer(randn(1, 9, 6))
    with pytest.raises(ValueError, match=r"\(B, T, C\)"):
        layer(randn(8, 6))


# -------------------------------------------------------------- multi-head
def test_multi_head_is_several_heads_side_by_side():
    layer, x = heads()[1], randn(2, 8, 6)
    parts = []
    for h in range(2):
        one, rows = Head(6, 3, 8), slice(3 * h, 3 * h + 3)
        one.load_state_dict({
            "mask": one.mask, **{
                f"{n}.weight": layer.state_dict()[f"{n}.weight"][rows]
                for n in ("query", "key", "value")}})
        assert_close(layer.weights(x)[:, h], one.weights(x))
        parts.append(one(x))
    assert_close(layer(x), layer.proj(torch.cat(parts, dim=-1)))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_is_torch_multi_head(bias, causal):
    ours = MultiHeadAttention(6, 3, 8, causal=causal, bias=bias)
    theirs = torch.nn.MultiheadAttention(6, 3, bias=bias, batch_first=True)
    state = theirs.state_dict()
    mapped = {"mask": ours.mask, "proj.weight": state["out_proj.weight"]}
    if bias:
        torch.nn.init.normal_(state["in_proj_bias"])
        torch.nn.init.normal_(state["out_proj.bias"])
        mapped["proj.bias"] = state["out_proj.bias"]
    for i, n in enumerate(("query", "key", "value")):
        for kind in ("weight", "bias")[:1 + bias]:
            mapped[f"{n}.{kind}"] = state[f"in_proj_{kind}"].chunk(3)[i]
    ours.load_state_dict(mapped)
    x = randn(2, 8, 6).requires_grad_()
    blocked = ~causal_mask(8) if causal else None
    wanted, weights = theirs(x, x, x, attn_mask=blocked,
                             average_attn_weights=False)
    assert_close(ours(x), wanted)
    assert_close(ours.weights(x), weights)
    (ga,) = torch.autograd.grad(ours(x).square().sum(), x)
    (gb,) = torch.autograd.grad(wanted.square().sum(), x)
    assert_close(ga, gb)
    source = randn(2, 5, 6)  # cross-attention, never masked
    assert_close(ours(x, source), theirs(x, source, source)[0])


def test_dropout_only_in_training():
    layer = MultiHeadAttention(6, 2, 8, dropout=0.5)
    x = randn(2, 8, 6)
    torch.manual_seed(0)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert_close(layer(x), layer(x))
    head = Head(6, 4, 8, dropout=1.0)
    assert (head(x) == 0).all() and (head.eval()(x) != 0).any()


def test_parameters():
    assert sum(p.numel() for p in heads()[0].parameters()) == 3 * 6 * 4
    assert sum(p.numel() for p in heads()[1].parameters()) == 4 * 6 * 6
    assert sum(p.numel() for p in heads()[2].parameters()) == 4 * 6 * 7
    with pytest.raises(ValueError, match="n_embd=6.*n_head=4"):
        MultiHeadAttention(6, 4, 8)
    for n_head in (0, -2):
        with pytest.raises(ValueError, match=f"n_head={n_head},"):
            MultiHeadAttention(6, n_head, 8)
    for a, b in zip(heads(), heads(), strict=True):  # the same generator
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            assert torch.equal(p, q)
        assert not torch.equal(a.query.weight, a.key.weight)
