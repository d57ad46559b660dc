"""Functions without parameters, written out from elementary tensor operations.

Each one is the twin of its namesake in ``torch.nn.functional`` (``logsumexp``
of ``torch.logsumexp``): same arguments, defaults, results and gradients. The
twin itself is never called, so what you read here is the whole mechanism.
A wrong shape raises a ``ValueError`` that names both shapes.
"""

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

# ---------------------------------------------------------------- lookups


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Rows of zeros with a single 1 at the place that each id names.

    ``tensor`` (...) of int64 ids -> (..., num_classes) of int64 (not float:
    call ``.float()`` before a matrix product). ``num_classes=-1`` takes the
    largest id plus one. Raises ValueError for ids outside the range.

    >>> one_hot(torch.tensor([2, 0]), 3)
    tensor([[0, 0, 1],
            [1, 0, 0]])

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.one_hot.html
    """
    if tensor.dtype != torch.int64:
        raise ValueError(f"one_hot needs int64 ids, got {tensor.dtype}")
    if tensor.numel() == 0 and num_classes <= 0:
        raise ValueError("no ids to count classes from: pass num_classes")
    if num_classes == 0 or num_classes < -1:
        raise ValueError(f"num_classes must be positive, got {num_classes}")
    if num_classes == -1:
        num_classes = int(tensor.max()) + 1
    if tensor.numel() and not 0 <= tensor.min() <= tensor.max() < num_classes:
        raise ValueError(
            f"ids must lie in 0..{num_classes - 1}, got"
            f" {int(tensor.min())}..{int(tensor.max())}"
        )
    classes = torch.arange(num_classes, device=tensor.device)
    return (tensor.unsqueeze(-1) == classes).long()


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None):
    """Affine map ``input @ weight.T + bias``.

    ``input`` (..., in_features), ``weight`` (out_features, in_features),
    ``bias`` (out_features,) -> (..., out_features). A 1-D ``weight``
    (in_features,) gives (...). Raises ValueError when the shapes disagree.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.linear.html
    """
    if weight.dim() not in (1, 2) or input.shape[-1:] != weight.shape[-1:]:
        raise ValueError(
            f"input {tuple(input.shape)} and weight {tuple(weight.shape)}"
            " must agree in their last size, in_features"
        )
    out = input @ weight.t()  # .t(): a 1-D weight stays as it is
    if bias is None:
        return out
    if bias.dim() > 1 or bias.numel() not in (1, *weight.shape[:-1]):
        raise ValueError(
            f"bias {tuple(bias.shape)} does not fit weight"
            f" {tuple(weight.shape)}: it must be (out_features,)"
        )
    if bias.dtype != weight.dtype:
        raise ValueError(f"bias {bias.dtype} but weight {weight.dtype}")
    return out + bias


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Row ``input[...]`` of the table ``weight``: ``weight[input]``.

    ``input`` (...) of int64 or int32 ids, ``weight`` (V, C) -> (..., C).
    The row ``padding_idx`` gets no gradient. Raises IndexError for an id
    outside 0..V-1 (also a negative one, which plain indexing would take).
    ``max_norm``, ``scale_grad_by_freq`` and ``sparse`` are not rebuilt here.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.embedding.html
    """
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise ValueError(
            "max_norm, scale_grad_by_freq and sparse are not rebuilt in"
            " this book: use torch.nn.functional.embedding"
        )
    if input.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"embedding needs integer ids, got {input.dtype}")
    if weight.dim() != 2:
        raise ValueError(f"weight must be (V, C), got {tuple(weight.shape)}")
    V = weight.shape[0]
    if input.numel() and not 0 <= input.min() <= input.max() < V:
        raise IndexError(
            f"ids {int(input.min())}..{int(input.max())} do not all lie in"
            f" 0..{V - 1}, the rows of the table"
        )
    rows = weight[input.long()]
    if padding_idx is None:
        return rows
    if not -V <= padding_idx < V:
        raise ValueError(f"padding_idx {padding_idx} outside -{V}..{V - 1}")
    is_padding = (input == padding_idx % V).unsqueeze(-1)
    return torch.where(is_padding, rows.detach(), rows)


# ---------------------------------------------- probabilities and losses


