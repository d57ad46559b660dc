"""Language models that only count: n-grams and Kneser-Ney.

Both keep the n-grams that really occurred, as sorted integer codes (the
n-gram read as a number in base V), so that a table of order 7 over 65 symbols
takes the room of the text and not of 65**7 cells. Both predict by
*interpolation*: a table hands out the mass `share` by what it saw and leaves
the mass `gamma` to what lies below it: a table with a shorter context, and in
the end the uniform distribution.

Sources: Chen and Goodman, "An empirical study of smoothing techniques for
language modeling" (1999); Kneser and Ney, "Improved backing-off for m-gram
language modeling" (1995).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class _Table:
    """All n-grams of one order, sorted, so that those which share their
    first symbols (their context) lie side by side."""

    order: int
    grams: np.ndarray  # (G,) codes of the n-grams seen, ascending
    counts: np.ndarray  # (G,) their counts
    contexts: np.ndarray  # (K,) codes of their first order - 1 symbols
    start: np.ndarray  # (K + 1,) context i owns grams[start[i]:start[i+1]]
    totals: np.ndarray  # (K,) counts summed over a context
    share: np.ndarray  # (G,) probability handed out here
    gamma: np.ndarray  # (K,) probability left to the level below


def _table(order, grams, counts, vocab_size, kept, spare) -> _Table:
    """Sort out contexts; `kept` (G,) is what remains of the counts after
    discounting, `spare` is added to each context for the level below."""
    contexts, start = np.unique(grams // vocab_size, return_index=True)
    taken = np.add.reduceat(counts - kept, start) + spare
    totals = np.add.reduceat(counts, start)
    size = totals + spare
    start = np.append(start, len(grams))
    share = kept / np.repeat(size, np.diff(start))
    return _Table(
        order, grams, counts, contexts, start, totals, share, taken / size
    )


def _find(keys: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Index of each query in the sorted keys, -1 where it is missing."""
    by_size = np.argsort(queries)  # sorted queries walk the keys in order
    at = np.empty(len(queries), dtype=np.int64)
    at[by_size] = np.searchsorted(keys, queries[by_size])
    at = np.minimum(at, len(keys) - 1)
    return np.where(keys[at] == queries, at, -1)


