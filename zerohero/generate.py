"""Write with a model: choose the next symbol, append it, ask again."""

import math

import torch
from torch import Tensor


def top_k_filter(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits of each row; the rest become -inf.

    Exactly k survive, also among equals.

    Args:
        logits: (..., V).
        k: how many to keep, 1 or more (more than V keeps all).

    Raises:
        ValueError: k below 1.

    >>> top_k_filter(torch.tensor([1.0, 3.0, 2.0]), 2)
    tensor([-inf, 3., 2.])
    """
    if k < 1:
        raise ValueError(f"top_k={k} must be 1 or more")
    kept = logits.topk(min(k, logits.shape[-1]), dim=-1)
    out = torch.full_like(logits, -math.inf)
    return out.scatter(-1, kept.indices, kept.values)


def top_p_filter(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest logits of each row whose probabilities reach p.

    Symbols are taken from the likeliest down until their sum is at least p;
    the likeliest always stays (Holtzman et al., 2020).

    Args:
        logits: (..., V).
        p: share to keep, above 0 and at most 1.

    Raises:
        ValueError: p outside (0, 1].

    >>> top_p_filter(torch.tensor([0.5, 0.3, 0.2]).log(), 0.6).exp()
    tensor([0.5000, 0.3000, 0.0000])
    """
    if not 0 < p <= 1:
        raise ValueError(f"top_p={p} must lie above 0 and at most at 1")
    if p == 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True)
    probs = ordered.softmax(dim=-1)
    before = probs.cumsum(dim=-1) - probs  # what the likelier ones hold
    ordered = ordered.masked_fill(before >= p, -math.inf)
    ordered[..., 0] = logits.max(dim=-1).values
    return torch.empty_like(logits).scatter(-1, order, ordered)


def next_probs(logits: Tensor, temperature: float = 1.0,
               top_k: int | None = None,
               top_p: float | None = None) -> Tensor:
    """Probabilities to draw the next symbol from, rows that sum to 1.

    ``softmax(logits / temperature)``, cut by top_k, then by top_p (shares
    of what top_k has left), and rescaled.  Temperature 0 puts all on the
    largest logit (the first of equals).

    Args:
        logits: (..., V).
        temperature: below 1 sharper, above 1 flatter; 0 or more.
        top_k, top_p: see top_k_filter and top_p_filter; None: no cut.

    Raises:
        ValueError: a negative temperature, or a bad top_k or top_p.

    >>> next_probs(torch.tensor([0.0, 1.0]), temperature=0)
    tensor([0., 1.])
    """
    if not temperature >= 0 or math.isinf(temperature):
        raise ValueError(f"temperature={temperature} must be 0 or more "
                         f"(0: always the likeliest)")
    logits = logits.float()
    if temperature == 0:
        best = logits.argmax(dim=-1, keepdim=True)
        logits = torch.full_like(logits, -math.inf).scatter(-1, best, 0.0)
    else:  # largest first to 0: a tiny temperature must not overflow
        logits = logits - logits.max(dim=-1, keepdim=True).values
        logits = logits / max(temperature, 1e-30)
    if top_k is not None:
        logits = top_k_filter(logits, top_k)
    if top_p is not None:
        logits = top_p_filter(logits, top_p)
    return logits.softmax(dim=-1)


def _where(model) -> torch.device | None:
    for p in getattr(model, "parameters", tuple)():
        return p.device
    return None


class _Quiet:
    """Eval mode and no gradients inside, the old mode afterwards."""

    def __init__(self, model):
        self.model, self.was = model, getattr(model, "training", False)
        self.grad = torch.no_grad()

    def __enter__(self):
        self.grad.__enter__()
        if self.was:
            self.model.eval()

    def __exit__(self, *error):
        if self.was:
            self.model.train()
        self.grad.__exit__(*error)


def _last(model, idx: Tensor, **cache) -> Tensor:
    logits = model(idx, **cache)
    return logits[:, -1] if logits.dim() == 3 else logits  # (B, V)


