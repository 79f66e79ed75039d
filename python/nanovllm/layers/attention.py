"""Attention over the keys and values of a batch, or over a paged cache of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from nanovllm import _core
from nanovllm.layers.module import Module
from nanovllm.utils.context import get_context


def store_kvcache(key: Any, value: Any, k_cache: Any, v_cache: Any, slot_mapping: Any, *, device: str = "cpu") -> None:
    """Stores rows of `key` and `value`, `[n, kv_heads, head_dim]`, into the caches, which are written to.

    The caches are arrays or tensors `[num_blocks, block_size, kv_heads, head_dim]`. Row `i` goes to slot
    `slot_mapping[i]`, that is `block * block_size + offset`; a slot of -1 stores nothing. Raises ValueError for a slot
    outside the caches, and for one that two rows share.
    """
    _core.store_kvcache(key, value, k_cache, v_cache, slot_mapping, device=device)


class Attention(Module):
    """Causal attention with grouped query heads; what it attends to is in `nanovllm.utils.context`.

    Products of queries and keys are multiplied by `scale`. ValueError unless `num_kv_heads` divides `num_heads` and
    `head_dim` is even.

    `k_cache` and `v_cache` are empty at first. Once set to arrays `[num_blocks, block_size, num_kv_heads, head_dim]`,
    `forward` stores keys and values in them.
    """

    def __init__(self, num_heads: int, head_dim: int, scale: float, num_kv_heads: int, *, device: str = "cpu") -> None:
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.scale = scale
        self.num_kv_heads = num_kv_heads
        self.k_cache: Any = np.array([], np.float32)
        self.v_cache: Any = np.array([], np.float32)
        self._device = device
        self._core = _core.Attention(num_heads, head_dim, scale, num_kv_heads, device=device)

    def forward(self, q: Any, k: Any, v: Any) -> Any:
        """Attends from `q [n, num_heads, head_dim]`; `k` and `v` are `[n, num_kv_heads, head_dim]`.

        Prefill attends to `k` and `v`, or to the cache where the context has block tables (because a prefix is cached),
        and its result has the shape of `q`. Decode has one row a sequence and attends to the cache; its result has one
        dimension more, `[n, 1, num_heads, head_dim]`, as nano-vLLM's has. A row that sees no token gives zeros.
        """
        context = get_context()
        k_cache, v_cache = self.k_cache, self.v_cache
        if len(k_cache) and len(v_cache):
            store_kvcache(k, v, k_cache, v_cache, context.slot_mapping, device=self._device)
        if not context.is_prefill:
            rows = np.arange(len(q) + 1)
            out = self._core.paged(q, k_cache, v_cache, rows, context.context_lens, context.block_tables)
            return out[:, None]
        if context.block_tables is None:
            return self._core.varlen(q, k, v, context.cu_seqlens_q, context.cu_seqlens_k)
        context_lens = context.cu_seqlens_k[1:] - context.cu_seqlens_k[:-1]
        return self._core.paged(q, k_cache, v_cache, context.cu_seqlens_q, context_lens, context.block_tables)
