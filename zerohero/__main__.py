"""The book's models from the command line.

    python -m zerohero train shakespeare --minutes 1
    python -m zerohero train names --model wavenet --out tree.npz
    python -m zerohero sample gpt.npz --prompt "KING" --temperature 0.8
    python -m zerohero train my.txt --from gpt.npz --out my.npz
    python -m zerohero ladder
    torchrun --nproc-per-node 2 -m zerohero train

The same functions as the chapters use, on the book's corpora or on a text
file of your own.  What you do not ask for is chosen to suit the time and the
text: context, batch and dropout (``zerohero.gpt.plan``), the number of
threads, and a learning rate that reaches zero when the time is up.  In
Python, ``zerohero.runs.open_model`` opens what was saved.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import torch

from zerohero import (
    data,
    distributed,
    generate,
    ladder,
    runs,
    scaling,
    tokens,
    train,
)
from zerohero.bigrams import KneserNey


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in 0..1")
    return value


def _positive(kind):
    def convert(text: str):
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(
                f"{text} is not a number above 0"
            )
        return value

    convert.__name__ = kind.__name__
    return convert


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="python -m zerohero", description="Train and sample a model."
    )
    commands = top.add_subparsers(dest="command", required=True)

    p = commands.add_parser("train", help="train a model and save it")
    p.add_argument(
        "corpus",
        nargs="?",
        default="shakespeare",
        help="names, shakespeare, or the path of a text file",
    )
    p.add_argument(
        "--model", choices=runs.KINDS, help="what to train (default: gpt)"
    )
    p.add_argument(
        "--names", action="store_true", help="the file has one name a line"
    )
    p.add_argument(
        "--tokens",
        type=_positive(int),
        metavar="V",
        help="read V different byte-pair tokens instead of characters",
    )
    p.add_argument(
        "--out", type=Path, help="the file to save (default: gpt.npz, ...)"
    )
    length = p.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=_positive(float))
    length.add_argument("--steps", type=_positive(int))
    p.add_argument(
        "--resume", action="store_true", help="go on with --out as planned"
    )
    p.add_argument(
        "--from",
        dest="origin",
        type=Path,
        metavar="FILE",
        help="begin with the weights of a saved run, of any text",
    )
    p.add_argument("--plot", type=Path, help="save the loss curve here")
    p.add_argument(
        "--counts",
        action="store_true",
        help="also say how good it is with a count model mixed in",
    )
    sizes = p.add_argument_group(
        "sizes", "what is not given is chosen to suit the time and the text"
    )
    sizes.add_argument("--block-size", type=_positive(int))
    sizes.add_argument("--batch-size", type=_positive(int))
    sizes.add_argument("--n-layer", type=_positive(int))
    sizes.add_argument("--n-head", type=_positive(int))
    sizes.add_argument("--n-embd", type=_positive(int))
    sizes.add_argument("--n-hidden", type=_positive(int))
    sizes.add_argument("--dropout", type=float)
    p.add_argument("--seed", type=int, default=1, help="another run")

    p = commands.add_parser("sample", help="write text with a saved model")
    p.add_argument("checkpoint", type=Path, help="what `train` saved")
    p.add_argument("--prompt", default="\n", help="the text to continue")
    p.add_argument(
        "--chars", type=_positive(int), default=500, help="how many to write"
    )
    p.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="below 1 surer, above 1 wilder; 0: always the likeliest",
    )
    p.add_argument(
        "--top-k", type=_positive(int), help="choose among the k likeliest"
    )
    p.add_argument(
        "--top-p",
        type=_fraction,
        help="choose among the fewest that together reach this probability",
    )
    p.add_argument("--seed", type=int, help="the same seed, the same text")

    p = commands.add_parser("ladder", help="the table of all models")
    p.add_argument("--corpus", choices=ladder.CORPORA)
    return top


def _check(args) -> None:
    """Refuse at once what would fail, or be lost, at the end of the run."""
    if args.resume:
        plan = ("tokens", "origin", "minutes", "steps", *_sizes())
        given = [_option(k) for k in plan if getattr(args, k) is not None]
        if given:
            raise ValueError(
                f"--resume goes on as {args.out} was planned: leave out "
                f"{', '.join(given)}; --from {args.out} begins another run "
                "with its weights"
            )
    for path in filter(None, (args.out, args.plot)):
        if path.is_dir():
            raise ValueError(f"{path} is a folder: name a file in it")
        path.parent.mkdir(parents=True, exist_ok=True)


def _corpus(args, saved) -> data.Corpus:
    """The text, in the tokens of a saved run or in those asked for."""
    corpus = data.load(args.corpus, "names" if args.names else None)
    if saved is not None and saved.get("merges") is not None:
        return corpus.with_vocab(runs.vocabulary(saved))
    if saved is None and args.tokens:
        text = corpus.vocab.decode(corpus.train)
        return corpus.with_vocab(tokens.train(text, args.tokens))
    return corpus


def _sizes() -> list[str]:
    """All sizes that some kind of model has."""
    kinds = runs.KINDS.values()
    return sorted({k for kind in kinds for k in kind.shape + kind.free})


def _option(name: str) -> str:
    return "--from" if name == "origin" else "--" + name.replace("_", "-")


def _kind(args) -> tuple:
    """(kind of model, the saved run it begins with, its configuration)."""
    kind, origin, config = runs.KINDS[args.model or "gpt"], None, None
    path = args.origin
    if args.resume:
        path = args.out = args.out or Path(f"{kind.name}.npz")
    if path:
        origin, kind, config = runs.read(path)
        if args.model not in (None, kind.name):
            raise ValueError(
                f"{path} was trained with --model {kind.name}, not "
                f"{args.model}"
            )
    args.out = args.out or Path(f"{kind.name}.npz")
    return kind, origin, config


def _asked(args, kind) -> dict:
    """The sizes asked for, where this run may choose them."""
    given = [k for k in _sizes() if getattr(args, k) is not None]
    for size in given:
        if size not in kind.shape + kind.free:
            raise ValueError(
                f"--model {kind.name} has no {_option(size)}: leave it out"
            )
    fixed = ["tokens"] * (args.tokens is not None) + [
        k for k in given if k in kind.shape
    ]
    if args.origin and fixed:
        raise ValueError(
            f"{args.origin} decides about "
            f"{', '.join(map(_option, fixed))}: leave it out"
        )
    return {k: getattr(args, k) for k in given}


def _resumed(args, saved, config, corpus) -> tuple:
    """(configuration, batch size, steps, seconds or None) of a saved run."""
    symbols = saved.get("symbols")  # None: a tokenizer reads any text
    if symbols is not None and symbols != corpus.vocab.symbols:
        raise ValueError(
            f"{args.out} was trained on {saved['corpus']!r}, whose "
            f"symbols differ from those of {corpus.name!r}; --from "
            f"{args.out} begins another run with its weights"
        )
    return config, saved["batch_size"], saved["steps"], saved.get("seconds")


def _save(args, say, *state, **note) -> None:
    """Save the run; what another run left there gets another name."""
    before = args.out.with_suffix(".before.npz")
    if args.out.exists() and not args.resume:
        args.out.replace(before)
        say(f"the old {args.out} is now {before}")
    train.save(args.out, *state, **note)


def run_train(args) -> None:
    """Train, save, and say how good it got."""
    world = distributed.start()
    say = print if world.first else _say_nothing
    train.threads()
    begin = time.perf_counter()
    kind, origin, old = _kind(args)
    saved = origin and origin["note"]
    _check(args)
    asked = _asked(args, kind)
    corpus = _corpus(args, saved)
    config, batch_size, steps, seconds = (
        _resumed(args, saved, old, corpus)
        if args.resume
        else runs.planned(
            kind, corpus, asked, args.steps, 60 * (args.minutes or 1.0),
            begin, world, say, old,
        )
    )
    model = kind.model(config, torch.Generator().manual_seed(args.seed))
    model.to(train.device())
    if args.origin:
        runs.inherit(kind, model, corpus.vocab, origin)
    optimizers = kind.optimizers(model, gentle=bool(args.origin))
    source = world.share(
        kind.batches(corpus, config, batch_size, args.seed + 1)
    )
    step = 0
    if args.resume:
        step, _ = train.load(args.out, model, optimizers, source)
        if step >= steps:
            raise ValueError(
                f"{args.out} has come to the end of its plan; --from "
                f"{args.out} begins another run with its weights"
            )
    else:
        torch.manual_seed(args.seed + world.rank)  # dropout draws from it
    world.spread(model)
    count = sum(p.numel() for p in model.parameters())
    say(
        f"{count:,} parameters, {corpus.name}, "
        f"{'about ' if seconds else ''}{steps - step} steps of "
        f"{kind.rows(config, batch_size)}"
    )
    # Where a text is read many times, the best weights may not be the last.
    often = steps * kind.reads(config, batch_size) > 8 * len(corpus.train)
    val = kind.questions(corpus, corpus.val, config)
    warmup = min(10, 1 + steps // 20, steps - 1)
    history = train.fit(
        model,
        source,
        optimizers,
        steps,
        schedule=train.linear_to_zero(steps, warmup),
        start=step,
        seconds=seconds * (1 - step / steps) if seconds else None,
        val=val if often else None,
        eval_every=max(1, steps // 8) if often else None,
        world=world,
    )
    if history.best and not history.interrupted:
        model.load_state_dict(history.best_state)
    if history.interrupted and not history.losses:
        raise KeyboardInterrupt  # nothing learned: what was there stays
    if world.first:
        note = runs.note(
            kind, config, corpus, steps=steps, batch_size=batch_size,
            seconds=seconds,
        )
        _save(
            args, say, model, optimizers, source, step=history.done, note=note
        )
    loss = train.evaluate(model, *val, world=world)
    bits = tokens.bits_per_character(
        loss, len(corpus.val), len(corpus.vocab.decode(corpus.val))
    )
    say(
        f"validation loss {loss:.3f} nats per symbol, {bits:.2f} bits per "
        f"character (a blind guess: {math.log(len(corpus.vocab)):.3f} nats)"
    )
    if args.counts and world.first:
        say(_with_counts(kind, model, corpus, config))
    if history.interrupted:
        share = history.done / steps
        say(f"{share:.0%} of the way; --resume goes on from there")
    say(f"saved {args.out}")
    if args.plot and history.losses and world.first:
        _plot(history.losses, args.plot)
    world.stop()


def _with_counts(kind, model, corpus, config) -> str:
    """How good the model is together with a table of n-grams.

    The weight of the table is found on the test split, the loss is that of
    the validation split: neither has seen what it is judged by.
    """
    size = max(2, len(corpus.vocab))
    order = min(7, int(63 / math.log2(size)))  # what fits into 63 bits
    table = KneserNey(order, size)
    table.fit(corpus.train, corpus.boundary)
    pairs = []
    for ids in (corpus.test, corpus.val):
        x, y = kind.questions(corpus, ids, config)
        net, first = train.losses(model, x, y), kind.unasked(corpus, config)
        pairs.append((net, table.losses(ids)[first : first + len(net)]))
    weight = scaling.best_weight(*pairs[0])
    mixed = scaling.mix(*pairs[1], weight).mean()
    return (
        f"with {order}-gram counts mixed in (weight {weight:.2f}): "
        f"{mixed:.3f}; the counts alone {pairs[1][1].mean():.3f}"
    )


def _say_nothing(text: str) -> None:
    """What the processes after the first one print."""


def _plot(losses: list[float], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from zerohero import plots

    plots.use_style()
    fig, ax = plt.subplots()
    plots.loss_curve(losses, ax=ax, smooth=max(2, len(losses) // 50))
    fig.savefig(path)
    print(f"drew {path}")


def run_sample(args) -> None:
    """Write text that continues the prompt."""
    train.threads()
    model, corpus = runs.open_model(args.checkpoint)
    model.to(train.device())
    generator, prompt, dot = None, args.prompt, None
    if args.seed is not None:
        generator = torch.Generator().manual_seed(args.seed)
    if corpus.boundary is not None:  # one name a line
        dot = corpus.vocab.symbols[corpus.boundary]
        prompt = dot + prompt.strip("\n").replace("\n", dot)
    text = generate.sample_text(
        model,
        corpus,
        args.chars,
        prompt,
        block_size=model.block_size,
        cache=hasattr(model, "new_cache"),
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        generator=generator,
    )
    print(text if dot is None else text.strip(dot).replace(dot, "\n"))


def run_ladder(args) -> None:
    """Print the rows of the last build."""
    print(ladder.table(args.corpus, ladder.load()))


def main(argv: list[str] | None = None) -> int:
    """Run one command; bad input ends with a message, not a traceback."""
    args = parser().parse_args(argv)
    commands = {
        "train": run_train,
        "sample": run_sample,
        "ladder": run_ladder,
    }
    for stream in (sys.stdout, sys.stderr):  # a terminal without Chinese
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        commands[args.command](args)
    except KeyboardInterrupt:
        print("zerohero: stopped by hand", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"zerohero: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
