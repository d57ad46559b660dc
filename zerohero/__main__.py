"""The book's GPT from the command line.

    python -m zerohero train shakespeare --minutes 1
    python -m zerohero sample gpt.npz --prompt "KING" --temperature 0.8
    python -m zerohero train my.txt --from gpt.npz --out my.npz
    python -m zerohero ladder
    torchrun --nproc-per-node 2 -m zerohero train

The same functions as the chapters use, on the book's corpora or on a text
file of your own.  What you do not ask for is chosen to suit the time and the
text: context, batch and dropout (``zerohero.gpt.plan``), the number of
threads, and a learning rate that reaches zero when the time is up.
"""

import argparse
import dataclasses
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
    scaling,
    tokens,
    train,
)
from zerohero.bigrams import KneserNey
from zerohero.gpt import (
    GPT,
    GPTConfig,
    fast_config,
    fast_optimizers,
    plan,
)

# A text read more often than this is only learned by heart.
MOST_PASSES = 24

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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
        prog="python -m zerohero", description="Train and sample a GPT."
    )
    commands = top.add_subparsers(dest="command", required=True)

    p = commands.add_parser("train", help="train a GPT and save it")
    p.add_argument(
        "corpus",
        nargs="?",
        default="shakespeare",
        help="names, shakespeare, or the path of a text file",
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
    p.add_argument("--out", type=Path, default=Path("gpt.npz"))
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
        help="begin with the weights of a saved GPT, of any text",
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
    sizes.add_argument("--dropout", type=float)
    p.add_argument("--seed", type=int, default=1)

    p = commands.add_parser("sample", help="write text with a saved GPT")
    p.add_argument("checkpoint", type=Path)
    p.add_argument("--prompt", default="\n")
    p.add_argument("--chars", type=_positive(int), default=500)
    p.add_argument("--temperature", type=float, default=1.0)
    p.add_argument("--top-k", type=_positive(int))
    p.add_argument("--top-p", type=_fraction)
    p.add_argument("--seed", type=int)

    p = commands.add_parser("ladder", help="the table of all models")
    p.add_argument("--corpus", choices=ladder.CORPORA)
    return top


def _check(args) -> None:
    """Refuse at once what would fail, or be lost, at the end of the run."""
    fixed = {"--tokens": args.tokens, "--n-layer": args.n_layer,
             "--n-head": args.n_head, "--n-embd": args.n_embd}
    if args.resume:
        fixed |= {"--from": args.origin, "--minutes": args.minutes,
                  "--steps": args.steps, "--block-size": args.block_size,
                  "--batch-size": args.batch_size, "--dropout": args.dropout}
    given = [k for k, v in fixed.items() if v is not None]
    if given and args.resume:
        raise ValueError(
            f"--resume goes on as {args.out} was planned: leave out "
            f"{', '.join(given)}; --from {args.out} begins another run with "
            "its weights"
        )
    if given and args.origin:
        raise ValueError(
            f"{args.origin} decides about {', '.join(given)}: leave it out"
        )
    for path in filter(None, (args.out, args.plot)):
        if path.is_dir():
            raise ValueError(f"{path} is a folder: name a file in it")
        path.parent.mkdir(parents=True, exist_ok=True)


def _vocab(note):
    """The symbols, or the tokenizer, of a saved GPT."""
    if note.get("merges") is not None:
        return tokens.Tokenizer(note["merges"].tolist())
    return data.Vocab(note["symbols"])


def _corpus(args, note) -> data.Corpus:
    """The text, in the tokens of a saved GPT or in those asked for."""
    corpus = data.load(args.corpus, "names" if args.names else None)
    if note is not None and note.get("merges") is not None:
        return corpus.with_vocab(_vocab(note))
    if note is None and args.tokens:
        text = corpus.vocab.decode(corpus.train)
        return corpus.with_vocab(tokens.train(text, args.tokens))
    return corpus


def _sizes(args, corpus, reads: float, old=None) -> tuple[GPTConfig, int]:
    """The configuration and the batch size: asked for, or the plan's.

    With `old`, the model is of that configuration; rotary positions allow
    another context, and dropout is the new run's affair.
    """
    sizes = plan(len(corpus.train), reads, corpus.boundary is not None)
    if corpus.boundary is None:  # a split must hold at least one row
        least = min(len(corpus.train), len(corpus.val), len(corpus.test))
        sizes["block_size"] = max(1, min(sizes["block_size"], least - 1))
    else:  # a name must fit into a row
        splits = ("train", "val", "test")
        longest = max(len(w) for s in splits for w in corpus.words(s))
        sizes["block_size"] = max(sizes["block_size"], longest + 1)
    asked = {k: getattr(args, k) for k in sizes}
    sizes.update({k: v for k, v in asked.items() if v is not None})
    batch_size = sizes.pop("batch_size")
    if old is not None:
        sizes = {
            **dataclasses.asdict(old),
            "block_size": sizes["block_size"],
            "dropout": sizes["dropout"],
        }
    else:
        sizes["smear"] = min(2, sizes["block_size"] - 1)
    sizes.update(
        vocab_size=len(corpus.vocab),
        boundary=corpus.boundary,
        dtype=train.number_format(),
    )
    return fast_config(**sizes), batch_size


def _batches(corpus, config, batch_size: int, seed: int):
    """Endless batches of the training split."""
    stream = torch.Generator().manual_seed(seed)
    if corpus.boundary is None:
        return train.TextBatches(
            corpus.train, config.block_size, batch_size, stream
        )
    rows = train.name_rows(
        corpus.train, corpus.boundary, config.block_size, pack=True
    )
    return train.Batches(*rows, min(batch_size, len(rows[0])), stream)


def _questions(corpus, ids, config) -> tuple:
    """A whole split as (x, y) to evaluate on."""
    if corpus.boundary is None:
        return data.chunks(ids, config.block_size)
    return train.name_rows(ids, corpus.boundary, config.block_size, pack=True)


def _note(config: GPTConfig, corpus, **run) -> dict:
    sizes = dataclasses.asdict(config)
    sizes["dtype"] = str(config.dtype).removeprefix("torch.")
    vocab = corpus.vocab
    if isinstance(vocab, tokens.Tokenizer):
        symbols = {"merges": torch.tensor(vocab.merges).view(-1, 2)}
    else:
        symbols = {"symbols": list(vocab.symbols)}
    return {"config": sizes, "corpus": corpus.name, **symbols, **run}


def _configured(note, path: Path) -> GPTConfig:
    """The configuration in a checkpoint's note."""
    try:
        sizes = dict(note["config"])
        sizes["dtype"] = DTYPES[sizes["dtype"]]
        return GPTConfig(**sizes)
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"{path} holds no GPT of this command ({error!r}); make one "
            f"with `python -m zerohero train --out {path}`"
        ) from error


