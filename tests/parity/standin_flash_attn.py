"""A stand-in for flash_attn: the two functions nano-vLLM calls, in float32 arithmetic on CPU tensors.

Masks are causal and aligned to the end, as flash_attn's are since version 2.1: the last query sees every key.
"""

from __future__ import annotations

from itertools import pairwise
from types import ModuleType

import torch


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """Causal attention of one sequence: q `[n, heads, dim]` over k and v `[m, kv_heads, dim]`, m >= n."""
    n, m, groups = len(q), len(k), q.shape[1] // k.shape[1]
    k, v = (x.float().repeat_interleave(groups, dim=1) for x in (k, v))
    scores = torch.einsum("nhd,mhd->hnm", q.float(), k) * scale
    ahead = torch.arange(m) > torch.arange(m - n, m)[:, None]
    weights = scores.masked_fill(ahead, -torch.inf).softmax(-1)
    return torch.einsum("hnm,mhd->nhd", weights, v).to(q.dtype)


def gather(cache: torch.Tensor, table: torch.Tensor, length: int) -> torch.Tensor:
    """The first `length` tokens of a sequence from a paged cache `[blocks, block_size, kv_heads, dim]`."""
    return cache[table[: -(-length // cache.shape[1])].long()].flatten(0, 1)[:length]


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float,
    causal: bool,
    block_table: torch.Tensor | None,
) -> torch.Tensor:
    """Attention of ragged sequences; with a block table, k and v are the paged cache."""
    q_starts, k_starts = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    if not causal or max(b - a for a, b in pairwise(q_starts)) != max_seqlen_q:
        raise ValueError("only causal attention with the right maximum is asked for")
    if max(b - a for a, b in pairwise(k_starts)) != max_seqlen_k:
        raise ValueError("max_seqlen_k is not the longest")
    outputs = []
    for i in range(len(q_starts) - 1):
        rows = slice(k_starts[i], k_starts[i + 1])
        length = rows.stop - rows.start
        keys, values = (x[rows] if block_table is None else gather(x, block_table[i], length) for x in (k, v))
        outputs.append(attend(q[q_starts[i] : q_starts[i + 1]], keys, values, softmax_scale))
    return torch.cat(outputs)


def flash_attn_with_kvcache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    *,
    cache_seqlens: torch.Tensor,
    block_table: torch.Tensor,
    softmax_scale: float,
    causal: bool,
) -> torch.Tensor:
    """Attention of one new token a sequence, q `[sequences, 1, heads, dim]`, over what the paged cache holds."""
    if not causal:
        raise ValueError("only causal attention is asked for")
    output = torch.zeros_like(q)  # an empty context, of a padded graph's unused rows, gives zeros
    for i, length in enumerate(cache_seqlens.tolist()):
        if length:
            keys, values = (gather(cache, block_table[i], length) for cache in (k_cache, v_cache))
            output[i] = attend(q[i], keys, values, softmax_scale)
    return output


def modules() -> dict[str, ModuleType]:
    """`flash_attn`, to be put into `sys.modules`."""
    flash_attn = ModuleType("flash_attn")
    flash_attn.flash_attn_varlen_func = flash_attn_varlen_func
    flash_attn.flash_attn_with_kvcache = flash_attn_with_kvcache
    return {"flash_attn": flash_attn}
