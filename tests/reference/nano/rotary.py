"""`layers/rotary_embedding.py`, the table of angles and the rotation by it, in float64."""

import numpy as np


def cos_sin_cache(rotary_dim: int, max_position: int, base: float) -> np.ndarray:
    """Cosines, then sines, of each position times each inverse frequency: `[max_position, 1, rotary_dim]`."""
    inverse_frequencies = base ** -(np.arange(0, rotary_dim, 2) / rotary_dim)
    angles = np.outer(np.arange(max_position), inverse_frequencies)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=-1)[:, None, :].astype(np.float32)


def apply_rotary_emb(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Rotates the pairs (i, i + n / 2) of the last dimension of `x [..., n]`."""
    first, second = np.split(x.astype(np.float64), 2, axis=-1)
    rotated = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)


def rotary_embedding(
    positions: np.ndarray, q: np.ndarray, k: np.ndarray, cache: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rotates query and key heads `[n, heads, dim]` by their positions in a table from `cos_sin_cache`."""
    cos, sin = np.split(cache[positions].astype(np.float64), 2, axis=-1)
    return apply_rotary_emb(q, cos, sin), apply_rotary_emb(k, cos, sin)
