"""The backward pass by hand: one function for each layer, and a whole MLP.

Chapter: book/backprop.md. `dout` is always the gradient of the loss with
respect to a layer's output; every function returns the gradients of its
inputs, each with the shape of the input it belongs to. Nothing here uses
autograd.
"""

import torch
from torch import Tensor

from zerohero import functional as F
from zerohero.nn import BatchNorm1d, Embedding, Linear, Module


def sum_to(grad: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo a broadcast: add up `grad` until it has `shape`.

    Forward, one number was used in many places; backward, what the places
    send adds up. `grad` has the shape after the broadcast, `shape` is the
    one before. ValueError if `shape` does not broadcast to grad's.

    >>> sum_to(torch.ones(4, 3), (3,)).tolist()
    [4.0, 4.0, 4.0]
    >>> sum_to(torch.ones(4, 3), (4, 1)).shape
    torch.Size([4, 1])
    """
    shape = tuple(shape)
    try:
        fits = torch.broadcast_shapes(shape, grad.shape) == grad.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"shape {shape} does not broadcast to {tuple(grad.shape)}; "
            "give the shape that the tensor had before the broadcast"
        )
    lead = grad.dim() - len(shape)              # axes that were invented
    stretched = [
        lead + i for i, size in enumerate(shape)
        if size == 1 and grad.shape[lead + i] != 1
    ]
    dims = [*range(lead), *stretched]
    return grad.sum(dims, keepdim=True).reshape(shape) if dims else grad


def linear_backward(
    dout: Tensor, x: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward of ``x @ weight.T + bias``.

    dout (..., out), x (..., in), weight (out, in) -> dx (..., in),
    dweight (out, in) = dout.T @ x, dbias (out,) = dout summed over all else.

    >>> dx, dweight, dbias = linear_backward(
    ...     torch.ones(5, 2), torch.ones(5, 3), torch.ones(2, 3))
    >>> dweight.tolist(), dbias.tolist()
    ([[5.0, 5.0, 5.0], [5.0, 5.0, 5.0]], [5.0, 5.0])
    """
    want = (*x.shape[:-1], weight.shape[0])
    if dout.shape != want or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"dout {tuple(dout.shape)}, x {tuple(x.shape)} and weight "
            f"{tuple(weight.shape)} must be (..., out), (..., in) and "
            "(out, in)"
        )
    rows = dout.reshape(-1, dout.shape[-1])                 # (N, out)
    dweight = rows.T @ x.reshape(-1, x.shape[-1])
    return dout @ weight, dweight, rows.sum(0)


def tanh_backward(dout: Tensor, out: Tensor) -> Tensor:
    """Backward of ``out = tanh(x)``: dout * (1 - out**2), any shape.

    >>> tanh_backward(torch.ones(2), torch.tensor([0.0, 1.0])).tolist()
    [1.0, 0.0]
    """
    _same(dout=dout, out=out)
    return dout * (1 - out**2)


def embedding_backward(
    dout: Tensor, idx: Tensor, num_embeddings: int
) -> Tensor:
    """Backward of ``weight[idx]``: every row goes back where it was read.

    dout (..., C), idx (...) of ids -> dweight (num_embeddings, C). A row
    that was read twice gets two payments (a scatter-add), one that was not
    read gets zeros. ValueError for ids outside 0..num_embeddings - 1.

    >>> rows = torch.tensor([[1.0], [2.0], [4.0]])
    >>> embedding_backward(rows, torch.tensor([1, 0, 1]), 3).tolist()
    [[2.0], [5.0], [0.0]]
    """
    if dout.shape[:-1] != idx.shape:
        raise ValueError(
            f"dout {tuple(dout.shape)} must be idx's shape "
            f"{tuple(idx.shape)} and one more axis, C"
        )
    _check_ids(idx, num_embeddings)
    dweight = dout.new_zeros(num_embeddings, dout.shape[-1])
    rows = dout.reshape(-1, dout.shape[-1])
    return dweight.index_add(0, idx.reshape(-1), rows)


