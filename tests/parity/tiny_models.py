"""Random Qwen3 checkpoints as small as a test needs, written without torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from reference import safetensors_io

TOKENIZER = Path(__file__).parents[1] / "golden" / "tiny_qwen3"
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_act": "silu",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "vocab_size": 320,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "eos_token_id": 2,
}


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors of a Qwen3 checkpoint, by their names on the Hub."""
    hidden, inner, width = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * width, config["num_key_value_heads"] * width
    layer = {
        "self_attn.q_proj": (q, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, q),
        "self_attn.q_norm": (width,),
        "self_attn.k_norm": (width,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    named = {"embed_tokens": (config["vocab_size"], hidden), "norm": (hidden,)}
    for i in range(config["num_hidden_layers"]):
        named |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
    names = {f"model.{name}.weight": shape for name, shape in named.items()}
    return names if config["tie_word_embeddings"] else names | {"lm_head.weight": named["embed_tokens"]}


def save_qwen3(directory: Path, dtype: str = "bfloat16", seed: int = 0, **options: Any) -> Path:
    """Writes a checkpoint with the tokenizer of `tests/golden/tiny_qwen3`; returns its directory."""
    config = CONFIG | {"dtype": dtype} | options
    rng = np.random.default_rng(seed)
    weights = {
        name: rng.normal(float("norm" in name), 0.1, shape).astype(np.float32) for name, shape in shapes(config).items()
    }
    directory.mkdir(parents=True, exist_ok=True)
    safetensors_io.save_file(weights, directory / "model.safetensors", dtype)
    (directory / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, directory)
    return directory
