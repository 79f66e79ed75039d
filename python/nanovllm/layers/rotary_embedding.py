"""Rotary position embedding (Su et al. 2021): dimension i of a head is paired with i + head_size / 2."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanovllm import _core
from nanovllm.layers.module import Module


def apply_rotary_emb(x: Any, cos: Any, sin: Any, *, device: str = "cpu") -> Any:
    """Rotates the last dimension of `x [..., n]` by `cos` and `sin`, which broadcast to `[..., n / 2]`."""
    return _core.apply_rotary_emb(x, cos, sin, device=device)


class RotaryEmbedding(Module):
    """A table of cosines and sines that rotates queries and keys by their positions.

    The whole head is rotated, so `rotary_dim` must be `head_size`. `rope_scaling` is that of a config.json, of type
    linear, llama3, yarn or default. Raises ValueError for other sizes and types.
    """

    def __init__(
        self,
        head_size: int,
        rotary_dim: int,
        max_position_embeddings: int,
        base: float,
        rope_scaling: dict[str, Any] | None = None,
        *,
        device: str = "cpu",
    ) -> None:
        if rotary_dim != head_size:
            raise ValueError(f"rotary_dim must be head_size {head_size}, got {rotary_dim}")
        self.head_size = head_size
        scaling = json.dumps(rope_scaling)
        self._core = _core.RotaryEmbedding(head_size, max_position_embeddings, base, scaling, device=device)

    @property
    def cos_sin_cache(self) -> NDArray[np.float32]:
        """A copy of the table, float32 `[max_position_embeddings, 1, head_size]`: cosines, then sines."""
        return self._core.cos_sin_cache

    def forward(self, positions: Any, query: Any, key: Any) -> tuple[Any, Any]:
        """`query` and `key`, each `[n, heads, head_size]`, rotated by `positions [n]`, as new arrays of their types.

        Raises ValueError for a position that the table does not have.
        """
        return self._core.forward(positions, query, key)


def get_rope(
    head_size: int,
    rotary_dim: int,
    max_position: int,
    base: float,
    rope_scaling: dict[str, Any] | None = None,
    *,
    device: str = "cpu",
) -> RotaryEmbedding:
    """The embedding of these arguments. A repeated call returns the same object, so that layers share one table."""
    return _rope(head_size, rotary_dim, max_position, base, json.dumps(rope_scaling, sort_keys=True), device)


@lru_cache(1)
def _rope(
    head_size: int, rotary_dim: int, max_position: int, base: float, rope_scaling: str, device: str
) -> RotaryEmbedding:
    return RotaryEmbedding(head_size, rotary_dim, max_position, base, json.loads(rope_scaling), device=device)
