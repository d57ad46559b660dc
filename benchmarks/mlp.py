"""The race of the MLP: the lectures' recipe against the book's, in one run.

    python benchmarks/mlp.py                  # everything, some minutes
    python benchmarks/mlp.py --fraction 0.1   # a tenth of the references

The reference is a plain re-creation of lecture 3 (11,897 parameters) and of
lecture 4 (the same with BatchNorm): 200,000 steps of SGD, batches of 32,
learning rate 0.1 and then 0.01. Ours is the same network trained on the
unique contexts with their counts (zerohero.sequences), for as many steps as
it needs to be better. Seconds are those of the training loop alone; losses
are exact, over the whole validation split.

On the lectures' own names list if it is at hand, else on the book's.
"""

import time

import torch
import torch.nn.functional as F
from race import arguments, begin, corpus

from zerohero.data import windows
from zerohero.optim import AdamW, Muon
from zerohero.sequences import MLP, contexts, count_loss, fit_counts
from zerohero.train import linear_to_zero

STEPS = 200_000


def reference(x, y, val, steps: int, norm: bool, seed: int):
    """The lectures' loop; returns (seconds of `steps` steps, val loss)."""
    g = torch.Generator().manual_seed(seed)
    C = torch.randn(27, 10, generator=g)
    W1, b1 = torch.randn(30, 200, generator=g), torch.zeros(200)
    W2, b2 = torch.randn(200, 27, generator=g), torch.zeros(27)
    gain, shift = torch.ones(1, 200), torch.zeros(1, 200)
    mean, std = torch.zeros(1, 200), torch.ones(1, 200)
    if norm:
        W1 *= (5 / 3) / 30**0.5
        W2 *= 0.01
    else:
        b1.normal_(generator=g)
        b2.normal_(generator=g)
    params = [C, W1, W2, b2] + ([gain, shift] if norm else [b1])
    for p in params:
        p.requires_grad_()
    start = time.perf_counter()
    for step in range(steps):
        pick = torch.randint(0, len(x), (32,), generator=g)
        sums = C[x[pick]].view(32, -1) @ W1
        if norm:
            m = sums.mean(0, keepdim=True)
            s = sums.std(0, keepdim=True)
            sums = gain * (sums - m) / s + shift
            with torch.no_grad():
                mean = 0.999 * mean + 0.001 * m
                std = 0.999 * std + 0.001 * s
        else:
            sums = sums + b1
        loss = F.cross_entropy(torch.tanh(sums) @ W2 + b2, y[pick])
        for p in params:
            p.grad = None
        loss.backward()
        lr = 0.1 if step < steps // 2 else 0.01
        for p in params:
            p.data += -lr * p.grad
    seconds = time.perf_counter() - start
    with torch.no_grad():
        sums = C[val[0]].view(len(val[0]), -1) @ W1
        sums = gain * (sums - mean) / std + shift if norm else sums + b1
        loss = F.cross_entropy(torch.tanh(sums) @ W2 + b2, val[1])
    return seconds, loss.item()


def ours(x, y, val, steps: int, muon_lr: float, seed: int):
    """Unique contexts, exact gradient; (seconds with gathering, val loss)."""
    start = time.perf_counter()
    unique, counts = contexts(x, y, 27)
    model = MLP(27, 3, 10, 200, generator=torch.Generator().manual_seed(seed))
    matrices = [model.hidden.weight, model.output.weight]
    others = [model.embedding.weight, model.hidden.bias, model.output.bias]
    fit_counts(
        model,
        unique,
        counts,
        [
            Muon(matrices, lr=muon_lr, weight_decay=0.0, ns_steps=4),
            AdamW(others, lr=0.03, betas=(0.9, 0.99), weight_decay=0.0),
        ],
        steps,
        linear_to_zero(steps, max(1, steps // 20)),
    )
    seconds = time.perf_counter() - start
    with torch.no_grad():
        loss = count_loss(model(val[0]), F.one_hot(val[1], 27).float())
    return seconds, loss.item()


def main() -> None:
    args = arguments(__doc__, ["lecture-names", "names"]).parse_args()
    begin("MLP", args.processor)
    data = corpus(args.corpus, "lecture-names", "names")
    x, y = windows(data.train, 3, data.boundary)
    val = windows(data.val, 3, data.boundary)
    print(f"{data.name}: {len(x):,} training windows, {len(val[0]):,} "
          f"validation windows; of ours the slowest of {args.seeds} runs")
    steps = max(1, round(STEPS * args.fraction))
    torch.empty(7_900_000)  # the same memory habits for both sides
    ours(x, y, val, 5, 0.1, 0)  # warm up: imports, probes, threads
    reference(x, y, val, 50, False, 0)
    print(f"{'':34s} {'steps':>8s} {'seconds':>8s} {'val loss':>15s} "
          f"{'ratio':>6s}")
    for norm, n, muon_lr in ((False, 60, 0.3), (True, 150, 0.1)):
        name = "lecture MLP" + (" with BatchNorm" if norm else "")
        seconds, loss = reference(x, y, val, steps, norm, 2147483647)
        whole = seconds * STEPS / steps
        name, shown = (name, f"{loss:.4f}") if steps == STEPS else (
            name + "*", "-")
        print(f"{name:34s} {STEPS:8,} {whole:8.2f} {shown:>15s} {'1':>6s}")
        runs = [ours(x, y, val, n, muon_lr, s)
                for s in range(1, args.seeds + 1)]
        worst = max(t for t, _ in runs)
        low, high = min(v for _, v in runs), max(v for _, v in runs)
        print(f"{'ours, Muon on unique contexts':34s} {n:8,} {worst:8.2f} "
              f"{low:7.4f}-{high:.4f} {whole / worst:5.0f}x")
    if steps < STEPS:
        print(f"* {steps:,} of {STEPS:,} steps were run and its seconds "
              "extrapolated; so it has no loss to compare")


if __name__ == "__main__":
    main()
