"""Reads a GGUF file as Hugging Face weights and config, with the `gguf` package's numpy dequantiser.

The llama architecture stores the rows of q and k with the two halves of each head interleaved (llama.cpp rotates
adjacent pairs, Hugging Face rotates halves); `unpermute` undoes it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, dequantize

MODEL_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}


def load_gguf(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return float32 weights by Hugging Face names, and an equivalent config.json as a dict.

    Raises ValueError for an architecture, a tensor or a rotary scaling this reader does not know.
    """
    reader = GGUFReader(path)
    weights: dict[str, np.ndarray] = {}
    config = _config(_metadata(reader), has_output=any(t.name == "output.weight" for t in reader.tensors))
    heads = {"self_attn.q_proj": config["num_attention_heads"], "self_attn.k_proj": config["num_key_value_heads"]}
    for tensor in reader.tensors:
        name = hugging_face_name(tensor.name)
        # GGUF lists dimensions fastest first, the reverse of a row-major shape.
        array = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(tensor.shape[::-1])
        module = name.rsplit(".", 1)[0].split(".", 3)[-1]
        if config["model_type"] == "llama" and module in heads:
            array = unpermute(array, heads[module])
        weights[name] = array
    return weights, config


def hugging_face_name(name: str) -> str:
    """Return the Hugging Face name of a GGUF tensor."""
    if name in MODEL_NAMES:
        return MODEL_NAMES[name]
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if not match or match[2] not in LAYER_NAMES:
        raise ValueError(f"unknown tensor {name!r}")
    return f"model.layers.{match[1]}.{LAYER_NAMES[match[2]]}.{match[3]}"


def permute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Interleave the halves of each head, rows `[heads * head_dim, ...]`: how llama GGUF files store q and k."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undo `permute`."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the file's key-value pairs as Python values."""
    return _metadata(GGUFReader(path))


def _metadata(reader: GGUFReader) -> dict[str, Any]:
    return {key: field.contents() for key, field in reader.fields.items()}


def _config(meta: dict[str, Any], has_output: bool) -> dict[str, Any]:
    arch = meta["general.architecture"]
    if arch not in ARCHITECTURES:
        raise ValueError(f"unsupported architecture {arch!r}")
    if meta.get(f"{arch}.rope.scaling.type", "none") != "none":
        raise ValueError(f"unsupported rotary scaling {meta[f'{arch}.rope.scaling.type']!r}")
    heads, hidden = meta[f"{arch}.attention.head_count"], meta[f"{arch}.embedding_length"]
    config = {
        "architectures": [ARCHITECTURES[arch]],
        "model_type": arch,
        "vocab_size": len(meta["tokenizer.ggml.tokens"]),
        "hidden_size": hidden,
        "intermediate_size": meta[f"{arch}.feed_forward_length"],
        "num_hidden_layers": meta[f"{arch}.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": meta.get(f"{arch}.attention.head_count_kv", heads),
        "head_dim": meta.get(f"{arch}.attention.key_length", hidden // heads),
        "hidden_act": "silu",
        "max_position_embeddings": meta[f"{arch}.context_length"],
        "rms_norm_eps": meta[f"{arch}.attention.layer_norm_rms_epsilon"],
        "rope_theta": meta.get(f"{arch}.rope.freq_base", 10000.0),
        "tie_word_embeddings": not has_output,
        "attention_bias": False,
        "mlp_bias": False,
    }
    for key in ("bos", "eos"):
        if f"tokenizer.ggml.{key}_token_id" in meta:
            config[f"{key}_token_id"] = meta[f"tokenizer.ggml.{key}_token_id"]
    return config
