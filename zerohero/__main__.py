"""The book's GPT from the command line.

    python -m zerohero train shakespeare --minutes 1
    python -m zerohero sample gpt.npz --prompt "KING" --temperature 0.8
    python -m zerohero ladder
    torchrun --nproc-per-node 2 -m zerohero train

The same functions as the chapters use, on the book's corpora or on a text
file of your own.
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path

import torch

from zerohero import data, distributed, generate, ladder, train
from zerohero.gpt import GPT, GPTConfig, fast_config, fast_optimizers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not in 0..1")
    return value


def _positive(kind):
    def convert(text: str):
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
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
    p.add_argument("--out", type=Path, default=Path("gpt.npz"))
    length = p.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=_positive(float))
    length.add_argument("--steps", type=_positive(int))
    p.add_argument("--resume", action="store_true", help="go on with --out")
    p.add_argument("--plot", type=Path, help="save the loss curve here")
    p.add_argument("--block-size", type=_positive(int), default=64)
    p.add_argument("--batch-size", type=_positive(int), default=16)
    p.add_argument("--n-layer", type=_positive(int), default=4)
    p.add_argument("--n-head", type=_positive(int), default=4)
    p.add_argument("--n-embd", type=_positive(int), default=128)
    p.add_argument("--dropout", type=float, default=0.0)
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


def _config(args, corpus) -> GPTConfig:
    return fast_config(
        len(corpus.vocab),
        args.block_size,
        n_layer=args.n_layer,
        n_head=args.n_head,
        n_embd=args.n_embd,
        dropout=args.dropout,
        boundary=corpus.boundary,
        dtype=train.number_format(),
    )


def _note(config: GPTConfig, corpus, steps: int, batch_size: int) -> dict:
    sizes = dataclasses.asdict(config)
    sizes["dtype"] = str(config.dtype).removeprefix("torch.")
    return {
        "config": sizes,
        "symbols": list(corpus.vocab.symbols),
        "corpus": corpus.name,
        "steps": steps,
        "batch_size": batch_size,
    }


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


def _steps_in(seconds: float, config: GPTConfig, batches) -> int:
    """How many steps fit into so many seconds, by trying a few."""
    model = GPT(config)
    optimizers = fast_optimizers(model)
    train.fit(model, batches, optimizers, 2, log=False)
    tried = 4
    start = time.perf_counter()
    train.fit(model, batches, optimizers, tried, log=False)
    each = (time.perf_counter() - start) / tried
    return max(20, int(seconds / each))


def run_train(args) -> None:
    """Train, save, and say how good it got."""
    world = distributed.start()
    train.threads()
    corpus = data.load(args.corpus)
    generator = torch.Generator().manual_seed(args.seed)
    step = 0
    if args.resume:
        note, config = _read_note(args.out)
        if note["symbols"] != list(corpus.vocab.symbols):
            raise ValueError(
                f"{args.out} was trained on {note['corpus']!r}, whose "
                f"symbols differ from those of {corpus.name!r}"
            )
        steps, batch_size = note["steps"], note["batch_size"]
    else:
        config, batch_size = _config(args, corpus), args.batch_size
        steps = args.steps or 0
    block_size = config.block_size

    def batches(seed: int):
        stream = torch.Generator().manual_seed(seed)
        return world.share(
            train.TextBatches(corpus.train, block_size, batch_size, stream)
        )

    if not steps:
        seconds = 60 * (args.minutes or 1.0)
        tried = _steps_in(seconds, config, batches(0))
        steps = int(world.sum(torch.tensor(tried))) // world.size
    model = GPT(config, generator)
    model.to(train.device())
    optimizers, source = fast_optimizers(model), batches(args.seed + 1)
    if args.resume:
        step, _ = train.load(args.out, model, optimizers, source)
    world.spread(model)
    count = sum(p.numel() for p in model.parameters())
    say = print if world.first else _say_nothing
    say(
        f"{count:,} parameters, {corpus.name}, {steps - step} steps of "
        f"{batch_size} x {block_size} symbols"
    )
    schedule = train.linear_to_zero(steps, min(10, steps - 1))
    history = train.fit(
        model, source, optimizers, steps, schedule=schedule, start=step,
        world=world,
    )
    done = step + len(history.losses)
    note = _note(config, corpus, steps, batch_size)
    if world.first:
        train.save(args.out, model, optimizers, source, step=done, note=note)
    val = train.evaluate(
        model, *data.chunks(corpus.val, block_size), world=world
    )
    say(f"validation loss {val:.3f} nats per symbol, the whole split")
    if history.interrupted:
        say(f"{done} of {steps} steps; --resume goes on from there")
    say(f"saved {args.out}")
    if args.plot and history.losses and world.first:
        _plot(history.losses, args.plot)
    world.stop()


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
    note, config = _read_note(args.checkpoint)
    model = GPT(config)
    model.load_state_dict(train.read(args.checkpoint)["model"])
    model.to(train.device())
    generator = None
    if args.seed is not None:
        generator = torch.Generator().manual_seed(args.seed)
    corpus = data.Corpus(
        note["corpus"],
        data.Vocab(note["symbols"]),
        *[torch.empty(0, dtype=torch.long)] * 3,
        raw="",
        boundary=config.boundary,
    )
    prompt = args.prompt
    if config.boundary is not None and prompt == "\n":
        prompt = corpus.vocab.symbols[config.boundary]
    text = generate.sample_text(
        model,
        corpus,
        args.chars,
        prompt,
        block_size=config.block_size,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        generator=generator,
    )
    print(text)


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
    try:
        commands[args.command](args)
    except (ValueError, OSError) as error:
        print(f"zerohero: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
