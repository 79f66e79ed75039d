"""nano-vLLM's `layers/rotary_embedding.py`: heads in bfloat16, the table in float32."""

from __future__ import annotations

import numpy as np
import torch

from parity import standins
from parity.live.tensors import array, tensor

_NANO = standins.loaded()["layers.rotary_embedding"]


def cos_sin_cache(rotary_dim: int, max_position: int, base: float) -> np.ndarray:
    return _NANO.RotaryEmbedding(rotary_dim, rotary_dim, max_position, base).cos_sin_cache.numpy()


def apply_rotary_emb(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    cos, sin = (torch.from_numpy(table.astype(np.float32)) for table in (cos, sin))
    return array(_NANO.apply_rotary_emb(tensor(x), cos, sin), x)


def rotary_embedding(
    positions: np.ndarray, q: np.ndarray, k: np.ndarray, cache: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    rotary = _NANO.RotaryEmbedding(q.shape[-1], q.shape[-1], 1, 10000.0)
    rotary.cos_sin_cache = torch.from_numpy(cache.astype(np.float32))
    rotated = rotary(tensor(positions), tensor(q), tensor(k))
    return array(rotated[0], q), array(rotated[1], k)