def _read_note(path: Path):
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; `python -m zerohero train --out {path}` "
            "makes it"
        )
    state = train.read(path)
    note = state.get("note") if isinstance(state, dict) else None
    return note, _configured(note, path)


def open_gpt(path: str | Path) -> tuple[GPT, data.Corpus]:
    """A GPT that ``train`` saved, and its symbols in an empty corpus.

    `generate.sample_text(model, corpus, 500, block_size=
    model.config.block_size)` then writes what ``sample`` writes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, or one that ``train`` did not save.
    """
    note, config = _read_note(Path(path))
    model = GPT(config)
    model.load_state_dict(train.read(path)["model"])
    return model.eval(), data.Corpus(
        note["corpus"],
        _vocab(note),
        *[torch.empty(0, dtype=torch.long)] * 3,
        raw="",
        boundary=config.boundary,
    )


def _inherit(model: GPT, vocab, origin: Path) -> None:
    """Begin with the weights of `origin`; symbols keep their rows."""
    state, old = train.read(origin)["model"], _vocab(_read_note(origin)[0])
    if isinstance(old, data.Vocab):
        both = [s for s in vocab.symbols if s in old.stoi]
        here = [vocab.stoi[s] for s in both]
        there = [old.stoi[s] for s in both]
        for name in ("embed.weight", "head.weight"):
            table = model.state_dict()[name].clone()
            table[here] = state[name][there].to(table.device)
            state[name] = table
    model.load_state_dict(state)