def generate(model, idx: Tensor, max_new_tokens: int, block_size: int, *,
             temperature: float = 1.0, top_k: int | None = None,
             top_p: float | None = None, cache: bool = False, hop: int = 1,
             generator: torch.Generator | None = None) -> Tensor:
    """Append max_new_tokens symbols to each row of idx.

    The model sees at most the last `block_size` symbols.  Runs in eval mode
    without gradients.

    Args:
        model: logits = model(idx), (B, T, V) or (B, V).
        idx: what is there already, (B, T), T at least 1.
        max_new_tokens: n, 0 or more.
        block_size: longest context the model was made for.
        temperature, top_k, top_p: see next_probs.
        cache: keep each layer's keys and values instead of computing them
            again for every new symbol; the model must have new_cache().
            The symbols are the same.
        hop: how many of the oldest symbols to forget at once when the
            context is full.  With 1 the window slides and a cache is of no
            use from there on; with block_size // 2 it is.
        generator: where the draws come from (None: torch's own).

    Returns:
        (B, T + n): idx and the new symbols.

    Raises:
        ValueError: empty idx, bad counts, or cache without new_cache().
    """
    if idx.dim() != 2 or idx.shape[1] < 1:
        raise ValueError(f"idx of shape {tuple(idx.shape)} must be (B, T) "
                         f"with T >= 1: start from at least one symbol")
    if max_new_tokens < 0 or block_size < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be 0 or "
                         f"more and block_size={block_size} 1 or more")
    if not 1 <= hop <= block_size:
        raise ValueError(f"hop={hop} must lie in 1..{block_size}, the "
                         f"block_size")
    if cache and not hasattr(model, "new_cache"):
        raise ValueError(f"{type(model).__name__} keeps no cache of keys "
                         f"and values: call with cache=False")
    home = idx.device
    idx = idx.to(_where(model))
    start, kept = max(0, idx.shape[1] - block_size), None
    with _Quiet(model):
        for _ in range(max_new_tokens):
            if idx.shape[1] - start > block_size:
                start, kept = start + hop, None
            if not cache:
                logits = _last(model, idx[:, start:])
            elif kept is None:  # a new cache reads the whole context once
                kept = model.new_cache()
                logits = _last(model, idx[:, start:], cache=kept)
            else:
                logits = _last(model, idx[:, -1:], cache=kept)
            probs = next_probs(logits, temperature, top_k, top_p)
            if generator is not None:  # draw where the generator lives
                probs = probs.to(generator.device)
            new = torch.multinomial(probs, 1, generator=generator)
            idx = torch.cat((idx, new.to(idx.device)), dim=1)
    return idx.to(home)


def _per_position(model, fill: Tensor) -> bool:
    """Does the model answer every position (B, T, V), or only (B, V)?"""
    with _Quiet(model):
        return model(fill[:1].to(_where(model))).dim() == 3


def sample_names(model, corpus, n: int, block_size: int,
                 generator: torch.Generator | None = None,
                 temperature: float = 1.0, *, top_k: int | None = None,
                 top_p: float | None = None,
                 max_length: int = 50) -> list[str]:
    """Draw n names, all at once; each ends where the model says so.

    A model of windows starts from block_size boundary symbols, a model
    that answers every position starts from one.

    Args:
        model: logits = model(idx).
        corpus: a corpus with a boundary symbol, for its vocabulary.
        n: how many names.
        block_size: context of the model.
        generator, temperature, top_k, top_p: see generate.
        max_length: a name that has not ended by then is cut off.

    Raises:
        ValueError: the corpus has no boundary symbol.
    """
    if corpus.boundary is None:
        raise ValueError(f"corpus {corpus.name!r} has no boundary symbol; "
                         f"use sample_text for running text")
    if n < 1:
        raise ValueError(f"n={n} must be 1 or more")
    idx = torch.full((n, block_size), corpus.boundary)
    if _per_position(model, idx):
        idx = idx[:, :1]
    alive = torch.arange(n)
    out = torch.full((n, max_length), corpus.boundary)
    for at in range(max_length):
        idx = generate(model, idx, 1, block_size, temperature=temperature,
                       top_k=top_k, top_p=top_p, generator=generator)
        new = idx[:, -1]
        out[alive, at] = new
        going = new != corpus.boundary
        idx, alive = idx[going], alive[going]
        if len(alive) == 0:
            break
    return [corpus.vocab.decode(row[:_end(row, corpus.boundary)])
            for row in out]


def _end(row: Tensor, boundary: int) -> int:
    stops = (row == boundary).nonzero()
    return int(stops[0]) if len(stops) else len(row)


def sample_text(model, corpus, n_chars: int, prompt: str = "\n", *,
                block_size: int, temperature: float = 1.0,
                top_k: int | None = None, top_p: float | None = None,
                cache: bool = False, hop: int = 1,
                generator: torch.Generator | None = None) -> str:
    """Continue `prompt` by n_chars symbols; return prompt and all.

    A prompt shorter than the window of a model of windows is filled up on
    the left with its own first symbol.

    Args:
        model: and block_size, temperature, top_k, top_p, cache, hop,
            generator: see generate.
        corpus: for its vocabulary.
        n_chars: how many symbols to write.
        prompt: where to start, at least one symbol.

    Raises:
        ValueError: an empty prompt, or a symbol not in the vocabulary.
    """
    if not prompt:
        raise ValueError("prompt is empty: start from at least one symbol, "
                         "such as a new line")
    start = corpus.vocab.encode(prompt)[None]  # (1, T)
    fill = start[:, :1].expand(1, block_size)
    idx = start
    if idx.shape[1] < block_size and not _per_position(model, fill):
        idx = torch.cat((fill[:, idx.shape[1]:], idx), dim=1)
    out = generate(model, idx, n_chars, block_size, temperature=temperature,
                   top_k=top_k, top_p=top_p, cache=cache, hop=hop,
                   generator=generator)
    return prompt + corpus.vocab.decode(out[0, idx.shape[1]:])