class _CountModel:
    """What `NGram` and `KneserNey` share: predicting from fitted tables."""

    _pads: bool  # is a short context filled up with the boundary?

    def __init__(self, order: int, vocab_size: int) -> None:
        if order < 1 or vocab_size < 1:
            raise ValueError(
                f"order and vocab_size must be at least 1, got {order} and "
                f"{vocab_size}"
            )
        if vocab_size**order >= 2**63:
            raise ValueError(
                f"order {order} over {vocab_size} symbols needs codes of more "
                "than 63 bits (vocab_size ** order): lower the order"
            )
        self.order = order
        self.vocab_size = vocab_size
        self.boundary: int | None = None
        self._tables: list[_Table] = []  # short contexts first

    # -- from ids to codes --

    def _read(self, ids, boundary: int | None) -> np.ndarray:
        ids = torch.as_tensor(ids)
        if ids.dim() != 1 or ids.is_floating_point() or len(ids) < 2:
            raise ValueError(
                "ids must be one row of at least 2 integers, got shape "
                f"{tuple(ids.shape)} of {ids.dtype}"
            )
        ids = ids.cpu().numpy().astype(np.int64)
        self._check_range(ids)
        if boundary is not None and ids[0] != boundary:
            raise ValueError(
                f"ids must begin with the boundary {boundary}, got {ids[0]}: "
                "put it in front, or fit with boundary=None"
            )
        return ids

    def _check_range(self, ids) -> None:
        low, high = int(np.min(ids)), int(np.max(ids))
        if low < 0 or high >= self.vocab_size:
            raise ValueError(
                f"ids must lie in 0..{self.vocab_size - 1}, got {low}..{high}"
                ": encode with the vocabulary that vocab_size belongs to"
            )

    def _check_fitted(self) -> None:
        if not self._tables:
            raise ValueError("the model has counted nothing: call fit first")

    def _codes(self, ids: np.ndarray, boundary: int | None):
        """(N,) codes of the n-grams that end at each position, and (N,) how
        many symbols before it may be looked at (-1: not even predicted).

        The code of a shorter n-gram is the same modulo V ** its order.
        """
        position = np.arange(len(ids))
        context = position
        if boundary is not None:
            marks = np.where(ids == boundary, position, 0)
            last = np.maximum.accumulate(marks)  # the boundary behind us
            context = position - np.append(0, last[:-1])
        code = ids.copy()
        for k in range(1, self.order):
            older = np.zeros_like(ids)  # the symbol k places back
            older[k:] = ids[: max(len(ids) - k, 0)]
            if boundary is not None:
                older[context < k] = boundary
            code += older * self.vocab_size**k
        if boundary is not None:
            if self._pads:
                context[:] = self.order - 1
            context[0] = -1
        return code, context

    def _first(self, ids: np.ndarray) -> int:
        """The first position that is predicted."""
        first = 1
        if self._pads and self.boundary is None:
            first = self.order - 1
        if len(ids) <= first:
            raise ValueError(
                f"order {self.order} needs at least {first + 1} ids, got "
                f"{len(ids)}: lower the order"
            )
        return first

    # -- predicting many positions --

    def losses(self, ids: Tensor) -> Tensor:
        """Surprise -ln p(symbol | symbols before it), position by position.

        `KneserNey`, and `NGram` with a boundary, take the first id as
        context only: out[i] belongs to ids[i + 1]. `NGram` without one
        scores what has a full context: out[i] belongs to ids[order - 1 + i].

        Args:
            ids: (N,) symbol ids.

        Returns:
            (N - 1,) or (N - order + 1,) nats, float32; inf where the model
            had ruled out what came.

        Raises:
            ValueError: not fitted, ids of a wrong kind or range, too few.
        """
        self._check_fitted()
        ids = self._read(ids, self.boundary)
        first = self._first(ids)
        codes, context = self._codes(ids, self.boundary)
        p = np.full(len(ids), 1 / self.vocab_size)
        for table in self._tables:
            code = codes % self.vocab_size**table.order
            row = _find(table.contexts, code // self.vocab_size)
            cell = _find(table.grams, code)
            known = (context >= table.order - 1) & (row >= 0)
            row, cell = row[known], cell[known]
            own = np.where(cell >= 0, table.share[cell], 0)
            p[known] = own + table.gamma[row] * p[known]
        with np.errstate(divide="ignore"):
            return torch.from_numpy(-np.log(p[first:])).float()

    def nll(self, ids: Tensor) -> float:
        """Mean of `losses(ids)`: nats per symbol.

        The average runs over symbols, the boundary that ends a name among
        them; not over names or words.
        """
        return self.losses(ids).double().mean().item()

    def log_probs(self, ids: Tensor) -> Tensor:
        """Whole distributions ln p(. | symbols before it), one a position.

        Args:
            ids: (N,) symbol ids.

        Returns:
            (M, V) float32, M = len(losses(ids)), and row i belongs to the
            same symbol as losses(ids)[i], which is minus the entry of that
            row for the symbol that came (`KneserNey`: M = N - 1, and row i
            is the guess for ids[i + 1]).

        Raises:
            ValueError: as `losses`.
        """
        self._check_fitted()
        ids = self._read(ids, self.boundary)
        first = self._first(ids)
        codes, context = self._codes(ids, self.boundary)
        codes, context = codes[first:], context[first:]
        p = np.full((len(codes), self.vocab_size), 1 / self.vocab_size)
        for table in self._tables:
            code = codes % self.vocab_size**table.order
            row = _find(table.contexts, code // self.vocab_size)
            at = np.flatnonzero((context >= table.order - 1) & (row >= 0))
            row = row[at]
            p[at] *= table.gamma[row, None]
            width = table.start[row + 1] - table.start[row]
            skip = table.start[row] - (np.cumsum(width) - width)
            cells = np.arange(width.sum()) + np.repeat(skip, width)
            symbol = table.grams[cells] % self.vocab_size
            p[np.repeat(at, width), symbol] += table.share[cells]
        with np.errstate(divide="ignore"):
            return torch.from_numpy(np.log(p)).float()

    # -- predicting one position --

    def _usable(self, context) -> list[int]:
        """The part of a context that the model may look at."""
        if isinstance(context, str):
            raise ValueError(
                f"a context is ids, not the text {context!r}: "
                "vocab.encode(text) gives them"
            )
        context = [int(i) for i in context]
        if context:
            self._check_range(context)
        width = self.order - 1
        if self.boundary is None:
            if self._pads and len(context) < width:
                raise ValueError(
                    f"order {self.order} needs {width} symbols of context, "
                    f"got {len(context)}"
                )
        else:
            if len(context) < width:
                context = [self.boundary] + context
            if self.boundary in context:  # nothing before the last one counts
                after = context[::-1].index(self.boundary)
                context = context[len(context) - 1 - after :]
            if self._pads:
                context = [self.boundary] * (width - len(context)) + context
        return context[max(len(context) - width, 0) :]

    def _rows(self, context: list[int]):
        """The tables that know this context, short first, and its row."""
        for table in self._tables:
            if table.order - 1 > len(context):
                break
            code = 0
            for i in context[len(context) - table.order + 1 :]:
                code = code * self.vocab_size + i
            row = int(np.searchsorted(table.contexts, code))
            if row < len(table.contexts) and table.contexts[row] == code:
                cells = slice(table.start[row], table.start[row + 1])
                symbols = table.grams[cells] % self.vocab_size
                gamma = float(table.gamma[row])
                yield table.order, symbols, table.share[cells], gamma

    def probs(self, context) -> Tensor:
        """Distribution of the next symbol.

        Args:
            context: ids before it, newest last. The last order - 1 of them
                count, none before the last boundary; with a boundary a
                shorter context is the beginning of a name.

        Returns:
            (V,) float32 probabilities, sum 1.

        Raises:
            ValueError: not fitted, ids out of range, or (`NGram` without a
                boundary) fewer than order - 1 of them.
        """
        self._check_fitted()
        p = np.full(self.vocab_size, 1 / self.vocab_size)
        for _, symbols, share, gamma in self._rows(self._usable(context)):
            p *= gamma
            p[symbols] += share
        return torch.from_numpy(p).float()

    def wheels(self, context) -> list[dict]:
        """What each table says about a context, short contexts first.

        Starting from uniform, p = share + gamma * p over all of them gives
        `probs(context)`. Tables that never saw the context are left out.

        Args:
            context: ids, as for `probs`.

        Returns:
            Dicts with order (int), share ((V,) float32, what this table
            hands out) and gamma (float, what it passes on): share sums to
            1 - gamma.

        Raises:
            ValueError: as `probs`.
        """
        self._check_fitted()
        found = []
        for order, symbols, own, gamma in self._rows(self._usable(context)):
            share = torch.zeros(self.vocab_size)
            share[symbols] = torch.from_numpy(own).float()
            found.append({"order": order, "share": share, "gamma": gamma})
        return found

    def _draw(self, context: list[int], u: float) -> int:
        """Spend one uniform number u on a symbol, longest context first."""
        for _, symbols, share, gamma in reversed(
            list(self._rows(context))
        ):
            if u >= gamma:
                running = np.cumsum(share)
                u = (u - gamma) / (1 - gamma) * running[-1]
                pick = int(np.searchsorted(running, u, side="right"))
                return int(symbols[min(pick, len(symbols) - 1)])
            u /= gamma  # as good as new, for the level below
        return min(int(u * self.vocab_size), self.vocab_size - 1)

    def _any_context(self, u: float) -> list[int]:
        """A context of the longest table, by its share in the text."""
        table = self._tables[-1]
        running = np.cumsum(table.totals)
        row = np.searchsorted(running, u * running[-1], side="right")
        code = int(table.contexts[row])
        digits = []
        for _ in range(table.order - 1):
            code, digit = divmod(code, self.vocab_size)
            digits.insert(0, digit)
        return digits

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        prompt=None,
    ) -> Tensor:
        """Draw n symbols one by one, each pick fed back as context.

        Args:
            n: how many symbols.
            generator: source of randomness.
            prompt: ids to continue; by default the boundary, or without a
                boundary some context of the training text.

        Returns:
            (n,) int64 ids; the prompt is not among them.

        Raises:
            ValueError: as `probs`.
        """
        self._check_fitted()
        u = torch.rand(n + 1, generator=generator, dtype=torch.float64)
        u = u.tolist()
        if prompt is not None:
            past = [int(i) for i in prompt]
        elif self.boundary is not None:
            past = [self.boundary]
        else:
            past = self._any_context(u[n])
        out = []
        for x in u[:n]:
            out.append(self._draw(self._usable(past), x))
            past = past[-self.order :] + out[-1:]
        return torch.tensor(out, dtype=torch.int64)

    def stats(self) -> list[dict]:
        """How full the tables are and how much they know by heart.

        Returns:
            One dict for each table, short contexts first: order, contexts
            (seen), possible (V ** (order - 1)), ngrams (different ones), once
            (share of them seen a single time), certain (share of contexts
            that were only ever followed by one symbol). For `KneserNey` the
            counts of all but the longest table are numbers of different
            symbols in front.
        """
        self._check_fitted()
        return [
            {
                "order": t.order,
                "contexts": len(t.contexts),
                "possible": self.vocab_size ** (t.order - 1),
                "ngrams": len(t.grams),
                "once": float(np.mean(t.counts == 1)),
                "certain": float(np.mean(np.diff(t.start) == 1)),
            }
            for t in self._tables
        ]

    @property
    def n_params(self) -> int:
        """Number of counts that are stored, over all tables."""
        return sum(len(t.grams) for t in self._tables)


class NGram(_CountModel):
    """Next symbol by relative frequency after the last order - 1 symbols.

    p(s | c) = (count(c s) + alpha) / (count(c .) + alpha V), which is a
    mixture: with probability alpha V / (count(c .) + alpha V) every symbol
    alike, else what the counts say. A context that was never seen predicts
    uniformly, for alpha = 0 too (the limit of alpha -> 0).

    Args:
        order: symbols in an n-gram: 1 unigram, 2 bigram, 3 trigram ...
        vocab_size: V.
        alpha: pretend count that every n-gram starts with.

    Raises:
        ValueError: order or vocab_size below 1, vocab_size ** order beyond
            63 bits, alpha negative or not finite.

    >>> model = NGram(2, vocab_size=3, alpha=1).fit([0, 1, 1, 2, 0, 1, 2, 0],
    ...                                             boundary=0)
    >>> model.probs([1])  # after 1 came: 1 once, 2 twice
    tensor([0.1667, 0.3333, 0.5000])
    """

    _pads = True

    def __init__(
        self, order: int, vocab_size: int, alpha: float = 1.0
    ) -> None:
        super().__init__(order, vocab_size)
        if not (alpha >= 0 and math.isfinite(alpha)):
            raise ValueError(f"alpha must be a number >= 0, got {alpha}")
        self.alpha = alpha

    def fit(self, ids: Tensor, boundary: int | None = None) -> "NGram":
        """Count the n-grams of a text.

        Args:
            ids: (N,) symbol ids.
            boundary: id that starts and ends every name: contexts are filled
                up with it and never reach behind it. None for running text.

        Returns:
            The model itself, so that calls can be chained.

        Raises:
            ValueError: ids of a wrong kind or range, too few of them, or not
                beginning with the boundary.
        """
        ids = self._read(ids, boundary)
        self.boundary = boundary
        self._first(ids)
        code, context = self._codes(ids, boundary)
        code = code[context >= self.order - 1]
        grams, counts = np.unique(code, return_counts=True)
        spare = self.alpha * self.vocab_size
        self._tables = [
            _table(self.order, grams, counts, self.vocab_size, counts, spare)
        ]
        return self


class KneserNey(_CountModel):
    """Interpolated modified Kneser-Ney: all orders at once, each discounted.

    p_k(s | c) = (a(c s) - D(a(c s))) / a(c .) + gamma(c) p_{k-1}(s | c'),
    c' = c without its oldest symbol; gamma(c) is what the discounts took;
    below order 1 lies the uniform distribution. a is the plain count for the
    longest n-grams. For shorter ones it is the number of different symbols
    that came before the n-gram; the plain count where nothing ever did (the
    beginning of a name). A context that was never seen passes on p_{k-1}.

    D takes a discount for a = 1, one for 2 and one for 3 or more, estimated
    for each order from n_j, the number of n-grams with a = j:
    Y = n1 / (n1 + 2 n2), D_j = j - (j + 1) Y n_{j+1} / n_j; and 0.5, 1, 1.5
    where one of n1 .. n4 is zero or an estimate is not positive.

    `losses(ids)` and `log_probs(ids)` of N ids have N - 1 rows, whatever
    the order: row i belongs to ids[i + 1], the first id is context only.

    Args:
        order: symbols in the longest n-gram.
        vocab_size: V.

    Raises:
        ValueError: order or vocab_size below 1, or vocab_size ** order
            beyond 63 bits (order 10 over 65 symbols is the last that fits).

    Attributes:
        discounts: (order, 3) float64, row k - 1 the D of the k-grams.
    """

    _pads = False

    def __init__(self, order: int, vocab_size: int) -> None:
        super().__init__(order, vocab_size)
        self.discounts = torch.zeros(order, 3, dtype=torch.float64)

    def fit(self, ids: Tensor, boundary: int | None = None) -> "KneserNey":
        """Count all orders (a million symbols, orders 1 to 7: a second).

        Args:
            ids: (N,) symbol ids.
            boundary: id that starts and ends every name: no context reaches
                behind it. None for running text.

        Returns:
            The model itself, so that calls can be chained.

        Raises:
            ValueError: ids of a wrong kind or range, or not beginning with
                the boundary.
        """
        ids = self._read(ids, boundary)
        self.boundary = boundary
        size = self.vocab_size
        tables = []
        longer = None  # the different (k + 1)-grams
        codes, context = self._codes(ids, boundary)
        for k in range(self.order, 0, -1):
            code = codes[context >= k - 1] % size**k
            grams, counts = np.unique(code, return_counts=True)
            if len(grams) == 0:
                continue  # the text is shorter than the order
            if longer is not None:  # count the symbols that came before
                ends, before = np.unique(longer % size**k, return_counts=True)
                counts[np.searchsorted(grams, ends)] = before
            longer = grams
            discount = _discounts(counts)
            self.discounts[k - 1] = torch.from_numpy(discount[1:])
            kept = counts - discount[np.minimum(counts, 3)]
            tables.append(_table(k, grams, counts, size, kept, 0))
        self._tables = tables[::-1]
        return self


def _discounts(counts: np.ndarray) -> np.ndarray:
    """[0, D1, D2, D3] of modified Kneser-Ney from the counts of one order."""
    n = np.bincount(np.minimum(counts, 5), minlength=5)[1:5].astype(float)
    if n.min() > 0:
        j = np.arange(1, 4)
        y = n[0] / (n[0] + 2 * n[1])
        d = j - (j + 1) * y * n[1:] / n[:-1]
        if (d > 0).all():
            return np.append(0.0, d)
    return np.array([0, 0.5, 1, 1.5])
