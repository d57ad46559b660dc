"""Windows of several symbols: the network of Bengio et al., and counts.

The network sees ``block_size`` symbols, looks each up in one table of
embeddings, lays the rows side by side and lets two layers vote on the next
symbol. A corpus asks the same question many times over, so its windows can
be gathered into unique contexts with counts: the same loss, to the last
digit, from a fraction of the rows.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from zerohero import functional as F
from zerohero.nn import Embedding, Linear, Module
from zerohero.train import History


class MLP(Module):
    """Predict the next symbol from a window of ``block_size`` symbols.

    ``logits = output(tanh(hidden(view(embedding(idx)))))``: every symbol of
    the window becomes a row of ``n_embd`` numbers, the rows are laid side
    by side (position = slot), one hidden layer of tanh units reads them
    all, and the output layer adds up the units' votes.

    It starts well: embeddings N(0, 1); hidden weights N(0, 1) times the
    gain 5/3 over the square root of the fan-in; output weights a tenth of
    1 / sqrt(fan-in); biases zero. The first loss is then close to ln V.

    Args:
        vocab_size: V, number of symbols.
        block_size: T, symbols in a window.
        n_embd: C, numbers that stand for one symbol.
        n_hidden: H, hidden units.
        generator: where the initial weights come from (None: torch's own).

    Shapes:
        idx (B, T) int64 in, logits (B, V) out.

    Raises:
        ValueError: a size below 1, or idx that is not (B, block_size).

    Source: Bengio et al., A neural probabilistic language model, 2003.

    >>> model = MLP(27, 3, 10, 200)
    >>> model(torch.zeros(5, 3, dtype=torch.long)).shape
    torch.Size([5, 27])
    >>> sum(p.numel() for p in model.parameters())
    11897
    """

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        n_embd: int,
        n_hidden: int,
        *,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        sizes = dict(
            vocab_size=vocab_size,
            block_size=block_size,
            n_embd=n_embd,
            n_hidden=n_hidden,
        )
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name}={size} must be 1 or more")
        self.block_size = block_size
        fan_in = block_size * n_embd
        self.embedding = Embedding(vocab_size, n_embd, generator=generator)
        self.hidden = Linear(fan_in, n_hidden, generator=generator)
        self.output = Linear(n_hidden, vocab_size, generator=generator)
        with torch.no_grad():
            self.hidden.weight.normal_(generator=generator)
            self.hidden.weight.mul_((5 / 3) / fan_in**0.5)
            self.output.weight.normal_(generator=generator)
            self.output.weight.mul_(0.1 / n_hidden**0.5)
            self.hidden.bias.zero_()
            self.output.bias.zero_()

    def forward(self, idx: Tensor) -> Tensor:
        """Logits (B, V) of the symbol after each window idx (B, T)."""
        return self.output(self.features(idx))

    def features(self, idx: Tensor) -> Tensor:
        """What the hidden units say about each window: (B, H) in (-1, 1)."""
        if idx.dim() != 2 or idx.shape[1] != self.block_size:
            raise ValueError(
                f"idx has shape {tuple(idx.shape)}, this model reads "
                f"windows of shape (B, {self.block_size}): cut them with "
                f"zerohero.data.windows(ids, {self.block_size})"
            )
        emb = self.embedding(idx)  # (B, T, C)
        return torch.tanh(self.hidden(emb.view(len(idx), -1)))

    def tables(self) -> Tensor:
        """What each symbol in each slot adds to each hidden unit: (T, V, H).

        ``tables[j] = C @ W_j.T`` with ``W_j`` the columns of the hidden
        weight that read slot j. The hidden layer is a sum of T rows, one
        looked up in each table, plus the bias.
        """
        emb = self.embedding.weight  # (V, C)
        slots = self.hidden.weight.view(  # (H, T, C)
            -1, self.block_size, emb.shape[1]
        )
        return torch.einsum("vc,htc->tvh", emb, slots)


def contexts(
    x: Tensor, y: Tensor, vocab_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Gather equal windows: which contexts occur, and what followed them.

    Nothing that the loss can see is lost: all windows with one context get
    the same logits, so only how often each symbol followed it matters.

    Args:
        x: windows (N, T) of ids.
        y: the id that followed each, (N,).
        vocab_size: V (None: the largest id in x and y, plus one).

    Returns:
        The U different contexts (U, T) in ascending order, and counts
        (U, V) in float32: how often each symbol followed. They sum to N.

    Raises:
        ValueError: no windows, shapes that do not belong together, or an
            id outside 0..V-1.

    >>> x, y = torch.tensor([[0, 1], [0, 0], [0, 1]]), torch.tensor([2, 1, 0])
    >>> contexts(x, y, 3)[0].tolist(), contexts(x, y, 3)[1].tolist()
    ([[0, 0], [0, 1]], [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    """
    if x.dim() != 2 or y.shape != x.shape[:1] or x.numel() == 0:
        raise ValueError(
            f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}: they "
            "must be (N, T) and (N,) with at least one window"
        )
    low = int(min(x.min(), y.min()))
    high = int(max(x.max(), y.max()))
    V = high + 1 if vocab_size is None else vocab_size
    if low < 0 or high >= V:
        raise ValueError(
            f"ids run from {low} to {high}, vocab_size={V} allows 0 to "
            f"{V - 1}: encode the text with this vocabulary"
        )
    key = torch.zeros_like(y)  # the rank of the context read so far
    for column in x.T:  # ranks stay below N, so nothing can overflow
        _, key = torch.unique(key * V + column, return_inverse=True)
    U = int(key.max()) + 1
    unique = x.new_empty(U, x.shape[1])
    unique[key] = x  # equal windows write equal rows
    counts = torch.bincount(key * V + y, minlength=U * V)
    return unique, counts.view(U, V).float()