def softmax_backward(dout: Tensor, probs: Tensor, dim: int = -1) -> Tensor:
    """Backward of ``probs = softmax(x, dim)``: probs * (dout - its mean).

    The mean is weighted by the probabilities: only what differs from it
    can move them, since they add up to 1. Any shape.

    >>> softmax_backward(torch.ones(3), torch.tensor([0.5, 0.3, 0.2])).norm()
    tensor(0.)
    """
    _same(dout=dout, probs=probs)
    return probs * (dout - (dout * probs).sum(dim, keepdim=True))


def cross_entropy_backward(logits: Tensor, targets: Tensor) -> Tensor:
    """Backward of the mean ``cross_entropy(logits, targets)`` in one line.

    (softmax(logits) - onehot(targets)) / n: logits (..., V), targets (...)
    of ids, n their number -> dlogits (..., V), whose rows sum to zero.

    >>> cross_entropy_backward(torch.zeros(1, 4), torch.tensor([2])).tolist()
    [[0.25, 0.25, -0.75, 0.25]]
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} must be the targets' shape "
            f"{tuple(targets.shape)} and one more axis, V"
        )
    _check_ids(targets, logits.shape[-1])
    onehot = F.one_hot(targets, logits.shape[-1])
    return (F.softmax(logits, dim=-1) - onehot) / targets.numel()


def batch_norm_backward(
    dout: Tensor,
    x: Tensor,
    weight: Tensor,
    eps: float = 1e-5,
    unbiased: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward of batch normalization in training, in one line.

    ``out = xhat * weight + bias``, xhat = (x - mean) / sqrt(var + eps) over
    all axes but 1. x (N, C) or (N, C, L), weight (C,) -> dx like x,
    dweight (C,), dbias (C,). With n values for each channel and all sums
    and means taken over them,
    dx = weight / sqrt(var + eps) * (dout - mean(dout) - xhat * k), where
    k = mean(dout * xhat), or sum(dout * xhat) / (n - 1) if ``unbiased``
    (the lectures' variance; torch divides by n). ValueError for n < 2.
    Source: Ioffe and Szegedy, 2015.
    """
    _same(dout=dout, x=x)
    if x.dim() < 2 or weight.shape != x.shape[1:2]:
        raise ValueError(
            f"x {tuple(x.shape)} and weight {tuple(weight.shape)} must be "
            "(N, C) or (N, C, L) and (C,)"
        )
    dims = [d for d in range(x.dim()) if d != 1]
    n = x.numel() // max(1, x.shape[1])
    if n < 2:
        raise ValueError(
            f"x {tuple(x.shape)} has {n} value for each channel; a batch "
            "needs 2 or more to have a variance"
        )
    over = dict(dim=dims, keepdim=True)
    scale = weight.view(-1, *[1] * (x.dim() - 2))           # beside axis 1
    m = n - 1 if unbiased else n
    diff = x - x.mean(**over)
    inv = ((diff**2).sum(**over) / m + eps) ** -0.5
    xhat = diff * inv
    k = (dout * xhat).sum(**over) / m
    dx = scale * inv * (dout - dout.mean(**over) - xhat * k)
    return dx, (dout * xhat).sum(dims), dout.sum(dims)