def logsumexp(
    input: Tensor, dim: int | Sequence[int], keepdim: bool = False
) -> Tensor:
    """Log of the sum of exponentials, safe for large numbers.

    ``log(sum(exp(input)))`` over ``dim`` (one or several), with the largest
    entry taken out first: ``m + log(sum(exp(input - m)))``.

    >>> logsumexp(torch.tensor([1000.0, 1000.0]), 0) - 1000  # ln 2
    tensor(0.6932)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.logsumexp.html
    """
    x = _as_floating(input)
    if x.numel() == 0:  # there is no largest entry
        return x.exp().sum(dim, keepdim=keepdim).log()
    m = x.detach().amax(dim, keepdim=True)
    m = m.masked_fill(m.isinf(), 0)  # inf - inf would be nan
    total = (x - m).exp().sum(dim, keepdim=keepdim)
    return total.log() + m.reshape(total.shape)


def softmax(
    input: Tensor,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Turn logits into probabilities: ``exp(x) / sum(exp(x))`` over ``dim``.

    Same shape in and out; entries sum to 1 along ``dim``. The largest logit
    is subtracted first: it changes nothing but keeps ``exp`` in range. A row
    of nothing but ``-inf`` is ``nan``, as in torch. ``dtype`` converts first.

    >>> softmax(torch.tensor([0.0, 0.0]), dim=0)
    tensor([0.5000, 0.5000])

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.softmax.html
    """
    if dim is None:
        dim = _implicit_dim("softmax", input, _stacklevel)
    x = input if dtype is None else input.to(dtype)
    _check_floating("softmax", x)
    exps = _shifted(_wide(x), dim).exp()
    return (exps / exps.sum(dim, keepdim=True)).to(x.dtype)


def log_softmax(
    input: Tensor,
    dim: int | None = None,
    _stacklevel: int = 3,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Log-probabilities from logits: ``x - logsumexp(x)`` over ``dim``.

    Same shape in and out, in nats, at most 0. Never ``log(softmax(x))``:
    there a tiny probability is rounded to 0 and its log to ``-inf``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.log_softmax.html
    """
    if dim is None:
        dim = _implicit_dim("log_softmax", input, _stacklevel)
    x = input if dtype is None else input.to(dtype)
    _check_floating("log_softmax", x)
    shifted = _shifted(_wide(x), dim)
    total = shifted.exp().sum(dim, keepdim=True)
    return (shifted - total.log()).to(x.dtype)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-likelihood ``-input[target]`` of log-probabilities.

    ``input`` (C,), (N, C) or (N, C, d1, ...) of log-probabilities,
    ``target`` the same shape without C, of class ids. Returns a scalar in
    nats (``reduction`` "mean" or "sum") or ``target``'s shape ("none").
    ``weight`` (C,) weighs the classes ("mean" divides by the weights used);
    targets equal to ``ignore_index`` do not count. Raises ValueError for
    shapes that disagree, IndexError for a class id outside 0..C-1.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.nll_loss.html
    """
    _check_reduction(reduction, size_average, reduce)
    _check_floating("nll_loss", input)
    picked, weights, _ = _pick(input, target, weight, ignore_index)
    return _reduced(picked, weights, reduction)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Surprise of a softmax over logits: ``-log_softmax(input)[target]``.

    ``input`` (C,), (N, C) or (N, C, d1, ...) of logits: classes stand at
    axis 1, also with more axes behind. ``target`` holds class ids (same
    shape without C) or, in ``input``'s own shape, probabilities. Returns
    nats: a scalar, or one number for each target with ``reduction="none"``.
    ``label_smoothing`` gives that share of the target to all classes alike.
    ``weight``, ``ignore_index`` and errors as in :func:`nll_loss`.

    >>> cross_entropy(torch.zeros(1, 27), torch.tensor([5]))  # ln 27
    tensor(3.2958)

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.cross_entropy.html
    """
    _check_reduction(reduction, size_average, reduce)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(
            f"label_smoothing must lie in 0..1, got {label_smoothing}"
        )
    if input.dim() == 0:
        raise ValueError("input must have at least the axis of classes")
    class_dim = 0 if input.dim() == 1 else 1
    C = max(input.shape[class_dim], 1)
    log_probs = log_softmax(input, class_dim)
    smooth = log_probs  # each class's share, for label smoothing
    if weight is not None:
        _check_weight(weight, log_probs)
        smooth = log_probs * _along(weight, input.dim())

    if target.shape == input.shape:  # probabilities
        if not target.is_floating_point():
            raise ValueError(
                f"target has input's shape {tuple(target.shape)}, so it must"
                f" hold probabilities, got {target.dtype}"
            )
        if ignore_index >= 0:
            raise ValueError("ignore_index needs class ids as target")
        if label_smoothing > 0:
            target = target * (1 - label_smoothing) + label_smoothing / C
        losses = -(smooth * target).sum(class_dim)
        return _reduced(losses, torch.ones_like(losses), reduction)

    losses, weights, valid = _pick(log_probs, target, weight, ignore_index)
    if label_smoothing > 0:
        smooth = -smooth.sum(class_dim).masked_fill(~valid, 0)
        losses = (1 - label_smoothing) * losses + label_smoothing / C * smooth
    return _reduced(losses, weights, reduction)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Squared error ``(input - target)**2``: mean, sum, or each ("none").

    ``weight`` (the same shape) weighs each entry; "mean" then divides by
    the sum of the weights. Shapes that differ are broadcast with a warning,
    as in torch: it is nearly always a mistake.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.mse_loss.html
    """
    _check_reduction(reduction, size_average, reduce)
    if input.shape != target.shape:
        warnings.warn(
            f"target {tuple(target.shape)} differs from input"
            f" {tuple(input.shape)}: they are broadcast against each other",
            stacklevel=2,
        )
        _check_broadcast(input=input.shape, target=target.shape)
    kind = torch.promote_types(input.dtype, target.dtype)
    losses = ((_wide(input.to(kind)) - target.to(kind)) ** 2).to(kind)
    if weight is None:
        return _reduced(losses, torch.ones_like(losses), reduction)
    if weight.shape != losses.shape:
        raise ValueError(
            f"weight {tuple(weight.shape)} must have the shape of the errors,"
            f" {tuple(losses.shape)}"
        )
    return _reduced(weight * losses, weight, reduction)


# ----------------------------------------------------------- activations


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """``max(x, 0)``, entry by entry; the slope at 0 is 0.

    >>> relu(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.relu.html
    """
    if input.dtype == torch.bool:
        raise ValueError("relu needs numbers, got torch.bool")
    if inplace:
        return input.masked_fill_(input <= 0, 0)
    return input.masked_fill(input <= 0, 0)


def sigmoid(input: Tensor) -> Tensor:
    """``1 / (1 + exp(-x))``, entry by entry, between 0 and 1.

    Written as ``exp(-log(exp(0) + exp(-x)))`` so that neither the value nor
    the slope overflows for a very negative ``x``; past 40 the result is 1 in
    every precision, so a finite ``x`` is cut there.

    >>> sigmoid(torch.tensor([0.0, -1000.0]))
    tensor([0.5000, 0.0000])

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.sigmoid.html
    """
    x = _as_floating(input)
    x = x.masked_fill((x > 40) & (x < math.inf), 40)
    return torch.logaddexp(torch.zeros_like(x), -x).neg().exp()


def tanh(input: Tensor) -> Tensor:
    """``(exp(2x) - 1) / (exp(2x) + 1)``, entry by entry, between -1 and 1.

    ``expm1(x)`` is ``exp(x) - 1`` without rounding near 0; past 20 the
    result is 1 in every precision, so ``x`` is cut there, before ``exp``
    can overflow.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.tanh.html
    """
    x = _wide(_as_floating(input))
    x = x.masked_fill(x > 20, 20).masked_fill(x < -20, -20)
    e = torch.expm1(2 * x)
    return (e / (e + 2)).to(_as_floating(input).dtype)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * sigmoid(x)``, entry by entry: a smooth ReLU (also "swish").

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.silu.html
    """
    _check_floating("silu", input)
    x = input.clone() if inplace else input  # the gradient needs x
    out = x * sigmoid(x)
    return input.copy_(out) if inplace else out


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """``x`` times the share of a standard normal that lies below ``x``.

    ``x / 2 * (1 + erf(x / sqrt(2)))``, or with ``approximate="tanh"`` the
    formula of GPT-2, ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 *
    x**3)))``. Hendrycks and Gimpel, 2016.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.gelu.html
    """
    _check_floating("gelu", input)
    x = _wide(input)
    if approximate == "none":
        gate = torch.erf(x / math.sqrt(2))
    elif approximate == "tanh":
        gate = tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        raise ValueError(
            f"approximate must be 'none' or 'tanh', got {approximate!r}"
        )
    return (0.5 * x * (1 + gate)).to(input.dtype)


# --------------------------------------------------------- normalization


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each example over its last axes, then scale and shift.

    ``(x - mean) / sqrt(var + eps) * weight + bias`` with the mean and the
    biased variance over the axes ``normalized_shape``, the last sizes of
    ``input``; ``weight`` and ``bias`` have that shape. Raises ValueError
    when the shapes disagree. Ba, Kiros and Hinton, 2016.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.layer_norm.html
    """
    _check_floating("layer_norm", input)
    dims = _last_dims(input, normalized_shape, weight, bias)
    _check_dtypes(input, weight=weight, bias=bias)
    x = _wide(input)
    centered = x - x.mean(dims, keepdim=True)
    var = (centered**2).mean(dims, keepdim=True)
    out = centered / torch.sqrt(var + eps)
    if weight is not None:
        out = out * weight
    if bias is not None:
        out = out + bias
    return out.to(input.dtype)


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """Divide each example by its root mean square, then scale.

    ``x / sqrt(mean(x**2) + eps) * weight`` over the axes
    ``normalized_shape``, the last sizes of ``input``; ``eps=None`` is the
    dtype's machine epsilon. Zhang and Sennrich, 2019.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.rms_norm.html
    """
    _check_floating("rms_norm", input)
    dims = _last_dims(input, normalized_shape, weight, None)
    x = _wide(input)
    if eps is None:
        eps = torch.finfo(x.dtype).eps
    out = x / torch.sqrt((x**2).mean(dims, keepdim=True) + eps)
    if weight is not None:
        out = out * weight
    return out.to(input.dtype)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each channel over the batch, then scale and shift.

    ``input`` (N, C) or (N, C, L, ...), everything else (C,). In training the
    mean and the *biased* variance of this batch normalize it, and
    ``running = (1 - momentum) * running + momentum * batch`` is updated in
    place with the *unbiased* variance; otherwise the running statistics
    normalize. Raises ValueError for a training batch with a single value
    for each channel (its variance would be 0), for a negative ``eps`` (in
    training also 0) and for shapes or dtypes that disagree. Ioffe and
    Szegedy, 2015.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.batch_norm.html
    """
    _check_floating("batch_norm", input)
    if input.dim() < 2:
        raise ValueError(f"input must be (N, C, ...): {tuple(input.shape)}")
    C = input.shape[1]
    vectors = {"running_mean": running_mean, "running_var": running_var,
               "weight": weight, "bias": bias}
    for name, t in vectors.items():
        if t is not None and t.shape != (C,):
            raise ValueError(
                f"{name} {tuple(t.shape)} must be ({C},) for input"
                f" {tuple(input.shape)}"
            )
    _check_dtypes(input, **vectors)
    if (running_mean is None) != (running_var is None):
        raise ValueError("give both running_mean and running_var, or none")
    if eps < 0 or (training and eps == 0):
        raise ValueError(f"eps must be positive, got {eps}")
    x = _wide(input)
    if training:
        n = len(x) * math.prod(x.shape[2:])  # values for each channel
        if n == 1:
            raise ValueError(
                "Expected more than 1 value per channel when training, got"
                f" input size {tuple(input.shape)}"
            )
        dims = [d for d in range(x.dim()) if d != 1]
        mean = x.mean(dims)
        var = ((x - _along(mean, x.dim())) ** 2).mean(dims)
        with torch.no_grad():
            if running_mean is not None and n > 0:
                running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
                unbiased = (var * (n / (n - 1))).to(running_var.dtype)
                running_var.mul_(1 - momentum).add_(unbiased, alpha=momentum)
    else:
        if running_mean is None:
            raise ValueError("evaluation needs running_mean and running_var")
        mean, var = running_mean, running_var
    out = (x - _along(mean, x.dim())) / torch.sqrt(
        _along(var, x.dim()) + eps
    )
    if weight is not None:
        out = out * _along(weight, x.dim())
    if bias is not None:
        out = out + _along(bias, x.dim())
    return out.to(input.dtype)


def dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Zero each entry with probability ``p``; scale the rest by 1/(1-p).

    The expected value of each entry stays what it was. Without ``training``
    the input comes back untouched. ``generator`` is an extra over torch.
    Raises ValueError for ``p`` outside 0..1. Srivastava et al., 2014.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.dropout.html
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"p is a probability, 0..1, got {p}")
    if not training or p == 0 or input.numel() == 0:
        return input
    _check_floating("dropout", input)
    keep = torch.empty_like(input).bernoulli_(1 - p, generator=generator)
    if p < 1:  # with p = 1 all is zero already
        keep = keep / (1 - p)
    return input.mul_(keep) if inplace else input * keep


# -------------------------------------------------------------- attention


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Each query's weighted mean of the values: ``softmax(q @ k.T) @ v``.

    ``query`` (..., T, E), ``key`` (..., S, E), ``value`` (..., S, Ev) ->
    (..., T, Ev). Scores are multiplied by ``scale`` (default 1/sqrt(E)).
    ``attn_mask`` (broadcast to (..., T, S)) is boolean with True = may
    attend, or a float that is added to the scores; ``is_causal`` lets
    position t attend to 0..t. A query that may attend to nothing gets
    zeros. ``dropout_p`` always drops: pass 0 in evaluation. ``enable_gqa``
    lets groups of query heads (axis -3) share one key and value head.
    Raises ValueError when shapes disagree. Vaswani et al., 2017.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html
    """
    shapes = ", ".join(
        f"{name} {tuple(t.shape)}"
        for name, t in [("query", query), ("key", key), ("value", value)]
    )
    if min(query.dim(), key.dim(), value.dim()) < 2:
        raise ValueError(f"all must have (..., T, E), got {shapes}")
    if not query.dtype == key.dtype == value.dtype:
        raise ValueError(
            f"dtypes differ: {query.dtype}, {key.dtype}, {value.dtype}"
        )
    _check_floating("scaled_dot_product_attention", query)
    if enable_gqa:
        heads = [t.shape[-3] if t.dim() > 2 else 0 for t in (key, value)]
        if 0 in heads or query.dim() < 3 or any(
            query.shape[-3] % n for n in heads
        ):
            raise ValueError(
                "enable_gqa needs (..., heads, T, E), and heads of query a"
                f" multiple of those of key and value, got {shapes}"
            )
        key = key.repeat_interleave(query.shape[-3] // heads[0], -3)
        value = value.repeat_interleave(query.shape[-3] // heads[1], -3)
    T, E = query.shape[-2:]
    S = key.shape[-2]
    if key.shape[-1] != E or value.shape[-2] != S:
        raise ValueError(f"query and key share E, key and value S: {shapes}")
    _check_broadcast(
        query=query.shape[:-2], key=key.shape[:-2], value=value.shape[:-2]
    )
    if scale is None:
        scale = 1 / math.sqrt(E) if E else 1.0

    queries, keys = _wide(query) * scale, _wide(key)
    scores = queries @ keys.transpose(-2, -1)  # (..., T, S)
    if is_causal:
        if attn_mask is not None:
            raise ValueError("give attn_mask or is_causal, not both")
        attn_mask = query.new_ones(T, S, dtype=torch.bool).tril()
    if attn_mask is not None:
        try:
            attn_mask = attn_mask.expand(scores.shape)
        except RuntimeError:
            raise ValueError(
                f"attn_mask {tuple(attn_mask.shape)} cannot be broadcast to"
                f" the scores {tuple(scores.shape)}"
            ) from None
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        elif attn_mask.dtype in (query.dtype, torch.float32):
            scores = scores + attn_mask
        else:
            raise ValueError(
                f"attn_mask must be bool, float32 or {query.dtype} like"
                f" query, got {attn_mask.dtype}"
            )
    blind = (scores == -math.inf).all(-1, keepdim=True)  # may see nothing
    weights = softmax(scores.masked_fill(blind, 0), -1)
    weights = weights.masked_fill(blind, 0)
    return (dropout(weights, dropout_p) @ _wide(value)).to(query.dtype)


# ---------------------------------------------------------------- helpers


def _as_floating(x: Tensor) -> Tensor:
    """Integers become the default float dtype, floats stay."""
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def _wide(x: Tensor) -> Tensor:
    """16-bit floats are computed in float32 inside, like torch's kernels."""
    half = x.dtype in (torch.float16, torch.bfloat16)
    return x.float() if half else x


def _check_floating(name: str, x: Tensor) -> None:
    if not x.is_floating_point():
        raise ValueError(f"{name} needs a floating point input, got {x.dtype}")


def _check_dtypes(input: Tensor, **others: Tensor | None) -> None:
    """All have input's dtype, or all float32 with a 16-bit input."""
    dtypes = {name: t.dtype for name, t in others.items() if t is not None}
    allowed = ({input.dtype}, {_wide(input).dtype}, set())
    if set(dtypes.values()) not in allowed:
        given = ", ".join(f"{name} is {kind}" for name, kind in dtypes.items())
        raise ValueError(
            f"input is {input.dtype} but {given}: convert with .to(dtype)"
        )


def _check_broadcast(**shapes: Sequence[int]) -> None:
    try:
        torch.broadcast_shapes(*shapes.values())
    except RuntimeError:
        raise ValueError(
            "shapes do not go together: "
            + ", ".join(f"{k} {tuple(s)}" for k, s in shapes.items())
        ) from None


def _implicit_dim(name: str, x: Tensor, stacklevel: int) -> int:
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. Change"
        " the call to include dim=X as an argument.",
        stacklevel=stacklevel,
    )
    return 0 if x.dim() in (0, 1, 3) else 1


