"""Runs of ``python -m zerohero``: a model, its text, its plan, its file.

Three kinds can be trained: the ``gpt``, which reads pieces of text and
answers at every position, and the ``mlp`` and the ``wavenet``, which read
windows and answer once.  What is not asked for is chosen to suit the text
and the time.
"""

import dataclasses
import time
from pathlib import Path

import torch
from torch import Tensor

from zerohero import data, tokens, train
from zerohero.gpt import GPT, GPTConfig, fast_config, fast_optimizers, plan
from zerohero.optim import AdamW, Muon
from zerohero.sequences import MLP
from zerohero.wavenet import SharedTree

# A text read more often than this is only learned by heart.
MOST_PASSES = 24

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclasses.dataclass
class WindowConfig:
    """Sizes of an ``mlp`` or a ``wavenet``.

    Args:
        vocab_size: V.
        block_size: T, symbols of a window.
        n_embd, n_hidden: numbers of a symbol, units of a layer.
        boundary: the id between names, None for running text.
    """

    vocab_size: int
    block_size: int
    n_embd: int
    n_hidden: int
    boundary: int | None = None


class Pieces:
    """The GPT: pieces of the text, a question at every position."""

    name = "gpt"
    shape = ("n_layer", "n_head", "n_embd")  # what the weights decide about
    free = ("block_size", "batch_size", "dropout")
    tables = ("embed.weight", "head.weight")  # a row for every symbol
    config = GPTConfig

    def configure(self, corpus, reads: float, asked: dict, old=None):
        """(configuration, batch size) for a run that reads `reads` symbols.

        With `old`, the model is of that configuration; rotary positions
        allow another context, and dropout is the new run's affair.
        """
        sizes = plan(len(corpus.train), reads, corpus.boundary is not None)
        if corpus.boundary is None:  # a split must hold at least one row
            least = min(len(corpus.train), len(corpus.val), len(corpus.test))
            sizes["block_size"] = max(1, min(sizes["block_size"], least - 1))
        else:  # a name must fit into a row
            splits = ("train", "val", "test")
            longest = max(len(w) for s in splits for w in corpus.words(s))
            sizes["block_size"] = max(sizes["block_size"], longest + 1)
        sizes |= asked
        batch_size = sizes.pop("batch_size")
        if old is not None:
            sizes = {**dataclasses.asdict(old),
                     "block_size": sizes["block_size"],
                     "dropout": sizes["dropout"]}
        else:
            sizes["smear"] = min(2, sizes["block_size"] - 1)
        sizes.update(vocab_size=len(corpus.vocab), boundary=corpus.boundary,
                     dtype=train.number_format())
        return fast_config(**sizes), batch_size

    def model(self, config: GPTConfig, generator=None) -> GPT:
        """A new model; generator: where its weights come from."""
        return GPT(config, generator)

    def optimizers(self, model: GPT, gentle: bool = False) -> list:
        """Those of the fast recipe; gentle: what it knows shall stay."""
        rates = {"muon_lr": 0.01, "lr": 0.01, "embed_lr": 0.01}
        return fast_optimizers(model, **(rates if gentle else {}))

    def batches(self, corpus, config, batch_size: int, seed: int):
        """Endless batches of the training split."""
        stream = torch.Generator().manual_seed(seed)
        if corpus.boundary is None:
            return train.TextBatches(
                corpus.train, config.block_size, batch_size, stream
            )
        rows = self.questions(corpus, corpus.train, config)
        return train.Batches(*rows, min(batch_size, len(rows[0])), stream)

    def questions(self, corpus, ids: Tensor, config) -> tuple:
        """All of `ids` (N,) as x and y, both (rows, block_size)."""
        if corpus.boundary is None:
            return data.chunks(ids, config.block_size)
        return train.name_rows(
            ids, corpus.boundary, config.block_size, pack=True
        )

    def reads(self, config, batch_size: int) -> int:
        """Symbols that one step learns to predict."""
        return batch_size * config.block_size

    def unasked(self, corpus, config) -> int:
        """How many symbols of a split come before the first that is asked."""
        return 0

    def rows(self, config, batch_size: int) -> str:
        """What a step reads, in words."""
        return f"{batch_size} x {config.block_size} symbols"


