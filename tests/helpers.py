"""What several test files need."""

import torch
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reached(model, x: Tensor) -> Tensor:
    """[k, t]: does the output at t change with the input at k? (T, T) bool.

    Measured, not derived: position k of x (1, T, ...) is raised by 1, and
    every other output must stay the same to the last bit.
    """
    before, rows = model(x), []
    for k in range(x.shape[1]):
        other = x.clone()
        other[:, k] += 1
        rows.append((model(other) != before).any(dim=2)[0])
    return torch.stack(rows)
