"""The race of the WaveNet-like tree: the lecture's recipe against ours.

    python benchmarks/wavenet.py                  # the lecture's run, whole
    python benchmarks/wavenet.py --fraction 0.02  # a fiftieth, extrapolated

The reference is a plain re-creation of the last model of the lectures' part
5: 8 letters, 24 numbers a letter, three levels of 128 units that fuse pairs,
each with BatchNorm and tanh (76,579 parameters); 200,000 steps on 32 windows,
SGD with rate 0.1 and after 150,000 steps 0.01. Ours is the same tree without
BatchNorm and with biases instead, every different block of a batch computed
once (zerohero.wavenet.SharedTree), larger batches, Muon and AdamW, a rate
that falls to zero. Seconds are those of the training loop; losses are exact,
over the whole validation split.

On the lectures' own names if they are at hand, else on the book's.
"""

import time

import torch
import torch.nn.functional as F
from race import Table, arguments, begin, corpus, median_run

from zerohero.data import windows
from zerohero.optim import AdamW, Muon
from zerohero.train import Batches, evaluate, fit, linear_to_zero
from zerohero.wavenet import SharedTree

STEPS, T, C, H = 200_000, 8, 24, 128


class Norm:
    """BatchNorm as the lecture writes it, over all but the last axis."""

    def __init__(self):
        self.gain, self.shift = torch.ones(H), torch.zeros(H)
        self.mean, self.var = torch.zeros(H), torch.ones(H)

    def __call__(self, x, training: bool):
        mean, var = self.mean, self.var
        if training:
            axes = tuple(range(x.dim() - 1))
            mean, var = x.mean(axes), x.var(axes)
            with torch.no_grad():
                self.mean = 0.9 * self.mean + 0.1 * mean
                self.var = 0.9 * self.var + 0.1 * var
        return self.gain * (x - mean) / torch.sqrt(var + 1e-5) + self.shift


class Lecture:
    """The tree of part 5: pairs, pairs of pairs, and so on."""

    def __init__(self, V: int, g: torch.Generator):
        self.embed = torch.randn(V, C, generator=g)
        sizes = [2 * C, 2 * H, 2 * H]
        self.weights = [torch.randn(n, H, generator=g) / n**0.5
                        for n in sizes]
        self.norms = [Norm() for _ in sizes]
        self.out = 0.1 * torch.randn(H, V, generator=g) / H**0.5
        self.bias = torch.zeros(V)
        self.all = [self.embed, *self.weights, self.out, self.bias]
        for n in self.norms:
            self.all += [n.gain, n.shift]
        for p in self.all:
            p.requires_grad_()

    def __call__(self, idx, training: bool = False):
        x = self.embed[idx]
        for w, norm in zip(self.weights, self.norms, strict=True):
            n, t, c = x.shape
            x = torch.tanh(norm(x.view(n, t // 2, 2 * c) @ w, training))
        return x.squeeze(1) @ self.out + self.bias


def reference(x, y, V: int, steps: int) -> tuple[float, Lecture]:
    """Seconds of so many steps of the lecture's loop, and the model."""
    g = torch.Generator().manual_seed(42)
    model = Lecture(V, g)
    start = time.perf_counter()
    for step in range(steps):
        pick = torch.randint(0, len(x), (32,), generator=g)
        loss = F.cross_entropy(model(x[pick], training=True), y[pick])
        for p in model.all:
            p.grad = None
        loss.backward()
        lr = 0.1 if step < 150_000 else 0.01
        for p in model.all:
            p.data += -lr * p.grad
    return time.perf_counter() - start, model


def ours(x, y, val, V: int, steps: int, seed: int) -> tuple[float, float]:
    """(seconds, validation loss) of our recipe."""
    g = torch.Generator().manual_seed(seed)
    model = SharedTree(V, T, C, H, generator=g)
    matrices = [layer.weight for layer in model.linears]
    inside = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in inside]
    history = fit(
        model, Batches(x, y, 4096, g),
        [Muon(matrices, lr=0.02, weight_decay=0.0, ns_steps=4),
         AdamW(rest, lr=0.015, betas=(0.9, 0.99), weight_decay=0.0)],
        steps, schedule=linear_to_zero(steps, steps // 20), log=False)
    return history.seconds, evaluate(model, *val)


def main() -> None:
    parser = arguments(__doc__, ["lecture-names", "names"])
    parser.add_argument("--steps", type=int, nargs="*", default=[300, 400],
                        help="steps of our runs")
    args = parser.parse_args()
    begin("WaveNet", args.processor)
    data = corpus(args.corpus, "lecture-names", "names")
    V = len(data.vocab)
    x, y = windows(data.train, T, data.boundary)
    val = windows(data.val, T, data.boundary)
    print(f"{data.name}: {len(x):,} windows to train on, {len(val[0]):,} to "
          "validate")
    table = Table(("", "<40"), ("params", "8,d"), ("steps", "8,d"),
                  ("seconds", "9.1f"), ("val loss", "9.4f"),
                  ("ratio", "6.0f"))
    reference(x, y, V, 50)  # warm up: threads, memory
    ours(x, y, val, V, 20, 0)
    steps = max(1, round(STEPS * args.fraction))
    took, model = reference(x, y, V, steps)
    seconds = took * STEPS / steps
    mark = "*" if steps < STEPS else ""
    with torch.no_grad():
        loss = F.cross_entropy(model(val[0]), val[1]).item()
    table.row(f"lecture 5, batches of 32{mark}",
              sum(p.numel() for p in model.all), STEPS, seconds,
              "-" if mark else loss, "1")
    count = sum(p.numel() for p in SharedTree(V, T, C, H).parameters())
    for n in args.steps:
        mine, loss = median_run(
            lambda seed, n=n: ours(x, y, val, V, n, seed), args.seeds)
        table.row(f"ours, shared blocks, median of {args.seeds}", count, n,
                  mine, loss, seconds / mine)
    if mark:
        print(f"* {steps:,} of {STEPS:,} steps were run and its seconds "
              "extrapolated; so it has no loss to compare")


if __name__ == "__main__":
    main()
