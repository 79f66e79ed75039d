"""nano-vLLM's `layers/attention.py`, in bfloat16, over the stand-ins for flash_attn and triton."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from parity import standins
from parity.live.tensors import array, tensor, write

_NANO = standins.loaded()
_INTEGERS = ("cu_seqlens_q", "cu_seqlens_k", "slot_mapping", "context_lens", "block_tables")


def store_kvcache(
    key: np.ndarray, value: np.ndarray, k_cache: np.ndarray, v_cache: np.ndarray, slot_mapping: np.ndarray
) -> None:
    caches = tensor(k_cache), tensor(v_cache)
    _NANO["layers.attention"].store_kvcache(tensor(key), tensor(value), *caches, tensor(slot_mapping))
    write(k_cache, caches[0])
    write(v_cache, caches[1])


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    k_cache: np.ndarray,
    v_cache: np.ndarray,
    scale: float,
    context: Any,
) -> np.ndarray:
    layer = _NANO["layers.attention"].Attention(q.shape[1], q.shape[2], scale, k.shape[1])
    layer.k_cache, layer.v_cache = tensor(k_cache), tensor(v_cache)
    names = type(_NANO["utils.context"].get_context()).__slots__
    fields = {name: getattr(context, name) for name in names}
    for name in _INTEGERS:
        if fields[name] is not None:
            fields[name] = torch.from_numpy(np.ascontiguousarray(fields[name]))
    _NANO["utils.context"].set_context(**fields)
    try:
        out = layer(tensor(q), tensor(k), tensor(v))
    finally:
        _NANO["utils.context"].reset_context()
    if k_cache.size:
        write(k_cache, layer.k_cache)
        write(v_cache, layer.v_cache)
    return array(out, q)