class Draws(train.Batches):
    """Batches drawn with replacement: no order of a whole text to keep."""

    def _take(self) -> Tensor:
        return torch.randint(
            len(self.x), (self.batch_size,), generator=self.generator
        )


class Windows:
    """A model that reads windows and answers once: ``mlp``, ``wavenet``."""

    shape = ("block_size", "n_embd", "n_hidden")
    free = ("batch_size",)
    tables = ("embedding.weight", "output.weight", "output.bias")
    config = WindowConfig

    def __init__(self, name: str, make, n_hidden: int):
        self.name, self.make, self.n_hidden = name, make, n_hidden

    def configure(self, corpus, reads: float, asked: dict, old=None):
        """(configuration, batch size) for a run that reads `reads` symbols.

        With `old`, the model is of that configuration.
        """
        sizes = {"block_size": 8, "batch_size": 2048, "n_embd": 24,
                 "n_hidden": self.n_hidden}
        splits = [corpus.train, corpus.val, corpus.test]
        if corpus.boundary is None:  # a split must hold at least one window
            while sizes["block_size"] > max(2, min(map(len, splits)) - 1):
                sizes["block_size"] //= 2
        sizes |= asked
        windows = len(corpus.train) - sizes["block_size"]
        batch_size = max(1, min(sizes.pop("batch_size"), windows))
        if old is not None:
            sizes = dataclasses.asdict(old)
        sizes.update(vocab_size=len(corpus.vocab), boundary=corpus.boundary)
        return WindowConfig(**sizes), batch_size

    def model(self, config: WindowConfig, generator=None):
        """A new model; generator: where its weights come from."""
        sizes = dataclasses.asdict(config)
        del sizes["boundary"]
        return self.make(**sizes, generator=generator)

    def optimizers(self, model, gentle: bool = False) -> list:
        """Muon for the matrices, AdamW for the table and the biases."""
        named = list(model.named_parameters())
        matrices = [p for name, p in named
                    if p.dim() == 2 and not name.startswith("embedding")]
        inside = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in inside]
        share = 0.3 if gentle else 1.0
        return [Muon(matrices, lr=0.05 * share, weight_decay=0.1),
                AdamW(rest, lr=0.02 * share, betas=(0.9, 0.99),
                      weight_decay=0.0)]

    def batches(self, corpus, config, batch_size: int, seed: int):
        """Endless batches of the training split."""
        kind = Draws if corpus.boundary is None else train.Batches
        return kind(*self.questions(corpus, corpus.train, config),
                    batch_size, torch.Generator().manual_seed(seed))

    def questions(self, corpus, ids: Tensor, config) -> tuple:
        """All of `ids` (N,) as x (n, block_size) and y (n,).

        Windows of a text are a view: they take no memory of their own.
        """
        T = config.block_size
        if corpus.boundary is None and len(ids) > T:
            return ids.unfold(0, T, 1)[:-1], ids[T:]
        return data.windows(ids, T, corpus.boundary)

    def reads(self, config, batch_size: int) -> int:
        """Symbols that one step learns to predict."""
        return batch_size

    def unasked(self, corpus, config) -> int:
        """How many symbols of a split come before the first that is asked."""
        return 0 if corpus.boundary is not None else config.block_size - 1

    def rows(self, config, batch_size: int) -> str:
        """What a step reads, in words."""
        return f"{batch_size} windows of {config.block_size} symbols"


KINDS = {
    kind.name: kind
    for kind in (
        Pieces(), Windows("mlp", MLP, 200), Windows("wavenet", SharedTree, 128)
    )
}


# ---------------------------------------------------------------- the plan
def step_seconds(kind, config, batches, world) -> float:
    """What a step takes here, by trying a few on a model to throw away.

    A process that is alone tries one thread, too, and keeps to it where it
    is faster: with other programs on the machine, several threads wait for
    each other most of the time.
    """
    model = kind.model(config)
    model.to(train.device())
    optimizers, took = kind.optimizers(model), {}
    many = torch.get_num_threads()
    for n in sorted({1, many} if world.size == 1 else {many}):
        torch.set_num_threads(n)
        for trial in (2, 3):  # the first one pays for what happens once
            history = train.fit(model, batches, optimizers, trial, log=False)
            if history.interrupted:
                raise KeyboardInterrupt
        took[n] = history.seconds / trial
    best = min(took, key=took.get)
    torch.set_num_threads(best)
    return world.sum(torch.tensor(took[best])).item() / world.size


