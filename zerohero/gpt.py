r"""GPT: embeddings, a stack of blocks, and a head that scores every symbol.

The plain model is the decoder of GPT-2 in small (Radford et al., 2019).
Each option of ``GPTConfig`` changes one thing; ``fast_config`` and
``fast_optimizers`` are the recipe with which the book trains in seconds.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zerohero import nn
from zerohero.nn import Parameter
from zerohero.optim import AdamW, Muon

CHOICES = {
    "position": ("learned", "rotary", "relative", "none"),
    "norm": ("layer", "rms"),
    "activation": ("gelu", "relu2", "swiglu"),
    "start": ("scaled", "zero"),
}


@dataclass
class GPTConfig:
    """Sizes and options of a GPT.

    Attributes:
        vocab_size: V, number of different symbols.
        block_size: longest context T.
        n_layer, n_head, n_embd: blocks, heads of each, width C.
        dropout: probability in three places: embedding, attention
            weights, outputs of each branch.
        bias: whether linear layers and norms add a bias.
        widen: hidden size of the feed-forward part in units of C.
        position: "learned" table; "rotary" turns queries and keys (Su et
            al., 2021); "relative" adds a learned number for each head and
            distance to the scores, starting as ALiBi (Press et al., 2022);
            "none".
        norm: "layer" or "rms" (Zhang and Sennrich, 2019).
        gain: whether the norms learn a gain (and, with bias, a shift).
        activation: "gelu", "relu2" (So et al., 2021) or "swiglu" (Shazeer,
            2020).
        qk_norm: normalize queries and keys (Henry et al., 2020).
        tie: head and embedding share one table (Press and Wolf, 2017).
        smear: mix in this many previous embeddings by learned taps.
        start: output matrices of the branches start "scaled" by
            1/sqrt(2 n_layer), as in GPT-2, or at "zero".
        boundary: id of a symbol at which a new document begins; positions
            do not look back past it.  None: one document.
        dtype: number format of the matrix products; parameters stay
            float32.

    Raises:
        ValueError: sizes that do not fit, or an unknown choice.
    """

    vocab_size: int
    block_size: int = 64
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0
    bias: bool = True
    widen: float = 4.0
    position: str = "learned"
    norm: str = "layer"
    gain: bool = True
    activation: str = "gelu"
    qk_norm: bool = False
    tie: bool = False
    smear: int = 0
    start: str = "scaled"
    boundary: int | None = None
    dtype: torch.dtype = torch.float32

    def __post_init__(self):
        for name in ("vocab_size", "block_size", "n_layer", "n_head",
                     "n_embd"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be 1 "
                                 f"or more")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd={self.n_embd} must be a multiple of "
                             f"n_head={self.n_head}")
        if self.position == "rotary" and self.head_size % 2:
            raise ValueError(f"rotary positions turn pairs: head size "
                             f"{self.head_size} must be even")
        if not 0 <= self.smear < self.block_size:
            raise ValueError(f"smear={self.smear} must lie in 0.."
                             f"{self.block_size - 1}")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r} must be "
                                 f"one of {allowed}")

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head

    @property
    def n_hidden(self) -> int:
        return round(self.widen * self.n_embd)


class Linear(nn.Linear):
    """A Linear that computes in the number format of what comes in.

    The weight that the optimizer sees stays float32; a rounded copy takes
    part in the product.
    """

    def __init__(self, n_in: int, n_out: int, bias: bool, std: float,
                 generator: torch.Generator | None = None):
        super().__init__(n_in, n_out, bias=bias)
        with torch.no_grad():
            self.weight.normal_(0, std, generator=generator)
            if bias:
                self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """x (..., n_in) -> (..., n_out), in x's number format."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class Norm(nn.Module):
    """LayerNorm or RMSNorm over C, with or without gain and shift."""

    def __init__(self, size: int, kind: str, gain: bool, bias: bool):
        super().__init__()
        self.kind, self.shape = kind, (size,)
        bias = bias and gain and kind == "layer"
        self.register_parameter(
            "weight", Parameter(torch.ones(size)) if gain else None)
        self.register_parameter(
            "bias", Parameter(torch.zeros(size)) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., C) -> (..., C)."""
        weight, bias = (None if p is None else p.to(x.dtype)
                        for p in (self.weight, self.bias))
        if self.kind == "layer":
            return F.layer_norm(x, self.shape, weight, bias)
        return F.rms_norm(x, self.shape, weight, 1e-6)


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Turn pairs of numbers by angles that grow with the position.

    Pair i of a vector at position t turns by ``t / 10000**(2 i / d)``, so
    that a product of two rotated vectors depends on their distance only.

    Args:
        x: (..., T, d), d even; pair i is (x[i], x[i + d/2]).
        positions: (T,).
    """
    half = x.shape[-1] // 2
    speed = 10000.0 ** (-torch.arange(half, device=x.device) / half)
    angle = positions[:, None] * speed  # (T, d/2)
    cos, sin = angle.cos().repeat(1, 2), angle.sin()  # (T, d), (T, d/2)
    sin = torch.cat((-sin, sin), dim=-1)
    # (a, b) -> (a cos - b sin, b cos + a sin); roll swaps a and b
    swapped = x.roll(half, dims=-1)
    return torch.addcmul(x * cos.to(x.dtype), swapped, sin.to(x.dtype))


