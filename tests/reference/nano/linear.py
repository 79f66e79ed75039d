"""`layers/linear.py`: the parameters of each rank, and what it computes from them, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class Linear:
    """One rank of a layer: "Replicated", "ColumnParallel", "MergedColumnParallel", "QKVParallel" or "RowParallel"."""

    def __init__(self, kind: str, sizes: Sequence[Any], bias: bool, rank: int, world_size: int) -> None:
        self.kind, self.rank, self.world_size = kind, rank, world_size
        self.shards: Sequence[Any] = [None]
        if kind == "QKVParallel":
            self.shards = "qkv"
        elif kind == "MergedColumnParallel":
            self.shards = range(len(sizes[1]))
        self.loaded: dict[str, dict[Any, np.ndarray]] = {"weight": {}} | ({"bias": {}} if bias else {})

    def load(self, name: str, stored: np.ndarray, shard: Any = None) -> None:
        """Loads the stored "weight" or "bias" of the layer or of one shard of it: the rank keeps its equal part."""
        if self.kind == "Replicated" or (self.kind == "RowParallel" and stored.ndim == 1):
            part = stored
        else:
            part = np.split(stored, self.world_size, axis=1 if self.kind == "RowParallel" else 0)[self.rank]
        self.loaded[name][shard] = part

    def parameter(self, name: str) -> np.ndarray | None:
        """The rank's whole "weight" or "bias"; None for a bias that there is not."""
        parts = self.loaded.get(name)
        return None if parts is None else np.concatenate([parts[shard] for shard in self.shards])

    def forward(self, x: np.ndarray) -> np.ndarray:
        """What the rank computes, before any sum over ranks."""
        weight, bias = self.parameter("weight"), self.parameter("bias")
        out = x.astype(np.float64) @ weight.astype(np.float64).T
        if bias is not None and (self.kind != "RowParallel" or self.rank == 0):
            out += bias.astype(np.float64)
        return out.astype(x.dtype)
