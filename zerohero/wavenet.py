"""Longer contexts: letters fused two by two, as a tree and as convolutions.

A ``Tree`` reads one window and answers once. A ``DilatedStack`` runs the same
layers at every position of a text, so that neighboring windows share their
work. ``RNNCell`` and ``GRUCell`` are the other classical way to a longer
past: one state, updated symbol by symbol.

Sources: van den Oord et al., "WaveNet: a generative model for raw audio",
2016, https://arxiv.org/abs/1609.03499; Cho et al., 2014,
https://arxiv.org/abs/1406.1078.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zerohero import functional as F
from zerohero.nn import (
    BatchNorm1d,
    Embedding,
    Identity,
    LayerNorm,
    Linear,
    Module,
    ModuleList,
    Parameter,
)

NORMS = (None, "batch", "layer")


class FlattenConsecutive(Module):
    """Lay ``n`` neighboring positions side by side: only a ``view``.

    x (B, T, C) -> (B, T / n, n C). Raises ValueError if x has not three
    axes or T is not a multiple of n.

    >>> x = torch.arange(8).view(1, 4, 2)
    >>> FlattenConsecutive(2)(x).tolist()
    [[[0, 1, 2, 3], [4, 5, 6, 7]]]
    """

    def __init__(self, n: int):
        super().__init__()
        _positive(n=n)
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T / n, n C)."""
        if x.dim() != 3 or x.shape[1] % self.n:
            raise ValueError(
                f"x has shape {tuple(x.shape)}: to fuse groups of {self.n} "
                f"it must be (B, T, C) with T a multiple of {self.n}"
            )
        B, T, C = x.shape
        return x.reshape(B, T // self.n, self.n * C)

    def extra_repr(self) -> str:
        return f"n={self.n}"


class Tree(Module):
    """Predict the next symbol by fusing pairs, pairs of pairs, and so on.

    ``x = embedding(idx)``, then at every level
    ``x = tanh(norm(linear(pairs of x)))``, which halves T, until one
    position is left; ``logits = output(x)``. All pairs of a level share one
    linear layer. Weights start as N(0, 1) times 5/3 over the square root of
    the fan-in, a tenth of 1 / sqrt(fan-in) in the output, biases at zero.

    Args:
        vocab_size: V.
        block_size: T, a power of 2: the number of levels is log2 T.
        n_embd: C, numbers that stand for one symbol.
        n_hidden: units of each level, or a list with one size a level.
        norm: None, "batch" (over all examples and positions) or "layer".
        generator: where the initial weights come from.

    Shapes:
        idx (B, T) int64 in, logits (B, V) out.

    Raises:
        ValueError: a size below 1, a block_size that is no power of 2, as
            many sizes as there are not levels, an unknown norm, or idx that
            is not (B, block_size).

    Source: lecture 6, after van den Oord et al. 2016.

    >>> tree = Tree(27, 8, 24, 128, norm="batch")
    >>> sum(p.numel() for p in tree.parameters())
    76579
    >>> tree(torch.zeros(5, 8, dtype=torch.long)).shape
    torch.Size([5, 27])
    """

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        n_embd: int,
        n_hidden: int | Sequence[int],
        *,
        norm: str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        _positive(vocab_size=vocab_size, block_size=block_size, n_embd=n_embd)
        levels = block_size.bit_length() - 1
        if block_size < 2 or block_size != 2**levels:
            raise ValueError(
                f"block_size={block_size} must be a power of 2 (2, 4, 8, "
                "...): every level halves it"
            )
        sizes = _sizes(n_hidden, levels)
        if norm not in NORMS:
            raise ValueError(f"norm={norm!r} must be one of {NORMS}")
        self.block_size = block_size
        self.embedding = Embedding(vocab_size, n_embd, generator=generator)
        self.fuse = FlattenConsecutive(2)
        self.linears, self.norms = ModuleList(), ModuleList()
        for fan_in, size in zip([n_embd, *sizes], sizes, strict=False):
            bias = norm is None  # a norm has a shift of its own
            self.linears.append(
                Linear(2 * fan_in, size, bias=bias, generator=generator)
            )
            kinds = {None: Identity, "batch": BatchNorm1d, "layer": LayerNorm}
            self.norms.append(kinds[norm](size))
        self.output = Linear(sizes[-1], vocab_size, generator=generator)
        _start_well(self.linears, self.output, generator)

    def forward(self, idx: Tensor) -> Tensor:
        """Logits (B, V) of the symbol after each window idx (B, T)."""
        self._check(idx)
        x = self.embedding(idx)  # (B, T, C)
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x = torch.tanh(_rows(norm, linear(self.fuse(x))))  # (B, T/2, H)
        return self.output(x.squeeze(1))

    def shared(self, idx: Tensor) -> Tensor:
        """The logits of ``forward``, each different block computed once.

        A block (a pair, a four, ...) that occurs a hundred times in the
        batch is one row of a table. And because a linear layer of a pair is
        a sum, ``W @ [left, right] = W_l @ left + W_r @ right``, both terms
        are tables of the level below. idx (B, T) -> (B, V).

        Raises:
            ValueError: BatchNorm in training, whose statistics count how
                often a block occurs.
        """
        self._check(idx)
        if self.training and isinstance(self.norms[0], BatchNorm1d):
            raise ValueError(
                "shared() counts each block once, BatchNorm in training "
                "counts every occurrence: call forward, or eval() first"
            )
        table, ids = self.embedding.weight, idx  # ids: rows of the table
        for linear, norm in zip(self.linears, self.norms, strict=True):
            K, C = table.shape
            pairs = ids[:, 0::2] * K + ids[:, 1::2]  # (B, T/2)
            blocks, ids = torch.unique(pairs, return_inverse=True)
            left = table @ linear.weight[:, :C].T  # (K, H)
            right = table @ linear.weight[:, C:].T
            x = left.index_select(0, blocks // K)
            x = x + right.index_select(0, blocks % K)  # (blocks, H)
            if linear.bias is not None:
                x = x + linear.bias
            table = torch.tanh(norm(x))
        return self.output(table).index_select(0, ids.squeeze(1))

    def _check(self, idx: Tensor) -> None:
        if idx.dim() != 2 or idx.shape[1] != self.block_size:
            raise ValueError(
                f"idx has shape {tuple(idx.shape)}, this tree reads windows "
                f"of shape (B, {self.block_size}): cut them with "
                f"zerohero.data.windows(ids, {self.block_size})"
            )


class SharedTree(Tree):
    """A Tree whose forward is ``shared``: the same logits, far less work."""

    def forward(self, idx: Tensor) -> Tensor:
        """Logits (B, V) of the symbol after each window idx (B, T)."""
        return self.shared(idx)


class CausalConv1d(Module):
    """A convolution that sees its own position and earlier ones only.

    y[t] = bias + sum over j of weight[:, :, j] @ x[t - (k - 1 - j) * d]

    with k = kernel_size taps, d = dilation slots apart, and zeros before
    the beginning. ``weight`` lies (out, in, k) as in torch.nn.Conv1d, whose
    twin this is behind a padding of (k - 1) * d zeros on the left; but x is
    (B, T, in_channels) -> (B, T, out_channels), channels last.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv1d.html
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 2,
        dilation: int = 1,
        bias: bool = True,
        *,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        _positive(
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel_size,
            dilation=dilation,
        )
        self.kernel_size, self.dilation = kernel_size, dilation
        bound = (in_channels * kernel_size) ** -0.5

        def draw(*shape):
            t = torch.empty(*shape)
            return Parameter(t.uniform_(-bound, bound, generator=generator))

        self.weight = draw(out_channels, in_channels, kernel_size)
        self.register_parameter("bias", draw(out_channels) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, in_channels) -> (B, T, out_channels)."""
        if x.dim() != 3 or x.shape[2] != self.weight.shape[1]:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, weight "
                f"{tuple(self.weight.shape)}: x must be (B, T, "
                f"{self.weight.shape[1]}), channels last"
            )
        y = torch.cat([delay(x, d) for d in self.delays()], dim=2)
        weight = self.weight.mT.flatten(1)  # (out, k in): taps side by side
        return F.linear(y, weight, self.bias)

    def delays(self) -> list[int]:
        """How far back each tap looks, the earliest first."""
        taps = range(self.kernel_size - 1, -1, -1)
        return [j * self.dilation for j in taps]


def delay(x: Tensor, steps: int) -> Tensor:
    """x (B, T, C) moved ``steps`` positions later, zeros in front.

    >>> delay(torch.tensor([[[1.0], [2.0], [3.0]]]), 1).flatten().tolist()
    [0.0, 1.0, 2.0]
    """
    T = x.shape[1]
    steps = min(steps, T)
    zeros = x.new_zeros(x.shape[0], steps, x.shape[2])
    return torch.cat((zeros, x[:, : T - steps]), dim=1)


class PairWithPast(Module):
    """Lay every position beside the one ``dilation`` before it.

    x (B, T, C) -> (B, T, 2 C), ``y[t] = [x[t - dilation], x[t]]``, zeros
    before the beginning. A linear layer behind it is a CausalConv1d of two
    taps.

    >>> x = torch.tensor([[[1.0], [2.0], [3.0]]])
    >>> PairWithPast(2)(x).tolist()
    [[[0.0, 1.0], [0.0, 2.0], [1.0, 3.0]]]
    """

    def __init__(self, dilation: int):
        super().__init__()
        _positive(dilation=dilation)
        self.dilation = dilation

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, 2 C)."""
        return torch.cat((delay(x, self.dilation), x), dim=2)

    def extra_repr(self) -> str:
        return f"dilation={self.dilation}"


class DilatedStack(Module):
    """The tree at every position: causal convolutions 1, 2, 4, ... apart.

    ``x = embedding(idx)``, then for every dilation
    ``h = f(norm(linear([x[t - dilation], x[t]])))``, and ``logits =
    output(x)``. f is tanh, or with
    ``gated`` ``tanh(a) * sigmoid(b)`` of the two halves a, b of twice as
    many channels. With ``residual`` ``x = x + h`` from the second level on.
    Two taps a level see a past of 1 + sum(dilations) symbols.

    Args:
        vocab_size: V.
        n_embd: C, numbers that stand for one symbol.
        n_hidden: channels of the levels, one size or one for each level.
        dilations: how far apart the two taps of each level lie.
        gated, residual: see above (residual wants equal sizes).
        norm: None or "layer".
        generator: where the initial weights come from.

    Shapes:
        idx (B, T) int64 in, any T; logits (B, T, V) out.

    Raises:
        ValueError: a size below 1, sizes that do not fit the dilations, an
            unknown norm, or idx that is not (B, T).

    Source: van den Oord et al. 2016, section 2.

    >>> stack = DilatedStack(27, 24, 128)
    >>> stack.receptive_field, stack(torch.zeros(2, 5).long()).shape
    (8, torch.Size([2, 5, 27]))
    """

    def __init__(
        self,
        vocab_size: int,
        n_embd: int,
        n_hidden: int | Sequence[int],
        dilations: Sequence[int] = (1, 2, 4),
        *,
        gated: bool = False,
        residual: bool = False,
        norm: str | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        _positive(vocab_size=vocab_size, n_embd=n_embd)
        sizes = _sizes(n_hidden, len(dilations))
        if norm not in (None, "layer"):
            raise ValueError(f"norm={norm!r} must be None or 'layer'")
        if residual and len(set(sizes)) > 1:
            raise ValueError(
                f"n_hidden={sizes}: residual adds levels up, so all of them "
                "must have one size"
            )
        self.gated, self.residual = gated, residual
        self.embedding = Embedding(vocab_size, n_embd, generator=generator)
        self.pairs = ModuleList(PairWithPast(d) for d in dilations)
        self.linears, self.norms = ModuleList(), ModuleList()
        for fan_in, size in zip([n_embd, *sizes], sizes, strict=False):
            out = size * (2 if gated else 1)
            self.linears.append(
                Linear(2 * fan_in, out, bias=norm is None, generator=generator)
            )
            self.norms.append(Identity() if norm is None else LayerNorm(out))
        self.output = Linear(sizes[-1], vocab_size, generator=generator)
        _start_well(self.linears, self.output, generator)

    @property
    def receptive_field(self) -> int:
        """How many symbols, the newest included, a prediction depends on."""
        return 1 + sum(pair.dilation for pair in self.pairs)

    def forward(self, idx: Tensor) -> Tensor:
        """Logits (B, T, V): after each position of idx (B, T)."""
        if idx.dim() != 2:
            raise ValueError(f"idx must be (B, T), got {tuple(idx.shape)}")
        x = self.embedding(idx)  # (B, T, C)
        for i, pair in enumerate(self.pairs):
            h = self.norms[i](self.linears[i](pair(x)))
            if self.gated:
                a, b = h.chunk(2, dim=-1)
                h = torch.tanh(a) * torch.sigmoid(b)
            else:
                h = torch.tanh(h)
            x = x + h if self.residual and i > 0 else h  # (B, T, H)
        return self.output(x)


def at_every_position(tree: Tree) -> DilatedStack:
    """The dilated stack with the weights of a tree.

    From position T - 1 of a text on, its logits are those of the tree on
    the window of T symbols that ends there. The parameters have the same
    names and shapes; they are copied.

    Raises:
        ValueError: the tree has BatchNorm.
    """
    if isinstance(tree.norms[0], BatchNorm1d):
        raise ValueError("only trees without norm or with 'layer' convert")
    stack = DilatedStack(
        *tree.embedding.weight.shape,
        [linear.out_features for linear in tree.linears],
        [2**i for i in range(len(tree.linears))],
        norm="layer" if isinstance(tree.norms[0], LayerNorm) else None,
    )
    stack.load_state_dict(tree.state_dict())
    return stack


def influence(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Which outputs move when one input position is changed: perturb, look.

    Args:
        f: maps (1, T, ...) to (1, ...), one or several positions.
        x: (1, T, C) floating input.

    Returns:
        bool tensor (T_out, T): [i, k] says whether output position i
        depends on input position k; T_out = 1 if f answers once.

    Raises:
        ValueError: x is not a single floating example (1, T, C).
    """
    if x.dim() != 3 or len(x) != 1 or not x.is_floating_point():
        raise ValueError(
            f"x must be one floating example (1, T, C), got "
            f"{tuple(x.shape)} of {x.dtype}"
        )
    with torch.no_grad():
        before = f(x)
        answers = before.shape[1] if before.dim() == 3 else 1
        columns = []
        for k in range(x.shape[1]):
            y = x.clone()
            y[:, k] += 1.0
            moved = (f(y) != before).view(answers, -1)
            columns.append(moved.any(dim=1))
    return torch.stack(columns, dim=1)


