"""One training script, on one process or on several.

`torchrun --nproc-per-node 2 script.py` runs the script twice and tells each
process who it is.  Each holds the whole model, reads its share of every
batch, and all add up their gradients: the step is that of the whole batch.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from zerohero import train


class Share:
    """Rows rank, rank + size, rank + 2 size ... of every batch.

    All processes draw the same batches (same seed) and keep their own rows,
    so that together they read what one process would read alone.

    Args:
        batches: iterator of (xb, yb), such as Batches or TextBatches.
        rank, size: which process of how many.

    >>> whole = iter([(torch.arange(5), torch.arange(5))])
    >>> next(Share(whole, rank=1, size=2))[0]
    tensor([1, 3])
    """

    def __init__(self, batches, rank: int, size: int):
        if not 0 <= rank < size:
            raise ValueError(f"rank={rank} must lie in 0..{size - 1}")
        self.batches, self.rank, self.size = batches, rank, size

    def __iter__(self):
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        xb, yb = next(self.batches)
        if len(xb) < self.size:
            raise ValueError(f"a batch of {len(xb)} rows cannot be shared "
                             f"by {self.size} processes; take a larger one")
        return xb[self.rank::self.size], yb[self.rank::self.size]

    def state_dict(self) -> dict:
        """The state of the whole batches: the same on every process."""
        return self.batches.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.batches.load_state_dict(state)


@dataclass
class World:
    """The processes that train one model together.

    Attributes:
        rank: number of this process, 0 .. size - 1.
        size: how many there are; alone: 1.
        backend: who carries the messages: "gloo" between CPUs, "nccl"
            between GPUs, None when alone.
    """

    rank: int = 0
    size: int = 1
    backend: str | None = None

    @property
    def first(self) -> bool:
        """Whether this process is the one that prints and saves."""
        return self.rank == 0

    def share(self, batches):
        """This process's rows of every batch, see Share."""
        if self.size == 1:
            return batches
        return Share(batches, self.rank, self.size)

    def sum(self, t: Tensor) -> Tensor:
        """The sum of t over all processes, the same on each.

        Every process must call it, with a tensor of the same shape.
        """
        if self.size == 1:
            return t
        out = self._stage(t)
        dist.all_reduce(out)
        return out.to(t.device)

    def add_gradients(self, params: list[Tensor], *numbers: Tensor
                      ) -> list[Tensor]:
        """Sum the gradients of params, and some numbers, in one message.

        Parameters without a gradient are left out; on all processes the
        same ones must have one.

        Returns:
            The sums of the numbers; the gradients change in place.
        """
        if self.size == 1:
            return list(numbers)
        grads = [p.grad for p in params if p.grad is not None]
        parts = [*(n.reshape(1).float() for n in numbers),
                 *(g.flatten().float() for g in grads)]
        total = self.sum(torch.cat(parts))
        numbers, total = total[:len(numbers)], total[len(numbers):]
        at = 0
        for g in grads:
            g.copy_(total[at:at + g.numel()].view_as(g))
            at += g.numel()
        return list(numbers)

    def spread(self, model) -> None:
        """Give every process the parameters and buffers of the first."""
        if self.size == 1:
            return
        with torch.no_grad():
            for t in model.state_dict().values():
                out = self._stage(t)
                dist.broadcast(out, src=0)
                t.copy_(out)

    def equal(self, model) -> bool:
        """Whether all processes hold the same parameters, bit for bit."""
        if self.size == 1:
            return True
        flat = self._stage(torch.cat([
            p.detach().flatten().float() for p in model.parameters()]))
        low, high = flat.clone(), flat.clone()
        dist.all_reduce(low, dist.ReduceOp.MIN)
        dist.all_reduce(high, dist.ReduceOp.MAX)
        return torch.equal(low, high)

    def stop(self) -> None:
        """Wait for the others and take leave; nothing to do when alone."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()

    def _stage(self, t: Tensor) -> Tensor:
        """A copy of t where the backend can read it."""
        t = t.detach()
        if self.backend == "gloo":
            return t.cpu().clone()
        return t.to(train.device(), copy=True)


def start() -> World:
    """Join the processes that torchrun has started; alone, a world of one.

    Reads RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, as torchrun
    sets them.  Where this machine has a GPU for each of its processes,
    each takes its own; the backend is torch's choice for that device, and
    gloo where processes must share one.

    Raises:
        ValueError: WORLD_SIZE is set without the rest.
    """
    env = os.environ
    size = int(env.get("WORLD_SIZE", 1))
    if size == 1:
        return World()
    missing = [k for k in ("RANK", "LOCAL_RANK", "MASTER_ADDR",
                           "MASTER_PORT") if k not in env]
    if missing:
        raise ValueError(f"WORLD_SIZE={size}, but {', '.join(missing)} not "
                         f"set: start the script with torchrun")
    rank, local = int(env["RANK"]), int(env["LOCAL_RANK"])
    gpus, here = torch.accelerator.device_count(), train.device()
    if gpus:
        torch.accelerator.set_device_index(local % gpus)
    backend = dist.get_default_backend_for_device(here)
    if gpus < int(env.get("LOCAL_WORLD_SIZE", size)):
        backend = "gloo"
    dist.init_process_group(backend, rank=rank, world_size=size)
    return World(rank, size, backend)