def _step_seconds(config: GPTConfig, batches, world) -> float:
    """What a step takes here, by trying a few on a model to throw away.

    A process that is alone tries one thread, too, and keeps to it where it
    is faster: with other programs on the machine, several threads wait for
    each other most of the time.
    """
    model = GPT(config).to(train.device())
    optimizers, took = fast_optimizers(model), {}
    many = torch.get_num_threads()
    for n in sorted({1, many} if world.size == 1 else {many}):
        torch.set_num_threads(n)
        first = train.fit(model, batches, optimizers, 2, log=False)
        history = train.fit(model, batches, optimizers, 3, log=False)
        if first.interrupted or history.interrupted:
            raise KeyboardInterrupt
        took[n] = history.seconds / 3
    best = min(took, key=took.get)
    torch.set_num_threads(best)
    return world.sum(torch.tensor(took[best])).item() / world.size


def _planned(args, corpus, old, world, say, begin: float) -> tuple:
    """(configuration, batch size, steps, seconds or None) of a new run."""
    config, batch_size = _sizes(args, corpus, 0, old)
    reads = batch_size * config.block_size  # by one step
    if args.steps:
        sizes = _sizes(args, corpus, reads * args.steps, old)
        return *sizes, args.steps, None
    seconds = 60 * (args.minutes or 1.0)
    some = world.share(_batches(corpus, config, batch_size, 0))
    reads *= seconds / _step_seconds(config, some, world)
    enough = MOST_PASSES * len(corpus.train) / reads
    if enough < 1:  # the text is short for so long a run
        seconds, reads = seconds * enough, reads * enough
        say(f"{MOST_PASSES} passes over this text are enough")
    config, batch_size = _sizes(args, corpus, reads, old)
    steps = max(20, int(reads / batch_size / config.block_size))
    begun = time.perf_counter() - begin  # is part of the time
    return config, batch_size, steps, max(seconds / 2, seconds - begun)


def _resumed(args, note, config, corpus) -> tuple:
    """(configuration, batch size, steps, seconds or None) of a saved run."""
    if note.get("symbols") not in (None, corpus.vocab.symbols):
        raise ValueError(
            f"{args.out} was trained on {note['corpus']!r}, whose "
            f"symbols differ from those of {corpus.name!r}; --from "
            f"{args.out} begins another run with its weights"
        )
    return config, note["batch_size"], note["steps"], note.get("seconds")


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
    _check(args)
    path = args.out if args.resume else args.origin
    note, old = _read_note(path) if path else (None, None)
    corpus = _corpus(args, note)
    config, batch_size, steps, seconds = (
        _resumed(args, note, old, corpus)
        if args.resume
        else _planned(args, corpus, old, world, say, begin)
    )
    model = GPT(config, torch.Generator().manual_seed(args.seed))
    model.to(train.device())
    optimizers = fast_optimizers(model)
    if args.origin:
        _inherit(model, corpus.vocab, args.origin)
        optimizers = fast_optimizers(  # do not run over what is known
            model, muon_lr=0.01, lr=0.01, embed_lr=0.01
        )
    source = world.share(
        _batches(corpus, config, batch_size, args.seed + 1)
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
        f"{batch_size} x {config.block_size} symbols"
    )
    # Where a text is read many times, the best weights may not be the last.
    often = steps * batch_size * config.block_size > 8 * len(corpus.train)
    val = _questions(corpus, corpus.val, config)
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
        note = _note(
            config, corpus, steps=steps, batch_size=batch_size,
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
        say(_with_counts(model, corpus, config))
    if history.interrupted:
        share = history.done / steps
        say(f"{share:.0%} of the way; --resume goes on from there")
    say(f"saved {args.out}")
    if args.plot and history.losses and world.first:
        _plot(history.losses, args.plot)
    world.stop()


def _with_counts(model, corpus, config) -> str:
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
        x, y = _questions(corpus, ids, config)
        net = train.losses(model, x, y)
        pairs.append((net, table.losses(ids)[: len(net)]))
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
    model, corpus = open_gpt(args.checkpoint)
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
        block_size=model.config.block_size,
        cache=True,
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
