"""An independent forward pass of Llama and Qwen3 in numpy: full causal attention, no cache, no paging.

It is written to be obviously right. Weights are a dict by Hugging Face names, the config is a config.json as a dict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .rope import head_dim, inverse_frequencies, rotate

Weights = Mapping[str, np.ndarray]
Config = dict[str, Any]
Rope = tuple[np.ndarray, np.ndarray]
"""Cosines and sines, each `[n, head_dim / 2]`."""


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """Root-mean-square norm over the last axis (Zhang and Sennrich 2019)."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def softmax(x: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def linear(x: np.ndarray, weights: Weights, name: str) -> np.ndarray:
    """`x @ weight.T (+ bias)`, computed in the type of `x`."""
    y = x @ weights[f"{name}.weight"].astype(x.dtype, copy=False).T
    bias = weights.get(f"{name}.bias")
    return y if bias is None else y + bias.astype(x.dtype, copy=False)


def attention(x: np.ndarray, weights: Weights, prefix: str, config: Config, rope: Rope) -> np.ndarray:
    """Grouped-query causal self-attention of one layer, `[n, hidden] -> [n, hidden]`."""
    n, width = len(x), head_dim(config)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    q = linear(x, weights, f"{prefix}.q_proj").reshape(n, heads, width)
    k = linear(x, weights, f"{prefix}.k_proj").reshape(n, kv_heads, width)
    v = linear(x, weights, f"{prefix}.v_proj").reshape(n, kv_heads, width)
    if f"{prefix}.q_norm.weight" in weights:  # Qwen3 norms each head before rotating it
        q = rms_norm(q, weights[f"{prefix}.q_norm.weight"].astype(x.dtype), config["rms_norm_eps"])
        k = rms_norm(k, weights[f"{prefix}.k_norm.weight"].astype(x.dtype), config["rms_norm_eps"])
    q, k = rotate(q, *rope), rotate(k, *rope)

    hidden_future = np.triu(np.full((n, n), -np.inf, dtype=x.dtype), k=1)
    out = np.empty((n, heads, width), dtype=x.dtype)
    for h in range(heads):
        g = h // (heads // kv_heads)  # the key/value head this query head shares
        scores = q[:, h] @ k[:, g].T / x.dtype.type(np.sqrt(width)) + hidden_future
        out[:, h] = softmax(scores) @ v[:, g]
    return linear(out.reshape(n, heads * width), weights, f"{prefix}.o_proj")


def mlp(x: np.ndarray, weights: Weights, prefix: str) -> np.ndarray:
    """SwiGLU feed-forward (Shazeer 2020), `[n, hidden] -> [n, hidden]`."""
    gate = linear(x, weights, f"{prefix}.gate_proj")
    with np.errstate(over="ignore"):  # exp(-gate) = inf gives silu = 0, which is right
        activated = gate / (1 + np.exp(-gate))
    return linear(activated * linear(x, weights, f"{prefix}.up_proj"), weights, f"{prefix}.down_proj")


def forward(weights: Weights, config: Config, token_ids: Sequence[int], dtype: type = np.float32) -> np.ndarray:
    """Logits `[n, vocab]` of every position of one sequence, computed in `dtype` (float32 or float64)."""
    head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
    return hidden_states(weights, config, token_ids, dtype) @ head.astype(dtype, copy=False).T


def hidden_states(weights: Weights, config: Config, token_ids: Sequence[int], dtype: type = np.float32) -> np.ndarray:
    """Hidden states `[n, hidden]` of every position of one sequence after the last norm, computed in `dtype`."""
    ids = np.asarray(token_ids, dtype=np.int64)
    eps = config["rms_norm_eps"]
    inv_freq, attention_factor = inverse_frequencies(config, len(ids))
    angles = np.arange(len(ids))[:, None] * inv_freq
    rope = tuple((wave(angles) * attention_factor).astype(dtype) for wave in (np.cos, np.sin))

    x = weights["model.embed_tokens.weight"][ids].astype(dtype)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        normed = rms_norm(x, weights[f"{prefix}.input_layernorm.weight"].astype(dtype), eps)
        x = x + attention(normed, weights, f"{prefix}.self_attn", config, rope)
        normed = rms_norm(x, weights[f"{prefix}.post_attention_layernorm.weight"].astype(dtype), eps)
        x = x + mlp(normed, weights, f"{prefix}.mlp")
    return rms_norm(x, weights["model.norm.weight"].astype(dtype), eps)


def greedy(
    weights: Weights, config: Config, prompt: Sequence[int], max_tokens: int, stop: Sequence[int] = ()
) -> list[int]:
    """Greedy continuation of `prompt`, without the prompt; ends after a token of `stop`, which it includes.

    Recomputes the whole sequence for every token: meant for short texts.
    """
    ids = list(prompt)
    for _ in range(max_tokens):
        ids.append(int(forward(weights, config, ids)[-1].argmax()))
        if ids[-1] in stop:
            break
    return ids[len(prompt) :]
