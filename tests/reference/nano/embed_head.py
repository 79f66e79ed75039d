"""`layers/embed_head.py`: what each rank looks up and projects, in float64."""

from __future__ import annotations

import numpy as np


def embedding(ids: np.ndarray, stored: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """Rows of a stored matrix by token id; zeros for the tokens of other ranks."""
    part = len(stored) // world_size
    own = ids // part == rank
    return np.where(own[:, None], stored[ids], np.zeros_like(stored[:1]))


def logits(
    x: np.ndarray, stored: np.ndarray, rank: int, world_size: int, cu_seqlens_q: np.ndarray | None
) -> np.ndarray:
    """Products with the rank's rows of a stored matrix; in prefill, where offsets are given, of each sequence's last
    row.
    """
    if cu_seqlens_q is not None:
        x = x[cu_seqlens_q[1:] - 1]
    part = np.split(stored, world_size)[rank]
    return (x.astype(np.float64) @ part.astype(np.float64).T).astype(x.dtype)
