"""nano-vLLM's `layers/linear.py`, in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from parity import standins
from parity.live.tensors import BFLOAT16, array, tensor

_NANO = standins.loaded()


@contextmanager
def rank_of(rank: int, world_size: int) -> Iterator[None]:
    """While this is open, layers are made for this rank, with bfloat16 parameters."""
    _NANO.rank, _NANO.world_size = rank, world_size
    torch.set_default_dtype(torch.bfloat16)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        _NANO.rank, _NANO.world_size = 0, 1


class Linear:
    def __init__(self, kind: str, sizes: Sequence[Any], bias: bool, rank: int, world_size: int) -> None:
        with rank_of(rank, world_size):
            self.layer = getattr(_NANO["layers.linear"], f"{kind}Linear")(*sizes, bias=bias)

    def load(self, name: str, stored: np.ndarray, shard: Any = None) -> None:
        parameter = getattr(self.layer, name)
        with torch.no_grad():
            parameter.weight_loader(parameter, tensor(stored), *([] if shard is None else [shard]))

    def parameter(self, name: str) -> np.ndarray | None:
        parameter = getattr(self.layer, name)
        return None if parameter is None else array(parameter, np.empty(0, BFLOAT16))

    def forward(self, x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return array(self.layer(tensor(x)), x)