class SelfAttention(nn.Module):
    """All heads of one block, causal, with the options of GPTConfig."""

    def __init__(self, config: GPTConfig, generator=None):
        super().__init__()
        c = self.config = config
        C, std = c.n_embd, c.n_embd ** -0.5
        make = (c.bias, std, generator)
        self.query, self.key = Linear(C, C, *make), Linear(C, C, *make)
        self.value = Linear(C, C, *make)
        self.proj = Linear(C, C, c.bias, _out_std(c, std), generator)
        self.dropout = nn.Dropout(c.dropout)
        if c.position == "relative":
            slopes = 2.0 ** -torch.linspace(8 / c.n_head, 8, c.n_head)
            steps = torch.arange(c.block_size)
            self.distance_bias = Parameter(-slopes[:, None] * steps)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor,
                past: dict | None = None) -> Tensor:
        """x (B, T, C) -> (B, T, C).

        Args:
            positions: (S,) of all keys; the last T are those of x.
            mask: what to add to the scores, 0 or -inf, broadcast to
                (B, H, T, S).
            past: keys and values so far, taken and extended.
        """
        weights, value = self.weights(x, positions, mask, past)
        out = (self.dropout(weights) @ value).transpose(1, 2)
        return self.proj(out.reshape(x.shape))

    def weights(self, x, positions, mask, past=None) -> tuple:
        """Weights (B, H, T, S), rows sum to 1, and values (B, H, S, d)."""
        c, (B, T) = self.config, x.shape[:2]
        H, d = c.n_head, c.head_size
        three = self.query, self.key, self.value  # one product for all
        weight = torch.cat([p.weight for p in three]).to(x.dtype)
        bias = (torch.cat([p.bias for p in three]).to(x.dtype) if c.bias
                else None)
        x = F.linear(x, weight, bias).view(B, T, 3, H, d)
        x = x.permute(2, 0, 3, 1, 4).contiguous()  # (3, B, H, T, d)
        both, value = x[:2], x[2]
        if c.qk_norm:
            both = F.rms_norm(both, (d,), None, 1e-6)
        if c.position == "rotary":
            both = rotate(both, positions[-T:])
        query, key = both
        if past is not None:
            if past:
                key = torch.cat((past["key"], key), dim=2)
                value = torch.cat((past["value"], value), dim=2)
            past["key"], past["value"] = key, value
        if c.position == "relative":
            back = (positions[-T:, None] - positions).clamp(min=0)  # (T, S)
            bias = self.distance_bias.index_select(1, back.flatten())
            mask = mask + bias.view(-1, *back.shape).to(x.dtype)
        S = key.shape[2]
        scores = torch.baddbmm(  # mask + query @ key.mT / sqrt(d), at once
            mask.expand(B, H, T, S).reshape(-1, T, S),
            query.reshape(-1, T, d), key.reshape(-1, S, d).mT,
            alpha=d ** -0.5)
        return scores.view(B, H, T, S).softmax(dim=-1), value


