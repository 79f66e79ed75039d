"""`utils/loader.py`: what a Qwen3's parameters are once a checkpoint is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reference import safetensors_io

PACKED = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}
"""Modules that are made of several stored ones, stacked in this order."""


def load_model(directory: Path, config: Any) -> dict[str, np.ndarray]:
    """Every parameter by its name in the model, widened to float32; a tied one under both of its names."""
    stored: dict[str, np.ndarray] = {}
    for file in directory.glob("*.safetensors"):
        stored |= safetensors_io.load_file(file)
    parameters = {}
    for name in stored:
        module, kind = name.rsplit(".", 1)
        parent, leaf = module.rsplit(".", 1) if "." in module else ("", module)
        for packed, shards in PACKED.items():
            if leaf in shards:
                parts = [stored[f"{parent}.{shard}.{kind}"] for shard in shards]
                parameters[f"{parent}.{packed}.{kind}"] = np.concatenate(parts)
                break
        else:
            parameters[name] = stored[name]
    if config.tie_word_embeddings:
        parameters["lm_head.weight"] = parameters["model.embed_tokens.weight"]
    return parameters