def count_loss(logits: Tensor, counts: Tensor) -> Tensor:
    """Mean surprise in nats: ``-sum(counts * log_softmax(logits)) / N``.

    The exact cross-entropy over all N = counts.sum() windows.

    Args:
        logits: (U, V), one row for each unique context.
        counts: (U, V), how often each symbol followed it.

    Raises:
        ValueError: shapes that differ, or counts that are all zero.

    >>> count_loss(torch.zeros(2, 27), torch.ones(2, 27))  # ln 27
    tensor(3.2958)
    """
    if logits.shape != counts.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and counts "
            f"{tuple(counts.shape)} must have one shape, (U, V)"
        )
    total = counts.sum()
    if total <= 0:
        raise ValueError("counts are all zero: there is nothing to predict")
    return -(counts * F.log_softmax(logits, dim=1)).sum() / total


def fit_counts(
    model,
    unique: Tensor,
    counts: Tensor,
    optimizer,
    steps: int,
    schedule: Callable[[int], float] | None = None,
) -> History:
    """Train on every window at once, by way of the unique contexts.

    Each step follows the exact gradient of the whole training set; there
    is no batch and no noise. For models without coupling between examples
    (no BatchNorm, which would weigh each context once).

    Args:
        model: logits (U, V) = model(unique).
        unique, counts: from :func:`contexts`.
        optimizer: one optimizer or a list of them.
        steps: how many steps.
        schedule: factor of every learning rate at each step (None: 1).

    Returns:
        History with the loss (nats) before each step and the seconds.

    Raises:
        ValueError: steps below 1, or a loss that is not finite.
    """
    if steps < 1:
        raise ValueError(f"steps={steps} must be 1 or more")
    many = isinstance(optimizer, (list, tuple))
    optimizers = list(optimizer) if many else [optimizer]
    groups = [group for o in optimizers for group in o.param_groups]
    rates = [group["lr"] for group in groups]
    # A large block, freed at once, teaches glibc's malloc to keep memory of
    # this size; otherwise each step pays anew for the pages of each tensor.
    torch.empty(7_900_000)
    history, begin = History(), time.perf_counter()
    model.train()
    try:
        for step in range(steps):
            loss = count_loss(model(unique), counts)
            if not loss.isfinite():
                raise ValueError(
                    f"the loss is {loss.item()} at step {step}: lower the "
                    "learning rate"
                )
            for o in optimizers:
                o.zero_grad()
            loss.backward()
            factor = 1.0 if schedule is None else schedule(step)
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate * factor
            for o in optimizers:
                o.step()
            history.losses.append(loss.item())
    finally:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
    history.seconds = time.perf_counter() - begin
    return history
