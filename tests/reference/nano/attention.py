"""`layers/attention.py`, and what it asks of flash_attn, in float64 and one sequence at a time."""

from __future__ import annotations

from typing import Any

import numpy as np


def store_kvcache(
    key: np.ndarray, value: np.ndarray, k_cache: np.ndarray, v_cache: np.ndarray, slot_mapping: np.ndarray
) -> None:
    """Writes rows of keys and values to their slots of the caches; -1 is none."""
    block_size = k_cache.shape[1]
    for row, slot in enumerate(slot_mapping):
        if slot != -1:
            block, offset = divmod(int(slot), block_size)
            k_cache[block, offset] = key[row]
            v_cache[block, offset] = value[row]


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    k_cache: np.ndarray,
    v_cache: np.ndarray,
    scale: float,
    context: Any,
) -> np.ndarray:
    """What `Attention.forward` gives and does to its caches, which are empty arrays where it has none."""
    if k_cache.size and v_cache.size:
        store_kvcache(k, v, k_cache, v_cache, context.slot_mapping)
    output = np.zeros(q.shape)
    if not context.is_prefill:
        for row, length in enumerate(context.context_lens):
            keys, values = (_tokens(cache, context.block_tables[row], length) for cache in (k_cache, v_cache))
            output[row] = _attend(q[row : row + 1], keys, values, scale)
        return output[:, None].astype(q.dtype)
    for seq in range(len(context.cu_seqlens_q) - 1):
        rows = slice(context.cu_seqlens_q[seq], context.cu_seqlens_q[seq + 1])
        start, end = context.cu_seqlens_k[seq], context.cu_seqlens_k[seq + 1]
        if context.block_tables is None:
            keys, values = k[start:end], v[start:end]
        else:  # a prefix is cached
            keys, values = (_tokens(cache, context.block_tables[seq], end - start) for cache in (k_cache, v_cache))
        output[rows] = _attend(q[rows], keys, values, scale)
    return output.astype(q.dtype)


def _tokens(cache: np.ndarray, table: np.ndarray, length: int) -> np.ndarray:
    """The first tokens of a sequence, `[length, kv_heads, dim]`."""
    positions, block_size = np.arange(length), cache.shape[1]
    return cache[table[positions // block_size], positions % block_size]


def _attend(q: np.ndarray, keys: np.ndarray, values: np.ndarray, scale: float) -> np.ndarray:
    """Queries `[n, heads, dim]` of one sequence over its keys `[m, kv_heads, dim]`; zeros where there are none.

    The last query sees every key, each one before it one less.
    """
    if len(keys) == 0:
        return np.zeros(q.shape)
    group = q.shape[1] // keys.shape[1]
    keys, values = (np.repeat(x.astype(np.float64), group, axis=1) for x in (keys, values))
    scores = np.einsum("nhd,mhd->hnm", q.astype(np.float64), keys) * scale
    n, m = scores.shape[1:]
    scores[:, np.arange(m) > np.arange(m - n, m)[:, None]] = -np.inf
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    return np.einsum("hnm,mhd->nhd", weights / weights.sum(axis=2, keepdims=True), values)
