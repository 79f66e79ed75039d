"""`models/qwen3.py`: each module as a function of its parameters, by name and as one rank without tensor parallelism
has them.

`config` has the attributes of a config.json and `qk_norm`. Everything is computed in float64 and rounded where a module
ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .attention import attention as attend
from .layernorm import add_rms_norm, rms_norm
from .rotary import cos_sin_cache, rotary_embedding

Parameters = Mapping[str, np.ndarray]


def attention(
    parameters: Parameters,
    config: Any,
    positions: np.ndarray,
    hidden_states: np.ndarray,
    caches: tuple[np.ndarray, np.ndarray],
    context: Any,
) -> np.ndarray:
    """`Qwen3Attention.forward`; writes to the caches, which are empty arrays where there are none."""
    x = hidden_states.astype(np.float64)
    n, width = len(x), config.head_dim
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    qkv = _linear(parameters, "qkv_proj", x).reshape(n, heads + 2 * kv_heads, width)
    q, k, v = np.split(qkv, [heads, heads + kv_heads], axis=1)
    if config.qk_norm:
        q = rms_norm(q, parameters["q_norm.weight"], config.rms_norm_eps)
        k = rms_norm(k, parameters["k_norm.weight"], config.rms_norm_eps)
    table = cos_sin_cache(width, config.max_position_embeddings, config.rope_theta)
    q, k = rotary_embedding(positions, q, k, table)
    out = attend(q, k, v, *caches, width**-0.5, context).reshape(n, heads * width)
    return _linear(parameters, "o_proj", out).astype(hidden_states.dtype)


def mlp(parameters: Parameters, x: np.ndarray) -> np.ndarray:
    """`Qwen3MLP.forward`."""
    gate, up = np.split(_linear(parameters, "gate_up_proj", x.astype(np.float64)), 2, axis=-1)
    return _linear(parameters, "down_proj", gate / (1 + np.exp(-gate)) * up).astype(x.dtype)


def decoder_layer(
    parameters: Parameters,
    config: Any,
    positions: np.ndarray,
    hidden_states: np.ndarray,
    residual: np.ndarray | None,
    caches: tuple[np.ndarray, np.ndarray],
    context: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """`Qwen3DecoderLayer.forward`."""
    dtype, eps = hidden_states.dtype, config.rms_norm_eps
    x = hidden_states.astype(np.float64)
    norm = parameters["input_layernorm.weight"]
    if residual is None:
        x, residual = rms_norm(x, norm, eps), x
    else:
        x, residual = add_rms_norm(x, residual.astype(np.float64), norm, eps)
    x = attention(within(parameters, "self_attn"), config, positions, x, caches, context)
    x, residual = add_rms_norm(x, residual, parameters["post_attention_layernorm.weight"], eps)
    return mlp(within(parameters, "mlp"), x).astype(dtype), residual.astype(dtype)


def model(
    parameters: Parameters,
    config: Any,
    input_ids: np.ndarray,
    positions: np.ndarray,
    caches: list[tuple[np.ndarray, np.ndarray]],
    context: Any,
) -> np.ndarray:
    """`Qwen3Model.forward`, with the caches of each layer."""
    embedding = parameters["embed_tokens.weight"]
    x, residual = embedding[input_ids].astype(np.float64), None
    for i, cache in enumerate(caches):
        layer = within(parameters, f"layers.{i}")
        x, residual = decoder_layer(layer, config, positions, x, residual, cache, context)
    return add_rms_norm(x, residual, parameters["norm.weight"], config.rms_norm_eps)[0].astype(embedding.dtype)


def within(parameters: Parameters, module: str) -> dict[str, np.ndarray]:
    """The parameters of a module, by their names in it."""
    return {name.removeprefix(f"{module}."): p for name, p in parameters.items() if name.startswith(f"{module}.")}


def _linear(parameters: Parameters, name: str, x: np.ndarray) -> np.ndarray:
    out = x @ parameters[f"{name}.weight"].astype(np.float64).T
    bias = parameters.get(f"{name}.bias")
    return out if bias is None else out + bias.astype(np.float64)