def layer_norm_backward(
    dout: Tensor, x: Tensor, weight: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward of layer normalization: the same line, along the last axis.

    x (..., C), weight (C,) -> dx like x, dweight (C,), dbias (C,). Unlike
    batch normalization the weight lies along the axis of the means, so it
    is multiplied in before them.
    Source: Ba, Kiros and Hinton, 2016.
    """
    _same(dout=dout, x=x)
    if weight.shape != x.shape[-1:]:
        raise ValueError(
            f"x {tuple(x.shape)} and weight {tuple(weight.shape)} must be "
            "(..., C) and (C,)"
        )
    diff = x - x.mean(-1, keepdim=True)
    inv = ((diff**2).mean(-1, keepdim=True) + eps) ** -0.5
    xhat, d = diff * inv, dout * weight
    k = (d * xhat).mean(-1, keepdim=True)
    dx = inv * (d - d.mean(-1, keepdim=True) - xhat * k)
    dweight = sum_to(dout * xhat, weight.shape)
    return dx, dweight, sum_to(dout, weight.shape)


class MLP(Module):
    """The windowed MLP with BatchNorm, trained without autograd.

    embedding -> side by side -> linear without bias -> batch norm -> tanh
    -> linear. ``model(idx)`` answers logits like every model;
    ``model.backward(idx, targets)`` fills the gradients by hand. It starts
    like ``sequences.MLP`` (the shift of the batch norm takes over the
    hidden bias).

    Shapes: idx (B, T) int64 in, logits (B, V) out.
    Source: Bengio et al., 2003; Ioffe and Szegedy, 2015.

    >>> sum(p.numel() for p in MLP(27, 3, 10, 200).parameters())
    12097
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
        fan_in = block_size * n_embd
        self.block_size = block_size
        self.embedding = Embedding(vocab_size, n_embd, generator=generator)
        self.hidden = Linear(
            fan_in, n_hidden, bias=False, generator=generator
        )
        self.norm = BatchNorm1d(n_hidden)
        self.output = Linear(n_hidden, vocab_size, generator=generator)
        with torch.no_grad():
            self.hidden.weight.normal_(generator=generator)
            self.hidden.weight.mul_((5 / 3) / fan_in**0.5)
            self.output.weight.normal_(generator=generator)
            self.output.weight.mul_(0.1 / n_hidden**0.5)
            self.output.bias.zero_()

    def forward(self, idx: Tensor) -> Tensor:
        """Logits (B, V) of the symbol after each window idx (B, T)."""
        return self._steps(idx)[-1]

    def _steps(self, idx: Tensor) -> tuple[Tensor, ...]:
        if idx.dim() != 2 or idx.shape[1] != self.block_size:
            raise ValueError(
                f"idx has shape {tuple(idx.shape)}, this model reads windows "
                f"of shape (B, {self.block_size}): cut them with "
                f"zerohero.data.windows(ids, {self.block_size})"
            )
        flat = self.embedding(idx).flatten(1)               # (B, T * C)
        pre = self.hidden(flat)                             # (B, H)
        h = torch.tanh(self.norm(pre))                      # (B, H)
        return flat, pre, h, self.output(h)                 # logits (B, V)

    @torch.no_grad()
    def backward(self, idx: Tensor, targets: Tensor) -> Tensor:
        """Forward and backward by hand; returns the loss, a 0-d tensor.

        Sets (does not add to) ``grad`` of every parameter to the gradient
        of the mean cross-entropy. Also moves the batch norm's running
        numbers, like any forward in training. ValueError in eval mode.
        """
        if not self.training:
            raise ValueError(
                "backward needs the batch's own statistics: call "
                "model.train() first"
            )
        flat, pre, h, logits = self._steps(idx)
        loss = F.cross_entropy(logits, targets)

        dlogits = cross_entropy_backward(logits, targets)
        dh, dweight, dbias = linear_backward(dlogits, h, self.output.weight)
        self.output.weight.grad, self.output.bias.grad = dweight, dbias
        dnormed = tanh_backward(dh, h)
        dpre, dweight, dbias = batch_norm_backward(
            dnormed, pre, self.norm.weight, self.norm.eps
        )
        self.norm.weight.grad, self.norm.bias.grad = dweight, dbias
        dflat, dweight, _ = linear_backward(dpre, flat, self.hidden.weight)
        self.hidden.weight.grad = dweight
        V, C = self.embedding.weight.shape
        self.embedding.weight.grad = embedding_backward(
            dflat.view(*idx.shape, C), idx, V
        )
        return loss


def _same(**tensors: Tensor) -> None:
    (a, x), (b, y) = tensors.items()
    if x.shape != y.shape:
        raise ValueError(
            f"{a} {tuple(x.shape)} and {b} {tuple(y.shape)} must have the "
            "same shape"
        )


def _check_ids(idx: Tensor, size: int) -> None:
    if idx.numel() and not 0 <= idx.min() <= idx.max() < size:
        raise ValueError(
            f"ids {int(idx.min())}..{int(idx.max())} do not all lie in "
            f"0..{size - 1}: encode them with this vocabulary"
        )