class RNNCell(Module):
    """``h' = tanh(W_ih @ x + b_ih + W_hh @ h + b_hh)``.

    input (B, input_size), hx (B, hidden_size) -> (B, hidden_size), or
    without B; no hx is zeros. Twin of torch.nn.RNNCell but for its
    ``nonlinearity``: all numbers start uniform within 1 / sqrt(hidden_size).
    Raises ValueError, with the shapes, if they do not fit.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.RNNCell.html
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        device=None,
        dtype=None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        _positive(input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size = input_size, hidden_size
        bound, rows = hidden_size**-0.5, self.gates * hidden_size

        def draw(*shape):
            t = torch.empty(*shape, device=device, dtype=dtype)
            return Parameter(t.uniform_(-bound, bound, generator=generator))

        self.weight_ih = draw(rows, input_size)
        self.weight_hh = draw(rows, hidden_size)
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, draw(rows) if bias else None)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """input (B, input_size), hx (B, hidden_size) -> the new state."""
        B = input.shape[:-1]  # () or (B,)
        if hx is None:
            hx = input.new_zeros(*B, self.hidden_size)
        want = [(*B, self.input_size), (*B, self.hidden_size)]
        got = [tuple(input.shape), tuple(hx.shape)]
        if got != want or len(B) > 1:
            raise ValueError(f"input and hx are {got}, must be {want}")
        a = F.linear(input, self.weight_ih, self.bias_ih)
        b = F.linear(hx, self.weight_hh, self.bias_hh)
        return self.update(a, b, hx)

    def update(self, a: Tensor, b: Tensor, hx: Tensor) -> Tensor:
        """The new state from what input and state say, each (B, gates H)."""
        return torch.tanh(a + b)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + (
            ", bias=False" if self.bias_ih is None else "")


class GRUCell(RNNCell):
    """A state that decides how much of itself to keep.

    ``r = sigmoid(..), z = sigmoid(..)`` (reset, update),
    ``n = tanh(W_in x + b_in + r * (W_hn h + b_hn))``,
    ``h' = (1 - z) * n + z * h``. Shapes, start and errors as in RNNCell;
    twin of torch.nn.GRUCell.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRUCell.html
    """

    gates = 3

    def update(self, a: Tensor, b: Tensor, hx: Tensor) -> Tensor:
        """The new state from what input and state say, each (B, 3 H)."""
        ar, az, an = a.chunk(3, dim=-1)
        br, bz, bn = b.chunk(3, dim=-1)
        r, z = torch.sigmoid(ar + br), torch.sigmoid(az + bz)
        n = torch.tanh(an + r * bn)
        return (1 - z) * n + z * hx


class Recurrent(Module):
    """A language model with one state: read a symbol, update, predict.

    ``h = cell(embedding(idx[:, t]), h); logits[:, t] = output(h)``, from a
    learned start state.

    Args:
        vocab_size, n_embd, n_hidden: V, C, H.
        cell: the class of the cell, RNNCell or GRUCell.
        generator: where the initial weights come from.

    Shapes:
        idx (B, T) int64 in, any T; logits (B, T, V) out.

    Raises:
        ValueError: a size below 1, or idx that is not (B, T).
    """

    def __init__(
        self,
        vocab_size: int,
        n_embd: int,
        n_hidden: int,
        cell: type[RNNCell] = GRUCell,
        *,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        _positive(vocab_size=vocab_size, n_embd=n_embd)
        self.embedding = Embedding(vocab_size, n_embd, generator=generator)
        self.cell = cell(n_embd, n_hidden, generator=generator)
        self.start = Parameter(torch.zeros(n_hidden))
        self.output = Linear(n_hidden, vocab_size, generator=generator)

    def forward(self, idx: Tensor) -> Tensor:
        """Logits (B, T, V): after each position of idx (B, T)."""
        if idx.dim() != 2 or idx.shape[1] == 0:
            raise ValueError(f"idx must be (B, T), got {tuple(idx.shape)}")
        x = self.embedding(idx)  # (B, T, C)
        h, states = self.start.expand(len(idx), -1), []
        for t in range(idx.shape[1]):
            h = self.cell(x[:, t], h)
            states.append(h)
        return self.output(torch.stack(states, dim=1))


def _rows(norm: Module, x: Tensor) -> Tensor:
    """A norm of (N, C) on (B, T, C): every position is one row."""
    return norm(x.flatten(0, -2)).view(x.shape)


def _sizes(n_hidden: int | Sequence[int], levels: int) -> list[int]:
    one = isinstance(n_hidden, int)
    sizes = [n_hidden] * levels if one else list(n_hidden)
    if len(sizes) != levels or levels < 1:
        raise ValueError(
            f"n_hidden={sizes} has {len(sizes)} sizes for {levels} levels: "
            "give one number, or one for each level (at least one level)"
        )
    for size in sizes:
        _positive(n_hidden=size)
    return sizes


def _start_well(layers, output: Linear, generator) -> None:
    """Gain 5/3 for tanh, a quiet output, biases at zero."""
    with torch.no_grad():
        for layer in layers:
            fan_in = layer.weight[0].numel()
            layer.weight.normal_(generator=generator)
            layer.weight.mul_((5 / 3) / fan_in**0.5)
        output.weight.normal_(generator=generator)
        output.weight.mul_(0.1 / output.in_features**0.5)
        for layer in (*layers, output):
            if layer.bias is not None:
                layer.bias.zero_()


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size} must be 1 or more")
