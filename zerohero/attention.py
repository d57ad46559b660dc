r"""Attention: every position asks, every past position may answer.

Written for reading: one head as three projections and two matrix products,
then all heads at once with the head as one more batch dimension.
"""

import math

import torch
from torch import Tensor

from zerohero.nn import Dropout, Linear, Module


def causal_mask(T: int) -> Tensor:
    """The lower triangle (T, T): True where position t may look at s <= t.

    >>> causal_mask(3)
    tensor([[ True, False, False],
            [ True,  True, False],
            [ True,  True,  True]])
    """
    if T < 1:
        raise ValueError(f"T={T} must be 1 or more")
    return torch.ones(T, T, dtype=torch.bool).tril()


def attention_weights(query: Tensor, key: Tensor,
                      mask: Tensor | None = None) -> Tensor:
    r"""$\text{softmax}(q k^\top / \sqrt{d})$: who listens to whom.

    Args:
        query: (..., T, d).
        key: (..., S, d).
        mask: bool, broadcast to (..., T, S); True where the query of that
            row may look at the key of that column.  Each row needs a True.

    Returns:
        (..., T, S): each row is not negative and sums to 1.

    Raises:
        ValueError: query and key differ in d, or the mask is not boolean.

    >>> q, k = torch.zeros(2, 4), torch.ones(2, 4)
    >>> attention_weights(q, k, causal_mask(2))
    tensor([[1.0000, 0.0000],
            [0.5000, 0.5000]])
    """
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(
            f"query {tuple(query.shape)} and key {tuple(key.shape)} must "
            f"have the same last dimension")
    scores = query @ key.mT / math.sqrt(query.shape[-1])  # (..., T, S)
    if mask is not None:
        if mask.dtype != torch.bool:
            raise ValueError(f"mask is {mask.dtype}, must be torch.bool "
                             f"with True = may look")
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(dim=-1)  # over the keys


class Head(Module):
    """One head of self-attention.

    ``weights @ value(x)`` with the weights of ``attention_weights`` between
    query(x) and key(x); causal unless told otherwise (Vaswani et al., 2017).

    Args:
        n_embd: C, size of what comes in.
        head_size: d, size of query, key and value.
        block_size: longest T (the mask is made once, as a buffer).
        dropout: probability of dropping a weight while training.
        causal: whether a position sees only itself and the past.
        generator: draws the initial weights.
    """

    def __init__(self, n_embd: int, head_size: int, block_size: int,
                 dropout: float = 0.0, *, causal: bool = True,
                 generator: torch.Generator | None = None):
        super().__init__()
        def project():
            return Linear(n_embd, head_size, bias=False, generator=generator)
        self.query, self.key, self.value = project(), project(), project()
        self.dropout = Dropout(dropout)
        mask = causal_mask(block_size)
        self.register_buffer("mask", mask if causal else mask | True)

    def weights(self, x: Tensor) -> Tensor:
        """Attention weights (B, T, T) between the positions of x."""
        T = _check_length(x, self.mask)
        return attention_weights(self.query(x), self.key(x),
                                 self.mask[:T, :T])

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, head_size)."""
        return self.dropout(self.weights(x)) @ self.value(x)


class MultiHeadAttention(Module):
    """Several heads at once: the head is one more batch dimension.

    The same numbers as n_head separate heads of size C / n_head, side by
    side, followed by a projection that mixes them.

    Args:
        n_embd: C, a multiple of n_head.
        n_head: number of heads.
        block_size: longest T of causal self-attention.
        dropout: probability of dropping a weight while training.
        causal: whether a position sees only itself and the past.
        bias: whether the projections add a bias.
        generator: draws the initial weights.

    Raises:
        ValueError: n_embd is not a multiple of n_head.
    """

    def __init__(self, n_embd: int, n_head: int, block_size: int,
                 dropout: float = 0.0, *, causal: bool = True,
                 bias: bool = False,
                 generator: torch.Generator | None = None):
        super().__init__()
        if n_head < 1 or n_embd % n_head:
            raise ValueError(f"n_embd={n_embd} must be a multiple of "
                             f"n_head={n_head}, the number of heads")
        def project():
            return Linear(n_embd, n_embd, bias=bias, generator=generator)
        self.query, self.key, self.value = project(), project(), project()
        self.proj = project()
        self.dropout = Dropout(dropout)
        self.n_head, self.causal = n_head, causal
        self.register_buffer("mask", causal_mask(block_size))

    def split(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, n_head, T, head_size): heads beside batches."""
        B, T, C = x.shape
        heads = x.view(B, T, self.n_head, C // self.n_head)
        return heads.transpose(1, 2)

    def weights(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        """Attention weights (B, n_head, T, S) of each head."""
        mask = None
        if source is None:
            source = x
            T = _check_length(x, self.mask)
            mask = self.mask[:T, :T] if self.causal else None
        return attention_weights(self.split(self.query(x)),
                                 self.split(self.key(source)), mask)

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        """x (B, T, C) -> (B, T, C).

        With `source` (B, S, C) the queries come from x, the keys and values
        from source, and nothing is masked: cross-attention.
        """
        weights = self.dropout(self.weights(x, source))
        values = self.split(self.value(x if source is None else source))
        out = (weights @ values).transpose(1, 2)  # (B, T, n_head, head_size)
        return self.proj(out.reshape(x.shape))


def _check_length(x: Tensor, mask: Tensor) -> int:
    if x.dim() != 3:
        raise ValueError(f"x of shape {tuple(x.shape)} must be (B, T, C)")
    if x.shape[1] > len(mask):
        raise ValueError(f"T={x.shape[1]} positions are more than the "
                         f"block_size={len(mask)}; crop the context")
    return x.shape[1]