def planned(kind, corpus, asked: dict, steps: int | None, seconds: float,
            begin: float, world, say, old=None) -> tuple:
    """(configuration, batch size, steps, seconds or None) of a new run.

    `steps`, or as many as fit into `seconds` after the clock's `begin`.
    `asked`: the sizes that are not to be chosen.
    """
    config, batch_size = kind.configure(corpus, 0, asked, old)
    if steps:
        reads = kind.reads(config, batch_size) * steps
        return *kind.configure(corpus, reads, asked, old), steps, None
    some = world.share(kind.batches(corpus, config, batch_size, 0))
    took = step_seconds(kind, config, some, world)
    reads = kind.reads(config, batch_size) * seconds / took
    enough = MOST_PASSES * len(corpus.train) / reads
    if enough < 1:  # the text is short for so long a run
        seconds, reads = seconds * enough, reads * enough
        say(f"{MOST_PASSES} passes over this text are enough")
    config, batch_size = kind.configure(corpus, reads, asked, old)
    steps = max(20, int(reads / kind.reads(config, batch_size)))
    begun = time.perf_counter() - begin
    return config, batch_size, steps, max(seconds / 2, seconds - begun)


# ---------------------------------------------------------------- the file
def note(kind, config, corpus, **run) -> dict:
    """What a saved run needs to know of itself."""
    sizes = dataclasses.asdict(config)
    if "dtype" in sizes:
        sizes["dtype"] = str(config.dtype).removeprefix("torch.")
    vocab = corpus.vocab
    if isinstance(vocab, tokens.Tokenizer):
        symbols = {"merges": torch.tensor(vocab.merges).view(-1, 2)}
    else:
        symbols = {"symbols": list(vocab.symbols)}
    return {"model": kind.name, "config": sizes, "corpus": corpus.name,
            **symbols, **run}


def read(path: Path) -> tuple:
    """A saved run: what is in the file, its kind, its configuration.

    The file holds a dict, with the weights in "model" and what else the run
    needs to know of itself in "note"; the kind is one of `KINDS`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, or one that ``train`` did not save.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; `python -m zerohero train --out {path}` "
            "makes it"
        )
    state = train.read(path)
    try:
        saved = state["note"]
        kind = KINDS[saved.get("model", "gpt")]
        sizes = dict(saved["config"])
        if "dtype" in sizes:
            sizes["dtype"] = DTYPES[sizes["dtype"]]
        return state, kind, kind.config(**sizes)
    except (AttributeError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} holds no model of this command ({error!r}); make one "
            f"with `python -m zerohero train --out {path}`"
        ) from error


def vocabulary(saved: dict):
    """The symbols, or the tokenizer, of a saved run's note."""
    if saved.get("merges") is not None:
        return tokens.Tokenizer(saved["merges"].tolist())
    return data.Vocab(saved["symbols"])


def open_model(path: str | Path) -> tuple:
    """A model that ``train`` saved, and its symbols in an empty corpus.

    `generate.sample_text(model, corpus, 500, block_size=model.block_size)`
    then writes what ``sample`` writes.  How surprised a ``gpt`` is by any
    text: `scaling.sliding_losses(model, corpus.vocab.encode(text), T,
    T // 2).mean()` with T = model.block_size; the others:
    `train.evaluate(model, *data.windows(ids, T, corpus.boundary))`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, or one that ``train`` did not save.
    """
    state, kind, config = read(Path(path))
    model = kind.model(config)
    model.load_state_dict(state["model"])
    return model.eval(), data.Corpus(
        state["note"]["corpus"],
        vocabulary(state["note"]),
        *[torch.empty(0, dtype=torch.long)] * 3,
        raw="",
        boundary=config.boundary,
    )


def inherit(kind, model, vocab, origin: dict) -> None:
    """Begin with the weights of what `read` read; symbols keep their rows."""
    state, old = dict(origin["model"]), vocabulary(origin["note"])
    if isinstance(old, data.Vocab):
        both = [s for s in vocab.symbols if s in old.stoi]
        here = [vocab.stoi[s] for s in both]
        there = [old.stoi[s] for s in both]
        new = model.state_dict()
        for name in kind.tables:
            table = new[name].clone()
            table[here] = state[name][there].to(table.device)
            state[name] = table
    model.load_state_dict(state)
