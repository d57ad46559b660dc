"""The race of the transformer on names: makemore's defaults against ours.

    python benchmarks/names_transformer.py
    python benchmarks/names_transformer.py --fraction 0.1

The reference is a plain re-creation of makemore.py's transformer with its
default settings: 4 blocks of GPT-2 with biases, 4 heads, width 64, one name
a row, padded to the longest; batches of 32 drawn with replacement, AdamW
with a constant rate of 5e-4, betas 0.9 and 0.99, decay 0.01; float32. It has
no end of its own: 2,000 steps here (--reference-steps). Ours is the fast
recipe at the same sizes: several names packed into each row of 32, a model
that does not look back past a boundary, Muon, a rate that falls to zero.
Seconds are those of the training loop; losses are exact means over every
letter and end symbol of the validation split.

On the lectures' own names if they are at hand, else on the book's.
"""

import time

import torch
import torch.nn.functional as F
from race import Table, arguments, begin, corpus, median_run
from torch import nn

from zerohero import train
from zerohero.gpt import GPT, fast_config, fast_optimizers

C, HEADS, LAYERS = 64, 4, 4


class Reference(nn.Module):
    """GPT-2 in small, from torch's own layers."""

    def __init__(self, V: int, T: int):
        super().__init__()
        self.embed, self.place = nn.Embedding(V, C), nn.Embedding(T, C)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                C, HEADS, 4 * C, dropout=0.0, activation="gelu",
                batch_first=True, norm_first=True)
            for _ in range(LAYERS))
        self.norm = nn.LayerNorm(C)
        self.head = nn.Linear(C, V, bias=False)
        hidden = nn.Transformer.generate_square_subsequent_mask(T)
        self.register_buffer("hidden", hidden)

    def forward(self, idx):
        x = self.embed(idx) + self.place.weight
        for block in self.blocks:
            x = block(x, src_mask=self.hidden, is_causal=True)
        return self.head(self.norm(x))


def reference(rows, V: int, steps: int) -> tuple[float, Reference]:
    """Seconds of so many steps, and the model."""
    torch.manual_seed(3407)
    x, y = rows
    model = Reference(V, x.shape[1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4,
                                  betas=(0.9, 0.99), weight_decay=0.01)
    start = time.perf_counter()
    for _ in range(steps):
        pick = torch.randint(0, len(x), (32,))
        loss = F.cross_entropy(model(x[pick]).flatten(0, 1),
                               y[pick].flatten(), ignore_index=-1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return time.perf_counter() - start, model


def ours(packed, val, V: int, passes: float, seed: int) -> tuple:
    """(seconds, validation loss, steps) of our recipe."""
    g = torch.Generator().manual_seed(seed)
    config = fast_config(V, packed[0].shape[1], n_embd=C, n_head=HEADS,
                         n_layer=LAYERS, boundary=0,
                         dtype=train.number_format())
    model = GPT(config, g)
    steps = round(passes * len(packed[0]) / 48)
    history = train.fit(
        model, train.Batches(*packed, 48, g), fast_optimizers(model), steps,
        schedule=train.linear_to_zero(steps, min(10, steps - 1)), log=False)
    return history.seconds, train.evaluate(model, *val), steps


def main() -> None:
    parser = arguments(__doc__, ["lecture-names", "names"])
    parser.add_argument("--reference-steps", type=int, default=2000)
    parser.add_argument("--passes", type=float, nargs="*", default=[1, 2, 4],
                        help="how often our runs read all names")
    args = parser.parse_args()
    begin("Transformer on names", args.processor)
    names = corpus(args.corpus, "lecture-names", "names")
    V = len(names.vocab)
    longest = max(len(w) for s in ("train", "val") for w in names.words(s))
    rows = train.name_rows(names.train, 0, longest + 1)
    packed = train.name_rows(names.train, 0, 2 * longest, pack=True)
    print(f"{names.name}: {len(rows[0]):,} names to train on in "
          f"{len(packed[0]):,} packed rows of {2 * longest}")
    table = Table(("", "<36"), ("params", "8,d"), ("steps", "7,d"),
                  ("seconds", "9.1f"), ("val loss", "9.4f"),
                  ("ratio", "6.1f"))
    reference(rows, V, 10)  # warm up
    whole = args.reference_steps
    steps = max(1, round(whole * args.fraction))
    took, model = reference(rows, V, steps)
    seconds = took * whole / steps
    mark = "*" if steps < whole else ""
    val = train.name_rows(names.val, 0, longest + 1)
    loss = train.evaluate(model, *val)
    table.row(f"makemore's transformer{mark}",
              sum(p.numel() for p in model.parameters()), whole, seconds,
              "-" if mark else loss, "1")
    count = sum(p.numel() for p in GPT(fast_config(
        V, 2 * longest, n_embd=C, boundary=0)).parameters())
    val = train.name_rows(names.val, 0, 2 * longest, pack=True)
    ours(packed, val, V, 0.02, 0)
    for passes in args.passes:
        mine, loss, n = median_run(
            lambda seed, p=passes: ours(packed, val, V, p, seed),
            args.seeds if passes <= 2 else 1)
        table.row(f"ours, {passes:g} passes, packed", count, round(n), mine,
                  loss, seconds / mine)
    if mark:
        print(f"* {steps:,} of {whole:,} steps were run and its seconds "
              "extrapolated; so it has no loss to compare")


if __name__ == "__main__":
    main()