def _shifted(x: Tensor, dim: int) -> Tensor:
    """Move the largest entry along ``dim`` to 0, so that exp is safe."""
    if x.numel() == 0:
        return x
    return x - x.detach().amax(dim, keepdim=True)


def _along(vector: Tensor, ndim: int) -> Tensor:
    """A (C,) vector laid along axis 1 of ``ndim`` axes (axis 0 of one)."""
    return vector if ndim == 1 else vector.view(-1, *[1] * (ndim - 2))


def _check_weight(weight: Tensor, log_probs: Tensor) -> None:
    C = log_probs.shape[0 if log_probs.dim() == 1 else 1]
    if weight.shape != (C,) or weight.dtype != log_probs.dtype:
        raise ValueError(
            f"weight {tuple(weight.shape)} of {weight.dtype} must be ({C},),"
            f" one for each class, of {log_probs.dtype}"
        )


def _check_reduction(reduction: str, size_average, reduce) -> None:
    if size_average is not None or reduce is not None:
        raise ValueError(
            "size_average and reduce are deprecated: say reduction='mean',"
            " 'sum' or 'none'"
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{reduction} is not a valid value for reduction")


def _reduced(losses: Tensor, weights: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    mean = _wide(losses).sum() / _wide(weights).sum()
    return mean.to(losses.dtype)  # 0/0 = nan when nothing counts


def _pick(
    log_probs: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted -log_probs[target], the weights, and which targets count."""
    if log_probs.dim() == 0:
        raise ValueError("input must have at least the axis of classes")
    class_dim = 0 if log_probs.dim() == 1 else 1
    expected = list(log_probs.shape)
    C = expected.pop(class_dim)
    if list(target.shape) != expected:
        raise ValueError(
            f"target {tuple(target.shape)} does not fit input"
            f" {tuple(log_probs.shape)}: expected {tuple(expected)}"
        )
    if target.dtype not in (torch.int64, torch.uint8):
        raise ValueError(f"class ids must be int64, got {target.dtype}")
    target = target.long()
    valid = target != ignore_index
    wrong = target[valid & ((target < 0) | (target >= C))]
    if wrong.numel():
        raise IndexError(
            f"Target {int(wrong[0])} is out of bounds: classes are 0..{C - 1}"
        )
    target = target.masked_fill(~valid, 0)
    picked = -log_probs.gather(class_dim, target.unsqueeze(class_dim))
    picked = picked.squeeze(class_dim)
    if weight is None:
        weights = torch.ones_like(picked)
    else:
        _check_weight(weight, log_probs)
        weights = weight[target]
    weights = weights.masked_fill(~valid, 0)
    return (weights * picked).masked_fill(~valid, 0), weights, valid


def _last_dims(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
) -> list[int]:
    """The axes that ``normalized_shape`` names, after checking shapes."""
    shape = tuple(normalized_shape)
    k = len(shape)
    if k == 0 or tuple(x.shape[-k:]) != shape:
        raise ValueError(
            f"input {tuple(x.shape)} does not end in normalized_shape {shape}"
        )
    for name, t in [("weight", weight), ("bias", bias)]:
        if t is not None and tuple(t.shape) != shape:
            raise ValueError(
                f"{name} {tuple(t.shape)} must have normalized_shape {shape}"
            )
    return list(range(-k, 0))