class SquaredReLU(torch.autograd.Function):
    """``relu(x)**2`` with a backward of its own, ``2 relu(x) grad``.

    autograd would remember x and relu(x) and walk over three tensors; one
    is enough.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        """x of any shape -> relu(x)**2 of the same shape."""
        x = x.relu()
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        """The gradient of the loss by x, from that by the output."""
        (x,) = ctx.saved_tensors
        return (x + x).mul_(grad)


class FeedForward(nn.Module):
    """Two linear layers with a bend between: each position thinks alone."""

    def __init__(self, config: GPTConfig, generator=None):
        super().__init__()
        c, C, H = config, config.n_embd, config.n_hidden
        self.activation = c.activation
        self.up = Linear(C, H, c.bias, C ** -0.5, generator)
        if c.activation == "swiglu":
            self.gate = Linear(C, H, c.bias, C ** -0.5, generator)
        self.down = Linear(H, C, c.bias, _out_std(c, H ** -0.5), generator)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        h = self.up(x)
        if self.activation == "gelu":
            h = F.gelu(h)
        elif self.activation == "relu2":
            h = SquaredReLU.apply(h)
        else:
            h = F.silu(self.gate(x)) * h
        return self.down(h)


def _out_std(config: GPTConfig, std: float) -> float:
    if config.start == "zero":
        return 0.0
    return std / math.sqrt(2 * config.n_layer)


class Block(nn.Module):
    """Talk, then think; each adds its result to the stream it reads."""

    def __init__(self, config: GPTConfig, generator=None):
        super().__init__()
        c = config
        norm = (c.n_embd, c.norm, c.gain, c.bias)
        self.norm1, self.norm2 = Norm(*norm), Norm(*norm)
        self.attention = SelfAttention(c, generator)
        self.feed_forward = FeedForward(c, generator)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, *where) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        x = x + self.dropout(self.attention(self.norm1(x), *where))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class GPT(nn.Module):
    """A GPT: ``logits = model(idx)``, (B, T) ids -> (B, T, V) scores.

    Args:
        config: sizes and options.
        generator: draws the initial weights.

    >>> model = GPT(GPTConfig(vocab_size=27, block_size=8, n_layer=1))
    >>> model(torch.zeros(2, 8, dtype=torch.long)).shape
    torch.Size([2, 8, 27])
    """

    def __init__(self, config: GPTConfig,
                 generator: torch.Generator | None = None):
        super().__init__()
        c = self.config = config
        V, C = c.vocab_size, c.n_embd
        self.embed = nn.Embedding(V, C, generator=generator)
        if c.position == "learned":
            self.place = nn.Embedding(c.block_size, C, generator=generator)
        if c.smear:
            self.taps = Parameter(torch.zeros(c.smear, C))
        self.blocks = nn.ModuleList(
            [Block(c, generator) for _ in range(c.n_layer)])
        self.norm = Norm(C, c.norm, c.gain, c.bias)
        std = 0.0 if c.start == "zero" and not c.tie else 0.02
        self.head = Linear(C, V, False, std, generator)
        self.dropout = nn.Dropout(c.dropout)
        with torch.no_grad():
            if c.tie:
                self.embed.weight.normal_(0, 0.02, generator=generator)
                self.head.weight = self.embed.weight
            if c.position == "learned":
                self.place.weight.mul_(0.02 if c.tie else 0.1)

    @property
    def block_size(self) -> int:
        """The longest context T, from its configuration."""
        return self.config.block_size

    def new_cache(self) -> dict:
        """An empty cache for ``forward(idx, cache=...)``."""
        return {"idx": None, "layers": [{} for _ in self.blocks]}

    def forward(self, idx: Tensor, cache: dict | None = None) -> Tensor:
        """Logits (B, T, V) for the symbol after each position of idx.

        Args:
            idx: (B, T) ids, T at most block_size.
            cache: of ``new_cache``; idx is then what is new since the
                last call, and all so far counts towards block_size.

        Raises:
            ValueError: idx is not (B, T) or too long.
        """
        x, where, layers = self._enter(idx, cache)
        for block, past in zip(self.blocks, layers, strict=True):
            x = block(x, *where, past)
        return self.head(self.norm(x))

    def stream(self, idx: Tensor) -> list[Tensor]:
        """The residual stream (B, T, C) before, between and after blocks."""
        x, where, layers = self._enter(idx, None)
        stages = [x]
        for block in self.blocks:
            x = block(x, *where)
            stages.append(x)
        return stages

    def attention_maps(self, idx: Tensor) -> Tensor:
        """Attention weights of all layers, (n_layer, B, H, T, T)."""
        x, where, _ = self._enter(idx, None)
        maps = []
        for block in self.blocks:
            maps.append(block.attention.weights(block.norm1(x), *where)[0])
            x = block(x, *where)
        return torch.stack(maps)

    def _enter(self, idx: Tensor, cache: dict | None) -> tuple:
        """Embedded input, (positions, mask) and the layers' caches."""
        c, layers = self.config, [None] * self.config.n_layer
        if idx.dim() != 2:
            raise ValueError(f"idx of shape {tuple(idx.shape)} must be "
                             f"(B, T)")
        T, everything = idx.shape[1], idx
        if cache is not None:
            if cache["idx"] is not None:
                everything = torch.cat((cache["idx"], idx), dim=1)
            cache["idx"], layers = everything, cache["layers"]
        S = everything.shape[1]
        if S > c.block_size:
            raise ValueError(f"T={S} symbols are more than the block_size="
                             f"{c.block_size}; crop the context")
        positions = torch.arange(S, device=idx.device)
        mask = positions[-T:, None] >= positions  # (T, S)
        document = None
        if c.boundary is not None:
            document = (everything == c.boundary).cumsum(dim=1)  # (B, S)
            same = document[:, -T:, None] == document[:, None, :]
            mask = (mask & same)[:, None]  # (B, 1, T, S)
        x = self.embed(everything).to(c.dtype)
        if c.position == "learned":
            x = x + self.place(positions).to(c.dtype)
        x = self._smear(x, document)[:, -T:]
        mask = torch.zeros(mask.shape, dtype=c.dtype, device=idx.device
                           ).masked_fill_(~mask, -math.inf)
        return self.dropout(x), (positions, mask), layers

    def _smear(self, x: Tensor, document: Tensor | None) -> Tensor:
        """x[t] + tap1 * x[t-1] + tap2 * x[t-2] + ..."""
        out = x
        for k in range(1, min(self.config.smear, x.shape[1] - 1) + 1):
            before = F.pad(x[:, :-k], (0, 0, k, 0))
            if document is not None:
                same = document[:, k:] == document[:, :-k]
                before = before * F.pad(same, (k, 0))[..., None]
            out = out + self.taps[k - 1].to(x.dtype) * before
        return out


