"""The race of the GPT: the CPU quick start that people copy against ours.

    python benchmarks/gpt.py                       # 8 minutes on two cores
    python benchmarks/gpt.py --corpus my-text.txt
    python benchmarks/gpt.py --fraction 0.05 --targets 10 20

The reference is a plain re-creation of nanoGPT's quick start for CPUs: 4
blocks of GPT-2, 4 heads, width 128, context 64, no dropout, no biases, head
tied to the embedding; 2,000 steps on 12 random windows; AdamW with rate 1e-3
(warm-up 100 steps, cosine to 1e-4), betas 0.9 and 0.99, decay 0.1 on
matrices, gradients clipped at norm 1; attention by
scaled_dot_product_attention; float32. Its evaluations are left out of its
seconds.

Ours is what ``python -m zerohero train --minutes`` does: the fast recipe,
sizes by zerohero.gpt.plan, a schedule that follows the clock. Seconds are
those of the training loop. Losses are exact means over the whole validation
split, cut into pieces of 64, the reference's context, and, for models that
have learned a longer one, of their own context.
"""

import math
import statistics
import time

import torch
import torch.nn.functional as F
from race import Table, arguments, begin, corpus
from torch import nn

from zerohero import data, train
from zerohero.gpt import GPT, fast_config, fast_optimizers, plan

STEPS, T, B = 2000, 64, 12


class Block(nn.Module):
    """A block of GPT-2 without biases."""

    def __init__(self, C: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(C, bias=False)
        self.norm2 = nn.LayerNorm(C, bias=False)
        self.qkv = nn.Linear(C, 3 * C, bias=False)
        self.proj = nn.Linear(C, C, bias=False)
        self.up = nn.Linear(C, 4 * C, bias=False)
        self.down = nn.Linear(4 * C, C, bias=False)

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = (p.view(n, t, self.heads, -1).transpose(1, 2)
                   for p in self.qkv(self.norm1(x)).split(c, dim=2))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(a.transpose(1, 2).reshape(n, t, c))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Reference(nn.Module):
    """The small GPT of the quick start."""

    def __init__(self, vocab_size: int, C: int = 128, layers: int = 4):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, C)
        self.place = nn.Embedding(T, C)
        self.blocks = nn.ModuleList(Block(C, 4) for _ in range(layers))
        self.norm = nn.LayerNorm(C, bias=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                deep = name.endswith(("proj.weight", "down.weight"))
                nn.init.normal_(p, 0, 0.02 / math.sqrt(2 * layers if deep
                                                       else 1))

    def forward(self, idx):
        x = self.embed(idx) + self.place.weight[:idx.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.embed.weight.T


def reference(text, fraction: float) -> tuple:
    """(seconds of the steps run, model, steps)."""
    torch.manual_seed(1337)
    model, ids = Reference(len(text.vocab)), text.train
    matrices = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices}, {"params": rest, "weight_decay": 0.0}],
        lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    steps = max(1, round(STEPS * fraction))
    start = time.perf_counter()
    for step in range(steps):
        done = max(0, step - 100) / (STEPS - 100)
        rate = (1e-3 * (step + 1) / 101 if step < 100 else
                1e-4 + 9e-4 * (1 + math.cos(math.pi * done)) / 2)
        for group in optimizer.param_groups:
            group["lr"] = rate
        at = torch.randint(len(ids) - T, (B,))
        xb = torch.stack([ids[i:i + T] for i in at])
        yb = torch.stack([ids[i + 1:i + T + 1] for i in at])
        loss = F.cross_entropy(model(xb).flatten(0, 1), yb.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return time.perf_counter() - start, model, steps


def ours(text, seconds: float, seed: int, pace: float, **asked) -> tuple:
    """(seconds, loss at 64, loss at its own context, steps, sizes)."""
    sizes = {**plan(len(text.train), seconds * pace), **asked}
    batch_size = sizes.pop("batch_size")
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    config = fast_config(len(text.vocab), dtype=train.number_format(),
                         **sizes)
    model = GPT(config, g)
    batches = train.TextBatches(text.train, config.block_size, batch_size, g)
    steps = max(20, int(seconds * pace / batch_size / config.block_size))
    h = train.fit(model, batches, fast_optimizers(model), steps,
                  schedule=train.linear_to_zero(steps, 1 + steps // 50),
                  seconds=seconds, log=False)
    losses = [train.evaluate(model, *data.chunks(text.val, t))
              for t in (min(T, config.block_size), config.block_size)]
    return h.seconds, *losses, len(h.losses), config, batch_size


def pace(text) -> float:
    """Symbols a second that our recipe reads here."""
    run = ours(text, 2.0, 0, 20_000.0, block_size=64, batch_size=32)
    return run[3] * 32 * 64 / run[0]


def main() -> None:
    parser = arguments(__doc__, ["shakespeare", "shakespeare-complete",
                                 "tinyshakespeare"])
    parser.add_argument(
        "--targets", type=float, nargs="*", default=[10, 20, 45, 60, 0],
        help="seconds of our runs; 0: as many as the reference took")
    args = parser.parse_args()
    begin("GPT", args.processor)
    text = corpus(args.corpus, "tinyshakespeare", "shakespeare")
    print(f"{text.name}: {len(text.train):,} symbols to train on, "
          f"{len(text.val):,} to validate, {len(text.vocab)} different")
    table = Table(("", "<34"), ("params", "9,d"), ("steps", "7,d"),
                  ("seconds", "9.1f"), ("val, pieces of 64", "18.4f"),
                  ("own context", "12.4f"), ("ratio", "7.1f"))
    reference(text, 5 / STEPS)  # warm up
    took, model, steps = reference(text, args.fraction)
    seconds = took * STEPS / steps
    theirs = train.evaluate(model, *data.chunks(text.val, T))
    mark = "*" if steps < STEPS else ""
    table.row(f"quick start{mark}", sum(p.numel() for p in
                                        model.parameters()),
              STEPS, seconds, theirs if not mark else "-", "-", "1")
    speed = pace(text)
    for target in args.targets:
        target = target or seconds
        seeds = args.seeds if target <= 20 else 1
        runs = [ours(text, target, s, speed) for s in range(1, seeds + 1)]
        mid = [statistics.median(r[i] for r in runs) for i in range(4)]
        config, batch_size = runs[0][4:]
        count = sum(p.numel() for p in GPT(config).parameters())
        name = f"ours, {batch_size} x {config.block_size}"
        if seeds > 1:
            low, high = (f(r[2] for r in runs) for f in (min, max))
            name += f", {seeds} runs {low:.3f}-{high:.3f}"
        table.row(name, count, round(mid[3]), mid[0], mid[1], mid[2],
                  seconds / mid[0])
    if mark:
        print(f"* {steps:,} of {STEPS:,} steps were run and its seconds "
              "extrapolated; so it has no loss to compare")


if __name__ == "__main__":
    main()
