"""nano-vLLM's `models/qwen3.py`, in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from parity import standins
from parity.live.linear import rank_of
from parity.live.tensors import array, tensor, write

_NANO = standins.loaded()
_MODELS = _NANO["models.qwen3"]

Parameters = Mapping[str, np.ndarray]
Caches = tuple[np.ndarray, np.ndarray]


def _run(
    make: Callable[[], Any], parameters: Parameters, caches: Sequence[Caches], context: Any, run: Callable[[Any], Any]
) -> Any:
    """Runs a module with these parameters, caches and context; what it stores is written to the caches."""
    with rank_of(0, 1):
        module = make()
    own = dict(module.named_parameters())
    assert own.keys() == parameters.keys()
    for name, parameter in own.items():
        parameter.data = tensor(parameters[name])
    layers = [m for m in module.modules() if hasattr(m, "k_cache")]
    for layer, (k_cache, v_cache) in zip(layers, caches, strict=True):
        layer.k_cache, layer.v_cache = tensor(k_cache), tensor(v_cache)
    names = type(_NANO["utils.context"].get_context()).__slots__
    fields = {name: getattr(context, name) for name in names}
    integers = {name: tensor(value) for name, value in fields.items() if isinstance(value, np.ndarray)}
    _NANO["utils.context"].set_context(**(fields | integers))
    try:
        with torch.no_grad():
            out = run(module)
    finally:
        _NANO["utils.context"].reset_context()
    for layer, (k_cache, v_cache) in zip(layers, caches, strict=True):
        if k_cache.size:
            write(k_cache, layer.k_cache)
            write(v_cache, layer.v_cache)
    return out


def attention(
    parameters: Parameters, config: Any, positions: np.ndarray, hidden_states: np.ndarray, caches: Caches, context: Any
) -> np.ndarray:

    def make() -> Any:
        return _MODELS.Qwen3Attention(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.max_position_embeddings,
            config.head_dim,
            config.rms_norm_eps,
            config.attention_bias,
            config.rope_theta,
        )

    x = tensor(hidden_states)
    return array(_run(make, parameters, [caches], context, lambda m: m(tensor(positions), x)), hidden_states)


def mlp(parameters: Parameters, x: np.ndarray) -> np.ndarray:
    hidden_size, intermediate_size = parameters["down_proj.weight"].shape
    return array(
        _run(
            lambda: _MODELS.Qwen3MLP(hidden_size, intermediate_size, "silu"),
            parameters,
            [],
            _NANO["utils.context"].get_context(),
            lambda m: m(tensor(x)),
        ),
        x,
    )


def decoder_layer(
    parameters: Parameters,
    config: Any,
    positions: np.ndarray,
    hidden_states: np.ndarray,
    residual: np.ndarray | None,
    caches: Caches,
    context: Any,
) -> tuple[np.ndarray, np.ndarray]:
    x, rest = tensor(hidden_states), None if residual is None else tensor(residual)
    hidden, total = _run(
        lambda: _MODELS.Qwen3DecoderLayer(config),
        parameters,
        [caches],
        context,
        lambda m: m(tensor(positions), x, rest),
    )
    return array(hidden, hidden_states), array(total, hidden_states)


def model(
    parameters: Parameters,
    config: Any,
    input_ids: np.ndarray,
    positions: np.ndarray,
    caches: list[Caches],
    context: Any,
) -> np.ndarray:
    out = _run(
        lambda: _MODELS.Qwen3Model(config),
        parameters,
        caches,
        context,
        lambda m: m(tensor(input_ids), tensor(positions)),
    )
    return array(out, parameters["embed_tokens.weight"])