# ------------------------------------------------------------- the recipe
def fast_config(vocab_size: int, block_size: int = 64, **changes
                ) -> GPTConfig:
    """The configuration that learns most in a minute on two cores."""
    settings = {
        "bias": False, "gain": False, "position": "rotary",
        "activation": "relu2", "smear": 2, "start": "zero"}
    return GPTConfig(vocab_size, block_size, **{**settings, **changes})


def plan(text: int, reads: float, names: bool = False) -> dict:
    """Sizes for a run that reads `reads` symbols of a text of `text`.

    Short runs take small steps often; longer ones afford a longer context
    and a larger batch, which also keeps the processor busier.  A text that
    is read many times over would be learned by heart: dropout.

    Args:
        text: symbols of the training split.
        reads: symbols that the whole run can read.
        names: whether it is a list of names (a smaller model will do).

    Returns:
        block_size, batch_size, n_layer, n_head, n_embd and dropout.
    """
    sizes = {"block_size": 64, "batch_size": 16, "n_layer": 4, "n_head": 4,
             "n_embd": 128, "dropout": 0.0}
    if names:
        sizes.update(block_size=32, batch_size=48, n_embd=64)
    elif reads > 4e5:
        sizes.update(block_size=128)
        if reads > 2.5e6:
            sizes.update(batch_size=32)
    for passes, dropout in ((4, 0.0 if names else 0.05), (6, 0.1), (15, 0.2)):
        if reads > passes * text:
            sizes["dropout"] = dropout
    fits = text // sizes["block_size"] - 1
    while fits < sizes["batch_size"] and sizes["block_size"] > 8:
        sizes["block_size"] //= 2  # a short text has few pieces
        fits = text // sizes["block_size"] - 1
    sizes["batch_size"] = max(1, min(sizes["batch_size"], fits))
    return sizes


def fast_optimizers(model: GPT, *, muon_lr: float = 0.02, lr: float = 0.02,
                    embed_lr: float = 0.02) -> list:
    """Muon for the matrices inside the blocks, AdamW for all else."""
    matrices = [p for p in model.blocks.parameters()
                if p.dim() == 2 and min(p.shape) >= 16
                and not _is_bias(model, p)]
    inside = set(matrices) | {model.embed.weight}
    rest = [p for p in model.parameters() if p not in inside]
    adam = [{"params": [model.embed.weight], "lr": embed_lr},
            {"params": rest}]
    return [Muon(matrices, lr=muon_lr, weight_decay=0.0),
            AdamW(adam, lr=lr, betas=(0.9, 0.98), weight_decay=0.0)]


def _is_bias(model: GPT, p: Tensor) -> bool:
    return any(p is getattr(b.attention, "distance_bias", None)
               for b in model.blocks)
